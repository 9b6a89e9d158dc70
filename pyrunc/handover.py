"""The last line between the runtime and init: "go", and what came of it.

Init sleeps in a read of `start_fd` until one byte comes. It writes "x" to `result_fd` right before execve(2), which
closes both; an error message follows where that, or anything before it, failed. So who said go reads to the end of file
and knows: "x" alone means that the program runs.

For `create` the two are FIFOs in the state directory, opened by whoever runs `start`; for `run` and `exec` pipes.
"""

from __future__ import annotations

import errno
import os

from pyrunc import jsonio
from pyrunc.errors import Error, NotExecuted
from pyrunc.state import FIFOS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.steps.context import Context


def fifos(ctx: Context, directory: str) -> None:
    """Make the two FIFOs and open init's ends: both ways, so that no open(2) ever waits."""
    start, result = (f"{directory}/{name}" for name in FIFOS)
    try:
        os.mkdir(os.path.dirname(result), 0o700)
        ctx.start_fd = _fifo(start)
        ctx.result_fd = _fifo(result)
    except OSError as e:
        raise Error.from_os(e, action=f"make {e.filename}") from None


def _fifo(path: str) -> int:
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def open_fifos(directory: str) -> tuple[int, int]:
    """The descriptors for `go`, where init waits at the other end of the FIFOs.

    Raises:
        Error: it does not wait there any more.
    """
    names = [f"{directory}/{name}" for name in FIFOS]
    result = os.open(names[1], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.set_blocking(result, True)
        return os.open(names[0], os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC), result
    except OSError as e:
        os.close(result)
        if e.errno == errno.ENXIO:
            raise Error("init has ended") from None
        raise


def pipes(ctx: Context) -> None:
    """Make two pipes for a process that says go itself, by `go_on`."""
    ctx.start_fd, ctx.peer_start = os.pipe()
    ctx.peer_result, ctx.result_fd = os.pipe()


def release(ctx: Context) -> None:
    """Close the runtime's copies of init's ends: from now on their closing is init's doing."""
    for fd in (ctx.start_fd, ctx.result_fd):
        if fd >= 0:
            os.close(fd)
    ctx.start_fd = ctx.result_fd = -1


def abandon(ctx: Context) -> None:
    """Close all ends: nobody will say go."""
    release(ctx)
    for fd in (ctx.peer_start, ctx.peer_result):
        if fd >= 0:
            os.close(fd)
    ctx.peer_start = ctx.peer_result = -1


def go_on(ctx: Context) -> None:
    """`go` by the pipes in the context."""
    start, result = ctx.peer_start, ctx.peer_result
    ctx.peer_start = ctx.peer_result = -1
    go(start, result)


def go(start: int, result: int) -> None:
    """Say go and wait until the program runs. Closes both descriptors.

    Raises:
        Error: what init reported, or that it ended.
    """
    try:
        try:
            os.write(start, b"s")
        except BrokenPipeError:
            raise Error("init has ended") from None
        finally:
            os.close(start)
        said = b""
        while data := os.read(result, 65536):
            said += data
    finally:
        os.close(result)
    message = said.removeprefix(b"x")
    if message:
        _, (reason, pointer, action, number) = jsonio.loads(message.decode())
        kind = NotExecuted if said[:1] == b"x" and pointer == "/process/args" else Error
        e = kind(reason, pointer=pointer, action=action, errno=number)
        e.in_init = True
        raise e
    if not said:
        raise Error("init ended before it could execute the program")
