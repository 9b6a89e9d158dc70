"""What /proc tells of a process, for commands that need no more than that (nothing here loads ctypes)."""

from __future__ import annotations

import os


def start_time(pid: int, *, zombie: bool = False) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), /proc/PID/stat field 22); None if it has ended, with
    `zombie` only if it has also been reaped.

    With the process ID it names a process for ever: an ID alone is used again.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends this very moment
        return None
    try:
        line = os.read(fd, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    fields = line[line.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") and not zombie else int(fields[19])


def in_user_namespace() -> bool:
    """Is this not the initial user namespace? That one maps every ID to itself (user_namespaces(7))."""
    try:
        return read_text("/proc/self/uid_map").split() != ["0", "0", "4294967295"]
    except FileNotFoundError:
        return False  # a kernel without user namespaces


def read_text(path: str) -> str:
    """A whole file of /proc. Paths in it may be any bytes: what is not UTF-8 is escaped as file names are."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while data := os.read(fd, 1 << 16):
            text += data
    finally:
        os.close(fd)
    return os.fsdecode(text)
