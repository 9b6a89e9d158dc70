"""conformance.runtime_tools: what is made of the programs' output."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time
from typing import Any

import pytest

from conformance import runtime_tools
from conformance.table import behind

TAP = """\
TAP version 13
ok 1 - has expected hostname
  ---
  {
    "stdout": "not ok 1 - of another stream"
  }
  ...
not ok 2 - mounts[0] (/proc) found in order
ok 3 # SKIP linux.sysctl not set
a runtime's line
"""


@pytest.mark.parametrize(
    ("tap", "status", "kind", "reason"),
    [
        (TAP + "1..3\n", 0, "failed", "mounts[0] (/proc) found in order"),
        (TAP.replace("\nnot ok", "\nok") + "1..3\n", 0, "passed", ""),
        (TAP.replace("\nnot ok", "\nok") + "1..3\n", 1, "failed", "status 1"),
        (TAP.replace("\nnot ok", "\nok"), 0, "failed", "3 results, no plan"),
        (TAP.replace("\nnot ok", "\nok") + "1..4\n", 0, "failed", "3 results, 4 planned"),
        ("1..2\nok 1 - a\nok 2 - b\nTAP version 13\n1..0\n", 0, "passed", ""),
        ("1..1\nok 1 - a\n1..1\n", 0, "failed", "1 results, 2 planned"),
        ("TAP version 13\n1..0\n", 0, "failed", "nothing was tested"),
        ("failed to create the container\n", 1, "failed", "status 1; nothing was tested"),
        ("ok 1 # SKIP not on this platform\n1..1\n", 0, "not applicable", ""),
    ],
)
def test_outcome(tap: str, status: int, kind: str, reason: str) -> None:
    found = runtime_tools.outcome(tap, status)
    assert (found["outcome"], found["reason"]) == (kind, reason)


def test_points() -> None:
    found = runtime_tools.outcome(TAP, 0)
    assert found["ok"] == ["has expected hostname", ""]
    assert found["not ok"] == ["mounts[0] (/proc) found in order"]


def results(*taps: str) -> list[dict[str, Any]]:
    return [
        {"runtime": {"name": f"runtime{i}"}, "tests": {"file": runtime_tools.outcome(tap, 0), "same": SAME}}
        for i, tap in enumerate(taps)
    ]


SAME = runtime_tools.outcome("ok 1 - a\n1..1\n", 0)


def test_tables() -> None:
    both = results("not ok 1 - a\nnot ok 2 - b\nnot ok 3 - b\n1..3\n", "ok 1 - a\nok 2 - b\nnot ok 3 - b\n1..3\n")
    assert [line.split() for line in runtime_tools.summary(both)] == [
        ["ok/not", "ok", "runtime0", "runtime1"],
        ["file", "0/3", "2/1"],
        ["same", "1/0", "clean", "1/0", "clean"],
        ["clean,", "of", "2", "1", "1"],
    ]
    lines = runtime_tools.differences(both)
    assert [line.split()[0] for line in lines] == ["test", "file", "runtime0:", "runtime1:"]
    assert lines[2].strip() == "runtime0: a; b"  # beyond what fails on both
    assert behind(both) == []
    assert behind(results("not ok 1 - a\n1..1\n", "ok 1 - a\n1..1\n")) == ["file"]
    assert runtime_tools.differences(results("ok 1 - a\n1..1\n", "ok 1 - b\n1..1\n")) == []


PROGRAM = """#!/bin/sh
echo "ok 1 - $(basename "$PWD")"
echo "ok 2 - $("$RUNTIME" state x)"
sleep {mark} &
{end}
echo 1..2
"""


@pytest.mark.root
@pytest.mark.parametrize("ends", [True, False])
def test_run(tmp_path: pathlib.Path, ends: bool) -> None:
    """A program runs in the suite, with RUNTIME; it and all it started end, in time or when time is over."""
    runtime = tmp_path / "runtime"
    runtime.write_text('#!/bin/sh\n[ "$3" = list ] || echo "$1 $3 $4"\n')
    file, log = tmp_path / "x.t", tmp_path / "log"
    mark = str(10**6 + os.getpid())
    file.write_text(PROGRAM.format(mark=mark, end="" if ends else "sleep 1000"))
    for program in (runtime, file):
        program.chmod(0o755)
    status = runtime_tools.run(file, tmp_path, str(runtime), log, 20.0 if ends else 1.0, "")
    found = runtime_tools.outcome(log.read_text(), status)
    assert found["ok"] == [tmp_path.name, "--root state x"]
    assert (status, found["outcome"]) == ((0, "passed") if ends else (124, "failed"))
    end = time.monotonic() + 10  # the kernel ends a PID namespace in its own time
    while subprocess.run(["pgrep", "-f", f"^sleep {mark}"], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        assert time.monotonic() < end
        time.sleep(0.01)


def suite(directory: pathlib.Path, program: str, runtimes: dict[str, str]) -> list[str]:
    """A suite of one file, x, and runtimes that are asked `check`; the options to name it."""
    file = directory / "validation" / "x" / "x.t"
    file.parent.mkdir(parents=True)
    file.write_text(f"#!/bin/sh\n{program}\necho 1..1\n")
    for name, check in runtimes.items():
        script = (
            f'#!/bin/sh\n[ "$1" != --version ] || exec echo {name} version 1\n[ "$3" != check ] || {{ {check}; }}\n'
        )
        (directory / name).write_text(script)
    (directory / "runtimetest").touch()
    for executable in (file, directory / "runtimetest", *(directory / name for name in runtimes)):
        executable.chmod(0o755)
    return ["--suite", str(directory), "--logs", str(directory / "logs"), "--runtime"]


CHECK = '"$RUNTIME" check && echo "ok 1 - a" || echo "not ok 1 - a"'


@pytest.mark.root
def test_main(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1 where the first runtime is behind."""
    options = suite(tmp_path, CHECK, {"good": "exit 0", "bad": "exit 1"})
    assert runtime_tools.main([*options, f"{tmp_path}/good,{tmp_path}/bad"]) == 0
    assert runtime_tools.main([*options, f"{tmp_path}/bad,{tmp_path}/good", "x.t"]) == 1
    assert "0/1" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no such program"):
        runtime_tools.main([*options, f"{tmp_path}/good", "y"])


@pytest.mark.root
@pytest.mark.parametrize(("attempts", "status"), [("1", 1), ("2", 1), ("3", 0)])
def test_attempts(tmp_path: pathlib.Path, attempts: str, status: int) -> None:
    """A file that is clean the third time."""
    count = tmp_path / "count"
    racing = f"echo >>{count}; [ $(wc -l <{count}) = 3 ]"
    options = suite(tmp_path, CHECK, {"good": "exit 0", "racing": racing})
    assert runtime_tools.main([*options, f"{tmp_path}/racing,{tmp_path}/good", "--attempts", attempts]) == status
