"""The one kind of error a user sees: a line that says which place, which action and why."""

from __future__ import annotations

import errno as _errno
import os

#: ENOENT and EPERM/EACCES have a meaning for engines: podman reads "no such file or directory" anywhere in a
#: runtime's error as "the command is missing" (exit status 127) and "permission denied" or "operation not
#: permitted" as "the command may not be run" (126). Only errors about the container's own command may say
#: these words, and as under runc a mount that the kernel forbids; every other error uses the ones below.
_NOT_THE_COMMAND = {
    _errno.ENOENT: "does not exist",
    _errno.EACCES: "access refused (EACCES)",
    _errno.EPERM: "not allowed (EPERM)",
}


class Error(Exception):
    """An operation that failed, told in one line: place, action, reason.

    Args:
        reason: why, in words; for a failed system call see `from_os`.
        pointer: JSON pointer (RFC 6901) into config.json (or process.json, resources.json) of the value that
            asked for the action, "" when no value did.
        action: what was being done, e.g. ``mount tmpfs on /data (size=9q)``.
        errno: the system call's error number, 0 when there was none.

    Attributes:
        in_init: it is what the container's init reported.
    """

    in_init = False

    def __init__(self, reason: str, *, pointer: str = "", action: str = "", errno: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pointer = pointer
        self.action = action
        self.errno = errno

    @classmethod
    def from_os(cls, e: OSError, *, pointer: str = "", action: str = "", about_command: bool = False) -> Error:
        """Words for a failed system call.

        Args:
            about_command: true only where the error is about the container's command or its working directory.
        """
        number = e.errno or 0
        words = os.strerror(number) if number else str(e)
        reason = words.lower() if about_command else _NOT_THE_COMMAND.get(number, words)
        return cls(reason, pointer=pointer, action=action, errno=number)

    def __str__(self) -> str:
        return one_line(self.pointer, self.action, self.reason)


def one_line(*parts: str) -> str:
    """The parts that are not empty as one line, whatever a file name or a hook's output in them."""
    return " ".join(": ".join(filter(None, parts)).split())


class NoSuchContainer(Error):
    """There is no container of this ID. Engines match the words."""

    def __init__(self) -> None:
        super().__init__("container does not exist")


class NotExecuted(Error):
    """The kernel refused to execute the container's program, when everything else was done (execve(2))."""


class NotRunning(Error):
    """The container's init has ended. Engines match the words."""

    def __init__(self) -> None:
        super().__init__("container not running")
