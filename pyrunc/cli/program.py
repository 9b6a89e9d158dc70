"""One run of the program: read argv, run the command, say in one line what failed."""

from __future__ import annotations

import os

from pyrunc.cli.log import Log
from pyrunc.cli.parse import UsageError, find, parse_command, parse_global
from pyrunc.errors import Error, NotExecuted, one_line
from pyrunc.linux.proc import in_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.cli.parse import Options
    from pyrunc.cli.table import Command

#: What a shell reports for a process that SIGINT or SIGPIPE ended.
INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13


class _OutputClosed(Exception):
    """Nobody reads standard output any more: ``pyrunc list | head -1``."""


class Call:
    """What a command gets.

    Attributes:
        globals: the program's flags.
        options: the command's flags.
        arguments: its positional arguments.
        log: where it tells about its work.
    """

    __slots__ = ("arguments", "globals", "log", "options")

    def __init__(self, globals: Options, options: Options, arguments: list[str], log: Log) -> None:
        self.globals = globals
        self.options = options
        self.arguments = arguments
        self.log = log

    @property
    def id(self) -> str:
        """The container's id: the first positional argument."""
        return self.arguments[0]

    @property
    def root(self) -> str:
        """The directory with the state of containers: `--root` made absolute, or this user's default."""
        if not self.globals.given("root"):
            return default_root()
        root = os.path.abspath(self.globals.text("root"))
        if root == "/":
            raise Error("--root must not be /")
        return root

    @property
    def rootless(self) -> bool | None:
        """`--rootless`: whether to go on without what only root may do; None leaves it to be found out."""
        word = self.globals.text("rootless", "auto").lower()
        if word in ("", "auto"):
            return None
        if word in ("1", "t", "true"):
            return True
        if word in ("0", "f", "false"):
            return False
        raise Error(f"invalid --rootless value: {word}")


def run(argv: list[str], *, reexecute: bool = False) -> int:
    """Do what argv, without the program's name, asks for; the exit status.

    Args:
        reexecute: the process is the program and nothing else: it may execute itself anew (pyrunc/seal.py).
    """
    log = Log()
    doing = ""
    failed = 1
    try:
        globals, rest = parse_global(argv)
        log = Log(globals.text("log"), globals.text("log-format", "text"), globals.bool("debug"))
        if globals.bool("version"):
            return _help("version")
        if globals.bool("help") or not rest:
            return _help("program")
        if rest[0] in ("help", "h"):
            return _help("command", find(rest[1])) if len(rest) > 1 else _help("program")
        command = find(rest[0])
        doing = command.name
        options, arguments = parse_command(command, rest[1:])
        if options.bool("help"):
            return _help("command", command)
        failed = command.failed
        if arguments and command.synopsis.startswith("<container-id>"):
            doing = f"{command.name} {arguments[0]}"
        if reexecute and command.enters:
            from pyrunc import seal

            seal.ensure(log.debug)
        return _function(command.run)(Call(globals, options, arguments, log))
    except UsageError as e:
        log.error(f"{doing}: {e} (see pyrunc {doing} --help)" if doing else f"{e} (see pyrunc --help)")
        return 1
    except NotExecuted as e:
        # under runc it is the container that says this, and it says nothing more
        log.error(f"{e.action}: {e.reason}", bare=True)
        return failed
    except Error as e:
        if e.in_init:
            # runc's opening words: people, and what reads their logs, know a container that did not start by them
            name, _, place = doing.partition(" ")
            opening = f"pyrunc {name} failed: unable to start container process"
            if name != "exec":
                opening += ": error during container init"
            log.error(one_line(opening, e.action, f"{place} {e.pointer}", e.reason), bare=True)
        else:
            log.error(f"{doing}: {e}" if doing else str(e))
        return failed
    except _OutputClosed:
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as e:
        log.error(f"{doing}: {Error.from_os(e, action=str(e.filename or ''))}")
        return failed
    except Exception as e:  # noqa: BLE001  a traceback helps nobody who runs an engine
        if log.verbose:
            import traceback

            log.debug(traceback.format_exc())
        log.error(f"internal error: {doing}: {type(e).__name__}: {e}")
        return failed


def write(text: str) -> None:
    """Write to standard output, past Python's buffer, whose flush at exit would be too late to fail."""
    data = memoryview(text.encode(errors="surrogateescape"))
    while data:
        try:
            data = data[os.write(1, data) :]
        except BrokenPipeError:
            raise _OutputClosed from None
        except OSError as e:
            raise Error.from_os(e, action="write to standard output") from None


def default_root() -> str:
    """Where the state of containers lies when `--root` does not say.

    /run/pyrunc for root; for others, and for root of a user namespace that another user made, a directory
    below $XDG_RUNTIME_DIR or the place where that usually is. That one is made here, with the sticky bit, so
    that clean-up services leave its files alone (XDG Base Directory Specification).
    """
    uid = os.geteuid()
    if uid == 0 and not (in_user_namespace() and os.environ.get("USER") != "root"):
        return "/run/pyrunc"
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base:
        if uid == 0:
            return "/run/pyrunc"
        base = f"/run/user/{uid}"
    root = f"{base}/pyrunc"
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        os.chmod(root, 0o1700)
    except OSError as e:
        raise Error.from_os(e, action=f"make {root} (set XDG_RUNTIME_DIR or --root)") from None
    return root


def _help(what: str, *arguments: Command) -> int:
    from pyrunc.cli import help

    write(getattr(help, what)(*arguments))
    return 0


def _function(name: str) -> Callable[[Call], int]:
    """The function that the table names; its module is imported only now."""
    module, _, function = name.partition(".")
    found: Callable[[Call], int] = getattr(__import__(f"pyrunc.cli.{module}", fromlist=(function,)), function)
    return found
