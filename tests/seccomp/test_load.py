"""seccomp(2) on the real kernel: a child loads a filter and makes the calls that it is about."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrunc import seccomp
from pyrunc.linux import seccomp as kernel
from pyrunc.linux.libc import libc

from . import bpf
from .test_compile import DOCKER_LIKE, ENGINES_PROFILE, argument, call, engines_profile, profile

ROOT = str(Path(__file__).resolve().parents[2])
PR_SET_NO_NEW_PRIVS = 38
x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64's system calls")


def in_child(made: seccomp.Filter, act: Callable[[int], Any]) -> tuple[int, Any]:
    """Fork, load, act: the child's wait status and what `act` (given the listener) returned."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            result = act(kernel.load_filter(made.program, made.flags))
            os.write(writing, json.dumps(result).encode())
        except BaseException as e:  # noqa: BLE001
            os.write(writing, json.dumps(repr(e)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    return os.waitpid(pid, 0)[1], json.loads(said) if said else None


def raw(number: int, *arguments: int) -> int:
    """A system call's negative errno, or 0."""
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments))
    return -ctypes.get_errno()


def mkdir(listener: int) -> int:
    try:
        os.mkdir("/proc/no-such-directory")
    except OSError as e:
        return e.errno or 0
    return 0


WITHOUT = mkdir(-1)


def test_without_a_filter_the_call_fails_otherwise() -> None:
    assert WITHOUT == errno.ENOENT


@pytest.mark.parametrize(
    ("action", "number", "outcome"),
    [
        ("SCMP_ACT_ERRNO", None, errno.EPERM),
        ("SCMP_ACT_ERRNO", 100, 100),
        ("SCMP_ACT_TRACE", None, errno.ENOSYS),  # there is no tracer
        ("SCMP_ACT_LOG", None, WITHOUT),
        ("SCMP_ACT_ALLOW", None, WITHOUT),
    ],
)
def test_what_the_call_gives(action: str, number: int | None, outcome: int) -> None:
    rule = call("mkdir", "mkdirat", action=action)
    if number is not None:
        rule["errnoRet"] = number
    made = seccomp.compile(profile(rule, default="SCMP_ACT_ALLOW"))
    assert in_child(made, mkdir) == (0, outcome)


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
def test_what_kills(action: str) -> None:
    made = seccomp.compile(profile(call("mkdir", "mkdirat", action=action), default="SCMP_ACT_ALLOW"))
    status, said = in_child(made, mkdir)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGSYS
    assert said is None


def test_arguments_decide() -> None:
    made = seccomp.compile(
        profile(
            call("dup2", "dup3", action="SCMP_ACT_ERRNO", errnoRet=77, args=[argument(1, "GE", 100)]),
            default="SCMP_ACT_ALLOW",
        )
    )

    def act(listener: int) -> list[int]:
        os.dup2(0, 50)
        try:
            os.dup2(0, 100)
        except OSError as e:
            return [50, e.errno or 0]
        return [50, 100]

    assert in_child(made, act) == (0, [50, 77])


@x86_64
def test_a_call_younger_than_the_profile_does_not_exist() -> None:
    # From mmap on everything that Python needs is named; 462 is younger than any name in it.
    made = seccomp.compile(DOCKER_LIKE)
    assert in_child(made, lambda listener: [raw(462), raw(165), raw(39)]) == (
        0,
        [-errno.ENOSYS, -errno.EPERM, 0],
    )


@pytest.mark.parametrize(
    ("flags", "value"),
    [([], 0), (None, 4), (["SECCOMP_FILTER_FLAG_LOG"], 2), (["SECCOMP_FILTER_FLAG_TSYNC"], 0)],
)
def test_the_kernel_takes_the_flags(flags: list[str] | None, value: int) -> None:
    wanted = profile(call("mkdir", "mkdirat", action="SCMP_ACT_ERRNO"), default="SCMP_ACT_ALLOW")
    if flags is not None:
        wanted["flags"] = flags
    made = seccomp.compile(wanted)
    assert made.flags == value

    def act(listener: int) -> list[Any]:
        with open("/proc/self/status") as status:
            lines = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        return [mkdir(listener), listener, lines["Seccomp"], lines["Seccomp_filters"]]

    assert in_child(made, act) == (0, [errno.EPERM, -1, "2", "1"])


