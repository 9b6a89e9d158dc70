"""pyrunc.seal: whose file can't be written to, and the program that executes itself anew from such a one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pyrunc import seal
from pyrunc.errors import Error

TOP = Path(__file__).resolve().parents[1]

#: A program that wants to be sealed, and tells how that went; it is as executable as what it was copied from.
PROGRAM = """
import os, sys
from pyrunc import seal
seal.ensure(lambda line: print(line, flush=True))
assert seal.is_sealed(os.open("/proc/self/exe", os.O_RDONLY))
assert "_PYRUNC_CLONE" not in os.environ
try:
    os.open("/proc/self/exe", os.O_WRONLY)
except OSError as e:
    print(e.errno)
print(sys.argv[1:], sys.flags.isolated, os.readlink("/proc/self/exe"))
"""


def run(*arguments: str, before: Sequence[str] = ()) -> list[str]:
    """The lines that the program prints, called by what comes `before` it."""
    argv = [*before, sys.executable, "-Ic", f"import sys; sys.path.insert(0, {str(TOP)!r})\n{PROGRAM}", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def is_sealed(path: str | Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return seal.is_sealed(fd)
    finally:
        os.close(fd)


def test_an_ordinary_file_is_not_sealed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_sealed(tmp_path / "file")


def test_a_file_in_memory() -> None:
    with open(sys.executable, "rb") as exe:
        fd = seal._memory(exe.fileno())
        try:
            assert seal.is_sealed(fd)
            assert os.fstat(fd).st_size == os.fstat(exe.fileno()).st_size
            with pytest.raises(PermissionError):
                os.pwrite(fd, b"x", 0)
        finally:
            os.close(fd)
    unsealed = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    assert not seal.is_sealed(unsealed)
    os.close(unsealed)


@pytest.mark.root
def test_an_immutable_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    if subprocess.run(["chattr", "+i", file], check=False).returncode:
        pytest.skip("a filesystem without immutable files")
    try:
        assert is_sealed(file)
    finally:
        subprocess.run(["chattr", "-i", file], check=True)


@pytest.mark.root
def test_a_read_only_mount(tmp_path: Path) -> None:
    """A container can't change a mount that is not in its mount namespace."""
    (tmp_path / "file").touch()
    script = f"mount --bind -o ro {tmp_path} {tmp_path} && exec {sys.executable} -c '{LOOK}' {tmp_path}/file"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=TOP, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


LOOK = "import os, sys; from pyrunc import seal; print(seal.is_sealed(os.open(sys.argv[1], os.O_RDONLY)))"


@pytest.mark.root
def test_the_clone_by_overlayfs() -> None:
    lines = run("a", "b c")
    assert lines[0] == "pyrunc exeseal: using overlayfs for sealed /proc/self/exe"
    assert lines[1] == "pyrunc exeseal: using /proc/self/exe clone"
    assert int(lines[2]) == errno.EROFS
    name = os.path.basename(os.path.realpath(sys.executable))
    assert lines[3] == f"['a', 'b c'] 1 /{name}"


def test_the_clone_in_memory() -> None:
    """Without the right to mount."""
    lines = run("a", before=["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else [])
    assert lines[0] == "pyrunc exeseal: no overlayfs for sealed /proc/self/exe: Operation not permitted"
    assert lines[1] == "pyrunc exeseal: using /proc/self/exe clone"
    assert int(lines[2]) in (errno.EPERM, errno.ETXTBSY)
    assert lines[3] == "['a'] 1 /memfd:pyrunc_cloned:/proc/self/exe (deleted)"


def test_a_clone_that_is_not_sealed_does_not_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PYRUNC_CLONE", "overlayfs")
    monkeypatch.setattr(seal, "is_sealed", lambda fd: False)
    with pytest.raises(Error, match="the interpreter's clone by overlayfs can be written to"):
        seal.ensure(print)
    assert "_PYRUNC_CLONE" not in os.environ


def test_no_clone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(seal, "is_sealed", lambda fd: False)
    monkeypatch.setattr(seal, "_overlay", no)
    monkeypatch.setattr(seal, "_memory", no)
    with pytest.raises(Error, match="clone /proc/self/exe: No space left on device"):
        seal.ensure(print)
