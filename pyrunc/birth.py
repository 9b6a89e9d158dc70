"""A container's birth, and a process's in it: what `Container.create`, `run` and `exec` gather before any step runs.

Apart from container.py because who only wants to start, signal or delete a container need not load it.
"""

from __future__ import annotations

import os
import time

from pyrunc import cgroups, config, handover, jsonio, plan, steps
from pyrunc.errors import Error
from pyrunc.linux.proc import in_user_namespace, read_text
from pyrunc.linux.stdio import fill_stdio
from pyrunc.state import State, check_id
from pyrunc.steps.context import Context
from pyrunc.steps.record import RecordInit, SendPidfd, WritePidFile
from pyrunc.steps.runtime import Await
from pyrunc.version import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from pyrunc.foreground import Foreground
    from pyrunc.resctrl import Group
    from pyrunc.seccomp import Filter
    from pyrunc.steps import Step

    class Log(Protocol):
        """Where an operation tells about its work; the command line has one (pyrunc/cli/log.py)."""

        fd: int
        verbose: bool

        def warn(self, message: str) -> None: ...
        def debug(self, message: str) -> None: ...
        def trace(self, step: Step) -> None: ...


class Birth:
    """A container that is about to be created: its configuration, where it will live, its steps."""

    def __init__(
        self,
        container_id: str,
        bundle: str,
        root: str,
        log: Log | None,
        no_pivot: bool,
        no_new_keyring: bool,
        systemd_cgroup: bool,
        rootless: bool | None,
        notify_socket: str | None = None,
    ) -> None:
        fill_stdio()
        check_id(container_id)
        self.id = container_id
        self.bundle = os.path.abspath(bundle)
        self.root = root
        self.log = log
        self.config = config.load(self.bundle)
        if log is not None and log.verbose:
            for pointer in config.notes(self.config):
                log.debug(f"{pointer}: not in the specification, ignored")
        resources = self.config.get("linux", {}).get("resources", {})
        if (resources.get("cpu") or {}).get("idle") or "cpu.idle" in (resources.get("unified") or {}):
            from pyrunc.config.resources import weightless

            self.config["linux"]["resources"], note = weightless(resources)
            if note and log is not None:
                log.warn(note)
        self.environment: list[str] = []  # what the caller adds; not the configuration's, so not exec's
        self.notify = bool(notify_socket) and "process" in self.config
        if self.notify:
            from pyrunc import notify

            self.config["mounts"] = [*self.config.get("mounts", ()), notify.mount(f"{root}/{container_id}")]
            self.environment += notify.environment()
        check_labels(self.config, self.config.get("process", {}), log)
        unprivileged = os.geteuid() != 0
        if unprivileged and not any(ns["type"] == "user" for ns in self.config.get("linux", {}).get("namespaces", ())):
            raise Error("rootless container requires user namespaces", pointer="/linux/namespaces")
        if rootless is None:
            # Root of a user namespace, as rootless podman is, may be anybody outside, with no say about cgroups.
            # systemd answers for itself whose it is
            rootless = unprivileged or (not systemd_cgroup and in_user_namespace())
        self.saved_options = {"no_pivot": no_pivot, "new_keyring": not no_new_keyring, "unprivileged": unprivileged}
        self.resctrl: Group | None = None
        if (rdt := self.config.get("linux", {}).get("intelRdt")) is not None:
            from pyrunc import resctrl

            self.resctrl = resctrl.Group.of(rdt, container_id, resctrl.mounted())
        self.manager = cgroups.manager(
            self.config.get("linux", {}).get("cgroupsPath", ""),
            container_id,
            cgroups.detect(read_text("/proc/self/mountinfo")),
            read_text("/proc/self/cgroup"),
            rootless=rootless,
            systemd_config=self.config if systemd_cgroup else None,
        )

    def shared(self, preserve_fds: int, stdio: tuple[int, int, int] | None) -> Context:
        """What the steps will share."""
        ctx = context(self.id, self.bundle, self.config, self.log)
        self.environment += inherit(ctx, preserve_fds, stdio)
        return ctx

    def plan(self, *, cache: bool = True) -> list[Step]:
        """The steps of `create`."""
        seccomp = compile_seccomp(self.config, self.root if cache else None)
        chosen = plan.Options(**self.saved_options)
        config, process = self.config, self.config.get("process")
        if process and self.environment:
            config = config | {"process": process | {"env": [*process.get("env", ()), *self.environment]}}
        return plan.create(config, self.bundle, self.id, self.manager, chosen, seccomp, self.resctrl)

    def create(
        self,
        ctx: Context,
        pid_file: str | None,
        pidfd_socket: str | None,
        destroy: Callable[[State], None],
        *,
        fifo: bool = True,
    ) -> State:
        """Take the ID, run the steps; the state, locked.

        Args:
            destroy: ends the lifecycle, poststop hooks and all, where it fails after hooks may have run.
            fifo: init is to wait for another process's `start`, not for this one's.
        """
        state = State.create(self.root, self.id, self.data(ctx), jsonio.dumps(self.config))
        ctx.state = hook_state(state.data)
        try:
            self.make_notify(state)
            planned = self.plan()
            handover.fifos(ctx, state.directory) if fifo else handover.pipes(ctx)
            steps.run(recorded(planned, pid_file, pidfd_socket, state), ctx)
            if not self.manager.dirs and not state.data["private_pid"]:
                ctx.warn(
                    "the container has neither a cgroup nor a PID namespace of its own. Such configuration is strongly"
                    " discouraged: of its processes only the first can be found and killed"
                )
        except BaseException:
            handover.abandon(ctx)
            if ctx.state["pid"] and self.config.get("hooks", {}).get("poststop"):
                destroy(state)
            state.remove()
            raise
        ctx.peer().close()
        handover.release(ctx)
        return state

    def make_notify(self, state: State) -> None:
        """Make the directory for the container's notify socket."""
        if self.notify:
            os.mkdir(f"{state.directory}/notify")
            os.chmod(f"{state.directory}/notify", 0o755)

    def data(self, ctx: Context) -> dict[str, Any]:
        """What state.json holds before there is anything of the container."""
        namespaces = self.config.get("linux", {}).get("namespaces", ())
        now = time.time_ns()
        return {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "pid": 0,
            "start_time": 0,
            "creating": True,
            "bundle": self.bundle,
            "rootfs": os.path.normpath(os.path.join(self.bundle, self.config["root"]["path"])),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z",
            "owner": "",
            "annotations": self.config.get("annotations", {}),
            "args": bool(self.config.get("process", {}).get("args")),
            "hooks": any(self.config.get("hooks", {}).get(kind) for kind in ("poststart", "poststop")),
            "private_pid": any(ns["type"] == "pid" and not ns.get("path") for ns in namespaces),
            "cgroup": self.manager.save(),
            "resctrl": self.resctrl.save() if self.resctrl is not None else None,
            # What a checkpoint has to know: init may close or move them
            "descriptors": [os.readlink(f"/proc/self/fd/{fd}") for fd in ctx.stdio or (0, 1, 2)],
            "options": self.saved_options,
        }


