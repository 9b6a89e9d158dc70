"""Processes: clone3(2), namespaces(7), pidfds, capabilities(7), prctl(2) and what /proc/PID tells."""

from __future__ import annotations

import fcntl
import os
import struct

from pyrunc.linux.libc import Long, buffer, check, libc, syscall

CLONE_PARENT = 0x00008000
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000
SIGCHLD = 17

#: Namespace types as the runtime specification names them: clone(2) flag, name in /proc/PID/ns.
NAMESPACES = {
    "user": (CLONE_NEWUSER, "user"),
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "uts": (CLONE_NEWUTS, "uts"),
    "network": (CLONE_NEWNET, "net"),
    "pid": (CLONE_NEWPID, "pid"),
    "time": (CLONE_NEWTIME, "time"),
    "mount": (CLONE_NEWNS, "mnt"),
}
NS_GET_NSTYPE = 0xB703


def clone3(flags: int, cgroup: int = -1) -> int:
    """fork(2) into new namespaces (CLONE_NEW*). Returns 0 in the child, its process ID in the parent.

    Args:
        cgroup: descriptor of a cgroup v2 directory in which the child is to be born; -1 for the caller's.

    Only for a process with one thread: no fork handlers run, so a lock that another thread held would stay locked
    in the child for ever.
    """
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    # set_tid_size, cgroup
    # with CLONE_PARENT the parent's parent gets the exit signal that this process itself would send: it must be 0
    signal = 0 if flags & CLONE_PARENT else SIGCHLD
    if cgroup < 0:
        arguments = struct.pack("=8Q", flags, 0, 0, 0, signal, 0, 0, 0)
    else:
        arguments = struct.pack("=11Q", flags | CLONE_INTO_CGROUP, 0, 0, 0, signal, 0, 0, 0, 0, 0, cgroup)
    return syscall("clone3", arguments, len(arguments))


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(libc.unshare(flags))


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2): join the namespace `fd`, or with a pidfd those of a process that `nstype` names (CLONE_NEW*)."""
    check(libc.setns(fd, nstype))


def namespace_type(fd: int) -> int:
    """ioctl_ns(2) NS_GET_NSTYPE: the CLONE_NEW* flag of a namespace file; ENOTTY where it is none."""
    return fcntl.ioctl(fd, NS_GET_NSTYPE)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a copy, close-on-exec, of another process's descriptor."""
    return syscall("pidfd_getfd", pidfd, fd, 0)


def threads() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))


CLOSE_RANGE_CLOEXEC = 4


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2): close the descriptors from `first` to `last`, or mark them (CLOSE_RANGE_CLOEXEC)."""
    if first <= last:
        syscall("close_range", first, last, flags)


def keep_only(descriptors: set[int]) -> None:
    """Close every descriptor from 3 up which is not in `descriptors`."""
    first = 3
    for fd in sorted(fd for fd in descriptors if fd >= 3):
        close_range(first, fd - 1)
        first = fd + 1
    close_range(first, 0xFFFFFFFF)


#: Resource limits by number (include/uapi/asm-generic/resource.h; all architectures that pyrunc knows).
RLIMITS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}


def prlimit(pid: int, resource: int, soft: int, hard: int) -> None:
    """prlimit(2): set a limit (one of RLIMITS' numbers) of a process, 0 for this one. 2**64 - 1 is no limit."""
    check(libc.prlimit64(pid, resource, struct.pack("=QQ", soft, hard), None))


#: As many CPUs as no kernel has: it takes as much of a mask as it knows.
_EVERY_CPU = b"\xff" * (64 * 1024 // 8)


def allow_every_cpu() -> None:
    """sched_setaffinity(2): let this thread run on every CPU of its cpuset, also those that come later."""
    check(libc.sched_setaffinity(0, Long(len(_EVERY_CPU)), _EVERY_CPU))


# --- prctl(2)
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_prctl = libc.prctl


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> int:
    """prctl(2)."""
    zero = Long(0)
    return check(_prctl(option, Long(arg2), Long(arg3), zero, zero))


# --- capabilities(7)
#: In the order of their numbers (include/uapi/linux/capability.h).
# fmt: off
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)
# fmt: on
CAP_SYS_ADMIN = 21
_LINUX_CAPABILITY_VERSION_3 = 0x20080522


def last_capability() -> int:
    """The number of this kernel's newest capability, found without /proc: a container need not have one."""
    known, unknown = 0, 64
    while unknown - known > 1:
        middle = (known + unknown) // 2
        try:
            prctl(PR_CAPBSET_READ, middle)
            known = middle
        except OSError:  # EINVAL: no such capability
            unknown = middle
    return known


def capget() -> tuple[int, int, int]:
    """This process's effective, permitted and inheritable sets, as bit masks."""
    data = buffer(24)
    check(libc.capget(struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0), data))
    e0, p0, i0, e1, p1, i1 = struct.unpack("=6I", data.raw)
    return e0 | e1 << 32, p0 | p1 << 32, i0 | i1 << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this process's three sets, as bit masks."""
    low = 0xFFFFFFFF
    sets = (effective, permitted, inheritable)
    data = struct.pack("=6I", *(s & low for s in sets), *(s >> 32 for s in sets))
    check(libc.capset(struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0), data))


# --- the rest, each one call
def setdomainname(name: str) -> None:
    """setdomainname(2), the NIS domain name of this UTS namespace."""
    encoded = os.fsencode(name)
    check(libc.setdomainname(encoded, Long(len(encoded))))


def sethostname(name: str) -> None:
    """sethostname(2)."""
    encoded = os.fsencode(name)
    check(libc.sethostname(encoded, Long(len(encoded))))


KEYCTL_JOIN_SESSION_KEYRING = 1


def join_session_keyring(name: str) -> int:
    """keyctl(2): a new session keyring `name` for this process; its serial number. ENOSYS on a kernel without keys."""
    return syscall("keyctl", KEYCTL_JOIN_SESSION_KEYRING, os.fsencode(name), 0, 0, 0)


KEYCTL_SETPERM = 5
KEYCTL_DESCRIBE = 6
#: keyctl_setperm(3): processes of its user may find the keyring and what is in it.
KEY_USR_SEARCH = 0x00080000


def allow_on_keyring(serial: int, permissions: int) -> None:
    """keyctl(2): add permissions (KEY_*) to those of a keyring."""
    memory = buffer(4096)
    size = syscall("keyctl", KEYCTL_DESCRIBE, serial, memory, 4096, 0)
    now = int(memory.raw[:size].split(b";")[3], 16)  # type;uid;gid;permissions;description
    syscall("keyctl", KEYCTL_SETPERM, serial, now | permissions, 0, 0)


def reset_signals() -> None:
    """Default disposition for every signal and an empty mask.

    CPython ignores SIGPIPE and SIGXFSZ, whoever called us may ignore others, and execve(2) keeps what is ignored.
    """
    import _signal

    for number in _signal.valid_signals():
        if _signal.getsignal(number) != _signal.SIG_DFL:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
