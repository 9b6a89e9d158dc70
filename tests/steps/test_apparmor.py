"""What the kernel answers to a change of profile, in words; and what is written where."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from pyrunc import steps
from pyrunc.errors import Error
from pyrunc.steps import apparmor
from pyrunc.steps.apparmor import ChangeProfile
from pyrunc.steps.context import Context


def change(name: str) -> str:
    """Run the step; the line of its error, "" if there is none."""
    try:
        steps.run([ChangeProfile(name)], Context("c", "/", {}))
    except Error as e:
        return str(e)
    return ""


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, bytes]]:
    """A kernel with AppArmor that takes everything; (path, flags, what was written) of each write."""
    found = []

    def open_proc(path: str, flags: int) -> int:
        reader, writer = os.pipe()

        def write(fd: int, data: bytes) -> int:
            assert fd == writer
            os.close(reader)
            found.append((path, flags, data))
            return min(len(data), 4096)

        monkeypatch.setattr(os, "write", write)
        return writer

    monkeypatch.setattr(apparmor, "open_proc", open_proc)
    return found


@pytest.mark.parametrize(
    "name", ["unconfined", "containers-default-0.62.2", "/usr/bin/p//child", ":ns:p", "with space"]
)
def test_one_write_of_the_whole_order(name: str, written: list[tuple[str, int, bytes]]) -> None:
    """aa_change_onexec(3) of libapparmor writes "exec NAME"; a file of /proc takes it in one write."""
    assert change(name) == ""
    assert written == [("thread-self/attr/apparmor/exec", os.O_WRONLY, b"exec " + name.encode())]


def test_a_name_longer_than_the_kernel_reads(written: list[tuple[str, int, bytes]]) -> None:
    """fs/proc/base.c, proc_pid_attr_write: no more than a page, and what it cuts off could be another's name."""
    assert change("a" * 5000).endswith(": the name of the profile is too long")


AT = "/process/apparmorProfile: change to the AppArmor profile strict on exec: "


@pytest.mark.parametrize(
    ("at_open", "at_write", "line"),
    [
        (errno.ENOENT, 0, f"{AT}AppArmor is not enabled in this kernel"),
        (0, errno.EINVAL, f"{AT}AppArmor is not enabled in this kernel"),
        (0, errno.ENOENT, f"{AT}no such profile is loaded"),
        (0, errno.EACCES, f"{AT}access refused (EACCES)"),
        (0, errno.EPERM, f"{AT}not allowed (EPERM)"),
    ],
)
def test_refusals(at_open: int, at_write: int, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_proc(path: str, flags: int) -> int:
        if at_open:
            raise OSError(at_open, os.strerror(at_open))
        return os.dup(0)

    def write(fd: int, data: bytes) -> Any:
        raise OSError(at_write, os.strerror(at_write))

    monkeypatch.setattr(apparmor, "open_proc", open_proc)
    monkeypatch.setattr(os, "write", write)
    assert change("strict") == line
