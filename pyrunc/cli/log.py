"""What pyrunc says about its own work: to standard error for people, to `--log` as engines parse it.

The forms are logrus's, the library that runc logs with.
"""

from __future__ import annotations

import os
import time

from pyrunc import jsonio
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.steps import Step

STDERR = 2


class Log:
    """Where messages go.

    Args:
        path: file to append to, made where it is missing; "" for standard error.
        form: "text" or "json".
        verbose: log what `debug` and `trace` are told, too.

    Raises:
        Error: where the file cannot be opened, or for another `form`.
    """

    __slots__ = ("_json", "fd", "verbose")

    def __init__(self, path: str = "", form: str = "text", verbose: bool = False) -> None:
        if form not in ("text", "json"):
            raise Error(f"invalid log-format: {form}")
        self.fd = STDERR
        if path:
            flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            try:
                self.fd = os.open(path, flags, 0o644)
            except OSError as e:
                raise Error.from_os(e, action=f"open log {path}") from None
        self._json = form == "json"
        self.verbose = verbose

    def error(self, message: str, *, bare: bool = False) -> None:
        """Why a command failed. Standard error gets the line, too, even where there is a log file.

        Args:
            bare: without the program's name.
        """
        # an id or a file name may have line breaks, or what a terminal takes for commands
        if not message.isprintable():
            message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
        if self.fd != STDERR or self._json:
            self._append("error", message)
        if self.fd != STDERR or not self._json:
            _write(STDERR, f"{'' if bare else 'pyrunc: '}{message}\n")

    def warn(self, message: str) -> None:
        """Something that went wrong and did not stop the command."""
        self._append("warning", message)

    def debug(self, message: str) -> None:
        """Something that only `--debug` asks to see."""
        if self.verbose:
            self._append("debug", message)

    def trace(self, step: Step) -> None:
        """A step that is about to run; for `--debug`."""
        place = f"{step.origin}: " if step.origin else ""
        self.debug(f"{place}{step.describe()}")

    def _append(self, level: str, message: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = jsonio.dumps({"level": level, "msg": message, "time": now})
        else:
            # JSON's quoting of a string is one that Go's %q, which logrus quotes with, reads as well
            line = f'time="{now}" level={level} msg={jsonio.dumps(message)}'
        _write(self.fd, line + "\n")


def _write(fd: int, line: str) -> None:
    try:
        # one write(2), so that lines of several processes do not mix
        os.write(fd, line.encode(errors="replace"))
    except OSError:
        pass  # the place for telling about errors is itself broken: the exit status remains
