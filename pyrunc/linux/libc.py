"""The way to system calls that Python's `os` lacks."""

from __future__ import annotations

import ctypes
import os

#: PyDLL keeps the interpreter lock during calls: cheaper than CDLL's release and re-acquire, and a process made by
#: clone(2) within a call comes back into an interpreter whose lock it still holds.
libc = ctypes.PyDLL(None, use_errno=True)

_syscall = libc.syscall
_syscall.restype = ctypes.c_long

#: Numbers of calls that glibc does not wrap. Those added since Linux 5.1 have one number on all architectures;
#: the older ones differ between x86-64 and the kernel's generic table (include/uapi/asm-generic/unistd.h).
_GENERIC = {"keyctl": 219, "seccomp": 277, "bpf": 280}
_OLD = {
    "x86_64": {"keyctl": 250, "seccomp": 317, "bpf": 321},
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "s390x": {"keyctl": 280, "seccomp": 348, "bpf": 351},
    "ppc64le": {"keyctl": 271, "seccomp": 358, "bpf": 361},
}
NR = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
} | _OLD.get(os.uname().machine, {})


def check(result: int) -> int:
    """`result`, or OSError with libc's errno when it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | ctypes.c_char_p | None) -> int:
    """Make the system call `name` (a key of `NR`).

    Args:
        arguments: integers (passed as 64 bits), bytes and buffers (passed as addresses), None for NULL.

    Raises:
        OSError: the call failed; ENOSYS also where this architecture's number for it is unknown.
    """
    number = NR.get(name)
    if number is None:
        raise OSError(38, f"{name}: no system call number known for {os.uname().machine}")
    return check(_syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))
