"""Looking up paths below a root that may be hostile: openat2(2)."""

from __future__ import annotations

import errno
import os
import stat
import struct

from pyrunc.linux.libc import syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

#: How many symbolic links a look-up may go through (path_resolution(7)).
MAX_LINKS = 40


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
    """Open `path` as a process with the root directory `root_fd` would: links and ".." never lead out of it."""
    return openat2(root_fd, path, flags, RESOLVE_IN_ROOT)


def make_in_root(root_fd: int, path: str, *, directory: bool, mode: int = 0o755) -> int:
    """An O_PATH descriptor of `path` below `root_fd`; what is missing of it is made, a file or a directory at its end.

    A dangling symbolic link on the way is followed within the root, as runc does: what it points to is made.
    """
    try:
        return open_in_root(root_fd, path)
    except FileNotFoundError:
        pass
    # The directories from the root to here. ".." goes back to the descriptor that was passed on the way, which may have
    # been moved out of the root meanwhile but is not above it.
    way = [os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)]
    try:
        _walk(way, _parts(path), path, directory, mode)
        return way.pop()
    finally:
        for fd in way:
            os.close(fd)


def _walk(way: list[int], parts: list[str], path: str, directory: bool, mode: int) -> None:
    """Go through `parts`, leaving a descriptor of each directory in `way`, and make what is missing."""
    links = 0
    while parts:
        name = parts.pop(0)
        if name == "..":
            if len(way) > 1:
                os.close(way.pop())
            continue
        fd = _open_or_make(way[-1], name, directory or bool(parts), mode)
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            way.append(fd)
            continue
        target = os.readlink("", dir_fd=fd)  # of the link that was looked at (readlinkat(2), empty pathname)
        os.close(fd)
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            while len(way) > 1:
                os.close(way.pop())
        parts = _parts(target) + parts


def _open_or_make(here: int, name: str, directory: bool, mode: int) -> int:
    """An O_PATH descriptor of `name` in `here`: of a link itself, not of what it points to."""
    while True:
        try:
            return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        except FileNotFoundError:
            pass
        try:
            if directory:
                os.mkdir(name, mode, dir_fd=here)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=here))
        except FileExistsError:
            pass  # somebody else was quicker: it is looked at like any other


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def fd_path(fd: int) -> str:
    """A path that reopens `fd` through procfs: for calls that take no descriptor. Only while /proc is the host's."""
    return f"/proc/thread-self/fd/{fd}"
