"""linux.seccomp of config.json to a BPF program (config-linux.md, "Seccomp").

libseccomp writes the program, which takes milliseconds and a library; so a program once made is kept on disk,
and the next container with the same profile loads neither. What comes on top of libseccomp's program is one
answer: ENOSYS to system calls younger than the profile (see `_enosys_stub`).
"""

from __future__ import annotations

import errno
import marshal
import os
import stat

from pyrunc.errors import Error
from pyrunc.linux import seccomp as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

#: Actions and operators by the names that <seccomp.h> and config.json give them.
ACTIONS = {
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_KILL": 0x00000000,  # the thread, as SCMP_ACT_KILL_THREAD
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_TRAP": 0x00030000,
}
#: Actions that carry a number of 16 bits.
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
#: Actions that let an unknown call through to the kernel, which says ENOSYS itself; a tracer knows what it
#: does.
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")

OPERATORS = {
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_MASKED_EQ": 7,
    "SCMP_CMP_NE": 1,
}

#: Less their prefix and in lower case, these are libseccomp's own names.
ARCHITECTURES = (
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
)

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # all threads of the process: the one that loads the filter has but one
    "SECCOMP_FILTER_FLAG_LOG": kernel.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": kernel.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": kernel.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}

#: System calls have at most six arguments.
_ARGUMENTS = 6
#: From this many rules on libseccomp is told to sort calls into a tree. A node of it holds four calls, so
#: that for few there is nothing to win; and up to 2.5.4 a tree of no rules at all goes wrong.
_TREE_FROM = 33


class Filter:
    """What `pyrunc.linux.seccomp.load_filter` wants.

    Attributes:
        program: an array of struct sock_filter in the host's byte order.
        flags: SECCOMP_FILTER_FLAG_*.
        notify: true if a rule asks a listener, whose descriptor `load_filter` then gives.
    """

    __slots__ = ("flags", "notify", "program")

    def __init__(self, program: bytes, flags: int, notify: bool) -> None:
        self.program = program
        self.flags = flags
        self.notify = notify


def compile(profile: dict[str, Any], *, pointer: str = "/linux/seccomp", cache_dir: str | None = None) -> Filter:
    """The filter of a profile.

    As runc has it: a call that libseccomp does not know is passed over; so is a rule that says what the
    default says; of a rule with several conditions all must hold, unless two are about one argument, when any
    is enough; the native architecture is always in; no flags at all (not even ``[]``) mean SPEC_ALLOW if the
    kernel has it.

    Args:
        profile: linux.seccomp of a config that was checked against the schema.
        pointer: where in the config it was.
        cache_dir: a directory for made programs, itself made if need be (its parent is not); None for no
            cache.

    Raises:
        Error: with the pointer of what in the profile is wrong or is not supported by this kernel or
            libseccomp; with `pointer` where libseccomp is missing.
    """
    calls = profile.get("syscalls") or []
    notify = False
    for call in calls:
        if call["action"] == "SCMP_ACT_NOTIFY":
            notify = True
    flags = _flags(profile.get("flags"), notify, f"{pointer}/flags")
    key = _cache_key(profile) if cache_dir is not None else b""
    program = _cache_read(cache_dir, key) if cache_dir is not None else None
    if program is None:
        libseccomp = _load_libseccomp(pointer)
        program = _build(libseccomp, profile, pointer)
        if cache_dir is not None:
            _cache_write(cache_dir, key, libseccomp.path(), program)
    return Filter(program, flags, notify)


def features() -> dict[str, Any]:
    """The object linux.seccomp of `features` (features-linux.md, "Seccomp").

    Supported flags are those that any profile can have here. WAIT_KILLABLE_RECV is not among them: by itself, without
    a rule that asks an agent, it is an error for the kernel.
    """
    try:
        libseccomp = _load_libseccomp("")
    except Error:
        return {"enabled": False}
    only_with_an_agent = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    supported = [name for name, flag in FLAGS.items() if not flag or kernel.flag_supported(flag)]
    return {
        "enabled": True,
        "actions": sorted(ACTIONS),
        "operators": sorted(OPERATORS),
        "archs": [name for name in ARCHITECTURES if _architecture(libseccomp, name)],
        "knownFlags": list(FLAGS),
        "supportedFlags": [name for name in supported if name != only_with_an_agent],
    }


def libseccomp_version() -> str | None:
    """The annotation io.github.seccomp.libseccomp.version; None where there is no libseccomp."""
    try:
        major, minor, micro = _load_libseccomp("").version()
    except Error:
        return None
    return f"{major}.{minor}.{micro}"


