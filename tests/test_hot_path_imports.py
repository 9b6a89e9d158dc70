"""The hot path loads nothing slow: what a command imports beyond the bare interpreter is on a list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]

#: What any command may load from the standard library; each is a C module or costs next to nothing.
ALLOWED = {
    "__future__",
    "_abc",
    "_collections_abc",
    "_json",
    "_posixsubprocess",
    "_signal",
    "_socket",
    "_stat",
    "_struct",
    "abc",
    "array",
    "errno",
    "fcntl",
    "gc",
    "genericpath",
    "os",
    "os.path",
    "posix",
    "posixpath",
    "pwd",
    "select",
    "stat",
    "struct",
    "time",
}


def _loaded(*argv: str) -> set[str]:
    """The modules outside pyrunc that a run of the program loads."""
    mark = "--- modules ---"
    program = (
        f"import sys; bare = set(sys.modules); sys.path.insert(0, {str(TOP)!r})\n"
        "import pyrunc.__main__\n"
        "from pyrunc.cli.program import run\n"
        f"run({list(argv)!r})\n"
        f"print({mark!r}, *(set(sys.modules) - bare))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "internal error" not in done.stderr
    names = done.stdout.partition(mark)[2].split()
    assert "pyrunc.cli.program" in names
    return {name for name in names if name.split(".")[0] != "pyrunc"}


@pytest.mark.parametrize("command", ["state", "start", "kill", "delete"])
def test_commands_on_an_existing_container(command: str, tmp_path: Path) -> None:
    assert _loaded("--root", str(tmp_path), "--log", str(tmp_path / "log"), command, "none") <= ALLOWED


def test_wrong_use(tmp_path: Path) -> None:
    assert _loaded("--log", str(tmp_path / "log"), "create", "--bogus") <= ALLOWED
