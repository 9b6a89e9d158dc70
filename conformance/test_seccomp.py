"""linux.seccomp: actions, argument filters, architectures and flags, seen by programs that make one system call."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import struct

import pytest

from conformance.harness import Bundle, Container, Json, Runtime, not_applicable, requires, spec, xfail_on

SYSCALLS = "syscalls (array of objects, OPTIONAL) - match a syscall in seccomp."
ARGS = "args (array of objects, OPTIONAL) - the specific syscall in seccomp."
ERRNO = "When the action doesn't support an errno, the runtime MUST print and error and fail."
LISTED = "translated to corresponding values"

#: system calls of x86-64 (and mkdir of i386)
LSEEK, SPLICE, MKDIR, UNSHARE, GETPID, I386_MKDIR, I386_GETPID = 8, 275, 83, 272, 39, 39, 20

SIGSYS = 31
KILLED = 128 + SIGSYS


def x86_64(runtime: Runtime) -> str | None:
    return None if os.uname().machine == "x86_64" else "the tests have programs for x86-64 only"


def elf(code: bytes) -> bytes:
    """A static x86-64 program of this code (elf(5)): one segment at 4 MiB."""
    address, size = 0x400000, 64 + 56
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, address + size, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, address, address, size + len(code), size + len(code), 4096)
    return header + segment + code


def one_call(number: int, *args: int, i386: bool = False) -> bytes:
    """A program that makes one system call and exits with its error number, 0 where there was none.

    Args:
        i386: by int $0x80, the 32-bit way in, which 64-bit programs have as well.
    """
    # mov $imm64 to rax, rdi, rsi, rdx, r10, r8, r9; for i386 eax, ebx, ecx, edx, esi, edi
    way = (
        [b"\x48\xb8", b"\x48\xbb", b"\x48\xb9", b"\x48\xba", b"\x48\xbe", b"\x48\xbf"]
        if i386
        else [b"\x48\xb8", b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9"]
    )
    code = b"".join(op + struct.pack("<Q", v & (2**64 - 1)) for op, v in zip(way, (number, *args), strict=False))
    code += b"\xcd\x80\x48\x98" if i386 else b"\x0f\x05"  # int $0x80, cltq; or syscall
    # test %rax,%rax; js 1f; xor %eax,%eax; 1: neg %eax; mov %eax,%edi; mov $231,%eax (exit_group); syscall
    return elf(code + b"\x48\x85\xc0\x78\x02\x31\xc0\xf7\xd8\x89\xc7\xb8\xe7\0\0\0\x0f\x05")


def call(bundle: Bundle, number: int, *args: int, i386: bool = False, name: str = "call") -> str:
    """Put such a program into the bundle, as its process too; its path."""
    bundle.file(f"/bin/{name}", one_call(number, *args, i386=i386), 0o755)
    bundle.args(f"/bin/{name}")
    return f"/bin/{name}"


def profile(bundle: Bundle, *entries: Json, default: str = "SCMP_ACT_ALLOW", **more: object) -> None:
    bundle.linux["seccomp"] = {"defaultAction": default, "syscalls": list(entries), **more}


def rule(*names: str, action: str = "SCMP_ACT_ERRNO", **more: object) -> Json:
    return {"names": list(names), "action": action, **more}


# ---------------------------------------------------------------------------------------------------- actions


@spec("config-linux.md#seccomp", SYSCALLS)
@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("how", ["run", "create", "exec"])
@requires(x86_64)
def test_errno(bundle: Bundle, container: Container, how: str, uid: int, no_new_privileges: bool) -> None:
    """With and without no_new_privs, as root and as a user who has no capabilities at all."""
    bundle.process.update(noNewPrivileges=no_new_privileges, user={"uid": uid, "gid": uid})
    profile(bundle, rule("unshare", errnoRet=77))
    program = call(bundle, UNSHARE, 0x20000)
    if how == "run":
        assert container.run().status == 77
    elif how == "create":
        container.create()
        container.start()
        assert container.wait() == 77
    else:
        bundle.args("sleep", "1000")
        container.run_detached()
        assert container.exec(program).status == 77


@spec("config-linux.md#seccomp", SYSCALLS)
@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("uid", [0, 1000])
def test_mode_and_capabilities(bundle: Bundle, container: Container, uid: int, no_new_privileges: bool) -> None:
    """One filter; and what the runtime needed to load it (CAP_SYS_ADMIN without no_new_privs) is gone."""
    bundle.process.update(noNewPrivileges=no_new_privileges, user={"uid": uid, "gid": uid})
    profile(bundle, rule("unshare"))
    text = container.output("grep", "-E", "^(Seccomp|CapPrm|CapEff|CapBnd|CapInh|CapAmb)", "/proc/self/status")
    got = {line.split(":")[0]: int(line.split()[1], 16) for line in text.splitlines()}
    assert got["Seccomp"] == 2 and got.get("Seccomp_filters", 1) == 1
    allowed = 1 << 29 | 1 << 5 | 1 << 10
    assert all(got[name] in (0, allowed) for name in got if name.startswith("Cap")), text
    assert got["CapBnd"] == allowed and got["CapEff"] == (0 if uid else allowed)


@spec("config-linux.md#seccomp", "The default is EPERM.")
@requires(x86_64)
def test_errno_s_default(bundle: Bundle, container: Container) -> None:
    profile(bundle, rule("getpid"))
    call(bundle, GETPID)
    assert container.run().status == errno.EPERM


@spec("config-linux.md#seccomp", "The default is EPERM.")
@pytest.mark.parametrize("number", [1, 38, 133, 255])
@requires(x86_64)
def test_errno_ret(bundle: Bundle, container: Container, number: int) -> None:
    profile(bundle, rule("getpid", errnoRet=number))
    call(bundle, GETPID)
    assert container.run().status == number


ACTIONS = {
    "SCMP_ACT_ALLOW": 0,
    "SCMP_ACT_LOG": 0,
    "SCMP_ACT_KILL": KILLED,
    "SCMP_ACT_KILL_THREAD": KILLED,
    "SCMP_ACT_KILL_PROCESS": KILLED,
    "SCMP_ACT_TRAP": KILLED,
    "SCMP_ACT_TRACE": errno.ENOSYS,  # seccomp(2): "If there is no tracer … fails with the error ENOSYS"
    "SCMP_ACT_ERRNO": errno.EPERM,
}


@spec("config-linux.md#seccomp", LISTED)
@pytest.mark.parametrize("action", ACTIONS)
@requires(x86_64)
def test_action(bundle: Bundle, container: Container, action: str) -> None:
    default = "SCMP_ACT_LOG" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
    profile(bundle, rule("unshare", action=action), default=default)
    call(bundle, UNSHARE, 0)
    assert container.run().status == ACTIONS[action]


@spec("config-linux.md#seccomp", LISTED)
@requires(x86_64)
def test_kill_thread_of_a_child(bundle: Bundle, container: Container) -> None:
    """Only who makes the call: the shell goes on and sees how its child ended."""
    profile(bundle, rule("unshare", action="SCMP_ACT_KILL_PROCESS"))
    program = call(bundle, UNSHARE, 0x20000)
    assert container.output("sh", "-c", f"{program} 2>/dev/null; echo $?") == f"{KILLED}\n"


#: what a static busybox and these programs need
NEEDED = """
_llseek access arch_prctl brk chdir clock_gettime clone clone3 close dup dup2 dup3 execve exit exit_group faccessat
faccessat2 fcntl fork fstat fstatfs futex getcwd getdents getdents64 getegid geteuid getgid getgroups getpgrp getpid
getppid getrandom getsid gettid gettimeofday getuid ioctl kill lseek lstat madvise mmap mprotect mremap munmap nanosleep
newfstatat open openat pipe pipe2 poll ppoll prctl pread64 prlimit64 pselect6 read readlink readlinkat readv rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_getaffinity sched_yield
select set_robust_list set_tid_address setpgid sigaltstack stat statfs statx tgkill time umask uname vfork wait4 waitid
write writev
""".split()  # noqa: SIM905

#: what runtimes and the loaders of their languages call after the filter is loaded
RUNTIMES = """
capget capset epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 fchdir getrlimit setgid setgroups setresgid
setresuid setuid sysinfo timer_create timer_settime timer_delete close_range fchown faccessat openat2 chown
""".split()  # noqa: SIM905


@spec("config-linux.md#seccomp", LISTED)
@pytest.mark.parametrize("default, status", [("SCMP_ACT_ERRNO", errno.EPERM), ("SCMP_ACT_KILL_PROCESS", KILLED),
                                             ("SCMP_ACT_TRAP", KILLED), ("SCMP_ACT_KILL", KILLED)])  # fmt: skip
@pytest.mark.parametrize("no_new_privileges", [True, False])
@requires(x86_64)
def test_list_of_what_is_allowed(
    bundle: Bundle, container: Container, default: str, status: int, no_new_privileges: bool
) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    profile(bundle, rule(*NEEDED, *RUNTIMES, action="SCMP_ACT_ALLOW"), default=default)
    program = call(bundle, UNSHARE, 0)
    text = container.output("sh", "-c", f"echo $(ls / | head -1); {program} 2>/dev/null; echo $?")
    assert text == f"bin\n{status}\n"


@spec("config-linux.md#seccomp", "defaultErrnoRet (uint, OPTIONAL) - the errno return code to use.")
@requires(x86_64)
def test_default_errno_ret(bundle: Bundle, container: Container) -> None:
    profile(bundle, rule(*NEEDED, *RUNTIMES, action="SCMP_ACT_ALLOW"), default="SCMP_ACT_ERRNO", defaultErrnoRet=77)
    call(bundle, UNSHARE, 0)
    assert container.run().status == 77


@spec(
    "config-linux.md#seccomp",
    "if defaultAction is SCMP_ACT_KILL and syscalls is empty or unset, the kernel will kill the container process on"
    " its first syscall.",
)
def test_nothing_allowed(bundle: Bundle, container: Container) -> None:
    if container.runtime.name == "runc":
        not_applicable("of runc's threads one is killed, and the others wait for ever")
    bundle.args("true")
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_KILL"}
    assert container.run(timeout=15).status != 0


def applies(includes: Json) -> bool:
    """Whether an entry is for this machine and a container without special capabilities."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    return not includes.get("caps") and machine in (includes.get("arches") or [machine])