@pytest.mark.parametrize("flags", [[], ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]])
def test_a_listener_comes_back_close_on_exec(flags: list[str]) -> None:
    wanted = profile(call("mkdir", "mkdirat", action="SCMP_ACT_NOTIFY"), default="SCMP_ACT_ALLOW", flags=flags)
    made = seccomp.compile(wanted)

    def act(listener: int) -> list[Any]:
        return [os.readlink(f"/proc/self/fd/{listener}"), os.get_inheritable(listener)]

    assert in_child(made, act) == (0, ["anon_inode:seccomp notify", False])


@x86_64
@pytest.mark.parametrize("which", ["docker-like", "containers-common"])
def test_a_program_runs_under_a_whole_profile(which: str) -> None:
    if which == "containers-common" and not ENGINES_PROFILE.exists():
        pytest.skip(f"{ENGINES_PROFILE} is not installed")
    made = seccomp.compile(DOCKER_LIKE if which == "docker-like" else engines_profile())

    def act(listener: int) -> None:
        os.execv("/bin/sh", ["sh", "-c", "cat /proc/self/status >/dev/null && exit 42"])

    status, _ = in_child(made, act)
    assert os.waitstatus_to_exitcode(status) == 42


def test_a_filter_that_is_none_is_refused() -> None:
    status, said = in_child(seccomp.Filter(b"\0" * 16, 0, False), lambda listener: "loaded")
    assert (status, said) == (0, repr(OSError(errno.EINVAL, os.strerror(errno.EINVAL))))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root")
def test_without_no_new_privs_it_takes_root() -> None:
    script = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
from pyrunc import seccomp
from pyrunc.linux import seccomp as kernel
made = seccomp.compile({{"defaultAction": "SCMP_ACT_ALLOW"}})
if sys.argv[1] == "user":
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    print(kernel.load_filter(made.program, made.flags))
except OSError as e:
    print(e.errno)
"""
    for who, said in (("root", "-1"), ("user", str(errno.EACCES))):
        done = subprocess.run([sys.executable, "-c", script, who], capture_output=True, text=True)
        assert (done.stdout.strip(), done.stderr) == (said, "")


def test_flags_that_no_kernel_has_are_not_supported() -> None:
    assert kernel.flag_supported(kernel.SECCOMP_FILTER_FLAG_LOG)
    assert not kernel.flag_supported(1 << 30)


@x86_64
def test_the_interpreter_of_these_tests_agrees_with_the_kernel() -> None:
    """What tests/seccomp/bpf.py reads out of a program is what the kernel reads out of it."""
    made = seccomp.compile(
        profile(
            *(
                call("lseek", action="SCMP_ACT_ERRNO", errnoRet=n + 200, args=[argument(1, op, value, two)])
                for n, (op, value, two) in enumerate(
                    [("EQ", 7, None), ("GT", 1 << 33, None), ("MASKED_EQ", 0xF0, 0x50), ("LT", 3, None)]
                )
            ),
            default="SCMP_ACT_ALLOW",
        )
    )
    offsets = [0, 2, 3, 7, 0x50, 0x5F, 0x150, 0xF0, (1 << 33) - 1, 1 << 33, (1 << 33) + 1, (1 << 62) + 5]
    status, said = in_child(made, lambda listener: [raw(8, 999, offset) for offset in offsets])
    expected = [bpf.run(made.program, 8, 999, offset) for offset in offsets]
    assert status == 0
    assert said == [-(answer & 0xFFFF) if answer != bpf.ALLOW else -errno.EBADF for answer in expected]
    assert len(set(said)) >= 4
