"""Steps that have CRIU save a container's processes and make them anew.

runtime                             criu swrk
───────                             ─────────
StartCriu ── fork ────────────────▶ in the cgroup; for a restore also in a mount namespace of its own, with the
                                    container's root filesystem where CRIU looks for it; execve
Dump or Restore ── request ───────▶ works, and asks back (notifications): hooks, the terminal, …
              ◀── answer ────────── ends; what it made anew are children of the runtime's
"""

from __future__ import annotations

import os
import stat

from pyrunc import cgroups, criu, steps
from pyrunc.errors import Error
from pyrunc.linux import fdpass
from pyrunc.linux import mount as m
from pyrunc.linux import process as p
from pyrunc.linux.network import interface_up
from pyrunc.linux.path import fd_path, open_in_root
from pyrunc.linux.proc import read_text
from pyrunc.linux.spawn import find
from pyrunc.steps import Step
from pyrunc.steps.context import Channel, Hangup
from pyrunc.steps.mounts import CgroupMount, Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.steps.context import Context

SIGKILL = 9

#: CRIU's end of the socket in its process, and the first of the files that it gets open.
SOCKET_FD = 3
FIRST_FD = 4


class Criu:
    """One run of CRIU, which several steps share.

    Attributes:
        pid: of its process, 0 before it exists and after its end.
        external: for a restore, (path in the container, host path) of the mounts that are not CRIU's to make.
    """

    __slots__ = ("connection", "external", "pid")

    def __init__(self) -> None:
        self.connection: criu.Connection | None = None
        self.pid = 0
        self.external: list[tuple[str, str]] = []

    def line(self) -> criu.Connection:
        """The connection, where there must be one."""
        assert self.connection is not None
        return self.connection

    def end(self) -> int:
        """Hang up and wait for its end; its exit status, negative for a signal."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        status = 0
        if self.pid:
            try:
                status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            except ChildProcessError:
                pass  # a library's caller may reap every child that it has
            self.pid = 0
        return status


class StartCriu(Step):
    """Start CRIU. For a restore, what it makes anew is born with what it has itself: the container's standard input,
    output and error, and its cgroup where there is one by now.

    Attributes:
        restores: whether it is for a restore.
        prepare: what its process does before it becomes CRIU.
        inherit: files that it gets open, (path, origin) each, from descriptor FIRST_FD up.
    """

    __slots__ = ("criu", "inherit", "prepare", "restores")

    def __init__(self, shared: Criu, restores: bool, prepare: list[Step], inherit: list[tuple[str, str]]) -> None:
        super().__init__()
        self.criu = shared
        self.restores = restores
        self.prepare = prepare
        self.inherit = inherit

    def describe(self) -> str:
        return "start criu"

    def run(self, ctx: Context) -> None:
        try:
            program = find("criu")
        except FileNotFoundError:
            raise Error("it is not installed") from None
        ctx.channel, line = Channel.pair()
        ctx.channel.warn = ctx.warn
        ours, theirs = fdpass.pair()
        try:
            try:
                self.criu.pid = os.fork()
                if self.criu.pid == 0:
                    self._become_criu(ctx, line, program, theirs)
            finally:
                line.close()
                os.close(theirs)
            self._hear(ctx)
            socket_fd = fdpass.receive_descriptor(ours)
        finally:
            os.close(ours)
        if socket_fd < 0:
            raise Error("it ended at once")
        self.criu.connection = criu.Connection(socket_fd)
        self.criu.line().check_version()
        ctx.init_pid = self.criu.pid  # who stands for the container until CRIU has made its init

    def _hear(self, ctx: Context) -> None:
        """What the process has to tell before it becomes CRIU, which closes the channel."""
        while True:
            try:
                kind, value = ctx.peer().receive()
            except Hangup:
                return
            assert kind == "external"
            self.criu.external = [(path, source) for path, source in value]

    def _become_criu(self, ctx: Context, line: Channel, program: str, socket: int) -> None:
        """The new process; never returns."""
        try:
            p.reset_signals()
            ctx.channel = line
            ctx.warn = lambda text: line.send("warning", text)
            if self.restores and ctx.cgroup is not None:
                ctx.cgroup.join()
            steps.run(self.prepare, ctx)
            # CRIU looks for descriptors that it is told of in the process that made its socket: itself, then. It has to
            # have its directories in its own mount namespace, for it mounts in them
            ours, theirs = criu.sockets()
            fdpass.send_descriptor(socket, ours, b"criu")
            os.close(ours)
            descriptors = [theirs, *(_open(path, origin) for path, origin in self.inherit)]
            stdio = ctx.stdio or (0, 1, 2)
            if not self.restores or ctx.console_fd >= 0:  # a container with a terminal has nothing of the runtime's
                null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
                stdio = (null, null, null)
            wanted = [*stdio, *descriptors]
            # First out of the way of the numbers that they are to have, then there
            high = max(100, *wanted, line.writer) + 1
            moved = [_duplicate(fd, high) for fd in wanted]
            report = Channel(-1, _duplicate(line.writer, high))
            for number, fd in enumerate(moved):
                os.dup2(fd, number)
            line = report
            p.keep_only({*range(3, len(wanted)), report.writer})
            os.execve(program, ["criu", "swrk", str(SOCKET_FD)], os.environ)
        except (Error, OSError) as e:
            line.send_error(e if isinstance(e, Error) else steps.explain(e, self))
        except BaseException as e:  # noqa: BLE001  the parent must hear of it, whatever it is
            line.send_error(Error(f"internal error: {e!r}"))
        finally:
            os._exit(1)

    def undo(self, ctx: Context) -> None:
        self.criu.end()
        ctx.init_pid = 0


def _open(path: str, origin: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise Error.from_os(e, pointer=origin, action=f"open {path}") from None


def _duplicate(fd: int, least: int) -> int:
    """A copy of a descriptor at `least` or above, close-on-exec."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)