def _load_libseccomp(pointer: str) -> ModuleType:
    try:
        from pyrunc.linux import libseccomp
    except OSError:
        reason = "libseccomp.so.2 cannot be loaded: install the Debian package libseccomp2"
        raise Error(reason, pointer=pointer, action="make the seccomp filter") from None
    found = libseccomp.version()
    if found < (2, 5, 0):
        reason = "libseccomp {}.{}.{} is too old: 2.5.0 or newer is needed (Debian package libseccomp2)".format(*found)
        raise Error(reason, pointer=pointer, action="make the seccomp filter")
    return libseccomp


def _flags(names: list[str] | None, notify: bool, pointer: str) -> int:
    flags = kernel.SECCOMP_FILTER_FLAG_NEW_LISTENER if notify else 0
    if names is None:
        # What libseccomp's loader and runc do: the CPU keeps speculating, as it does for everyone else.
        if kernel.flag_supported(kernel.SECCOMP_FILTER_FLAG_SPEC_ALLOW):
            flags |= kernel.SECCOMP_FILTER_FLAG_SPEC_ALLOW
        return flags
    for i, name in enumerate(names):
        flag = FLAGS.get(name)
        if flag is None:
            raise Error(f"{name!r} is not a seccomp flag", pointer=f"{pointer}/{i}")
        if flag == kernel.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV and not notify:
            raise Error(f"{name} needs a rule with SCMP_ACT_NOTIFY", pointer=f"{pointer}/{i}")
        if flag and not kernel.flag_supported(flag):
            raise Error(f"this kernel does not support {name}", pointer=f"{pointer}/{i}")
        flags |= flag
    return flags


# From a profile to a program.


def _build(libseccomp: ModuleType, profile: dict[str, Any], pointer: str) -> bytes:
    default = _action(profile, "defaultAction", "defaultErrnoRet", pointer)
    if default == ACTIONS["SCMP_ACT_NOTIFY"]:
        # The first call after the loading would wait for a listener that nobody has been given yet.
        raise Error("SCMP_ACT_NOTIFY cannot be used as default action", pointer=f"{pointer}/defaultAction")
    calls = profile.get("syscalls") or []
    try:
        ctx = libseccomp.init(default)
    except OSError as e:
        raise Error.from_os(e, pointer=f"{pointer}/defaultAction", action=profile["defaultAction"]) from None
    try:
        architectures = _add_architectures(libseccomp, ctx, profile.get("architectures") or [], pointer)
        rules = 0
        for i, call in enumerate(calls):
            rules += _add_rules(libseccomp, ctx, call, default, f"{pointer}/syscalls/{i}")
        if rules >= _TREE_FROM:
            libseccomp.attr_set(ctx, libseccomp.SCMP_FLTATR_CTL_OPTIMIZE, 2)
        program: bytes = libseccomp.export_bpf(ctx)
    except OSError as e:
        raise Error.from_os(e, pointer=pointer, action="make the seccomp filter") from None
    finally:
        libseccomp.release(ctx)
    if profile["defaultAction"] not in _PERMISSIVE and default != ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS:
        program = _enosys_stub(libseccomp, _last_calls(libseccomp, architectures, calls)) + program
    length = len(program) // kernel.SOCK_FILTER_SIZE
    if length > kernel.BPF_MAXINSNS:
        reason = f"the filter has {length} instructions, the kernel takes {kernel.BPF_MAXINSNS}"
        raise Error(reason, pointer=pointer, action="make the seccomp filter")
    return program


def _action(entry: dict[str, Any], name_key: str, errno_key: str, pointer: str) -> int:
    name = entry[name_key]
    action = ACTIONS.get(name)
    if action is None:
        raise Error(f"{name!r} is not a seccomp action", pointer=f"{pointer}/{name_key}")
    number = entry.get(errno_key)
    if name in _WITH_ERRNO:
        number = errno.EPERM if number is None else number
        if not 0 <= number <= 0xFFFF:
            raise Error(f"{number} does not fit into 16 bits", pointer=f"{pointer}/{errno_key}")
        return action | int(number)
    if number is not None:
        raise Error(f"{name} takes no errno", pointer=f"{pointer}/{errno_key}")
    return action


def _architecture(libseccomp: ModuleType, name: str) -> int:
    token: int = libseccomp.arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower())
    return token


def _add_architectures(libseccomp: ModuleType, ctx: int, names: list[str], pointer: str) -> list[int]:
    tokens = [libseccomp.arch_native()]
    for i, name in enumerate(names):
        place = f"{pointer}/architectures/{i}"
        if name not in ARCHITECTURES:
            raise Error(f"{name!r} is not a seccomp architecture", pointer=place)
        token = _architecture(libseccomp, name)
        if not token:
            raise Error(f"this libseccomp does not know {name}", pointer=place)
        if token in tokens:
            continue
        try:
            libseccomp.arch_add(ctx, token)
        except OSError as e:
            if e.errno == errno.EDOM:
                raise Error(f"{name} has the other byte order than this machine", pointer=place) from None
            raise Error.from_os(e, pointer=place, action=f"add {name} to the seccomp filter") from None
        tokens.append(token)
    return tokens