DOCKER = "/usr/share/containers/seccomp.json"


@spec("config-linux.md#seccomp", SYSCALLS)
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_engine_s_profile(bundle: Bundle, container: Container, uid: int, no_new_privileges: bool) -> None:
    """The profile that podman brings, as it hands it to a runtime for a container without special capabilities."""
    if not os.path.exists(DOCKER):
        not_applicable(f"no {DOCKER} (Debian: golang-github-containers-common)")
    given = json.loads(pathlib.Path(DOCKER).read_text())
    keys = ("names", "action", "errnoRet", "args")
    entries = [
        {key: entry[key] for key in keys if entry.get(key) is not None}
        for entry in given["syscalls"]
        if applies(entry.get("includes") or {})
    ]
    for entry in entries:
        if entry.get("args"):
            entry["args"] = [{k: v for k, v in arg.items() if v is not None} for arg in entry["args"]]
    architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"] if x86_64(container.runtime) is None else []
    more = {"architectures": architectures} if architectures else {}
    profile(bundle, *entries, default=given["defaultAction"], **more)
    bundle.process.update(noNewPrivileges=no_new_privileges, user={"uid": uid, "gid": uid})
    assert container.output("sh", "-c", "echo fine; unshare -m true 2>/dev/null || echo refused") == "fine\nrefused\n"


