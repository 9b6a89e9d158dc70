"""Steps that write down who init is: for the next operation, and for the caller."""

from __future__ import annotations

import os

from pyrunc.linux.proc import start_time
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.state import State
    from pyrunc.steps.context import Context


class RecordInit(Step):
    """Write init's identity to state.json: once when it exists, again when the container is created."""

    __slots__ = ("creating", "state")

    def __init__(self, state: State, *, creating: bool) -> None:
        super().__init__()
        self.state = state
        self.creating = creating

    def describe(self) -> str:
        return "record init" if self.creating else "record that the container is created"

    def run(self, ctx: Context) -> None:
        data = self.state.data
        data["pid"] = ctx.init_pid
        # While it is being created it may have ended with an error that it has told, which the runtime has yet to hear
        started = start_time(ctx.init_pid, zombie=self.creating)
        if started is None:
            ctx.peer().farewell()
        data["start_time"] = started
        data["creating"] = self.creating
        data["mounts"] = ctx.mounts
        if ctx.cgroup is not None:
            data["cgroup"] = ctx.cgroup.save()  # less than was planned where a rootless container goes without
        self.state.save()


class WritePidFile(Step):
    """Write init's process ID to `--pid-file`, whole or not at all."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def describe(self) -> str:
        return f"write the process ID to {self.path}"

    def run(self, ctx: Context) -> None:
        directory, slash, name = self.path.rpartition("/")
        temporary = f"{directory}{slash}.{name}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            try:
                os.write(fd, str(ctx.init_pid).encode())
            finally:
                os.close(fd)
            os.rename(temporary, self.path)
        except OSError:
            os.unlink(temporary)
            raise


class SendPidfd(Step):
    """Send a pidfd of init (pidfd_open(2)) to `--pidfd-socket`: who has it can wait for and signal that process.

    The message beside it is runc's: "standard" for a container's first process, "setns" for one that joins.
    """

    __slots__ = ("path", "words")

    def __init__(self, path: str, *, joining: bool) -> None:
        super().__init__()
        self.path = path
        self.words = b"setns" if joining else b"standard"

    def describe(self) -> str:
        return f"send a pidfd to {self.path}"

    def run(self, ctx: Context) -> None:
        from pyrunc.linux.fdpass import connect, send_descriptor

        socket = connect(self.path)
        pidfd = os.pidfd_open(ctx.init_pid)
        try:
            send_descriptor(socket, pidfd, self.words)
        finally:
            os.close(pidfd)
            os.close(socket)
