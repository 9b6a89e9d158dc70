"""What the steps of one operation share: the container they build, and the line between its two processes."""

from __future__ import annotations

import os

from pyrunc import jsonio
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from pyrunc.cgroups.base import Manager
    from pyrunc.steps import Step


class Context:
    """The state that steps read and leave for each other.

    Attributes:
        id: the container's ID.
        bundle: absolute path of its bundle.
        config: its configuration, as loaded (pyrunc/config).
        state: what hooks get on stdin (runtime-spec runtime.md, State), without status and pid.
        cgroup: the container's cgroup; None where the host gives none and none is needed.
        init_pid: host process ID of the container's init, 0 before it exists.
        channel: the line to the other process while a container is being created.
        root_fd: the container's root directory as an O_PATH descriptor, -1 before it is known (init only).
        null_fd: the host's /dev/null, verified; what hides masked files (init only).
        empty_fd: the tmpfs that hides the first masked directory, for the others; -1 before (init only).
        sources: host directories and files opened before init changed its user, by path (init only).
        console_fd: connected console socket, -1 without one; or the pty master once it exists.
        start_fd, result_fd: where init waits for `start`, and where it tells how that went.
        peer_start, peer_result: the other ends of these, where they are pipes (see pyrunc/handover.py).
        source_fd, server_fd: the line on which init asks for sources, and its other end (pyrunc/steps/sources.py).
        server_pid: the process that answers there, 0 for none.
        stdio: descriptors that become the process's 0, 1 and 2; None to keep the caller's.
        preserve: how many descriptors from 3 up the container's process is to get.
        executable: path of the container's program as found by FindExecutable.
        environment: the container process's environment.
        in_cwd: the process is where process.cwd says.
        mounts: (path, mount ID) of what was mounted for it in the runtime's mount namespace.
        keep: descriptors that init does not close, besides those named here (a debug log).
        trace: called with each step before it runs (`--debug`).
        debug: called with a line that only `--debug` asks for.
        warn: called with a line that the user should see although nothing failed.
    """

    __slots__ = (
        "bundle",
        "cgroup",
        "channel",
        "config",
        "console_fd",
        "debug",
        "empty_fd",
        "environment",
        "executable",
        "id",
        "in_cwd",
        "init_pid",
        "keep",
        "mounts",
        "null_fd",
        "peer_result",
        "peer_start",
        "preserve",
        "result_fd",
        "root_fd",
        "server_fd",
        "server_pid",
        "source_fd",
        "sources",
        "start_fd",
        "state",
        "stdio",
        "trace",
        "warn",
    )

    def __init__(self, container_id: str, bundle: str, config: dict[str, Any]) -> None:
        self.id = container_id
        self.bundle = bundle
        self.config = config
        self.state: dict[str, Any] = {}
        self.cgroup: Manager | None = None
        self.init_pid = 0
        self.channel: Channel | None = None
        self.root_fd = -1
        self.null_fd = -1
        self.empty_fd = -1
        self.sources: dict[str, int] = {}
        self.source_fd = -1
        self.server_fd = -1
        self.server_pid = 0
        self.console_fd = -1
        self.start_fd = -1
        self.result_fd = -1
        self.peer_start = -1
        self.peer_result = -1
        self.stdio: tuple[int, int, int] | None = None
        self.preserve = 0
        self.executable = ""
        self.environment: dict[bytes, bytes] = {}
        self.in_cwd = False
        self.mounts: list[tuple[str, int]] = []
        self.keep: set[int] = set()
        self.trace: Callable[[Step], None] | None = None
        self.debug: Callable[[str], None] = _ignore
        self.warn: Callable[[str], None] = _ignore

    def peer(self) -> Channel:
        """The channel, where there must be one."""
        assert self.channel is not None
        return self.channel


def _ignore(line: str) -> None:
    """Nobody asked to be told."""


class Hangup(Error):
    """The other process ended without a word."""

    def __init__(self) -> None:
        super().__init__("the other process ended unexpectedly")


class Channel:
    """Messages between the runtime and init, one JSON value a line, over a pair of pipes.

    Both ends are close-on-exec. The other side's death is an end of file, never a hang.

    Attributes:
        warn: called with a warning that comes from the other side.
        in_init: the other side is a container's init.
    """

    __slots__ = ("_buffer", "in_init", "reader", "warn", "writer")

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer
        self._buffer = b""
        self.in_init = False
        self.warn: Callable[[str], None] = _ignore

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends."""
        a_reads, b_writes = os.pipe()
        try:
            b_reads, a_writes = os.pipe()
        except OSError:
            os.close(a_reads)
            os.close(b_writes)
            raise
        return cls(a_reads, a_writes), cls(b_reads, b_writes)

    def close(self) -> None:
        """Close this process's copy of this end."""
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)
        self.reader = self.writer = -1

    def send(self, kind: str, value: Any = None) -> None:
        """Send one message; when nobody is left to read it (Python ignores SIGPIPE) this is `farewell`."""
        try:
            os.write(self.writer, jsonio.dumps([kind, value]).encode() + b"\n")
        except BrokenPipeError:
            self.farewell()

    def send_error(self, e: Error) -> None:
        """Send an error so that `receive` raises it on the other side."""
        self.send("error", [e.reason, e.pointer, e.action, e.errno])

    def receive(self) -> tuple[str, Any]:
        """The next message that is no warning.

        Raises:
            Error: the other side sent an error, or ended without a word.
        """
        while (message := self._next())[0] == "warning":
            self.warn(message[1])
        return message

    def farewell(self) -> NoReturn:
        """Raise the error with which the other side ended, which is the cause of whatever showed that it has."""
        while True:
            self.receive()

    def _next(self) -> tuple[str, Any]:
        while b"\n" not in self._buffer:
            data = os.read(self.reader, 65536)
            if not data:
                raise Hangup
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        kind, value = jsonio.loads(line.decode())
        if kind == "error":
            reason, pointer, action, errno = value
            e = Error(reason, pointer=pointer, action=action, errno=errno)
            e.in_init = self.in_init
            raise e
        return kind, value

    def expect(self, kind: str) -> Any:
        """The value of the next message, which must be a `kind`."""
        got, value = self.receive()
        if got != kind:
            raise Error(f"expected {kind!r} from the other process, got {got!r}")
        return value
