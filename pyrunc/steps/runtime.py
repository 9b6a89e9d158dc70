"""Steps of the runtime's own process: bringing init to life and keeping in step with it.

runtime                          init
───────                          ────
StartInit  ── clone3 ──────────▶ (in its new namespaces) and its cgroup
MapIds, …                        Await "set up"
Tell "set up" ─────────────────▶ mounts, devices, …
Await "mounted" ◀─────────────── Tell "mounted"
prestart, createRuntime hooks    Await "hooked"
Tell "hooked" ─────────────────▶ createContainer hooks, pivot_root, …
Await "limits" ◀──────────────── Tell "limits"
SetRlimit …                      Await "limited"
Tell "limited" ────────────────▶ user, capabilities, …
Await "ready" ◀───────────────── WaitForStart …
`start` writes to exec.fifo ───▶ startContainer hooks, seccomp, execve
"""

from __future__ import annotations

import gc
import os

from pyrunc import steps
from pyrunc.errors import Error
from pyrunc.linux import process as p
from pyrunc.steps import Step
from pyrunc.steps.context import Channel, Hangup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cgroups.base import Manager
    from pyrunc.steps.context import Context


class StartInit(Step):
    """Make the process that becomes the container, with clone3(2) and therefore without executing anything anew.

    Where it must first enter existing namespaces (`stage`), an intermediate process does that and makes init its
    sibling (CLONE_PARENT), because a process can't leave what it entered, and a PID or time namespace counts only for
    children. The same detour serves a caller with threads, whose locks fork(2) can release and clone3 can not.

    Attributes:
        flags: CLONE_NEW* of the namespaces to make.
        stage: what the intermediate process does.
        init: what init does.
        mappings: uid and gid mappings for a NewUserNamespace in `stage`.
        placed: the cgroup that init is put into by others, later (systemd); None if it has to go there itself.
    """

    __slots__ = ("flags", "init", "mappings", "placed", "stage")

    def __init__(
        self,
        flags: int,
        stage: list[Step],
        init: list[Step],
        mappings: tuple[list[dict[str, int]], list[dict[str, int]]] | None = None,
        placed: Manager | None = None,
    ) -> None:
        super().__init__("/linux/namespaces")
        self.flags = flags
        self.stage = stage
        self.init = init
        self.mappings = mappings
        self.placed = placed

    def describe(self) -> str:
        new = [kind for kind, (flag, _) in p.NAMESPACES.items() if self.flags & flag]
        where = [] if self.placed is not None else ["in the cgroup"]
        where += [f"in new {', '.join(new)} namespaces"] if new else []
        return "start init" + (" " + " and ".join(where) if where else "")

    def run(self, ctx: Context) -> None:
        doors = _Doors(ctx)
        ctx.debug("nsexec container setup")  # runc's words, for those who look for them in a log
        try:
            ctx.channel, theirs = Channel.pair()
            ctx.channel.warn = ctx.warn
            ctx.channel.in_init = True
            try:
                threads = p.threads() > 1
                if threads or self.stage:
                    ctx.init_pid = self._start_by_stage(ctx, theirs, doors, fork=threads)
                else:
                    ctx.init_pid = doors.clone3(self.flags)
                    if ctx.init_pid == 0:
                        self._init(ctx, theirs, doors)
            finally:
                theirs.close()
        finally:
            doors.close()
        ctx.state["pid"] = ctx.state["pid"] or ctx.init_pid  # in exec it is the container's, and known

    def _start_by_stage(self, ctx: Context, theirs: Channel, doors: _Doors, *, fork: bool) -> int:
        """Make the intermediate process and serve it; init's process ID.

        It has a channel of its own: init does not wait for it and may speak first.
        """
        channel, line = Channel.pair()
        pid: int = 0
        stage_pid = 0
        try:
            try:
                stage_pid = os.fork() if fork else doors.clone3(0)
                if stage_pid == 0:
                    channel.close()  # were it open here too, the runtime's death would not be an end of file
                    ctx.peer().close()
                    self._stage(ctx, line, theirs, doors)
            finally:
                line.close()
            if self.mappings is not None:
                from pyrunc.steps.namespaces import map_ids

                map_ids(channel.expect("map"), *self.mappings)
                channel.send("mapped")
            pid = channel.expect("pid")
        finally:
            channel.close()  # a stage that still waits for an answer is not to wait for ever
            if stage_pid:
                try:
                    os.waitpid(stage_pid, 0)
                except ChildProcessError:
                    pass  # a library's caller may reap every child that it has
        return pid

    def _stage(self, ctx: Context, channel: Channel, for_init: Channel, doors: _Doors) -> None:
        """The intermediate process; never returns."""
        try:
            forget_handlers()
            ctx.channel = channel
            doors.enter()
            steps.run(self.stage, ctx)
            pid = p.clone3(self.flags | p.CLONE_PARENT)
            if pid == 0:
                self._init(ctx, for_init, None)
            channel.send("pid", pid)
            os._exit(0)
        except (Error, OSError) as e:
            channel.send_error(steps.explain(e, self))
        except BaseException as e:  # noqa: BLE001  the parent must hear of it, whatever it is
            channel.send_error(Error(f"internal error: {e!r}"))
        finally:
            os._exit(1)

    def _init(self, ctx: Context, channel: Channel, doors: _Doors | None) -> None:
        """The container's first process, until it executes the container's program; never returns."""
        # A collection would write to every object's header, and each page written is charged to the container
        gc.disable()
        os.umask(0)  # files made from here on have the modes that they are given, whatever the caller's umask is
        ctx.channel = channel
        # The runtime tells the user: standard error is the container's here, and what a log shows is not its output
        ctx.warn = lambda line: channel.send("warning", line)
        if self.placed is not None:
            ctx.cgroup = self.placed  # where it is when it goes on
        try:
            forget_handlers()
            if doors is not None:
                doors.enter()
            ours = {
                channel.reader,
                channel.writer,
                ctx.start_fd,
                ctx.result_fd,
                ctx.console_fd,
                ctx.source_fd,
                *ctx.keep,
            }
            if ctx.stdio is not None:
                for number, fd in enumerate([os.dup(fd) for fd in ctx.stdio]):
                    os.dup2(fd, number)
            # What the caller left open is its own, and must not be seen in here at any moment (CVE-2024-21626)
            p.keep_only(ours | set(range(3, 3 + ctx.preserve)))
            ctx.debug("child process in init()")  # runc's words, for those who look for them in a log
            steps.run(self.init, ctx)
        except (Error, OSError) as e:
            _report(ctx, e if isinstance(e, Error) else steps.explain(e, self))
        except BaseException as e:  # noqa: BLE001  the parent must hear of it, whatever it is
            _report(ctx, Error(f"internal error: {e!r}"))
        finally:
            os._exit(1)

    def undo(self, ctx: Context) -> None:
        if ctx.channel is not None:
            ctx.channel.close()
        if ctx.init_pid:
            try:
                os.kill(ctx.init_pid, 9)
                os.waitpid(ctx.init_pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass  # a library's caller may reap every child that it has
            ctx.init_pid = 0


def forget_handlers() -> None:
    """What a library's caller wants to be done about its signals is not done in its children. What is ignored stays
    ignored for now, SIGPIPE above all."""
    import _signal

    _signal.set_wakeup_fd(-1)
    for number in _signal.valid_signals():
        if callable(_signal.getsignal(number)):
            _signal.signal(number, _signal.SIG_DFL)


class _Doors:
    """The way into the container's cgroup for the first process made for it: opened by the runtime, whose right it is,
    passed by that process itself before it does anything that would be charged to another cgroup.

    Moving oneself by v1's "tasks" and being born in a v2 cgroup are much quicker than being moved: see `Manager.doors`.
    """

    __slots__ = ("_doors", "_manager")

    def __init__(self, ctx: Context) -> None:
        self._manager = ctx.cgroup
        self._doors = self._manager.doors() if self._manager is not None else {}

    def clone3(self, flags: int) -> int:
        """clone3(2), where there is cgroup v2 into the container's cgroup."""
        directory = self._manager.paths.get("") if self._manager is not None else None
        if directory not in self._doors:
            return p.clone3(flags)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pid = p.clone3(flags, fd)
        except OSError:
            return p.clone3(flags)  # if it was the cgroup that refused, moving there will fail too and tell more
        finally:
            os.close(fd)
        if pid == 0:
            os.close(self._doors.pop(directory))
        return pid

    def enter(self) -> None:
        """Go in; for the process that was made."""
        if self._manager is not None:
            self._manager.enter(self._doors)

    def close(self) -> None:
        """Close them; for the runtime."""
        for fd in self._doors.values():
            os.close(fd)


def _report(ctx: Context, e: Error) -> None:
    """Tell whoever is waiting what went wrong: the runtime while it creates, `start` afterwards."""
    channel = ctx.peer()
    if channel.writer < 0:
        channel = Channel(-1, ctx.result_fd)
    try:
        channel.send_error(e)
    except Error:
        pass  # nobody is waiting any more, and there is nobody else to tell


class JoinContainer(Step):
    """Enter the namespaces of a running container, all at once by its init's pidfd (setns(2), Linux 5.8).

    A process without a mount namespace of its own has a root directory that is not its namespace's root: that
    is entered too.
    """

    __slots__ = ("chroot", "flags")

    def __init__(self, flags: int, chroot: bool) -> None:
        super().__init__()
        self.flags = flags
        self.chroot = chroot

    def describe(self) -> str:
        kinds = [kind for kind, (flag, _) in p.NAMESPACES.items() if self.flags & flag]
        return f"join the container's {', '.join(kinds)} namespaces"

    def run(self, ctx: Context) -> None:
        pid = ctx.state["pid"]
        pidfd = os.pidfd_open(pid)
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC) if self.chroot else -1
        p.setns(pidfd, self.flags)
        os.close(pidfd)
        if self.chroot:
            os.fchdir(root)
            os.chroot(".")
            os.close(root)


