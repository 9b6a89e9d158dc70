"""The hot path loads nothing slow: what a command imports beyond the bare interpreter is on a list."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
BUSYBOX = shutil.which("busybox")

#: What any command may load from the standard library; each is a C module or costs next to nothing.
ALLOWED = {
    "__future__",
    "_abc",
    "_collections_abc",
    "_json",
    "_signal",
    "_stat",
    "_struct",
    "abc",
    "errno",
    "fcntl",
    "gc",
    "genericpath",
    "os",
    "os.path",
    "posix",
    "posixpath",
    "select",
    "stat",
    "struct",
    "time",
}

#: What a command that makes a process may load besides.
ALLOWED_TO_MAKE_A_PROCESS = ALLOWED | {
    "_ctypes",
    "_posixsubprocess",
    "_prctl",
    "_socket",
    "array",
    "prctl",
    "types",
}


def _run(tmp_path: Path, *argv: str) -> tuple[int, str, set[str]]:
    """Run the program: its exit status, its log, and the modules outside pyrunc that it loaded.

    Nothing of it is a pipe: the container's process would keep that open.
    """
    log, loaded = tmp_path / "log", tmp_path / "modules"
    log.unlink(missing_ok=True)
    program = (
        f"import sys; bare = set(sys.modules); sys.path.insert(0, {str(TOP)!r})\n"
        "import pyrunc.__main__\n"
        "from pyrunc.cli.program import run\n"
        "status = run(sys.argv[1:])\n"
        f"open({str(loaded)!r}, 'w').write(' '.join(set(sys.modules) - bare))\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, "--log", str(log), "--root", str(tmp_path / "state"), *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    names = loaded.read_text().split()
    assert "pyrunc.cli.program" in names
    return done.returncode, log.read_text(), {name for name in names if name.split(".")[0] != "pyrunc"}


@pytest.mark.parametrize(
    "argv", [["state", "c"], ["start", "c"], ["kill", "c"], ["delete", "c"], ["create", "--bogus"]]
)
def test_a_command_that_fails(argv: list[str], tmp_path: Path) -> None:
    status, log, loaded = _run(tmp_path, *argv)
    assert status == 1
    assert "does not exist" in log or "not defined" in log
    assert loaded <= ALLOWED


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    """A bundle whose container sleeps; containers made from it go with the test."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    if BUSYBOX is None:
        pytest.skip("no busybox (Debian package busybox-static)")
    (tmp_path / "rootfs" / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, tmp_path / "rootfs/bin/busybox")
    assert _run(tmp_path, "spec", "-b", str(tmp_path))[0] == 0
    _configure(tmp_path, "sleep", "1000")
    yield tmp_path
    for container_id in ("c", "d"):
        assert _run(tmp_path, "delete", "--force", container_id)[0] == 0
    top = Path("/sys/fs/cgroup")
    parent = f"pyrunc-test-imports-{os.getpid()}"
    for cgroup in (*top.glob(parent), *top.glob(f"*/{parent}")):
        cgroup.rmdir()


def _configure(bundle: Path, *args: str) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/busybox", *args]}
    config["linux"]["cgroupsPath"] = f"/pyrunc-test-imports-{os.getpid()}/c"
    (bundle / "config.json").write_text(json.dumps(config))


@pytest.mark.root
def test_a_container_s_life(bundle: Path) -> None:
    for argv, allowed in (
        (["create", "--pid-file", f"{bundle}/pid", "--bundle", str(bundle), "c"], ALLOWED_TO_MAKE_A_PROCESS),
        (["state", "c"], ALLOWED),
        (["start", "c"], ALLOWED),
        (["state", "c"], ALLOWED),
        (["exec", "c", "/bin/busybox", "true"], ALLOWED_TO_MAKE_A_PROCESS),
        (["kill", "c", "0"], ALLOWED),
        (["kill", "c", "KILL"], ALLOWED),
        (["delete", "--force", "c"], ALLOWED),
    ):
        status, log, loaded = _run(bundle, *argv)
        assert status == 0, log
        assert loaded <= allowed, argv


@pytest.mark.root
def test_run(bundle: Path) -> None:
    _configure(bundle, "true")
    status, log, loaded = _run(bundle, "run", "--bundle", str(bundle), "d")
    assert status == 0, log
    assert loaded <= ALLOWED_TO_MAKE_A_PROCESS
