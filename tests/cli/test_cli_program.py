"""The program as its callers see it: output, one line of error, exit status, log."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyrunc.cli.program import run
from pyrunc.cli.table import COMMANDS, GLOBAL

TOP = Path(__file__).resolve().parents[2]
PYRUNC = [
    sys.executable,
    "-I",
    "-S",
    "-c",
    f"import sys; sys.path.insert(0, {str(TOP)!r}); from pyrunc.__main__ import main; main()",
]


def _pyrunc(
    *argv: str, env: dict[str, str] | None = None, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PYRUNC, *argv], stdout=stdout, stderr=subprocess.PIPE, text=True, env=env, timeout=60, check=False
    )


def _fails(*argv: str, status: int = 1) -> str:
    """The one line on standard error of a command that has to fail."""
    done = _pyrunc(*argv)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.endswith("\n")
    assert done.stderr.count("\n") == 1
    return done.stderr[:-1]


def test_version_as_engines_parse_it() -> None:
    for flag in ("--version", "-v"):
        done = _pyrunc(flag)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert re.fullmatch(r"pyrunc version \d+\.\d+\.\d+\S*", lines[0])
        assert re.fullmatch(r"commit: \S+", lines[1])
        assert lines[2] == "spec: 1.3.0"
        assert lines[3].startswith("python: 3.")


def test_it_runs_with_an_empty_environment() -> None:
    assert _pyrunc("--version", env={}).returncode == 0


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"], ["h"], ["--debug", "help"]])
def test_help_of_the_program(argv: list[str]) -> None:
    done = _pyrunc(*argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("NAME:\n   pyrunc - Open Container Initiative runtime\n")
    for command in COMMANDS.values():
        assert re.search(rf"^   {command.name} +{re.escape(command.usage)}$", done.stdout, re.M)
    for flag in GLOBAL:
        assert (f"   --{flag.name}" in done.stdout) is not flag.hidden


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.run])
def test_help_of_each_command(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    outputs = set()
    for argv in (["help", name], [name, "--help"], [name, "-h"], ["-debug", name, "-help"]):
        assert run(argv) == 0
        out, err = capfd.readouterr()
        assert err == ""
        outputs.add(out)
    assert len(outputs) == 1
    out = outputs.pop()
    assert out.startswith(f"NAME:\n   pyrunc {name} - {COMMANDS[name].usage}\n\nUSAGE:\n   pyrunc {name} ")
    for flag in COMMANDS[name].flags:
        assert (f"   --{flag.name}" in out) is not flag.hidden
        assert (flag.usage in out) is not flag.hidden


def test_help_needs_no_container_and_no_argument(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["kill", "--help", "a", "b", "c"]) == 0
    assert capfd.readouterr().out.startswith("NAME:")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["foo"], "pyrunc: unknown command: No help topic for 'foo' (see pyrunc --help)"),
        (["foo", "-h"], "pyrunc: unknown command: No help topic for 'foo' (see pyrunc --help)"),
        (["help", "foo"], "pyrunc: unknown command: No help topic for 'foo' (see pyrunc --help)"),
        (["--bogus"], "pyrunc: flag provided but not defined: --bogus (see pyrunc --help)"),
        (["create"], "pyrunc: create: requires exactly 1 argument(s) (see pyrunc create --help)"),
        (["run", "-x"], "pyrunc: run: flag provided but not defined: -x (see pyrunc run --help)"),
        (["--log-format", "xml", "list"], "pyrunc: invalid log-format: xml"),
        (["--log", "/none/log", "list"], "pyrunc: open log /none/log: does not exist"),
        (["--root", "/", "list"], "pyrunc: list: --root must not be /"),
        (["--root=", "--bogus"], "pyrunc: flag provided but not defined: --bogus (see pyrunc --help)"),
    ],
)
def test_wrong_use_is_one_line(argv: list[str], line: str) -> None:
    assert _fails(*argv) == line


def test_an_error_goes_to_the_log_as_json_and_to_standard_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        line = _fails("--log", str(log), "--log-format", "json", "spec", "-b", "/none")
    assert line == "pyrunc: spec: write /none/config.json: does not exist"
    entries = [json.loads(entry) for entry in log.read_text().splitlines()]
    assert len(entries) == 2, "the log is appended to"
    assert list(entries[0]) == ["level", "msg", "time"]
    assert entries[0]["level"] == "error"
    assert f"pyrunc: {entries[0]['msg']}" == line
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entries[0]["time"])


def test_the_text_log_is_logruss(tmp_path: Path) -> None:
    log = tmp_path / "log"
    _fails("--log", str(log), "spec", "-b", '/no"ne')
    assert re.fullmatch(
        r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ" level=error msg="spec: write /no\\"ne/config.json: does not exist"\n',
        log.read_text(),
    )


def test_the_log_is_made_at_once_and_an_engine_alone_may_write_to_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert _pyrunc("--log", str(log), "spec", "-b", str(tmp_path)).returncode == 0
    assert log.read_text() == ""
    assert log.stat().st_mode & 0o022 == 0


def test_a_json_log_on_standard_error() -> None:
    entry = json.loads(_fails("--log-format=json", "create"))
    assert entry["msg"] == "create: requires exactly 1 argument(s) (see pyrunc create --help)"


def test_what_a_terminal_would_obey_is_shown_not_sent() -> None:
    assert _fails("foo\n\x1b[2J") == ("pyrunc: unknown command: No help topic for 'foo \\x1b[2J' (see pyrunc --help)")


def test_arguments_that_are_not_utf_8() -> None:
    done = subprocess.run([*PYRUNC, b"\xff"], capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr == b"pyrunc: unknown command: No help topic for '\\udcff' (see pyrunc --help)\n"


def test_a_full_disk_under_standard_output_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = _pyrunc("--help", stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == "pyrunc: write to standard output: No space left on device\n"


def test_a_reader_that_went_away_is_no_error_worth_a_line() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = _pyrunc("--help", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_interrupt_ends_it_as_the_signal_would(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyrunc.cli import features

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(features, "structure", interrupt)
    assert run(["features"]) == 130


def test_a_bug_is_one_line_and_a_traceback_only_for_debug(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from pyrunc.cli import features

    monkeypatch.setattr(features, "structure", lambda: 1 // 0)
    assert run(["features"]) == 1
    line = "pyrunc: internal error: features: ZeroDivisionError: integer division or modulo by zero\n"
    assert capfd.readouterr().err == line
    assert run(["--debug", "features"]) == 1
    debug, _, last = capfd.readouterr().err.partition("\n")
    assert "level=debug" in debug
    assert "Traceback" in debug
    assert last == line


def test_validate(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rootfs").mkdir()
    assert run(["spec", "-b", str(tmp_path)]) == 0
    config = tmp_path / "config.json"
    assert run(["validate", str(tmp_path)]) == 0
    assert capfd.readouterr().out == f"{config} is valid\n"

    value = json.loads(config.read_text())
    value["linux"]["futureThing"] = 1
    config.write_text(json.dumps(value))
    assert run(["validate", "-b", str(tmp_path)]) == 0
    out = capfd.readouterr().out
    assert out == f"/linux/futureThing: not in the specification, ignored\n{config} is valid\n"

    value["process"]["cwd"] = 1
    value["hostname"] = []
    config.write_text(json.dumps(value))
    assert run(["validate", str(tmp_path)]) == 1
    out, err = capfd.readouterr()
    assert "/process/cwd" in out + err
    assert "/hostname" in out + err
    assert (out + err).count("\n") == 2

    assert run(["validate", str(tmp_path / "none")]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("pyrunc: validate: ")