# -- what CRIU's process does before a restore


class OwnMounts(Step):
    """Leave the host's mounts: what is mounted from here on shows nowhere else, and goes when CRIU ends, however that
    may be."""

    __slots__ = ()

    def describe(self) -> str:
        return "make a mount namespace for criu"

    def run(self, ctx: Context) -> None:
        p.unshare(p.CLONE_NEWNS)
        fd = m.open_tree(m.AT_FDCWD, "/", clone=False)
        m.mount_setattr(fd, propagation=m.MS_SLAVE, recursive=True)
        os.close(fd)


class PutRoot(Step):
    """Show the root filesystem at a place where nothing else is mounted: there CRIU wants it."""

    __slots__ = ("at", "path")

    def __init__(self, path: str, at: str) -> None:
        super().__init__("/root/path")
        self.path = path
        self.at = at

    def describe(self) -> str:
        return f"bind {self.path} on {self.at}"

    def run(self, ctx: Context) -> None:
        place = os.open(self.at, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        ctx.root_fd = m.open_tree(m.AT_FDCWD, self.path, recursive=True)
        m.move_mount(ctx.root_fd, place)
        os.close(place)


class MakeMountPoint(Step):
    """Make the place of a mount that is not made for now."""

    __slots__ = ("mount",)

    def __init__(self, mount: Mount) -> None:
        super().__init__(mount.origin)
        self.mount = mount

    def describe(self) -> str:
        return f"make the mount point {self.mount.destination}"

    def run(self, ctx: Context) -> None:
        os.close(self.mount.target(ctx))


class TellExternal(Step):
    """Find where mounts of the host's files really are in the container, links followed, and tell the runtime."""

    __slots__ = ("mounts",)

    def __init__(self, mounts: list[tuple[str, str]]) -> None:
        super().__init__("/mounts")
        self.mounts = mounts

    def describe(self) -> str:
        return "find the places of " + (", ".join(path for path, _ in self.mounts) or "no bind mount")

    def run(self, ctx: Context) -> None:
        ctx.peer().send("external", located(ctx.root_fd, self.mounts))


class TakeDown(Step):
    """Unmount everything that is mounted at a place."""

    __slots__ = ("at",)

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def describe(self) -> str:
        return f"unmount {self.at}"

    def run(self, ctx: Context) -> None:
        os.close(ctx.root_fd)
        m.umount2(self.at, m.MNT_DETACH | m.UMOUNT_NOFOLLOW)


def located(root_fd: int, mounts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The mounts, (path, source) each, by their real paths below the root directory; without those that are gone."""
    root = os.readlink(fd_path(root_fd)).rstrip("/")
    found = []
    for path, source in mounts:
        try:
            fd = open_in_root(root_fd, path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        found.append((os.readlink(fd_path(fd)).removeprefix(root), source))
        os.close(fd)
    return found


# -- the work


class LoopbackUp(Step):
    """Bring up lo in the network namespace of the init that is being made: it is a new one to CRIU, too."""

    __slots__ = ()

    def describe(self) -> str:
        return "bring the loopback interface up"

    def run(self, ctx: Context) -> None:
        namespace = os.open(f"/proc/{ctx.init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            failed = 1
            try:
                p.setns(namespace, p.CLONE_NEWNET)
                interface_up("lo")
                failed = 0
            except OSError as e:
                failed = e.errno or 1
            finally:
                os._exit(failed)
        os.close(namespace)
        try:
            number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return  # a library's caller may reap every child that it has
        if number:
            raise OSError(number, os.strerror(number))


class Work(Step):
    """A request, and what CRIU asks back until it has answered.

    Attributes:
        request: the type of the request, one of `criu.TYPES`.
        options: `criu.OPTIONS`; more are added when it runs.
        log: path of CRIU's log.
        cgroups: mounts that show the container its cgroups.
    """

    __slots__ = ("cgroups", "criu", "log", "options", "request")

    def __init__(
        self, shared: Criu, request: int, options: dict[str, Any], log: str, cgroups: list[CgroupMount]
    ) -> None:
        super().__init__()
        self.cgroups = cgroups
        self.criu = shared
        self.request = request
        self.options = options
        self.log = log

    def work(self, ctx: Context, external: list[tuple[str, str]]) -> None:
        """Ask for it, and answer what CRIU asks.

        Args:
            external: (path in the container, name in the images or host path) of mounts that are not CRIU's business.
        """
        connection = self.criu.line()
        hierarchy = _cgroup2()
        options = {**self.options, "ext_mnt": [{"key": key, "val": value} for key, value in external]}
        try:
            connection.send(type=self.request, opts=options)
            while True:
                response, descriptors = connection.receive()
                try:
                    if response["type"] != criu.NOTIFY:
                        break
                    notify = response.get("notify", {})
                    self.notified(ctx, notify.get("script", ""), notify.get("pid", 0), descriptors)
                finally:
                    for fd in descriptors:
                        os.close(fd)
                connection.send(type=criu.NOTIFY, notify_success=True)
            status = self.criu.end()
            # After a pre-dump it waits for the next request, and takes the end of the connection for a failure
            if status and self.request != criu.PRE_DUMP:
                raise Error(f"criu failed: exit status {status}" if status > 0 else f"criu failed: signal {-status}")
        except Error as e:
            if e.reason.startswith("criu failed"):
                for line in quoted(self.log):
                    ctx.warn(line)
                e.reason += f": log file: {self.log}"
            raise
        finally:
            if _cgroup2() != hierarchy:
                _reconfigure(*hierarchy)

    def notified(self, ctx: Context, script: str, pid: int, descriptors: list[int]) -> None:
        """CRIU is at this point of its work, and waits."""


def _cgroup2() -> tuple[str, list[str]]:
    """Where cgroup version 2 is mounted, "" if it isn't, and the options of the hierarchy: nsdelegate and the like."""
    for line in read_text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - cgroup2 ")
        if right:
            options = right.split(" ")[-1].split(",")
            return cgroups.unescape(left.split(" ")[4]), [word for word in options if word not in ("rw", "ro")]
    return "", []


def _reconfigure(path: str, options: list[str]) -> None:
    """Give the hierarchy back its options. CRIU mounts it without any for itself, and the last to mount it decides for
    all (cgroup-v2.rst, "Mounting")."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    fs = m.fspick(fd)
    try:
        for option in options:
            m.fsconfig(fs, option)
        m.fsreconfigure(fs)
    finally:
        os.close(fs)
        os.close(fd)


def quoted(log: str) -> list[str]:
    """The errors in CRIU's log with a few lines before each, as in ``grep -n -B5 Error``."""
    try:
        lines = read_text(log).splitlines()
    except OSError as e:
        return [f"criu left no log: {e.strerror}: {log}"]
    shown = sorted({n for i, line in enumerate(lines) if "Error" in line for n in range(max(0, i - 5), i + 1)})
    return [f"{log}:{n + 1}: {lines[n]}" for n in shown]


class Dump(Work):
    """Write the processes of a running container to image files.

    Attributes:
        mounts: (path, name in the images) of mounts whose contents are the host's.
        masked: paths that may be hidden behind the host's /dev/null.
        external: (type, name in the images) of namespaces that are others'.
        status_fd: gets a zero byte when the memory pages can be asked for (`--lazy-pages`), -1 for none.
    """

    __slots__ = ("external", "masked", "mounts", "status_fd")

    def __init__(
        self,
        shared: Criu,
        request: int,
        options: dict[str, Any],
        log: str,
        cgroups: list[CgroupMount],
        mounts: list[tuple[str, str]],
        masked: list[str],
        external: list[tuple[str, str]],
        status_fd: int,
    ) -> None:
        super().__init__(shared, request, options, log, cgroups)
        self.mounts = mounts
        self.masked = masked
        self.external = external
        self.status_fd = status_fd

    def describe(self) -> str:
        return "dump the processes"

    def run(self, ctx: Context) -> None:
        init = self.options["pid"]
        connection = self.criu.line()
        if self.request == criu.PRE_DUMP:
            connection.check_features(mem_track=True)
        if self.options["lazy_pages"]:
            connection.check_features(lazy_pages=True)
        self.options["external"] = [
            f"{kind}[{os.stat(f'/proc/{init}/ns/{kind}').st_ino}]:{name}" for kind, name in self.external
        ]
        root = os.open(f"/proc/{init}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mounts = [(path, path) for path, _ in located(root, self.mounts)]
            mounts += [(path, "/dev/null") for path in self.masked if _is_null(root, path)]
        finally:
            os.close(root)
        self.work(ctx, [*mounts, *[(path, path) for mount in self.cgroups for path, _ in mount.bound(ctx)]])

    def notified(self, ctx: Context, script: str, pid: int, descriptors: list[int]) -> None:
        if script == "status-ready" and self.status_fd >= 0:
            os.write(self.status_fd, b"\0")
            os.close(self.status_fd)
            self.status_fd = -1

    def undo(self, ctx: Context) -> None:
        self.criu.end()


def _is_null(root_fd: int, path: str) -> bool:
    try:
        fd = open_in_root(root_fd, path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    status = os.fstat(fd)
    os.close(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


class Restore(Work):
    """Make the processes anew from image files, as children of this process.

    Attributes:
        external: (name in the images, host path) of what is mounted from the host, besides what StartCriu finds.
        spaces: for when the namespaces are there, and the processes not yet.
        born: for when the processes are there, and do not run yet.
    """

    __slots__ = ("born", "external", "spaces")

    def __init__(
        self,
        shared: Criu,
        options: dict[str, Any],
        log: str,
        cgroups: list[CgroupMount],
        external: list[tuple[str, str]],
        spaces: list[Step],
        born: list[Step],
    ) -> None:
        super().__init__(shared, criu.RESTORE, options, log, cgroups)
        self.external = external
        self.spaces = spaces
        self.born = born

    def describe(self) -> str:
        return "restore the processes"

    def run(self, ctx: Context) -> None:
        self.options["cg_root"] = [
            {"ctrl": controller, "path": path}
            for line in read_text(f"/proc/{self.criu.pid}/cgroup").splitlines()
            for _, controllers, path in (line.split(":", 2),)
            for controller in controllers.split(",")
        ]
        ctx.init_pid = 0
        bound = [pair for mount in self.cgroups for pair in mount.bound(ctx)]
        self.work(ctx, [*self.criu.external, *self.external, *bound])

    def notified(self, ctx: Context, script: str, pid: int, descriptors: list[int]) -> None:
        if script in ("setup-namespaces", "post-restore"):
            ctx.init_pid = ctx.state["pid"] = pid
            steps.run(self.spaces if script == "setup-namespaces" else self.born, ctx)
        elif script == "orphan-pts-master" and descriptors:
            if ctx.console_fd < 0:
                raise Error("the container had a terminal when it was checkpointed", pointer="/process/terminal")
            from pyrunc.linux.fdpass import send_descriptor

            send_descriptor(ctx.console_fd, descriptors[0], b"orphan-pts-master")

    def undo(self, ctx: Context) -> None:
        self.criu.end()  # which kills what it has made, and can't wait for its end: it is our child
        if ctx.init_pid:
            try:
                os.kill(ctx.init_pid, SIGKILL)
                os.waitpid(ctx.init_pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            ctx.init_pid = 0
