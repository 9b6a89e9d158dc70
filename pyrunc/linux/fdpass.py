"""Passing descriptors over Unix sockets (unix(7), SCM_RIGHTS). Loaded only where it is needed."""

from __future__ import annotations

import _socket
import array
import os


def connect(path: str) -> int:
    """Connect to the listening stream socket at `path`; a close-on-exec descriptor.

    A path too long for sun_path (107 bytes) goes through its directory's descriptor. As in Go, and so in runc, one that
    begins with "@" names an abstract socket (unix(7)).
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    if path.startswith("@"):
        path = "\0" + path[1:]
    if path.startswith("\0") or len(os.fsencode(path)) <= 107:
        sock.connect(path)
        return sock.detach()
    directory, _, name = path.rpartition("/")
    fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)
    return sock.detach()


def pair() -> tuple[int, int]:
    """Two connected stream sockets, close-on-exec."""
    a, b = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    return a.detach(), b.detach()


def send_descriptor(socket_fd: int, fd: int, payload: bytes) -> None:
    """Send `fd` along with `payload` (at least one byte)."""
    send(socket_fd, payload, fd)


def send(socket_fd: int, payload: bytes, fd: int = -1) -> None:
    """Send `payload` (at least one byte), and `fd` along with it unless it is -1."""
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
    sock = _socket.socket(fileno=os.dup(socket_fd))
    sock.sendmsg([payload], rights)
    sock.close()


def receive_descriptor(socket_fd: int) -> int:
    """The descriptor that comes along with the next message, close-on-exec; -1 where none comes."""
    return receive(socket_fd)[1]


def receive(socket_fd: int) -> tuple[bytes, int]:
    """The next message (b"" at the end) and the descriptor that comes along, close-on-exec; -1 where none comes."""
    sock = _socket.socket(fileno=os.dup(socket_fd))
    try:
        payload, ancillary, _, _ = sock.recvmsg(4096, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                return payload, array.array("i", data[:4])[0]
        return payload, -1
    finally:
        sock.close()