class HoldRoot(Step):
    """Hold this process's root directory by a descriptor, as init holds the one it builds."""

    __slots__ = ()

    def describe(self) -> str:
        return "open the root directory"

    def run(self, ctx: Context) -> None:
        ctx.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class Tell(Step):
    """Let the other process go on."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def describe(self) -> str:
        return f"tell the other process: {self.kind}"

    def run(self, ctx: Context) -> None:
        ctx.peer().send(self.kind)


class Await(Step):
    """Wait for the other process; its error is raised here."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def describe(self) -> str:
        return f"wait for the other process: {self.kind}"

    def run(self, ctx: Context) -> None:
        try:
            ctx.peer().expect(self.kind)
        except Hangup:
            if ctx.init_pid and _killed(ctx.init_pid):
                raise _explain_kill(ctx) from None
            raise


def _killed(pid: int) -> bool:
    """Whether SIGKILL ended a child, which stays to be waited for."""
    try:
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return False  # a library's caller may reap every child that it has
    return end is not None and (end.si_code, end.si_status) == (os.CLD_KILLED, 9)


def _explain_kill(ctx: Context) -> Error:
    """Unless somebody deletes the container already, it is the kernel that sends SIGKILL to an init: out of memory."""
    limit = ctx.config.get("linux", {}).get("resources", {}).get("memory", {}).get("limit", -1)
    if limit > 0:
        return Error(f"init was killed; are {limit} bytes too little for it?", pointer="/linux/resources/memory/limit")
    return Error("init was killed")