def hook_state(data: dict[str, Any]) -> dict[str, Any]:
    """What hooks are told on stdin (runtime.md, State); `status` is theirs to add."""
    state = {"ociVersion": OCI_VERSION, "id": data["id"], "status": "", "pid": data["pid"], "bundle": data["bundle"]}
    if data["annotations"]:
        state["annotations"] = data["annotations"]
    return state


def context(container_id: str, bundle: str, config: dict[str, Any], log: Log | None) -> Context:
    """A context that tells `log` what is to be told."""
    ctx = Context(container_id, bundle, config)
    if log is not None:
        ctx.warn = log.warn
        if log.verbose:
            ctx.trace, ctx.debug = log.trace, log.debug
        if log.fd > 2:
            ctx.keep.add(log.fd)
    return ctx


def check_labels(config: dict[str, Any], process: dict[str, Any], log: Log | None) -> None:
    """Where SELinux is not enabled: refuse a label that was to confine the process, leave out one of mounts.

    That one only says who may use the files, and without SELinux nobody asks (as crun; to runc's mounts it is an
    unknown option).
    """
    label, linux = process.get("selinuxLabel"), config.get("linux", {})
    if not label and not linux.get("mountLabel"):
        return
    from pyrunc.linux import selinux

    if selinux.enabled():
        return
    if label:
        reason = "selinux label is specified in config, but selinux is disabled or not supported"
        raise Error(reason, pointer="/process/selinuxLabel")
    del linux["mountLabel"]
    if log is not None:
        log.warn("/linux/mountLabel: SELinux is disabled or not supported: mounts get no label")