def _add_rules(libseccomp: ModuleType, ctx: int, call: dict[str, Any], default: int, pointer: str) -> int:
    """The rules of one entry; returns how many libseccomp took."""
    action = _action(call, "action", "errnoRet", pointer)
    conditions = [
        _condition(libseccomp, argument, f"{pointer}/args/{i}") for i, argument in enumerate(call.get("args") or [])
    ]
    if action == default:
        return 0  # libseccomp takes no rule that changes nothing
    if len({condition.arg for condition in conditions}) < len(conditions):
        rules = [[condition] for condition in conditions]
    else:
        rules = [conditions]
    added = 0
    for i, name in enumerate(call["names"]):
        number = libseccomp.syscall_resolve_name(name)
        if number == libseccomp.NR_SCMP_ERROR:
            continue  # of another kernel's time: profiles are written for many
        try:
            for rule in rules:
                libseccomp.rule_add(ctx, action, number, rule)
        except OSError as e:
            what = f"{call['action']} for the system call {name}"
            raise Error.from_os(e, pointer=f"{pointer}/names/{i}", action=what) from None
        added += len(rules)
    return added


def _condition(libseccomp: ModuleType, argument: dict[str, Any], pointer: str) -> Any:
    operator = OPERATORS.get(argument["op"])
    if operator is None:
        raise Error(f"{argument['op']!r} is not a seccomp operator", pointer=f"{pointer}/op")
    if not 0 <= argument["index"] < _ARGUMENTS:
        reason = f"system calls have {_ARGUMENTS} arguments, there is none with index {argument['index']}"
        raise Error(reason, pointer=f"{pointer}/index")
    values = []
    for key in ("value", "valueTwo"):
        value = argument.get(key) or 0
        if not 0 <= value < 1 << 64:  # ctypes would cut it down to another number
            raise Error(f"{value} does not fit into 64 bits", pointer=f"{pointer}/{key}")
        values.append(value)
    return libseccomp.scmp_arg_cmp(argument["index"], operator, *values)


# ENOSYS for what is younger than the profile.

# <linux/bpf_common.h>: the few instructions that the stub is made of.
_LD_W_ABS = 0x20
_JA = 0x05
_JEQ_K = 0x15
_JGT_K = 0x25
_JSET_K = 0x45
_RET_K = 0x06
# struct seccomp_data: offsets.
_NR = 0
_ARCH = 4
_X32_SYSCALL_BIT = 0x40000000
_NO_LIMIT = 0xFFFFFFFF


def _last_calls(libseccomp: ModuleType, architectures: list[int], calls: list[dict[str, Any]]) -> dict[int, int]:
    """The highest number that the profile names, by architecture token, where it names any."""
    names = {name for call in calls for name in call["names"]}
    last = {}
    for token in architectures:
        highest = max((libseccomp.syscall_resolve_name_arch(token, name) for name in names), default=0)
        if highest > 0:
            last[token] = highest
    return last


def _enosys_stub(libseccomp: ModuleType, last: dict[int, int]) -> bytes:
    """A program to go before another: ENOSYS for calls numbered above `last`, all others fall through.

    The C library tries the newest call first and, on ENOSYS, an older one. A profile that knows neither the
    new call nor its absence would answer EPERM, and the program fails where on an older kernel it would have
    worked.
    """
    sections: list[list[tuple[int, int, int, int]]] = []
    enosys = (_RET_K, 0, 0, ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS)
    out = (_JA, 0, 0, 0)  # the distance is known in the end
    for token, highest in last.items():
        if token == libseccomp.SCMP_ARCH_X86_64:
            # x32 has the same token in the kernel, and bit 30 of the number.
            x32 = last.get(libseccomp.SCMP_ARCH_X32, _NO_LIMIT)
            tests = [
                (_JSET_K, 1, 0, _X32_SYSCALL_BIT),
                (_JGT_K, 1, 2, highest),
                (_JGT_K, 0, 1, x32),
            ]
        elif token == libseccomp.SCMP_ARCH_X32:
            continue
        elif token in (libseccomp.SCMP_ARCH_S390, libseccomp.SCMP_ARCH_S390X):
            # There a number that does not fit into the instruction comes in a register, and one that the
            # kernel does not know becomes 0, which is setup(2) and long gone.
            tests = [(_JEQ_K, 1, 0, 0), (_JGT_K, 0, 1, highest)]
        else:
            tests = [(_JGT_K, 0, 1, highest)]
        section = [(_LD_W_ABS, 0, 0, _NR), *tests, enosys, out]
        sections.append([(_JEQ_K, 0, len(section), token), *section])
    if not sections:
        return b""
    stub = [(_LD_W_ABS, 0, 0, _ARCH)] + [instruction for section in sections for instruction in section]
    import struct

    return b"".join(
        struct.pack("=HBBI", code, jt, jf, len(stub) - i - 1 if code == _JA else k)
        for i, (code, jt, jf, k) in enumerate(stub)
    )


