"""Network interfaces, by the oldest call there is: netdevice(7) ioctls."""

from __future__ import annotations

import fcntl
import os
import struct

from pyrunc.linux.libc import check, libc

AF_UNIX = 1
SOCK_DGRAM = 2
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
IFF_RUNNING = 0x40


def interface_up(name: str) -> None:
    """Bring a network interface up. Any socket will do; a Unix one exists on every kernel."""
    fd = check(libc.socket(AF_UNIX, SOCK_DGRAM | os.O_CLOEXEC, 0))
    try:
        fcntl.ioctl(fd, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), IFF_UP | IFF_RUNNING))
    finally:
        os.close(fd)
