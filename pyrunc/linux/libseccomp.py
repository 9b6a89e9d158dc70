"""libseccomp(3) by ctypes: one function for each of the library's that a filter's making needs.

Importing this module loads the library, which costs more than a container's whole `state`: import it only
when a filter has to be made. Constants have their names in <seccomp.h>.

Raises:
    OSError: on import, where the library is not installed (`ctypes.CDLL` gives it no errno).
"""

from __future__ import annotations

import ctypes
import os

SCMP_FLTATR_CTL_OPTIMIZE = 8

#: Architecture tokens are the kernel's AUDIT_ARCH_* (<linux/audit.h>), but for x32, which the kernel does not
#: tell from x86_64 except by bit 30 of the call's number.
SCMP_ARCH_X86_64 = 0xC000003E
SCMP_ARCH_X32 = 0x4000003E
SCMP_ARCH_S390 = 0x00000016
SCMP_ARCH_S390X = 0x80000016

#: What the resolvers answer for a name that this libseccomp has never heard of. Other negative numbers stand
#: for calls that exist, only not on that architecture.
NR_SCMP_ERROR = -1


class scmp_arg_cmp(ctypes.Structure):
    """One condition on one argument: ``arg OP datum_a``, or ``arg & datum_a == datum_b`` for MASKED_EQ."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class scmp_version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


_lib = ctypes.CDLL("libseccomp.so.2")
for _name, _restype, _argtypes in (
    ("seccomp_version", ctypes.POINTER(scmp_version), ()),
    ("seccomp_init", ctypes.c_void_p, (ctypes.c_uint32,)),
    ("seccomp_release", None, (ctypes.c_void_p,)),
    ("seccomp_attr_set", ctypes.c_int, (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)),
    ("seccomp_arch_native", ctypes.c_uint32, ()),
    ("seccomp_arch_resolve_name", ctypes.c_uint32, (ctypes.c_char_p,)),
    ("seccomp_arch_add", ctypes.c_int, (ctypes.c_void_p, ctypes.c_uint32)),
    ("seccomp_syscall_resolve_name", ctypes.c_int, (ctypes.c_char_p,)),
    ("seccomp_syscall_resolve_name_arch", ctypes.c_int, (ctypes.c_uint32, ctypes.c_char_p)),
    (
        "seccomp_rule_add_array",
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(scmp_arg_cmp)),
    ),
    ("seccomp_export_bpf", ctypes.c_int, (ctypes.c_void_p, ctypes.c_int)),
):
    _function = getattr(_lib, _name)
    _function.restype = _restype
    _function.argtypes = _argtypes


def _check(status: int) -> None:
    if status < 0:
        raise OSError(-status, os.strerror(-status))


def version() -> tuple[int, int, int]:
    """seccomp_version(3)."""
    found = _lib.seccomp_version().contents
    return found.major, found.minor, found.micro


def path() -> str:
    """The file that the dynamic linker took for libseccomp; "" where /proc does not tell."""
    try:
        fd = os.open("/proc/self/maps", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(fd, "rb") as maps:
        for line in maps:
            # address perms offset dev inode path (proc_pid_maps(5)); only the path may have spaces
            fields = line.rstrip(b"\n").split(None, 5)
            if len(fields) == 6 and b"/libseccomp.so" in fields[5]:
                return os.fsdecode(fields[5])
    return ""


def init(default_action: int) -> int:
    """seccomp_init(3): a filter for the native architecture; give it to `release` in the end.

    Raises:
        OSError: EINVAL where this library or kernel does not know the action.
    """
    ctx: int | None = _lib.seccomp_init(default_action)
    if not ctx:
        raise OSError(22, os.strerror(22))  # the C function says no more than NULL
    return ctx


def release(ctx: int) -> None:
    """seccomp_release(3)."""
    _lib.seccomp_release(ctx)


def attr_set(ctx: int, attribute: int, value: int) -> None:
    """seccomp_attr_set(3)."""
    _check(_lib.seccomp_attr_set(ctx, attribute, value))


def arch_native() -> int:
    """seccomp_arch_native(3): the token of the architecture that the library was built for."""
    token: int = _lib.seccomp_arch_native()
    return token


def arch_resolve_name(name: str) -> int:
    """seccomp_arch_resolve_name(3): the token of ``x86_64``, ``aarch64``, …; 0 if unknown."""
    token: int = _lib.seccomp_arch_resolve_name(_c_string(name))
    return token


def arch_add(ctx: int, token: int) -> None:
    """seccomp_arch_add(3).

    Raises:
        OSError: EEXIST for one that is there, EDOM for one of the other byte order.
    """
    _check(_lib.seccomp_arch_add(ctx, token))


def syscall_resolve_name(name: str) -> int:
    """seccomp_syscall_resolve_name(3): the native number, negative if there is none, or NR_SCMP_ERROR."""
    number: int = _lib.seccomp_syscall_resolve_name(_c_string(name))
    return number


def syscall_resolve_name_arch(token: int, name: str) -> int:
    """seccomp_syscall_resolve_name_arch(3): as above, for an architecture; x32's numbers have bit 30 set."""
    number: int = _lib.seccomp_syscall_resolve_name_arch(token, _c_string(name))
    return number


def rule_add(ctx: int, action: int, number: int, conditions: list[scmp_arg_cmp]) -> None:
    """seccomp_rule_add_array(3): `action` for a call whose arguments meet all conditions (none: always).

    Args:
        number: the native number, or the negative one that the resolver gave.
    """
    array = (scmp_arg_cmp * len(conditions))(*conditions) if conditions else None
    _check(_lib.seccomp_rule_add_array(ctx, action, number, len(conditions), array))


def export_bpf(ctx: int) -> bytes:
    """seccomp_export_bpf(3): the program, an array of struct sock_filter in the host's byte order."""
    fd = _memfd()
    try:
        _check(_lib.seccomp_export_bpf(ctx, fd))
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


_MFD_NOEXEC_SEAL = 0x0008


def _memfd() -> int:
    # With the sysctl vm.memfd_noexec=2 only the sealed kind is given; before Linux 6.3 there is none of it.
    try:
        return os.memfd_create("seccomp", os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create("seccomp", os.MFD_CLOEXEC)


def _c_string(name: str) -> bytes:
    # C reads up to the first NUL: "write\0really" must not come to mean write.
    return b"?" if "\0" in name else name.encode("utf-8", "replace")
