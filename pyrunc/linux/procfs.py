"""A procfs to write to: one that the image can't have dressed up."""

from __future__ import annotations

import errno
import os

from pyrunc.errors import Error
from pyrunc.linux import mount as m
from pyrunc.linux.path import RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, openat2

#: The inode of a procfs's root directory (kernel: include/linux/proc_fs.h, PROC_ROOT_INO).
_ROOT_INODE = 1


def open_proc(path: str, flags: int) -> int:
    """Open a file of this process's PID namespace's procfs, whatever a container has mounted on /proc or in it.

    What was meant for an attribute or a kernel parameter would otherwise land in a file of the image's choice, or
    nowhere (CVE-2019-16884, CVE-2025-52881).

    Args:
        path: below /proc, e.g. ``thread-self/attr/apparmor/exec``.
        flags: of open(2).

    Raises:
        Error: where the kernel makes no new procfs and what is on /proc isn't one.
    """
    proc = _root()
    try:
        return openat2(proc, path, flags, RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(proc)


def _root() -> int:
    """The root of a procfs that is mounted nowhere; or, in a user namespace, of the one on /proc.

    There the kernel makes no procfs that would show more than the one in sight, which has files hidden by mounts
    (user_namespaces(7); kernel: fs/namespace.c, mount_too_revealing). The mounts in that one are not gone through.
    """
    try:
        fs = m.fsopen("proc")
        try:
            return m.fsmount(fs)
        finally:
            os.close(fs)
    except OSError as e:
        if e.errno != errno.EPERM:
            raise
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if m.filesystem_magic(proc) != m.PROC_SUPER_MAGIC or os.fstat(proc).st_ino != _ROOT_INODE:
        os.close(proc)
        raise Error("what is mounted on /proc is no procfs")
    return proc
