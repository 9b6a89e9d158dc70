"""Handing a seccomp listener over: what the runtime does for SCMP_ACT_NOTIFY (config-linux.md, "Seccomp")."""

from __future__ import annotations

import os

from pyrunc import jsonio
from pyrunc.errors import Error
from pyrunc.linux import process as p
from pyrunc.linux.fdpass import connect, send_descriptor
from pyrunc.steps import Step
from pyrunc.version import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.steps.context import Context


class SendListener(Step):
    """Take the listener of init's filter out of init, and send it to the agent with the container process state.

    Init is under the filter already and can't be relied on to send anything: sendmsg(2) itself may be what the agent is
    to be asked about. So it only writes the descriptor's number, and goes on when the runtime has a copy of it: if its
    next system call waits for the agent, the agent is about to hear of it.

    Attributes:
        status: the container's status, as the agent is told.
    """

    __slots__ = ("metadata", "path", "status")

    def __init__(self, path: str, metadata: str, status: str) -> None:
        super().__init__("/linux/seccomp/listenerPath")
        self.path = path
        self.metadata = metadata
        self.status = status

    def describe(self) -> str:
        return f"send the seccomp listener to {self.path}"

    def run(self, ctx: Context) -> None:
        number = ctx.peer().expect("listener")
        pidfd = os.pidfd_open(ctx.init_pid)
        try:
            listener = p.pidfd_getfd(pidfd, number)
        finally:
            os.close(pidfd)
        try:
            ctx.peer().send("taken")
            self._send(ctx, listener)
        finally:
            # were a copy left open here, the agent's end would not be the end of waiting for it (ENOSYS)
            os.close(listener)

    def _send(self, ctx: Context, listener: int) -> None:
        try:
            agent = connect(self.path)
        except OSError as e:
            raise Error.from_os(e, action=f"failed to connect with seccomp agent {self.path}") from None
        try:
            send_descriptor(agent, listener, jsonio.dumps(self._state(ctx)).encode())
        finally:
            os.close(agent)  # "The connection MUST NOT be reused"

    def _state(self, ctx: Context) -> dict[str, Any]:
        """The container process state (config-linux.md)."""
        state: dict[str, Any] = {"ociVersion": OCI_VERSION, "fds": ["seccompFd"], "pid": ctx.init_pid}
        if self.metadata:
            state["metadata"] = self.metadata
        return {**state, "state": {**ctx.state, "status": self.status}}