# ---------------------------------------------------------------------------------------------------- arguments

BIG = 0x1_2345_6789
#: operator, value, valueTwo, an argument that matches, one that does not
OPERATORS = [
    ("SCMP_CMP_EQ", BIG, 0, BIG, BIG - 1),
    ("SCMP_CMP_EQ", BIG, 0, BIG, BIG & 0xFFFFFFFF),
    ("SCMP_CMP_NE", BIG, 0, BIG & 0xFFFFFFFF, BIG),
    ("SCMP_CMP_LT", BIG, 0, BIG - 1, BIG),
    ("SCMP_CMP_LT", 2**64 - 1, 0, 2**64 - 2, 2**64 - 1),
    ("SCMP_CMP_LE", BIG, 0, BIG, BIG + 1),
    ("SCMP_CMP_LE", 0, 0, 0, 1),
    ("SCMP_CMP_GE", BIG, 0, BIG, BIG - 1),
    ("SCMP_CMP_GE", 1 << 32, 0, 1 << 32, 0xFFFFFFFF),
    ("SCMP_CMP_GT", BIG, 0, BIG + 1, BIG),
    ("SCMP_CMP_MASKED_EQ", 0xF0, 0x50, 0x15A, 0x16A),
    ("SCMP_CMP_MASKED_EQ", 1 << 40, 1 << 40, 1 << 40 | 5, 5),
    ("SCMP_CMP_MASKED_EQ", 0x7E020000, 0, 0x1FF, 0x20000),  # as Docker's profile forbids namespaces of clone(2)
]


