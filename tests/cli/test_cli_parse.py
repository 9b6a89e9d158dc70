"""Reading argv: Go's flag semantics, as runc's callers rely on them."""

from __future__ import annotations

import pytest

from pyrunc.cli.parse import UsageError, find, parse_command, parse_global
from pyrunc.cli.table import BOOL, COMMANDS, GLOBAL, HELP


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--root", "/r"], "root", "/r"),
        (["--root=/r"], "root", "/r"),
        (["-root", "/r"], "root", "/r"),
        (["-root=/r"], "root", "/r"),
        (["--root", "/a", "--root", "/b"], "root", "/b"),
        (["--root="], "root", ""),
        (["--log", "--debug"], "log", "--debug"),
        (["--log-format=json"], "log-format", "json"),
        (["--rootless=a=b"], "rootless", "a=b"),
    ],
)
def test_text_flags(argv: list[str], name: str, value: str) -> None:
    options, rest = parse_global([*argv, "state", "x"])
    assert options.text(name, "unset") == value
    assert rest == ["state", "x"]


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], False),
        (["--debug"], True),
        (["-debug"], True),
        (["--debug=true"], True),
        (["--debug=1"], True),
        (["--debug=T"], True),
        (["--debug=false"], False),
        (["--debug=0"], False),
        (["--debug", "--debug=false"], False),
    ],
)
def test_bool_flags(argv: list[str], value: bool) -> None:
    options, rest = parse_global([*argv, "list"])
    assert options.bool("debug") is value
    assert rest == ["list"]


