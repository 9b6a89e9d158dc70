"""Looking up paths below a root that may be hostile: openat2(2)."""

from __future__ import annotations

import errno
import os
import struct

from pyrunc.linux.libc import syscall

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10


def openat2(dirfd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2), close-on-exec.

    Args:
        resolve: RESOLVE_* bits.
        mode: permission bits, only with O_CREAT.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    while True:
        try:
            return syscall("openat2", dirfd, os.fsencode(path), how, len(how))
        except OSError as e:
            # EAGAIN: a rename or mount elsewhere raced with a ".." of this look-up; the kernel asks to try again
            if e.errno != errno.EAGAIN:
                e.filename = path
                raise


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as a process whose root directory is `root_fd` would: symbolic links and ".." never lead out of it."""
    return openat2(root_fd, path, flags, RESOLVE_IN_ROOT)


def make_in_root(root_fd: int, path: str, *, directory: bool, mode: int = 0o755) -> int:
    """An O_PATH descriptor of `path` below `root_fd`; a missing file or directory, and directories on the way, are made.

    A dangling symbolic link on the way is followed within the root, as runc does: what it points to is made.
    """
    try:
        return open_in_root(root_fd, path)
    except FileNotFoundError:
        pass
    parts = [p for p in path.split("/") if p not in ("", ".")]
    here = os.open(".", os.O_PATH | os.O_DIRECTORY, dir_fd=root_fd)
    done = ""
    links = 0
    while parts:
        name = parts.pop(0)
        done_next = _join(done, name)
        try:
            next_fd = open_in_root(root_fd, done_next)
        except FileNotFoundError:
            try:
                target = os.readlink(name, dir_fd=here)
            except OSError:
                pass
            else:  # a link that leads to nothing: go on where it points to
                links += 1
                if links > 40:
                    os.close(here)
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                done = "" if target.startswith("/") else done
                parts = [p for p in target.split("/") if p not in ("", ".")] + parts
                os.close(here)
                here = open_in_root(root_fd, done or ".")
                continue
            try:
                if parts or directory:
                    os.mkdir(name, mode, dir_fd=here)
                else:
                    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=here))
            except FileExistsError:
                pass
            next_fd = openat2(here, name, os.O_PATH | os.O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
        os.close(here)
        here, done = next_fd, done_next
    return here


def _join(done: str, name: str) -> str:
    """The path one component on, ".." taken off as the kernel does at the root."""
    if name == "..":
        return done.rpartition("/")[0]
    return f"{done}/{name}" if done else name


def fd_path(fd: int) -> str:
    """A path that reopens `fd` through procfs: for calls that take no descriptor. Only while /proc is the host's."""
    return f"/proc/thread-self/fd/{fd}"
