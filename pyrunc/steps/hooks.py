"""Running hooks (runtime-spec config.md, POSIX-platform Hooks)."""

from __future__ import annotations

import os
import select
import time
from _signal import SIG_BLOCK, SIG_SETMASK, SIGINT, pthread_sigmask

from pyrunc import jsonio
from pyrunc.errors import Error
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pyrunc.seccomp import Filter
    from pyrunc.steps.context import Context


class RunHook(Step):
    """Run one hook to its end: state on its stdin, its environment and no more, its failure ours.

    Attributes:
        status: the container status that the hook is told.
        inside: the hook runs in the container's namespaces, so it is told the process ID seen there.
        seccomp: a filter that the hook is put under, as the container's program will be.
    """

    __slots__ = ("hook", "inside", "kind", "seccomp", "status")

    def __init__(
        self,
        kind: str,
        hook: dict[str, Any],
        status: str,
        origin: str,
        *,
        inside: bool = False,
        seccomp: Filter | None = None,
    ) -> None:
        super().__init__(origin)
        self.kind = kind
        self.hook = hook
        self.status = status
        self.inside = inside
        self.seccomp = seccomp

    def describe(self) -> str:
        return f"{self.kind} hook {self.hook['path']}"

    def run(self, ctx: Context) -> None:
        path = self.hook["path"]
        arguments = self.hook.get("args") or [path]
        environment = self._environment(ctx)
        state = dict(ctx.state)
        state["status"] = self.status
        if self.inside:
            state["pid"] = os.getpid()
        stdin_r, stdin_w = os.pipe()
        output_r, output_w = os.pipe()
        failure_r, failure_w = os.pipe()
        # An interrupt has to wait until there is somebody who takes the hook along
        mask = pthread_sigmask(SIG_BLOCK, {SIGINT})
        try:
            pid = os.fork()
        except OSError:
            pthread_sigmask(SIG_SETMASK, mask)
            for fd in (stdin_r, stdin_w, output_r, output_w, failure_r, failure_w):
                os.close(fd)
            raise
        if pid == 0:
            try:
                from pyrunc.linux.process import CLOSE_RANGE_CLOEXEC, close_range, reset_signals

                close_range(3, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)  # what the caller left open is not for hooks either
                reset_signals()
                # As under runc; the specification does not say. createContainer hooks see the root that is to be the
                # container's, startContainer hooks are where its process is
                if not self.inside:
                    os.chdir(ctx.bundle)
                elif ctx.root_fd >= 0:
                    os.fchdir(ctx.root_fd)
                os.dup2(stdin_r, 0)
                os.dup2(output_w, 1)
                os.dup2(output_w, 2)
                if self.seccomp is not None:
                    from pyrunc.linux.seccomp import load_filter

                    load_filter(self.seccomp.program, self.seccomp.flags)
                os.execve(path, arguments, environment)
            except OSError as e:
                os.write(failure_w, os.strerror(e.errno or 0).encode())
            except Exception as e:  # noqa: BLE001  the runtime must hear of it, whatever it is
                os.write(failure_w, str(e).encode(errors="replace"))
            finally:
                os._exit(127)
        for fd in (stdin_r, output_w, failure_w):
            os.close(fd)
        try:
            # a hook that works on a container to be ends with it; inside init can't outlive itself anyway
            init = ctx.init_pid if self.kind in ("prestart", "createRuntime") else 0
            status, output = self._finish(pid, init, stdin_w, output_r, jsonio.dumps(state).encode(), mask)
            if status is None:
                ctx.peer().farewell()
            failure = os.read(failure_r, 4096).decode()
        finally:
            os.close(output_r)
            os.close(failure_r)
        if failure:
            # said in words of our own: engines take "no such file" for the container's command (see errors.py)
            reason = failure.replace("No such file or directory", "it does not exist")
            raise self._error(f"could not be run: {reason}")
        if status:
            code = os.waitstatus_to_exitcode(status)
            how = f"exit status {code}" if code >= 0 else f"signal {-code} ({_words(-code)})"
            said = output.decode(errors="replace").strip()[-512:]
            raise self._error(f"failed with {how}" + (f": {said}" if said else ""))

    def _error(self, what: str) -> Error:
        """In the words that runc has for it, with the hook's place in its list."""
        place = self.origin.rpartition("/")[2]
        return Error(f"{self.hook['path']} {what}", action=f"error running {self.kind} hook #{place}")

    def _environment(self, ctx: Context) -> dict[Any, Any]:
        given = self.hook.get("env")
        if given is None:
            # Neither said by the specification nor safe to change: as under runc, a hook without `env` has the
            # runtime's environment, a startContainer hook the container's.
            return dict(ctx.environment) if self.inside and ctx.environment else dict(os.environ)
        return dict(e.split("=", 1) if "=" in e else (e, "") for e in given if e)

    def _finish(
        self, pid: int, init: int, stdin_w: int, output_r: int, state: bytes, mask: Iterable[int]
    ) -> tuple[int | None, bytes]:
        """Feed the state, gather the output, wait for the end; kill the hook at its deadline, or when interrupted.

        When `init` ends it is killed, too, and the result has no status.

        Args:
            mask: of signals, to go back to when an interrupt can be handled.
        """
        timeout = self.hook.get("timeout")
        deadline = None if timeout is None else time.monotonic() + timeout
        output = b""
        os.set_blocking(stdin_w, False)
        poll = select.poll()
        poll.register(stdin_w, select.POLLOUT)
        poll.register(output_r, select.POLLIN)
        pidfd = init_fd = -1
        ended = False
        try:
            pthread_sigmask(SIG_SETMASK, mask)
            pidfd = os.pidfd_open(pid)
            poll.register(pidfd, select.POLLIN)
            if init:
                init_fd = os.pidfd_open(init)
                poll.register(init_fd, select.POLLIN)
            while True:
                left = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000) + 1)
                for fd, _ in poll.poll(left):
                    if fd == stdin_w:
                        try:
                            state = state[os.write(stdin_w, state) :]
                        except BrokenPipeError:  # a hook need not read it
                            state = b""
                        if not state:
                            poll.unregister(stdin_w)
                            os.close(stdin_w)
                            stdin_w = -1
                    elif fd == output_r:
                        data = os.read(output_r, 65536)
                        output = (output + data)[-65536:]
                        if not data:
                            poll.unregister(output_r)
                    elif fd == pidfd:
                        # not when its output ends: a hook may leave a process behind that keeps the pipe open
                        ended = True
                        return os.waitpid(pid, 0)[1], output + self._rest(output_r)
                    else:
                        return None, output
                if deadline is not None and time.monotonic() >= deadline:
                    raise self._error(f"ran longer than its timeout of {timeout} s and was killed")
        finally:
            if not ended:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            for fd in (stdin_w, pidfd, init_fd):
                if fd >= 0:
                    os.close(fd)

    def _rest(self, output_r: int) -> bytes:
        os.set_blocking(output_r, False)
        try:
            return os.read(output_r, 65536)
        except BlockingIOError:
            return b""


def _words(signal: int) -> str:
    """What a signal is called, as Go and so runc writes it: "bad system call"."""
    import _signal

    return (_signal.strsignal(signal) or "unknown").lower()