@spec("config-linux.md#seccomp", ARGS)
@pytest.mark.parametrize("op, value, two, hit, miss", OPERATORS)
@requires(x86_64)
def test_operator(bundle: Bundle, container: Container, op: str, value: int, two: int, hit: int, miss: int) -> None:
    """All 64 bits count. lseek(-1, …) is EBADF where the filter lets it through."""
    profile(bundle, rule("lseek", errnoRet=77, args=[{"index": 1, "value": value, "valueTwo": two, "op": op}]))
    hits, misses = call(bundle, LSEEK, -1, hit, 0, name="hit"), call(bundle, LSEEK, -1, miss, 0, name="miss")
    text = container.output("sh", "-c", f"{hits}; echo $?; {misses}; echo $?")
    assert text == f"77\n{errno.EBADF}\n"


@spec("config-linux.md#seccomp", "index (uint, REQUIRED) - the index for syscall arguments in seccomp.")
@requires(x86_64)
def test_index(bundle: Bundle, container: Container) -> None:
    """Six arguments, each by a value of its own."""
    entries = [
        rule("splice", errnoRet=70 + i, args=[{"index": i, "value": 1000 + i, "op": "SCMP_CMP_EQ"}]) for i in range(6)
    ]
    profile(bundle, *entries)
    script = ""
    for i in range(6):
        arguments = [-1, 0, -1, 0, 0, -1]
        arguments[i] = 1000 + i
        script += call(bundle, SPLICE, *arguments, name=f"call{i}") + "; echo $?; "
    assert container.output("sh", "-c", script).split() == [str(70 + i) for i in range(6)]


@spec("config-linux.md#seccomp", ARGS)
@requires(x86_64)
def test_all_conditions_must_hold(bundle: Bundle, container: Container) -> None:
    conditions = [{"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 7, "op": "SCMP_CMP_GE"}]
    profile(bundle, rule("lseek", errnoRet=77, args=conditions))
    script = "".join(
        call(bundle, LSEEK, -1, a, b, name=f"c{a}{b}") + "; echo $?; " for a, b in ((5, 7), (5, 6), (4, 7), (5, 9))
    )
    assert container.output("sh", "-c", script).split() == ["77", "9", "9", "77"]


@spec("config-linux.md#seccomp", ARGS)
@requires(x86_64)
def test_allowed_by_argument_only(bundle: Bundle, container: Container) -> None:
    condition = {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}
    profile(
        bundle,
        rule(*NEEDED, *RUNTIMES, action="SCMP_ACT_ALLOW"),
        rule("unshare", action="SCMP_ACT_ALLOW", args=[condition]),
        default="SCMP_ACT_ERRNO",
        defaultErrnoRet=77,
    )
    script = "".join(call(bundle, UNSHARE, a, name=f"c{a}") + "; echo $?; " for a in (0, 0x20000))
    assert container.output("sh", "-c", script).split() == ["0", "77"]


# ------------------------------------------------------------------------------------ architectures, flags, names


@spec("config-linux.md#seccomp", "architectures (array of strings, OPTIONAL) - the architecture used for system calls.")
@pytest.mark.parametrize("listed", [["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], ["SCMP_ARCH_X86"], ["SCMP_ARCH_X86_64"], []])
@requires(x86_64)
def test_architectures(bundle: Bundle, container: Container, listed: list[str]) -> None:
    """A rule holds for each architecture by that one's own number; one that is not listed may make no call."""
    profile(bundle, rule("getpid", errnoRet=77), architectures=listed)
    native, old = call(bundle, GETPID, name="native"), call(bundle, I386_GETPID, i386=True, name="old")
    text = container.output("sh", "-c", f"{native}; echo $?; {old} 2>/dev/null; echo $?")
    assert text.split() == ["77", "77" if "SCMP_ARCH_X86" in listed else str(KILLED)]


@spec("config-linux.md#seccomp", "flags (array of strings, OPTIONAL) - list of flags to use with seccomp(2).")
@pytest.mark.parametrize("flags", [[], ["SECCOMP_FILTER_FLAG_LOG"], ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
                                   ["SECCOMP_FILTER_FLAG_TSYNC"],
                                   ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]])  # fmt: skip
@pytest.mark.parametrize("no_new_privileges", [True, False])
@requires(x86_64)
def test_flags(bundle: Bundle, container: Container, flags: list[str], no_new_privileges: bool) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    profile(bundle, rule("getpid", errnoRet=77), flags=flags)
    call(bundle, GETPID)
    result = container.run()
    if container.runtime.name == "runc" and "seccomp flags are not yet supported" in result.stderr:
        not_applicable(f"runc {container.runtime.version} has no flags")
    assert result.status == 77, result


@spec("config-linux.md#seccomp", "names (array of strings, REQUIRED) - the names of the syscalls.")
@requires(x86_64)
def test_names_that_this_kernel_has_not(bundle: Bundle, container: Container) -> None:
    """Profiles are written for many architectures and kernels."""
    profile(bundle, rule("no_such_call", "s390_pci_mmio_read", "getpid", "arm_fadvise64_64", errnoRet=77))
    call(bundle, GETPID)
    assert container.run().status == 77


@spec("config-linux.md#seccomp", SYSCALLS)
@requires(x86_64)
def test_a_call_newer_than_the_profile(bundle: Bundle, container: Container) -> None:
    """ENOSYS, so that libraries fall back to an older call; EPERM would end them."""
    if container.runtime.name == "crun":
        not_applicable("crun leaves that to the profile's author")
    allowed = rule(*NEEDED, *RUNTIMES, action="SCMP_ACT_ALLOW")
    profile(bundle, allowed, default="SCMP_ACT_ERRNO", architectures=["SCMP_ARCH_X86_64"])
    call(bundle, 999)
    assert container.run().status == errno.ENOSYS


WRONG: dict[str, Json] = {
    "action": {"defaultAction": "SCMP_ACT_NO_SUCH"},
    "action in small letters": {"defaultAction": "scmp_act_allow"},
    "no action": {"syscalls": []},
    "a rule's action": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("getpid", action="SCMP_ACT_NO")]},
    "operator": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [rule("getpid", args=[{"index": 0, "value": 0, "op": "SCMP_CMP_XX"}])],
    },
    "architecture": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"], "syscalls": [rule("bpf")]},
    "index": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [rule("getpid", args=[{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}])],
    },
    "flag": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("getpid")], "flags": ["SECCOMP_FILTER_FLAG_NO_SUCH"]},
}  # fmt: skip


