"""Reading argv by the table, as Go's flag package and urfave/cli do for runc.

``--flag value``, ``--flag=value`` and the same with one dash; ``-f`` for a flag's short name, never joined
with others; a bool stands alone or takes ``=true`` and the like. ``--`` ends the flags.
"""

from __future__ import annotations

from pyrunc.cli.table import BOOL, COMMANDS, GLOBAL, HELP, NUMBER, NUMBERS
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.table import Command, Flag

#: The words that Go's strconv.ParseBool takes.
_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class UsageError(Error):
    """An argv that the table does not allow."""


class Options:
    """The flags that were given, by name; one method for each kind of flag."""

    __slots__ = ("_given",)

    def __init__(self) -> None:
        self._given: dict[str, list[str]] = {}

    def given(self, name: str) -> bool:
        """Was the flag on the command line at all?"""
        return name in self._given

    def bool(self, name: str) -> bool:
        """A BOOL flag's value, false where it was not given."""
        return _BOOLS[self.text(name, "false")]

    def text(self, name: str, default: str = "") -> str:
        """A TEXT flag's value."""
        return self._given.get(name, (default,))[-1]

    def number(self, name: str) -> int:
        """A NUMBER flag's value, 0 where it was not given."""
        return int(self.text(name, "0"))

    def texts(self, name: str) -> list[str]:
        """A TEXTS flag's values, in the order given."""
        return self._given.get(name, [])

    def numbers(self, name: str) -> list[int]:
        """A NUMBERS flag's values, in the order given."""
        return [int(value) for value in self.texts(name)]

    def set(self, flag: Flag, value: str, spelled: str) -> None:
        """Take a flag's value after checking it.

        Args:
            spelled: the flag as the caller wrote it, for the error.
        """
        if flag.kind == BOOL and value not in _BOOLS:
            raise UsageError(f'invalid boolean value "{value}" for {spelled}')
        if flag.kind in (NUMBER, NUMBERS) and not (value.isascii() and value.isdigit()):
            raise UsageError(f'invalid value "{value}" for {spelled}: not a number from 0 up')
        if flag.choices and value not in flag.choices:
            raise UsageError(f'invalid value "{value}" for {spelled}: not one of {", ".join(flag.choices)}')
        self._given.setdefault(flag.name, []).append(value)


def parse_global(argv: list[str]) -> tuple[Options, list[str]]:
    """The program's own flags, and what follows them: the command with its arguments.

    Raises:
        UsageError: for an unknown flag or a wrong value.
    """
    options = Options()
    return options, _flags(argv, GLOBAL, options, permute=False)


def find(name: str) -> Command:
    """The command of that name.

    Raises:
        UsageError: where there is none.
    """
    try:
        return COMMANDS[name]
    except KeyError:
        raise UsageError(f"unknown command: No help topic for '{name}'") from None


def parse_command(command: Command, argv: list[str]) -> tuple[Options, list[str]]:
    """A command's flags and positional arguments from what follows its name.

    Raises:
        UsageError: for an unknown flag, a wrong value or a wrong number of arguments.
    """
    options = Options()
    arguments = _flags(argv, (*command.flags, HELP), options, permute=not command.flags_end_at_id)
    if options.bool("help"):
        return options, arguments
    if command.flags_end_at_id and arguments[1:2] == ["--"]:
        del arguments[1]  # ends flags that have ended already
    count = len(arguments)
    if command.least == command.most != count:
        raise UsageError(f"requires exactly {command.least} argument(s)")
    if count < command.least:
        raise UsageError(f"requires a minimum of {command.least} argument(s)")
    if count > command.most >= 0:
        raise UsageError(f"requires a maximum of {command.most} argument(s)")
    return options, arguments


def _flags(argv: list[str], flags: tuple[Flag, ...], options: Options, *, permute: bool) -> list[str]:
    """Read flags into `options`; what is left are the positional arguments.

    Args:
        permute: look for flags behind the first positional argument, too. There, what is no known flag is an
            argument (``kill ID -9``); before it, it is an error.
    """
    arguments: list[str] = []
    at = 0
    while at < len(argv):
        word = argv[at]
        at += 1
        if word == "--":
            return arguments + argv[at:]
        if len(word) < 2 or word[0] != "-":
            if not permute:
                return argv[at - 1 :]
            arguments.append(word)
            continue
        name, equals, value = word[2 if word[1] == "-" else 1 :].partition("=")
        flag = _find_flag(name, flags)
        if flag is None:
            if arguments:
                arguments.append(word)
                continue
            raise UsageError(f"flag provided but not defined: {word}")
        if not equals:
            if flag.kind == BOOL:
                value = "true"
            elif at < len(argv):
                value = argv[at]
                at += 1
            else:
                raise UsageError(f"flag needs an argument: {word}")
        options.set(flag, value, word.partition("=")[0])
    return arguments


def _find_flag(name: str, flags: tuple[Flag, ...]) -> Flag | None:
    for flag in flags:
        if name and name in (flag.name, flag.short):
            return flag
    return None
