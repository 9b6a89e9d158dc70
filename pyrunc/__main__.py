"""The program: ``python -m pyrunc``, and what the `pyrunc` launcher calls."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command that sys.argv asks for, and exit with its status."""
    # A runtime lives for milliseconds: collecting would cost time, and in the container's init it would touch
    # pages, which the kernel charges to the container.
    gc.disable()
    import _signal

    from pyrunc.cli.program import run
    from pyrunc.linux.stdio import fill_stdio

    fill_stdio()
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # a caller that ignores it would keep our children's ends from us
    status = run(sys.argv[1:], reexecute=True)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except OSError:
                pass  # commands write past these streams, and check; this loses a library's print at most
    # what the interpreter would take apart now, the kernel takes apart faster
    os._exit(status)


if __name__ == "__main__":
    main()