@spec("config-linux.md#seccomp", LISTED)
@pytest.mark.parametrize("which", WRONG)
def test_wrong(bundle: Bundle, container: Container, which: str) -> None:
    if which == "no action" and container.runtime.name == "runc":
        not_applicable("runc takes it for no profile")
    bundle.linux["seccomp"] = WRONG[which]
    bundle.args("true")
    result = container.run(timeout=15)
    assert result.status != 0, result
    assert "Traceback" not in result.stderr and result.stderr.strip(), result
    if container.runtime.name == "pyrunc":
        assert "/linux/seccomp" in result.stderr


@spec("config-linux.md#seccomp", ERRNO)
@xfail_on("runc", "runc 1.1 ignores it")
@pytest.mark.parametrize("where", ["rule", "default"])
def test_errno_where_there_can_be_none(bundle: Bundle, container: Container, where: str) -> None:
    bundle.args("true")
    if where == "rule":
        profile(bundle, rule("unshare", action="SCMP_ACT_KILL_PROCESS", errnoRet=5))
    else:
        profile(bundle, rule("getpid"), defaultErrnoRet=5)
    assert container.run(timeout=15).status != 0


# ------------------------------------------------------------------------------------- what the runtime itself needs

FORBIDDEN = [
    ["read", "pread64", "readv"],
    ["write", "pwrite64", "writev", "sendto", "sendmsg"],
    ["open", "openat", "openat2"],
    ["close", "close_range"],
    ["rt_sigaction", "rt_sigprocmask", "sigaltstack"],
    ["fcntl", "ioctl"],
    ["capset", "capget"],
    ["setuid", "setgid", "setgroups", "setresuid", "setresgid", "setreuid", "setregid"],
    ["chdir", "fchdir", "getcwd", "umask"],
    ["stat", "fstat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2"],
    ["clone", "clone3", "fork", "vfork"],
    ["seccomp"],
    ["getpid", "gettid", "tgkill", "kill"],
    ["lseek", "dup", "dup2", "dup3", "pipe", "pipe2"],
    ["futex", "epoll_create1", "epoll_ctl", "epoll_pwait", "nanosleep", "sched_yield"],
]


@spec("config-linux.md#seccomp", SYSCALLS)
@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("names", FORBIDDEN, ids=[names[0] for names in FORBIDDEN])
@requires(x86_64)
def test_what_the_program_does_without(
    bundle: Bundle, container: Container, names: list[str], uid: int, no_new_privileges: bool
) -> None:
    """A filter is the program's: a program that makes none of these calls runs to its end."""
    bundle.process.update(noNewPrivileges=no_new_privileges, user={"uid": uid, "gid": uid})
    profile(bundle, rule(*names, action="SCMP_ACT_KILL_PROCESS"))
    call(bundle, UNSHARE, 0)
    result = container.run(timeout=15)
    if container.runtime.name in ("runc", "crun") and result.status:
        not_applicable(f"{container.runtime.name} makes one of these calls after it has loaded the filter")
    assert result.status == 0, result
