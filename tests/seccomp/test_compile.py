"""config-linux.md, "Seccomp": which program a profile becomes, by running the programs in an interpreter."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyrunc import seccomp
from pyrunc.errors import Error
from pyrunc.linux import libseccomp

from . import bpf

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64's system calls")
EPERM = bpf.ERRNO | errno.EPERM
ENOSYS = bpf.ERRNO | errno.ENOSYS

READ, WRITE, SOCKET, CLONE, MKDIR, PERSONALITY = 0, 1, 41, 56, 83, 135
LAST = 450


NAME_OF = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_num_arch
NAME_OF.restype = ctypes.c_char_p
NAME_OF.argtypes = (ctypes.c_uint32, ctypes.c_int)


def profile(*calls: dict[str, Any], default: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    return {"defaultAction": default, "syscalls": list(calls), **more}


def call(*names: str, action: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def program(*calls: dict[str, Any], **more: Any) -> bytes:
    return seccomp.compile(profile(*calls, **more)).program


def refused(wrong: dict[str, Any]) -> Error:
    with pytest.raises(Error) as caught:
        seccomp.compile(wrong)
    assert "\n" not in str(caught.value)
    return caught.value


def argument(index: int, op: str, value: int, two: int | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "value": value, "op": "SCMP_CMP_" + op}
    if two is not None:
        found["valueTwo"] = two
    return found


@x86_64
@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("SCMP_ACT_KILL", bpf.KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", bpf.KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", bpf.KILL_PROCESS),
        ("SCMP_ACT_TRAP", bpf.TRAP),
        ("SCMP_ACT_ERRNO", EPERM),
        ("SCMP_ACT_TRACE", bpf.TRACE | errno.EPERM),
        ("SCMP_ACT_ALLOW", bpf.ALLOW),
        ("SCMP_ACT_LOG", bpf.LOG),
        ("SCMP_ACT_NOTIFY", bpf.NOTIFY),
    ],
)
def test_each_action_as_rule_and_as_default(action: str, answer: int) -> None:
    other = "SCMP_ACT_ALLOW" if action != "SCMP_ACT_ALLOW" else "SCMP_ACT_ERRNO"
    made = program(call("mkdir", action=action), default=other)
    assert bpf.run(made, MKDIR) == answer
    assert bpf.run(made, READ) != answer
    if action != "SCMP_ACT_NOTIFY":
        made = program(call("mkdir", action=other), default=action)
        assert bpf.run(made, READ) == answer
        assert bpf.run(made, MKDIR) != answer


@x86_64
def test_errno_of_a_rule_and_of_the_default() -> None:
    made = program(
        call("mkdir", action="SCMP_ACT_ERRNO", errnoRet=100),
        call("write", action="SCMP_ACT_TRACE", errnoRet=0xFFFF),
        call("socket", action="SCMP_ACT_ERRNO", errnoRet=0),
        defaultErrnoRet=6,
    )
    assert bpf.run(made, MKDIR) == bpf.ERRNO | 100
    assert bpf.run(made, WRITE) == bpf.TRACE | 0xFFFF
    assert bpf.run(made, SOCKET) == bpf.ERRNO
    assert bpf.run(made, READ) == bpf.ERRNO | 6


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        (profile(default="SCMP_ACT_KILL", defaultErrnoRet=1), "/linux/seccomp/defaultErrnoRet"),
        (profile(defaultErrnoRet=0x10000), "/linux/seccomp/defaultErrnoRet"),
        (profile(default="SCMP_ACT_SHOUT"), "/linux/seccomp/defaultAction"),
        (profile(default="SCMP_ACT_NOTIFY"), "/linux/seccomp/defaultAction"),
        (profile(call("read"), call("write", errnoRet=1)), "/linux/seccomp/syscalls/1/errnoRet"),
        (profile(call("read", action="ALLOW")), "/linux/seccomp/syscalls/0/action"),
        (
            profile(call("read", args=[argument(0, "EQ", 1), argument(6, "EQ", 1)])),
            "/linux/seccomp/syscalls/0/args/1/index",
        ),
        (profile(call("read", args=[argument(0, "IS", 1)])), "/linux/seccomp/syscalls/0/args/0/op"),
        (profile(call("read", args=[argument(0, "EQ", 1 << 64)])), "/linux/seccomp/syscalls/0/args/0/value"),
        (
            profile(call("read", args=[argument(0, "MASKED_EQ", 1, -1)])),
            "/linux/seccomp/syscalls/0/args/0/valueTwo",
        ),
        (profile(architectures=["SCMP_ARCH_X86", "SCMP_ARCH_PDP11"]), "/linux/seccomp/architectures/1"),
        (profile(architectures=["x86"]), "/linux/seccomp/architectures/0"),
        (profile(architectures=["SCMP_ARCH_x86"]), "/linux/seccomp/architectures/0"),
        (profile(flags=["SECCOMP_FILTER_FLAG_LOG", "LOUD"]), "/linux/seccomp/flags/1"),
        (profile(flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), "/linux/seccomp/flags/0"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(wrong: dict[str, Any], pointer: str) -> None:
    assert refused(wrong).pointer == pointer


@pytest.mark.skipif(sys.byteorder != "little", reason="s390x is of the other byte order only there")
def test_an_architecture_of_the_other_byte_order_is_refused() -> None:
    error = refused(profile(architectures=["SCMP_ARCH_S390X"]))
    assert error.pointer == "/linux/seccomp/architectures/0"
    assert "byte order" in error.reason


BIG = 1 << 40


@x86_64
@pytest.mark.parametrize(
    ("op", "value", "two", "yes", "no"),
    [
        ("EQ", 5, None, [5], [4, 6, 5 + BIG]),
        ("EQ", 5 + BIG, None, [5 + BIG], [5, BIG]),
        ("NE", 5, None, [4, 6, 5 + BIG], [5]),
        ("LT", 5, None, [0, 4], [5, 6, 1 + BIG]),
        ("LE", 5, None, [0, 5], [6, 1 + BIG]),
        ("GT", 5, None, [6, 1 + BIG], [0, 5]),
        ("GE", 5 + BIG, None, [5 + BIG, 2 * BIG, (1 << 64) - 1], [0, 6, 4 + BIG]),
        ("MASKED_EQ", 0xF0, 0x30, [0x30, 0x3F, 0x1030, 0x30 + BIG], [0, 0x20, 0xF0]),
        ("MASKED_EQ", 0xF0, None, [0, 0xF, BIG], [0x10, 0xF0]),
        ("MASKED_EQ", BIG | 1, BIG, [BIG, BIG | 2], [BIG | 1, 0, 1]),
    ],
)
def test_each_operator(op: str, value: int, two: int | None, yes: list[int], no: list[int]) -> None:
    for index in range(6):
        made = program(call("socket", args=[argument(index, op, value, two)]))
        before = [7] * index
        assert [bpf.run(made, SOCKET, *before, v) for v in yes] == [bpf.ALLOW] * len(yes)
        assert [bpf.run(made, SOCKET, *before, v) for v in no] == [EPERM] * len(no)
        assert bpf.run(made, SOCKET - 1, *before, yes[0]) == EPERM


@x86_64
def test_conditions_on_different_arguments_must_all_hold() -> None:
    made = program(call("socket", args=[argument(0, "EQ", 1), argument(1, "GT", 2)]))
    assert bpf.run(made, SOCKET, 1, 3) == bpf.ALLOW
    assert bpf.run(made, SOCKET, 1, 2) == EPERM
    assert bpf.run(made, SOCKET, 0, 3) == EPERM


@x86_64
def test_of_conditions_on_one_argument_any_is_enough() -> None:
    made = program(call("socket", args=[argument(0, "EQ", 1), argument(0, "EQ", 9), argument(2, "EQ", 4)]))
    assert bpf.run(made, SOCKET, 1, 0, 0) == bpf.ALLOW
    assert bpf.run(made, SOCKET, 9, 0, 0) == bpf.ALLOW
    assert bpf.run(made, SOCKET, 5, 0, 4) == bpf.ALLOW
    assert bpf.run(made, SOCKET, 5, 0, 0) == EPERM


@x86_64
def test_several_rules_for_one_call_add_up() -> None:
    made = program(
        call("personality", args=[argument(0, "EQ", 0)]),
        call("personality", args=[argument(0, "EQ", 8)]),
        call("personality", action="SCMP_ACT_ERRNO", errnoRet=22, args=[argument(0, "EQ", 9)]),
    )
    assert [bpf.run(made, PERSONALITY, v) for v in (0, 8, 9, 1)] == [
        bpf.ALLOW,
        bpf.ALLOW,
        bpf.ERRNO | 22,
        EPERM,
    ]


@x86_64
@pytest.mark.parametrize("name", ["no_such_call", "", "write\0x", "wr\udce9te", "é", "-1", "WRITE"])
def test_unknown_calls_are_passed_over(name: str) -> None:
    made = program(call(name, "read"))
    assert bpf.run(made, READ) == bpf.ALLOW
    assert bpf.run(made, WRITE) in (EPERM, ENOSYS)


@x86_64
def test_rules_that_say_what_the_default_says_are_passed_over() -> None:
    made = program(
        call("read", action="SCMP_ACT_ERRNO", errnoRet=1),
        call("write", action="SCMP_ACT_ALLOW"),
    )
    assert bpf.run(made, READ) == EPERM
    assert bpf.run(made, WRITE) == bpf.ALLOW
    same = program(call("read", action="SCMP_ACT_KILL"), default="SCMP_ACT_KILL_THREAD")
    assert bpf.run(same, READ) == bpf.KILL_THREAD


@x86_64
def test_no_syscalls_at_all() -> None:
    assert bpf.run(seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW"}).program, READ) == bpf.ALLOW
    assert bpf.run(seccomp.compile({"defaultAction": "SCMP_ACT_ERRNO"}).program, LAST) == EPERM


@x86_64
def test_many_names_that_all_say_what_the_default_says() -> None:
    names = [str(path) for path in range(40)] + ["read", "write", "mkdir"] * 20
    made = program(call(*names, action="SCMP_ACT_ERRNO"))
    assert bpf.run(made, READ) == EPERM


@x86_64
def test_architectures() -> None:
    made = program(call("mkdir", "read"))
    assert bpf.run(made, MKDIR) == bpf.ALLOW
    assert bpf.run(made, 39, arch=bpf.AUDIT_ARCH_I386) == bpf.KILL_THREAD
    assert bpf.run(made, MKDIR | bpf.X32) == bpf.KILL_THREAD

    made = program(call("mkdir", "read"), architectures=["SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    assert bpf.run(made, MKDIR) == bpf.ALLOW  # the native one, named or not
    assert bpf.run(made, 39, arch=bpf.AUDIT_ARCH_I386) == bpf.ALLOW
    assert bpf.run(made, 38, arch=bpf.AUDIT_ARCH_I386) == EPERM
    assert bpf.run(made, MKDIR | bpf.X32) == bpf.ALLOW
    assert bpf.run(made, (MKDIR - 1) | bpf.X32) == EPERM
    assert bpf.run(made, MKDIR, arch=bpf.AUDIT_ARCH_AARCH64) == bpf.KILL_THREAD

    twice = program(call("read"), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"])
    assert bpf.run(twice, READ) == bpf.ALLOW
    assert bpf.run(twice, 63, arch=bpf.AUDIT_ARCH_AARCH64) == bpf.ALLOW


# ENOSYS for calls younger than the profile.


@x86_64
@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_TRAP", "SCMP_ACT_KILL_PROCESS"])
def test_calls_younger_than_the_profile_do_not_exist(default: str) -> None:
    made = program(
        call("mkdir"),  # 83, on i386 39
        call("openat2", action="SCMP_ACT_LOG"),  # 437 on all
        default=default,
        architectures=["SCMP_ARCH_X86"],
    )
    for arch in (bpf.AUDIT_ARCH_X86_64, bpf.AUDIT_ARCH_I386):
        assert bpf.run(made, 437, arch=arch) == bpf.LOG
        assert bpf.run(made, 438, arch=arch) == ENOSYS
        assert bpf.run(made, 4000, arch=arch) == ENOSYS
        assert bpf.run(made, 436, arch=arch) not in (ENOSYS, bpf.ALLOW, bpf.LOG)
    # of architectures that are not in the filter it says nothing
    assert bpf.run(made, 438 | bpf.X32) == bpf.KILL_THREAD
    assert bpf.run(made, 438, arch=bpf.AUDIT_ARCH_AARCH64) == bpf.KILL_THREAD


@x86_64
def test_x32_has_a_limit_of_its_own() -> None:
    made = program(call("mkdir", "preadv"), architectures=["SCMP_ARCH_X32"])  # preadv: 295, on x32 534
    assert bpf.run(made, 295) == bpf.ALLOW
    assert bpf.run(made, 296) == ENOSYS
    assert bpf.run(made, 534 | bpf.X32) == bpf.ALLOW
    assert bpf.run(made, 300 | bpf.X32) == EPERM
    assert bpf.run(made, 535 | bpf.X32) == ENOSYS


@x86_64
@pytest.mark.parametrize(
    ("default", "number", "answer"),
    [
        ("SCMP_ACT_ALLOW", None, bpf.ALLOW),
        ("SCMP_ACT_LOG", None, bpf.LOG),
        ("SCMP_ACT_TRACE", None, bpf.TRACE | 1),
        ("SCMP_ACT_ERRNO", errno.ENOSYS, ENOSYS),
    ],
)
def test_where_the_default_lets_through_nothing_is_added(default: str, number: int | None, answer: int) -> None:
    wanted = profile(call("mkdir", action="SCMP_ACT_TRAP"), default=default)
    if number:
        wanted["defaultErrnoRet"] = number
    made = seccomp.compile(wanted).program
    assert bpf.run(made, MKDIR) == bpf.TRAP
    assert bpf.run(made, 4000) == answer
    assert ENOSYS not in [k for code, _, _, k in struct.iter_unpack("=HBBI", made) if code == 6] or number


def test_the_stub_for_s390x() -> None:
    stub = seccomp._enosys_stub(libseccomp, {libseccomp.SCMP_ARCH_S390X: 437, libseccomp.SCMP_ARCH_S390: 436})
    whole = stub + struct.pack("=HBBI", 6, 0, 0, bpf.TRAP)
    for arch, last in ((libseccomp.SCMP_ARCH_S390X, 437), (libseccomp.SCMP_ARCH_S390, 436)):
        assert bpf.run(whole, 0, arch=arch) == ENOSYS  # setup(2), which unknown numbers become
        assert bpf.run(whole, 1, arch=arch) == bpf.TRAP
        assert bpf.run(whole, last, arch=arch) == bpf.TRAP
        assert bpf.run(whole, last + 1, arch=arch) == ENOSYS
    assert bpf.run(whole, 4000) == bpf.TRAP


# Flags.


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        ([], 0),
        (None, 4),
        (["SECCOMP_FILTER_FLAG_TSYNC"], 0),
        (["SECCOMP_FILTER_FLAG_LOG"], 2),
        (["SECCOMP_FILTER_FLAG_SPEC_ALLOW"], 4),
        (["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"], 6),
    ],
)
def test_flags(flags: list[str] | None, value: int) -> None:
    wanted = profile(call("read"))
    if flags is not None:
        wanted["flags"] = flags
    made = seccomp.compile(wanted)
    assert (made.flags, made.notify) == (value, False)


def test_a_listener_is_asked_for() -> None:
    made = seccomp.compile(profile(call("mkdir", action="SCMP_ACT_NOTIFY"), flags=[]))
    assert (made.flags, made.notify) == (8, True)
    flags = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    made = seccomp.compile(profile(call("mkdir", action="SCMP_ACT_NOTIFY"), flags=flags))
    assert made.flags == 8 | 32


def test_a_flag_that_the_kernel_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrunc.linux.seccomp.flag_supported", lambda flag: False)
    assert refused(profile(flags=["SECCOMP_FILTER_FLAG_LOG"])).pointer == "/linux/seccomp/flags/0"
    assert seccomp.compile(profile(call("read"))).flags == 0


# Size and whole profiles.


def test_a_filter_that_the_kernel_would_refuse_for_its_size() -> None:
    calls = [call("socket", args=[argument(0, "EQ", n * BIG + n)]) for n in range(1500)]
    error = refused(profile(*calls))
    assert error.pointer == "/linux/seccomp"
    assert "4096" in error.reason


@x86_64
def test_a_long_profile_costs_a_call_little() -> None:
    numbers = range(330)
    names = [name.decode() for n in numbers if (name := NAME_OF(libseccomp.SCMP_ARCH_X86_64, n)) is not None]
    assert len(names) > 300
    made = program(call(*names))
    steps = {n: bpf.trace(made, n)[1] for n in numbers}
    assert max(steps.values()) < 40  # a list of comparisons would take 300


ENGINES_PROFILE = Path("/usr/share/containers/seccomp.json")


def engines_profile() -> dict[str, Any]:
    """The one that podman takes (containers-common), as it becomes on x86-64 without capabilities."""
    source = json.loads(ENGINES_PROFILE.read_text())
    calls = []
    for entry in source["syscalls"]:
        includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
        there = "amd64" in includes.get("arches", ["amd64"]) and not includes.get("caps")
        if there and "amd64" not in excludes.get("arches", []):
            calls.append({key: entry[key] for key in ("names", "action", "errnoRet", "args") if entry.get(key)})
    return {
        "defaultAction": source["defaultAction"],
        "defaultErrnoRet": source["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": calls,
    }


DOCKER_LIKE_NAMES = """
    access arch_prctl bind brk capget capset chdir chmod chown clock_gettime close connect dup dup2 dup3
    epoll_create1 epoll_ctl epoll_pwait execve execveat exit exit_group faccessat fchdir fchmod fchown
    fcntl fork fstat fsync futex getcwd getdents64 getegid geteuid getgid getpgrp getpid getppid
    getrandom getrlimit getsockname getsockopt gettid getuid ioctl kill listen lseek lstat madvise
    memfd_create mkdir mmap mprotect mremap munmap nanosleep newfstatat open openat openat2 pipe pipe2
    poll prctl pread64 prlimit64 pwrite64 read readlink recvfrom recvmsg rename rmdir rseq rt_sigaction
    rt_sigprocmask rt_sigreturn sched_yield select sendmsg sendto set_robust_list set_tid_address setgid
    setgroups setpgid setsid setuid sigaltstack statfs statx symlink tgkill time_of_no_kernel umask uname
    unlink utimensat vfork wait4 waitid write writev
