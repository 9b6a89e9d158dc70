"""The way to system calls that Python's `os` lacks.

This is ctypes without its Python half: `import ctypes` costs 2 ms, a third of the interpreter's whole start, mostly for
types that no system call here needs. Its C half, `_ctypes`, has what ctypes itself is built from.
"""

from __future__ import annotations

import _ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import Array, c_char


class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
    """A C long: as wide as a register, and as a pointer."""

    _type_ = "l"


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Char(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "c"


#: FUNCFLAG_PYTHONAPI keeps the interpreter's lock during the call. That is cheaper than to release it and take it back,
#: and a process made by clone(2) within a call comes back into an interpreter whose lock it holds.
_FLAGS = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI | _ctypes.FUNCFLAG_USE_ERRNO


class _Function(_ctypes.CFuncPtr):
    """A C function that returns an int and sets errno."""

    _flags_ = _FLAGS
    _restype_ = _Int


class _SystemCall(_ctypes.CFuncPtr):
    """syscall(2), which returns a long."""

    _flags_ = _FLAGS
    _restype_ = Long


class _Libc:
    """The C library: `libc.name` is its function `name`, whose arguments are int, `Long`, bytes, buffers or None."""

    def __getattr__(self, name: str) -> _Function:
        function = _Function(_ctypes.dlsym(_HANDLE, name))
        setattr(self, name, function)
        return function


_HANDLE = _ctypes.dlopen(None, 2)  # type: ignore[arg-type]  # RTLD_NOW; no name stands for this very program
libc = _Libc()
_syscall = _SystemCall(_ctypes.dlsym(_HANDLE, "syscall"))

#: Numbers of calls that glibc does not wrap. Those added since Linux 5.1 have one number on all architectures;
#: the older ones differ between x86-64 and the kernel's generic table (include/uapi/asm-generic/unistd.h).
_GENERIC = {"keyctl": 219, "seccomp": 277, "bpf": 280, "sched_setattr": 274, "ioprio_set": 30, "set_mempolicy": 237}
_OLD = {
    "x86_64": {
        "keyctl": 250,
        "seccomp": 317,
        "bpf": 321,
        "sched_setattr": 314,
        "ioprio_set": 251,
        "set_mempolicy": 238,
    },
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "s390x": {
        "keyctl": 280,
        "seccomp": 348,
        "bpf": 351,
        "sched_setattr": 345,
        "ioprio_set": 282,
        "set_mempolicy": 270,
    },
    "ppc64le": {
        "keyctl": 271,
        "seccomp": 358,
        "bpf": 361,
        "sched_setattr": 355,
        "ioprio_set": 273,
        "set_mempolicy": 261,
    },
}
NR = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
} | _OLD.get(os.uname().machine, {})


def buffer(size: int, content: bytes = b"") -> Array[c_char]:
    """`size` bytes of memory that a system call may write to, beginning with `content`; read them by `.raw`."""
    memory: Array[c_char] = (_Char * size)()  # type: ignore[assignment]
    if content:
        memory.raw = content
    return memory


def address(memory: Array[c_char]) -> int:
    """Where the buffer is, for a structure that points to it."""
    return _ctypes.addressof(memory)


def check(result: int) -> int:
    """`result`, or OSError with libc's errno when it is negative."""
    if result < 0:
        number = _ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(name: str, *arguments: int | bytes | Array[c_char] | None) -> int:
    """Make the system call `name` (a key of `NR`).

    Args:
        arguments: integers (passed as 64 bits), bytes and buffers (passed as addresses), None for NULL.

    Raises:
        OSError: the call failed; ENOSYS also where this architecture's number for it is unknown.
    """
    number = NR.get(name)
    if number is None:
        raise OSError(38, f"{name}: no system call number known for {os.uname().machine}")
    return check(_syscall(Long(number), *(Long(a) if isinstance(a, int) else a for a in arguments)))