def test_a_bool_flag_takes_no_argument_from_the_next_word() -> None:
    options, rest = parse_global(["--debug", "false"])
    assert options.bool("debug")
    assert rest == ["false"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--bogus"], "flag provided but not defined: --bogus"),
        (["-x"], "flag provided but not defined: -x"),
        (["--"[:2] + "=v"], "flag provided but not defined: --=v"),
        (["---root", "x"], "flag provided but not defined: ---root"),
        (["--root"], "flag needs an argument: --root"),
        (["--debug=maybe"], 'invalid boolean value "maybe" for --debug'),
        (["--debug="], 'invalid boolean value "" for --debug'),
    ],
)
def test_wrong_global_flags(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as e:
        parse_global(argv)
    assert str(e.value) == message


def test_no_command_has_the_empty_name_as_a_flag() -> None:
    for command in COMMANDS.values():
        assert all(flag.name for flag in command.flags)


def test_two_dashes_end_the_flags() -> None:
    assert parse_global(["--", "state"])[1] == ["state"]
    assert parse_command(find("state"), ["--", "-odd"])[1] == ["-odd"]
    assert parse_command(find("kill"), ["id", "--", "-a"])[1] == ["id", "-a"]
    assert parse_command(find("exec"), ["id", "--", "ls", "--"])[1] == ["id", "ls", "--"]


@pytest.mark.parametrize(
    ("argv", "arguments"),
    [
        (["--force", "id"], ["id"]),
        (["-f", "id"], ["id"]),
        (["-force", "id"], ["id"]),
        # runc's parser (urfave/cli) finds flags behind the id, too
        (["id", "--force"], ["id"]),
        (["id", "-f"], ["id"]),
    ],
)
def test_flags_before_and_behind_the_id(argv: list[str], arguments: list[str]) -> None:
    options, rest = parse_command(find("delete"), argv)
    assert options.bool("force")
    assert rest == arguments


def test_a_negative_signal_is_an_argument() -> None:
    assert parse_command(find("kill"), ["id", "-9"])[1] == ["id", "-9"]


def test_what_follows_execs_id_is_the_containers() -> None:
    options, rest = parse_command(
        find("exec"),
        ["-t", "-u", "1:2", "-e", "A=1,2", "--env=B=", "-g", "5", "id", "ls", "-t", "--", "--help"],
    )
    assert options.bool("tty")
    assert options.text("user") == "1:2"
    assert options.texts("env") == ["A=1,2", "B="]
    assert options.numbers("additional-gids") == [5]
    assert not options.bool("help")
    assert rest == ["id", "ls", "-t", "--", "--help"]


def test_what_follows_the_id_of_ps_is_for_ps() -> None:
    options, rest = parse_command(find("ps"), ["-f", "json", "id", "-f", "aux"])
    assert options.text("format") == "json"
    assert rest == ["id", "-f", "aux"]


@pytest.mark.parametrize(
    ("command", "argv", "message"),
    [
        ("create", [], "requires exactly 1 argument(s)"),
        ("create", ["a", "b"], "requires exactly 1 argument(s)"),
        ("state", ["a", "--bogus"], "requires exactly 1 argument(s)"),
        ("list", ["a"], "requires exactly 0 argument(s)"),
        ("kill", [], "requires a minimum of 1 argument(s)"),
        ("kill", ["a", "9", "x"], "requires a maximum of 2 argument(s)"),
        ("exec", ["-t"], "requires a minimum of 1 argument(s)"),
        ("exec", ["-tu", "0", "a", "ls"], "flag provided but not defined: -tu"),
        ("run", ["--bundle"], "flag needs an argument: --bundle"),
        (
            "run",
            ["--preserve-fds", "-1", "a"],
            'invalid value "-1" for --preserve-fds: not a number from 0 up',
        ),
        (
            "run",
            ["--preserve-fds=1_0", "a"],
            'invalid value "1_0" for --preserve-fds: not a number from 0 up',
        ),
        ("exec", ["-g", "wheel", "a"], 'invalid value "wheel" for -g: not a number from 0 up'),
        ("list", ["-f", "xml"], 'invalid value "xml" for -f: not one of table, json'),
    ],
)
def test_wrong_command_lines(command: str, argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as e:
        parse_command(find(command), argv)
    assert str(e.value) == message


def test_an_unknown_command() -> None:
    with pytest.raises(UsageError, match="No help topic for 'foo'"):
        find("foo")


#: Each flag of runc 1.4's that an engine may pass, by command: those that take a value, and the others.
RUNC_FLAGS = {
    "create": (
        "bundle b console-socket pidfd-socket pid-file preserve-fds",
        "no-pivot no-new-keyring help h",
    ),
    "run": (
        "bundle b console-socket pidfd-socket pid-file preserve-fds",
        "detach d keep no-subreaper no-pivot no-new-keyring help h",
    ),
    "exec": (
        "console-socket pidfd-socket cwd env e user u additional-gids g process p pid-file process-label"
        " apparmor cap c preserve-fds cgroup",
        "tty t detach d no-new-privs ignore-paused help h",
    ),
    "kill": ("", "all a help h"),
    "delete": ("", "force f help h"),
    "list": ("format f", "quiet q help h"),
    "ps": ("format f", "help h"),
    "spec": ("bundle b", "rootless help h"),
    "start": ("", "help h"),
    "state": ("", "help h"),
    "pause": ("", "help h"),
    "resume": ("", "help h"),
    "features": ("", "help h"),
}


@pytest.mark.parametrize("name", RUNC_FLAGS)
def test_every_flag_of_runcs_is_there(name: str) -> None:
    with_value, without = (words.split() for words in RUNC_FLAGS[name])
    flags = {}
    for flag in (*COMMANDS[name].flags, HELP):
        flags[flag.name] = flag.kind
        if flag.short:
            flags[flag.short] = flag.kind
    assert {word for word, kind in flags.items() if kind != BOOL} == set(with_value)
    assert {word for word, kind in flags.items() if kind == BOOL} == set(without)


def test_every_global_flag_of_runcs_is_there() -> None:
    names = {flag.name for flag in GLOBAL}
    assert names == {
        "debug",
        "log",
        "log-format",
        "root",
        "criu",
        "systemd-cgroup",
        "rootless",
        "help",
        "version",
    }