# The cache: DIR/NAME holds
#   "pyrunc seccomp FORMAT LENGTH\n", the length of the program in bytes
#   "PATH\0DEVICE INODE SIZE MTIME\n", libseccomp's file as it was when it made the program
#   the key: the profile itself
#   the program
# NAME is a number drawn from the key and proves nothing: two keys with one number push each other out. It is
# the key, compared byte by byte, that says whose program this is: no profile can be crafted to get another's.

_CACHE_FORMAT = 1  # to be raised with any change to the programs that this file makes
_CACHE_ENTRIES = 64
_CACHE_MAX_FILE = 4 << 20
_MERSENNE = (1 << 127) - 1


def _cache_key(profile: dict[str, Any]) -> bytes:
    system = os.uname()
    # marshal is the quickest to write a value out so that no other value looks the same, nor begins the same.
    # Version 2 of it does not tell an object met twice from two equal ones. Nothing is ever read back by it.
    parts = ("defaultAction", "defaultErrnoRet", "architectures", "syscalls")
    return marshal.dumps([system.release, system.machine, *[profile.get(part) for part in parts]], 2)


def _cache_name(key: bytes) -> str:
    return f"{int.from_bytes(key, 'little') % _MERSENNE:032x}"


def _cache_open(cache_dir: str) -> int:
    """The directory, if nobody but us can have put anything there. OSError if not."""
    fd = os.open(cache_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not _ours(os.fstat(fd)):
        os.close(fd)
        raise PermissionError(errno.EACCES, "others can write there", cache_dir)
    return fd


def _ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _cache_read(cache_dir: str, key: bytes) -> bytes | None:
    """The program of a key; None for any doubt about it."""
    try:
        directory = _cache_open(cache_dir)
    except OSError:
        return None
    try:
        # O_NONBLOCK: not to wait for the other end of a FIFO
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(_cache_name(key), flags, dir_fd=directory)
    except OSError:
        return None
    finally:
        os.close(directory)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not _ours(status) or status.st_size > _CACHE_MAX_FILE:
            return None
        entry = os.read(fd, status.st_size)
    except OSError:
        return None
    finally:
        os.close(fd)
    title, _, rest = entry.partition(b"\n")
    library, _, rest = rest.partition(b"\n")
    if not rest.startswith(key) or library != _identity(library.partition(b"\0")[0]):
        return None
    program = rest[len(key) :]
    return program if program and title == _cache_title(program) else None


def _cache_title(program: bytes) -> bytes:
    return b"pyrunc seccomp %d %d" % (_CACHE_FORMAT, len(program))


def _identity(path: bytes) -> bytes | None:
    """A file as it is now: an upgrade of it, even in place, gives another."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a path with NUL
        return None
    return b"%b\0%d %d %d %d" % (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _cache_write(cache_dir: str, key: bytes, library: str, program: bytes) -> None:
    """Keep a program. A failure is no error: the next container takes some milliseconds more."""
    identity = _identity(os.fsencode(library))
    if identity is None or b"\n" in identity:
        return
    try:
        os.mkdir(cache_dir, 0o700)
    except OSError:
        pass  # it is there, or the open below fails too
    try:
        directory = _cache_open(cache_dir)
    except OSError:
        return
    name = _cache_name(key)
    try:
        _write_file(directory, name, b"\n".join((_cache_title(program), identity, key + program)))
        _evict(directory, name)
    except OSError:
        pass  # a full disk, most likely
    finally:
        os.close(directory)


def _write_file(directory: int, name: str, content: bytes) -> None:
    """All of it under its name, or nothing."""
    temporary = f".{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        try:
            if os.write(fd, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)  # after a power cut a name must not stand for blocks that never came
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(temporary, dir_fd=directory)
        raise


def _evict(directory: int, newest: str) -> None:
    """Leave the newest entries; what a killed process left half-made ages and goes like the others."""
    names = os.listdir(directory)
    if len(names) <= _CACHE_ENTRIES:
        return
    aged = []
    for name in names:
        if name != newest:
            aged.append((os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns, name))
    aged.sort()
    for _, name in aged[: len(names) - _CACHE_ENTRIES]:
        os.unlink(name, dir_fd=directory)
