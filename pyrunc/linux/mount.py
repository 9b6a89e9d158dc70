"""The file-descriptor based mount API (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)) and pivot_root(2).

A mount made here is a descriptor before it is a place: it is configured while nobody can see it and attached
to a directory that is itself a descriptor, so no path is looked up twice. Needs Linux 5.12.
"""

from __future__ import annotations

import os
import struct

from pyrunc.linux.libc import buffer, check, libc, syscall

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7
FSPICK_CLOEXEC = 1
FSPICK_EMPTY_PATH = 8

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8


def _path(path: str) -> bytes:
    return os.fsencode(path)


def open_tree(dirfd: int, path: str, *, clone: bool = True, recursive: bool = False) -> int:
    """A descriptor of the mount at `path`; with `clone` of a detached copy of it (a bind mount not yet placed).

    Args:
        dirfd: directory that a relative `path` starts from; the object itself where `path` is "".
    """
    flags = OPEN_TREE_CLOEXEC | AT_EMPTY_PATH
    if clone:
        flags |= OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", dirfd, _path(path), flags)


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach the detached mount (or move the attached one) `mount_fd` on top of what `target_fd` refers to."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount", mount_fd, b"", target_fd, b"", flags)


def mount_setattr(
    mount_fd: int,
    attr_set: int = 0,
    attr_clr: int = 0,
    *,
    propagation: int = 0,
    recursive: bool = False,
    user_ns: int = 0,
) -> None:
    """Change a mount's attributes (MOUNT_ATTR_*) and propagation (MS_SHARED, MS_SLAVE, …), all or nothing.

    Args:
        user_ns: descriptor of the user namespace whose mappings MOUNT_ATTR_IDMAP gives to the mount.
    """
    if attr_set & MOUNT_ATTR__ATIME or attr_clr & MOUNT_ATTR__ATIME:
        attr_clr |= MOUNT_ATTR__ATIME  # an enumeration, not bits: it may only be cleared whole
    attributes = struct.pack("=QQQQ", attr_set, attr_clr, propagation, user_ns)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", mount_fd, b"", flags, attributes, len(attributes))


def fsopen(fstype: str) -> int:
    """A configuration context for a new superblock of `fstype`."""
    return syscall("fsopen", _path(fstype), FSOPEN_CLOEXEC)


def fsconfig(fs_fd: int, key: str, value: str | None = None) -> None:
    """Set a filesystem option: a flag where `value` is None, else a string."""
    if value is None:
        syscall("fsconfig", fs_fd, FSCONFIG_SET_FLAG, _path(key), None, 0)
    else:
        syscall("fsconfig", fs_fd, FSCONFIG_SET_STRING, _path(key), _path(value), 0)


def fsmount(fs_fd: int, attributes: int = 0) -> int:
    """Make the superblock and a detached mount of it with `attributes` (MOUNT_ATTR_*)."""
    syscall("fsconfig", fs_fd, FSCONFIG_CMD_CREATE, None, None, 0)
    return syscall("fsmount", fs_fd, FSMOUNT_CLOEXEC, attributes)


def fspick(mount_fd: int) -> int:
    """A configuration context for the superblock that a mounted descriptor is on, to change its options."""
    return syscall("fspick", mount_fd, b"", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH)


def fsreconfigure(fs_fd: int) -> None:
    """Apply the options set on a context from `fspick`."""
    syscall("fsconfig", fs_fd, FSCONFIG_CMD_RECONFIGURE, None, None, 0)


def fs_messages(fs_fd: int) -> str:
    """What the filesystem said of a refused option (kernel: Documentation/filesystems/mount_api.rst), "" if nothing."""
    messages: list[str] = []
    while True:
        try:
            line = os.read(fs_fd, 4096).decode(errors="replace").strip()
        except OSError:  # ENODATA: no more messages
            return "; ".join(messages)
        if line.startswith("e "):
            messages.append(line[2:])


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2): `new_root` becomes the root of this mount namespace, the old one appears at `put_old`."""
    check(libc.pivot_root(_path(new_root), _path(put_old)))


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(libc.umount2(_path(target), flags))


def mount_id(fd: int) -> int:
    """The ID of the mount that `fd` is on (proc(5), /proc/PID/fdinfo), as in mountinfo. IDs are used again."""
    file = os.open(f"/proc/thread-self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(file, 4096)
    finally:
        os.close(file)
    return int(text.partition(b"mnt_id:")[2].split(None, 1)[0])


PROC_SUPER_MAGIC = 0x9FA0


def filesystem_magic(fd: int) -> int:
    """statfs(2)'s f_type of the filesystem that `fd` is on."""
    memory = buffer(256)
    check(libc.fstatfs(fd, memory))
    return int(struct.unpack_from("@l", memory)[0])
