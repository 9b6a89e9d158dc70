"""conformance.bats: what is made of bats's output."""

from __future__ import annotations

import pathlib

import pytest

from conformance import bats
from conformance.table import behind

TAP = """\
1..4\r
ok 1 runc exec\r
some background process's line
not ok 2 runc run # twice
# (from function `check' in file helpers.bash, line 9,
#  in test file cgroups.bats, line 300)
#   `[ "$status" -eq 0 ]' failed
# runc spec (status=0)
ok 3 runc run (blkio weight) # skip test requires cgroups_v2
"""


def test_outcomes() -> None:
    found = bats.outcomes(TAP + "ok 4 last\n")
    assert [(name, o["outcome"], o["reason"]) for name, o in found.items()] == [
        ("runc exec", "passed", ""),
        ("runc run # twice", "failed", '[ "$status" -eq 0 ]'),
        ("runc run (blkio weight)", "not applicable", "test requires cgroups_v2"),
        ("last", "passed", ""),
    ]
    assert found["runc run # twice"]["log"].endswith("runc spec (status=0)\n")


def test_a_run_that_ends_early_has_failed() -> None:
    assert bats.outcomes(TAP)["(the rest)"] == {"outcome": "failed", "reason": "1 of 4 tests have not run"}


def test_no_plan() -> None:
    with pytest.raises(ValueError, match="no plan"):
        bats.outcomes("bats: command not found\n")


@pytest.mark.parametrize(("seconds", "passes"), [("0", True), ("60", False)])
def test_run(tmp_path: pathlib.Path, seconds: str, passes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests have a terminal on stdin, and the run ends when its time is over."""
    program = tmp_path / "bats"
    program.write_text(f'#!/bin/sh\necho 1..1\nsleep {seconds}\ntest -t 0 && echo "ok 1 $RUNC"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    log = tmp_path / "log"
    bats.run(tmp_path / "x.bats", {"RUNC": "any", "PATH": f"{tmp_path}:/usr/bin:/bin"}, log, 20.0 if passes else 0.5)
    assert ("any" in bats.outcomes(log.read_text())) is passes


def test_tables() -> None:
    results = [
        {"runtime": {"name": "one"}, "tests": bats_tests("failed", "not applicable")},
        {"runtime": {"name": "two"}, "tests": bats_tests("passed", "not applicable")},
    ]
    assert bats.summary(results)[-1].split() == ["all", "0/1/1", "1/0/1"]
    assert [line.split()[:1] for line in bats.differences(results)] == [["test"], ["x.bats::a"]]
    assert behind(results) == ["x.bats::a"]


def bats_tests(*outcomes: str) -> dict[str, bats.Outcome]:
    return {f"x.bats::{name}": {"outcome": o, "reason": ""} for name, o in zip("ab", outcomes, strict=True)}


def test_directories_that_are_no_hierarchies(tmp_path: pathlib.Path) -> None:
    (tmp_path / "hugetlb" / "below").mkdir(parents=True)
    (tmp_path / "cpu").symlink_to("hugetlb")
    (tmp_path / "file").touch()
    assert bats.directories(tmp_path) == {tmp_path / "hugetlb"}
    (tmp_path / "cgroup.procs").touch()
    assert bats.directories(tmp_path) == set()
