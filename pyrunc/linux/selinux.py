"""SELinux, as far as the kernel tells of it (selinux(8))."""

from __future__ import annotations

import os

from pyrunc.linux.mount import filesystem_magic
from pyrunc.linux.proc import read_text

#: Kernel: include/uapi/linux/magic.h.
SELINUX_MAGIC = 0xF97CFF8C

#: Where its file system is mounted.
SELINUXFS = "/sys/fs/selinux"


def enabled() -> bool:
    """Whether SELinux knows labels: its file system is mounted and a policy is loaded, before which all is "kernel"."""
    try:
        fd = os.open(SELINUXFS, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if filesystem_magic(fd) != SELINUX_MAGIC:
            return False
    finally:
        os.close(fd)
    return read_text("/proc/thread-self/attr/current").rstrip("\0\n") != "kernel"
