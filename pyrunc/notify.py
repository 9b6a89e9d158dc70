"""sd_notify(3) out of a container: its program's READY=1 reaches the service manager of whoever runs pyrunc.

As under runc: a directory of the container's state is mounted on /run/notify, and $NOTIFY_SOCKET in the container names
a socket in it. `start` (and a detached `run`) listens there and goes on until the program says that it is ready or has
ended. It then says so itself to the socket that it was given, with init's process ID as the one to watch. A foreground
`run` says it with its own. Nothing else that the program says goes out.
"""

from __future__ import annotations

import _socket
import array
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NAME = "notify.sock"
_INSIDE = "/run/notify"

#: How long the service manager has to take notice before this process, whose messages it may still be about to look
#: up the sender of, ends; in milliseconds (sd_notify_barrier(3)).
BARRIER_TIMEOUT = 30_000


def mount(directory: str) -> dict[str, Any]:
    """The mount that the container needs, as config.json's.

    Args:
        directory: the container's state directory.
    """
    return {
        "destination": _INSIDE,
        "type": "bind",
        "source": f"{directory}/notify",
        "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
    }


def environment() -> list[str]:
    """What the container's program is told."""
    return [f"NOTIFY_SOCKET={_INSIDE}/{_NAME}"]


class Relay:
    """The container's notify socket, and whom to tell.

    Attributes:
        fd: is readable when the container has said something.
        ready: the program has said that it is ready, and that was passed on.
    """

    __slots__ = ("_host", "_socket", "_warn", "fd", "ready")

    def __init__(self, directory: str, host: str, warn: Callable[[str], None]) -> None:
        """Make and bind the socket.

        Args:
            directory: the container's state directory.
            host: the caller's own $NOTIFY_SOCKET.
            warn: told what can't be passed on.

        Raises:
            FileNotFoundError: the container was created without.
        """
        self._host = host
        self._warn = warn
        self.ready = False
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        self.fd = self._socket.fileno()
        try:
            place = os.open(f"{directory}/notify", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                try:
                    os.unlink(_NAME, dir_fd=place)  # of a `start` that failed
                except FileNotFoundError:
                    pass
                self._socket.bind(f"/proc/self/fd/{place}/{_NAME}")  # sun_path has room for 107 bytes (unix(7))
                os.chmod(_NAME, 0o777, dir_fd=place)  # the program's user is anybody
            finally:
                os.close(place)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def serve(self, main_pid: int) -> None:
        """Read one message and pass it on if it is the one.

        Args:
            main_pid: the process that the service manager is to watch.
        """
        lines = self._socket.recv(65536).split(b"\n")
        if b"READY=1" in lines:
            self.ready = True
            self._tell(b"READY=1\nMAINPID=%d" % main_pid)

    def wait(self, pid: int) -> None:
        """Serve until the program is ready, or process `pid`, the container's first, has ended."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.register(self.fd, select.POLLIN)
            while not self.ready:
                ready = [fd for fd, _ in poll.poll()]
                if self.fd in ready:  # also if it has ended: that was its last word
                    self.serve(pid)
                elif pidfd in ready:
                    return
            self._barrier()
        finally:
            os.close(pidfd)

    def _tell(self, message: bytes, descriptor: int = -1) -> None:
        host = self._host
        address = "\0" + host[1:] if host.startswith("@") else host
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [descriptor]))] if descriptor >= 0 else []
        sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            sender.sendmsg([message], rights, 0, address)
        except OSError as e:
            self._warn(f"NOTIFY_SOCKET {host}: {os.strerror(e.errno or 0)}")
        finally:
            sender.close()

    def _barrier(self) -> None:
        """Wait until the service manager has dealt with what it was told: it closes the descriptor that comes last."""
        reader, writer = os.pipe()
        try:
            try:
                self._tell(b"BARRIER=1", writer)
            finally:
                os.close(writer)
            poll = select.poll()
            poll.register(reader, select.POLLIN)
            if not poll.poll(BARRIER_TIMEOUT):
                self._warn(f"NOTIFY_SOCKET {self._host}: not done within {BARRIER_TIMEOUT // 1000} s; going on")
        finally:
            os.close(reader)