def compile_seccomp(config: dict[str, Any], root: str | None) -> Filter | None:
    """The filter of linux.seccomp, from the cache beside the containers' states below `root`."""
    profile = config.get("linux", {}).get("seccomp")
    if not profile:
        return None
    from pyrunc import seccomp

    return seccomp.compile(profile, cache_dir=root and f"{root}/.~seccomp")


def recorded(
    steps: list[Step], pid_file: str | None, pidfd_socket: str | None, state: State | None = None
) -> list[Step]:
    """The steps, and with them those that tell others who init is: state.json, `--pid-file`, `--pidfd-socket`."""
    if state is not None:
        # As soon as init exists, but when it has all that it needs to go on: it works while this is written
        at = next(i for i, step in enumerate(steps) if isinstance(step, Await))
        steps = [*steps[:at], RecordInit(state, creating=True), *steps[at:], RecordInit(state, creating=False)]
    if pidfd_socket:
        steps = [*steps, SendPidfd(pidfd_socket, joining=state is None)]
    if pid_file:
        steps = [*steps, WritePidFile(pid_file)]
    return steps


def inherit(ctx: Context, preserve_fds: int, stdio: tuple[int, int, int] | None) -> list[str]:
    """Settle which descriptors a container's first process gets; the environment variables that tell it of them.

    Sockets that a service manager has passed to this very process (sd_listen_fds(3)) go on to that, before
    `--preserve-fds`. $LISTEN_PID tells them from an environment that was inherited without its sockets.
    """
    count = 0
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        listening = os.environ.get("LISTEN_FDS", "")
        count = int(listening) if listening.isascii() and listening.isdigit() else 0
    preserve(ctx, preserve_fds + count, stdio)
    return [f"LISTEN_FDS={count}", "LISTEN_PID=1"] if count else []


def preserve(ctx: Context, count: int, stdio: tuple[int, int, int] | None) -> None:
    """Settle which descriptors a process gets: how many from 3 up, and its stdio.

    Raises:
        Error: one of them isn't open.
    """
    ctx.stdio = stdio
    ctx.preserve = count
    for fd in range(3, 3 + ctx.preserve):
        try:
            os.fstat(fd)
        except OSError as e:
            raise Error.from_os(e, action=f"preserve descriptor {fd}") from None


def connect_console(path: str) -> int:
    """Connect to `--console-socket`."""
    from pyrunc.linux.fdpass import connect

    try:
        return connect(path)
    except OSError as e:
        raise Error.from_os(e, action=f"connect to the console socket {path}") from None


def prepare_foreground(
    ctx: Context,
    terminal: bool,
    console_socket: str | None,
    detach: bool,
    subreaper: bool = False,
    forward_signals: bool = False,
) -> Foreground | None:
    """Prepare for waiting in the foreground, and the terminal that this may need; None with `detach`."""
    if console_socket and not (terminal and detach):
        raise Error("cannot use console socket if pyrunc will not detach or allocate tty")
    if detach:
        if terminal:
            if not console_socket:
                raise Error(
                    "cannot allocate tty if pyrunc will detach without setting console socket",
                    pointer="/process/terminal",
                )
            ctx.console_fd = connect_console(console_socket)
        return None
    from pyrunc.foreground import Foreground

    foreground = Foreground(subreaper=subreaper, forward_signals=forward_signals)
    if terminal:
        ctx.console_fd = foreground.console()
    return foreground
