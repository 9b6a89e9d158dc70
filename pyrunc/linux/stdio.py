"""Standard input, output and error: descriptors 0, 1 and 2, which a caller may have closed."""

from __future__ import annotations

import os


def fill_stdio() -> None:
    """Open /dev/null in place of each that is closed.

    Otherwise the next file opened, whatever it is, would be taken for one of them, and a container would inherit it.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
