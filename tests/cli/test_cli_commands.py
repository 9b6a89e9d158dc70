"""The parts of single commands that need no container."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from pyrunc.cli.exec import cgroups, change
from pyrunc.cli.lifecycle import signal_number
from pyrunc.cli.listing import rows_of, table
from pyrunc.cli.parse import find, parse_command
from pyrunc.errors import Error


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("Kill", 9),
        ("9", 9),
        ("0", 0),
        ("64", 64),
        ("winch", signal.SIGWINCH),
        ("CLD", signal.SIGCHLD),
        ("POLL", signal.SIGIO),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("rtmax-1", signal.SIGRTMAX - 1),
    ],
)
def test_signal_names(word: str, number: int) -> None:
    assert signal_number(word) == number


@pytest.mark.parametrize(
    "word",
    [
        "",
        "SIG",
        "FOO",
        "-9",
        "65",
        "1.5",
        "_DFL",
        "_BLOCK",
        "TERM+1",
        "RTMIN+31",
        "RTMAX+1",
        "RTMIN-1",
        "RTMIN+",
        "٣",
    ],
)
def test_what_names_no_signal(word: str) -> None:
    with pytest.raises(Error) as e:
        signal_number(word)
    assert str(e.value) == f'unknown signal "{word}"'


def _changed(process: dict[str, Any], *flags: str) -> dict[str, Any]:
    options, _ = parse_command(find("exec"), [*flags, "id", "true"])
    change(process, options)
    return process


def test_exec_changes_what_its_flags_say() -> None:
    process = {
        "cwd": "/",
        "terminal": True,
        "env": ["A=1"],
        "user": {"uid": 1, "gid": 1, "additionalGids": [3]},
    }
    assert _changed(
        process,
        "--cwd=/tmp",
        "-e",
        "B=2",
        "-e",
        "C=3,4",
        "-u",
        "5:6",
        "-g",
        "7",
        "-g",
        "8",
        "--no-new-privs=false",
    ) == {
        "cwd": "/tmp",
        "terminal": False,
        "env": ["A=1", "B=2", "C=3,4"],
        "user": {"uid": 5, "gid": 6, "additionalGids": [3, 7, 8]},
        "noNewPrivileges": False,
    }


def test_exec_leaves_the_group_when_only_a_user_is_given() -> None:
    assert _changed({"user": {"uid": 1, "gid": 2}}, "-u", "7", "-t") == {
        "user": {"uid": 7, "gid": 2},
        "terminal": True,
    }


@pytest.mark.parametrize("user", ["root", "1:wheel", ":1", "1:", "-1", "4294967295", "1:2:3"])
def test_exec_takes_only_numbers_for_a_user(user: str) -> None:
    with pytest.raises(Error, match="invalid --user"):
        _changed({}, "--user", user)


def test_exec_gives_ambient_capabilities_only_beside_inheritable_ones() -> None:
    plain = _changed({"capabilities": {"bounding": ["CAP_KILL"]}}, "-c", "CAP_SYS_PTRACE", "-c", "CAP_KILL")
    assert plain["capabilities"] == {
        "bounding": ["CAP_KILL", "CAP_SYS_PTRACE"],
        "effective": ["CAP_SYS_PTRACE", "CAP_KILL"],
        "permitted": ["CAP_SYS_PTRACE", "CAP_KILL"],
    }
    inheriting = _changed({"capabilities": {"inheritable": ["CAP_KILL"]}}, "--cap", "CAP_KILL")
    assert inheriting["capabilities"]["ambient"] == ["CAP_KILL"]


def test_cgroups_of_exec() -> None:
    assert cgroups([]) == {}
    assert cgroups(["sub/way"]) == {"": "sub/way"}
    assert cgroups(["cpu,cpuacct:a", "memory:b:c"]) == {"cpu": "a", "cpuacct": "a", "memory": "b:c"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b"], "invalid --cgroup a: missing <controller>: prefix"),
        (["cpu:a", "b"], "invalid --cgroup b: missing <controller>: prefix"),
        (["cpu,:a"], "invalid --cgroup cpu,:a: empty <controller> prefix"),
        (["cpu:a", "cpu:b"], "invalid --cgroup cpu:b: controller cpu is given twice"),
    ],
)
def test_wrong_cgroups_of_exec(arguments: list[str], message: str) -> None:
    with pytest.raises(Error) as e:
        cgroups(arguments)
    assert str(e.value) == message


def test_the_table_of_list_is_laid_out_as_runcs() -> None:
    entry = {
        "id": "web",
        "pid": 7,
        "status": "running",
        "bundle": "/srv/a-long-path",
        "created": "T",
        "owner": "root",
    }
    # runc's output for the same values
    assert table([]) == "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    assert table([entry]) == (
        "ID          PID         STATUS      BUNDLE             CREATED     OWNER\n"
        "web         7           running     /srv/a-long-path   T           root\n"
    )


PS = """  PID TTY      STAT   TIME COMMAND
    1 ?        Ss     0:01 init
   12 pts/0    S      0:00 sleep 12 1
  120 pts/0    R+     0:00 ps
"""


def test_ps_shows_the_lines_of_the_containers_processes() -> None:
    assert rows_of(PS, {12}) == "  PID TTY      STAT   TIME COMMAND\n   12 pts/0    S      0:00 sleep 12 1\n"


def test_ps_needs_the_pid_column() -> None:
    with pytest.raises(Error, match="no column PID"):
        rows_of("TTY CMD\n? init\n", {1})
