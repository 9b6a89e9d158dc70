"""Where the state of containers lies when --root does not say."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pyrunc.cli import program
from pyrunc.cli.log import Log
from pyrunc.cli.parse import Options, parse_global
from pyrunc.cli.program import Call, default_root
from pyrunc.errors import Error


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An ordinary user's environment."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return monkeypatch


def test_root_has_run_pyrunc_whatever_the_environment(user: pytest.MonkeyPatch) -> None:
    user.setattr(os, "geteuid", lambda: 0)
    user.setattr(program, "in_user_namespace", lambda: False)
    assert default_root() == "/run/pyrunc"


def test_a_user_has_a_private_directory_that_is_not_cleaned_up(user: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for _ in range(2):
        assert default_root() == f"{tmp_path}/pyrunc"
        assert stat.S_IMODE((tmp_path / "pyrunc").stat().st_mode) == 0o1700


def test_root_of_a_users_namespace_is_that_user(user: pytest.MonkeyPatch, tmp_path: Path) -> None:
    user.setattr(os, "geteuid", lambda: 0)
    user.setattr(program, "in_user_namespace", lambda: True)
    user.setenv("USER", "somebody")
    assert default_root() == f"{tmp_path}/pyrunc"
    # runc's rule: who calls himself root there has root's place
    user.setenv("USER", "root")
    assert default_root() == "/run/pyrunc"


def test_a_runtime_directory_that_cannot_be_used(user: pytest.MonkeyPatch) -> None:
    user.setenv("XDG_RUNTIME_DIR", "/proc")
    with pytest.raises(Error, match=r"make /proc/pyrunc \(set XDG_RUNTIME_DIR or --root\)"):
        default_root()


def _call(*argv: str) -> Call:
    return Call(parse_global([*argv, "list"])[0], Options(), [], Log())


def test_root_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert _call("--root", "a/../b/").root == f"{tmp_path}/b"
    assert _call("--root", "/x//y").root == "/x/y"
    monkeypatch.chdir("/")
    for root in ("/", "", ".", "../.."):
        with pytest.raises(Error, match="--root must not be /"):
            assert _call("--root", root).root


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], None),
        (["--rootless", "auto"], None),
        (["--rootless=true"], True),
        (["--rootless=TRUE"], True),
        (["--rootless=false"], False),
    ],
)
def test_rootless(argv: list[str], value: bool | None) -> None:
    assert _call(*argv).rootless is value


def test_rootless_is_one_of_three() -> None:
    with pytest.raises(Error, match="invalid --rootless value: maybe"):
        assert _call("--rootless=maybe").rootless