"""
DOCKER_LIKE = profile(
    call(*DOCKER_LIKE_NAMES.split()),
    call("personality", args=[argument(0, "EQ", 0)]),
    call("personality", args=[argument(0, "EQ", 8)]),
    call("clone", args=[argument(0, "MASKED_EQ", 0x7E020000, 0)]),
    call("clone3", action="SCMP_ACT_ERRNO", errnoRet=38),
    call("socket", args=[argument(0, "NE", 40)]),
    defaultErrnoRet=1,
    architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
)


def by_the_book(wanted: dict[str, Any], name: str, *arguments: int) -> int:
    """What the specification says a profile answers, found without libseccomp; the first rule that fits."""
    values = (*arguments, 0, 0, 0, 0, 0, 0)
    compare = {
        "SCMP_CMP_EQ": lambda v, a, b: v == a,
        "SCMP_CMP_NE": lambda v, a, b: v != a,
        "SCMP_CMP_GE": lambda v, a, b: v >= a,
        "SCMP_CMP_GT": lambda v, a, b: v > a,
        "SCMP_CMP_LE": lambda v, a, b: v <= a,
        "SCMP_CMP_LT": lambda v, a, b: v < a,
        "SCMP_CMP_MASKED_EQ": lambda v, a, b: v & a == b,
    }
    for entry in wanted["syscalls"]:
        holds = [
            compare[arg["op"]](values[arg["index"]], arg["value"], arg.get("valueTwo", 0))
            for arg in entry.get("args", [])
        ]
        if name in entry["names"] and all(holds):
            number = entry.get("errnoRet", 1) if entry["action"] == "SCMP_ACT_ERRNO" else 0
            return seccomp.ACTIONS[entry["action"]] | int(number)
    return bpf.ERRNO | int(wanted.get("defaultErrnoRet", 1))


@x86_64
@pytest.mark.parametrize("which", ["docker-like", "containers-common"])
def test_a_whole_profile_call_by_call(which: str) -> None:
    if which == "containers-common" and not ENGINES_PROFILE.exists():
        pytest.skip(f"{ENGINES_PROFILE} (golang-github-containers-common) is not installed")
    wanted = DOCKER_LIKE if which == "docker-like" else engines_profile()
    made = seccomp.compile(wanted).program
    names = sorted({name for entry in wanted["syscalls"] for name in entry["names"]} | {"mount", "reboot", "bpf"})
    tried = 0
    for token, arch in (
        (libseccomp.SCMP_ARCH_X86_64, bpf.AUDIT_ARCH_X86_64),
        (libseccomp.SCMP_ARCH_X32, bpf.AUDIT_ARCH_X86_64),
        (bpf.AUDIT_ARCH_I386, bpf.AUDIT_ARCH_I386),
    ):
        for name in names:
            number = libseccomp.syscall_resolve_name_arch(token, name)
            if number < 0:
                continue
            for arguments in ((0,), (8,), (40,), (0x10000000,), (0xFFFFFFFF, 1, 2)):
                tried += 1
                found = bpf.run(made, number, *arguments, arch=arch)
                assert found == by_the_book(wanted, name, *arguments), (name, hex(token), arguments)
        younger = 5000 | (bpf.X32 if token == libseccomp.SCMP_ARCH_X32 else 0)
        assert bpf.run(made, younger, arch=arch) == ENOSYS
    assert tried > 1000


# libseccomp itself.


def test_features() -> None:
    found = seccomp.features()
    assert found["enabled"] is True
    assert found["actions"] == sorted(seccomp.ACTIONS)
    assert found["operators"] == sorted(seccomp.OPERATORS)
    assert {"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64", "SCMP_ARCH_X32"} <= set(found["archs"])
    assert set(found["supportedFlags"]) <= set(found["knownFlags"])
    for arch in found["archs"]:
        try:
            seccomp.compile(profile(call("read"), architectures=[arch]))
        except Error as e:
            assert "byte order" in e.reason
    for flag in found["supportedFlags"]:
        seccomp.compile(profile(call("read"), flags=[flag]))


def test_the_version() -> None:
    version = seccomp.libseccomp_version()
    assert version is not None
    assert tuple(int(part) for part in version.split(".")) >= (2, 5, 0)
    real = os.path.basename(os.path.realpath(libseccomp.path()))
    assert real == f"libseccomp.so.{version}"


def test_without_libseccomp_the_error_names_the_package() -> None:
    script = """
import ctypes, sys
real = ctypes.CDLL
def missing(name, *rest, **more):
    if name and "seccomp" in name:
        raise OSError(name + ": cannot open shared object file: No such file or directory")
    return real(name, *rest, **more)
ctypes.CDLL = missing
from pyrunc import seccomp
from pyrunc.errors import Error
assert seccomp.features() == {"enabled": False}
assert seccomp.libseccomp_version() is None
try:
    seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW"})
except Error as e:
    print(e)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.startswith("/linux/seccomp: ")
    assert "libseccomp2" in done.stdout
    assert "no such file" not in done.stdout.lower()  # podman would take it for a missing command


def test_a_libseccomp_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libseccomp, "version", lambda: (2, 4, 4))
    assert "2.4.4 is too old" in refused(profile(call("read"))).reason


ROOT = str(Path(__file__).resolve().parents[2])
