"""Sources of bind mounts that init has not the right to open or to id-map: the host's user does it for it.

In a user namespace init is nobody to the host's file systems: it can't walk to a volume below another user's private
directory, and an id mapping is given to a mount only with privilege over its file system (mount_setattr(2)). But a
source can lie on an earlier mount of the container's own, so only when the mount is due is it known what it is. So a
short-lived process of the runtime's, with the rights of the host, goes into init's mount namespace and waits there:

    runtime                 server                              init
    ───────                 ──────                              ────
    OpenLine
    StartInit ────────────────────────────────────────────────▶
    ServeSources ─ fork ──▶                                     Await "set up"
    Tell "set up" ────────────────────────────────────────────▶
                            ◀────────────────────────────────── BindMount: number of a source
                            open_tree, mount_setattr ─ fd ────▶ attributes, move_mount
                            end of file, exit ◀──────────────── CloseLine
    EndServing

A request is no path but a number in the planner's list: nothing else can be had from there.
"""

from __future__ import annotations

import errno
import os

from pyrunc import jsonio
from pyrunc.errors import Error
from pyrunc.linux import fdpass
from pyrunc.linux import mount as m
from pyrunc.linux import process as p
from pyrunc.steps import Step
from pyrunc.steps.namespaces import map_ids
from pyrunc.steps.runtime import forget_handlers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from pyrunc.steps.context import Context


class IdMapping:
    """How a mount shows the owners of files: the IDs of a file system to those of the host.

    Attributes:
        at: pointer of what asks for it, and holds the mappings if they are given.
        recursive: the mounts below are mapped too.
        uids, gids: runs of IDs as in linux.uidMappings.
        path: the user namespace whose mappings are taken instead, "" for none.
    """

    __slots__ = ("at", "gids", "path", "recursive", "uids")

    def __init__(
        self,
        at: str,
        recursive: bool,
        uids: list[dict[str, int]] | None = None,
        gids: list[dict[str, int]] | None = None,
        path: str = "",
    ) -> None:
        self.at = at
        self.recursive = recursive
        self.uids = uids or []
        self.gids = gids or []
        self.path = path

    def same_namespace(self, other: IdMapping) -> bool:
        """Whether one user namespace does for both."""
        return (self.uids, self.gids, self.path) == (other.uids, other.gids, other.path)

    def open(self) -> int:
        """A descriptor of a user namespace with these mappings: nobody lives in it, the kernel only reads them."""
        if self.path:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        ready, tell = os.pipe()
        wait, go = os.pipe()
        pid = fork()
        if pid == 0:
            _be_a_namespace(tell, wait, go)
        os.close(tell)
        os.close(wait)
        try:
            said = os.read(ready, 1) or bytes([errno.ESRCH])
            if said[0]:
                raise OSError(said[0], os.strerror(said[0]))
            map_ids(pid, self.uids, self.gids, self.at)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(ready)
            os.close(go)
            _reap(pid)


def _be_a_namespace(tell: int, wait: int, go: int) -> NoReturn:
    """The process that makes a user namespace and keeps it while the runtime gets hold of it."""
    os.close(go)
    failed = 0
    try:
        p.unshare(p.CLONE_NEWUSER)
    except OSError as e:
        failed = e.errno or errno.EPERM
    try:
        os.write(tell, bytes([failed]))
        os.read(wait, 1)  # end of file, when it has it
    finally:
        os._exit(0)


def fork() -> int:
    """fork(2), the quicker way where no other thread could hold a lock."""
    return os.fork() if p.threads() > 1 else p.clone3(0)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # a library's caller may reap every child that it has


class Source:
    """A bind mount's source as the server opens it."""

    __slots__ = ("mapping", "path", "recursive")

    def __init__(self, path: str, recursive: bool, mapping: IdMapping | None) -> None:
        self.path = path
        self.recursive = recursive
        self.mapping = mapping


class OpenLine(Step):
    """The line on which init asks for sources; run by the runtime before there is an init."""

    __slots__ = ()

    def describe(self) -> str:
        return "open a line for the sources of mounts"

    def run(self, ctx: Context) -> None:
        ctx.source_fd, ctx.server_fd = fdpass.pair()

    def undo(self, ctx: Context) -> None:
        _close_line(ctx)


def _close_line(ctx: Context) -> None:
    for fd in (ctx.source_fd, ctx.server_fd):
        if fd >= 0:
            os.close(fd)
    ctx.source_fd = ctx.server_fd = -1


class ServeSources(Step):
    """Start the process that opens sources for init, in init's mount namespace and with the host's rights."""

    __slots__ = ("sources",)

    def __init__(self, sources: list[Source]) -> None:
        super().__init__("/mounts")
        self.sources = sources

    def describe(self) -> str:
        return "open for init, as the host's user: " + ", ".join(
            source.path + (" (id-mapped)" if source.mapping else "") for source in self.sources
        )

    def run(self, ctx: Context) -> None:
        spaces: list[tuple[IdMapping, int]] = []
        try:
            user_ns = [self._user_namespace(source.mapping, spaces) for source in self.sources]
            ctx.server_pid = fork()
            if ctx.server_pid == 0:
                self._serve(ctx.init_pid, ctx.server_fd, user_ns)
        finally:
            for _, fd in spaces:
                os.close(fd)
        _close_line(ctx)

    def _user_namespace(self, mapping: IdMapping | None, spaces: list[tuple[IdMapping, int]]) -> int:
        """A user namespace for a mapping, one of those that are there or a new one; -1 for no mapping."""
        if mapping is None:
            return -1
        for known, fd in spaces:
            if mapping.same_namespace(known):
                return fd
        try:
            spaces.append((mapping, mapping.open()))
        except OSError as e:
            action = "open the user namespace " + mapping.path if mapping.path else "make a user namespace"
            raise Error.from_os(e, pointer=mapping.at, action=action) from None
        return spaces[-1][1]

    def _serve(self, init_pid: int, line: int, user_ns: list[int]) -> NoReturn:
        """The server: answers until init closes its end of the line."""
        try:
            forget_handlers()
            p.keep_only({line, *user_ns})
            entered = False
            while request := fdpass.receive(line)[0]:
                number = int(request)
                try:
                    if not entered:
                        pidfd = os.pidfd_open(init_pid)
                        p.setns(pidfd, p.CLONE_NEWNS)
                        os.close(pidfd)
                        entered = True
                    tree = _open(self.sources[number], user_ns[number])
                except (Error, OSError) as e:
                    answer = [e.errno or 0, e.reason if isinstance(e, Error) else ""]
                    fdpass.send(line, jsonio.dumps(answer).encode())
                else:
                    fdpass.send(line, b"[]", tree)
                    os.close(tree)
        finally:
            os._exit(0)

    def undo(self, ctx: Context) -> None:
        if ctx.server_pid:
            try:
                os.kill(ctx.server_pid, 9)
            except ProcessLookupError:
                pass  # reaped by a library's caller
            _reap(ctx.server_pid)
            ctx.server_pid = 0


def _open(source: Source, user_ns: int) -> int:
    """A detached copy of the mounts at a source, with its id mapping."""
    try:
        tree = m.open_tree(m.AT_FDCWD, source.path, recursive=source.recursive)
    except OSError as e:
        if e.errno == errno.EINVAL and not source.recursive:
            # mount_namespaces(7), "mounts … are locked together"
            reason = "is there a mount below it? That can't be left out in a user namespace: use rbind (EINVAL)"
            raise Error(reason, errno=errno.EINVAL) from None
        raise
    if source.mapping is not None:
        try:
            m.mount_setattr(tree, m.MOUNT_ATTR_IDMAP, recursive=source.mapping.recursive, user_ns=user_ns)
        except OSError as e:
            os.close(tree)
            why = "can't be id-mapped"
            if e.errno == errno.EINVAL:
                why += ": this kernel can't map the IDs of such a file system"
            elif e.errno == errno.EPERM:
                why += ": it is already, or its file system is not the runtime's to change"
            raise Error(f"{source.path} {why} ({errno.errorcode[e.errno or 0]})", errno=e.errno or 0) from None
    return tree


def ask(ctx: Context, number: int, path: str) -> int:
    """Ask the server for a source; for init. A detached mount that the caller closes."""
    try:
        os.write(ctx.source_fd, b"%d" % number)
        answer, tree = fdpass.receive(ctx.source_fd)
    except (BrokenPipeError, ConnectionResetError):
        answer, tree = b"", -1
    if tree >= 0:
        return tree
    if not answer:
        raise Error("the process that opens sources for init ended unexpectedly")
    number, reason = jsonio.loads(answer.decode())
    if reason:
        raise Error(reason, errno=number)
    raise OSError(number, os.strerror(number), path)


class CloseLine(Step):
    """Init's mounts are made: nothing more is asked of the host."""

    __slots__ = ()

    def describe(self) -> str:
        return "close the line for the sources of mounts"

    def run(self, ctx: Context) -> None:
        os.close(ctx.source_fd)
        ctx.source_fd = -1


class EndServing(Step):
    """Wait for the end of the process that opened sources for init: it ends when init has closed the line."""

    __slots__ = ()

    def describe(self) -> str:
        return "wait for the end of the process that opened sources"

    def run(self, ctx: Context) -> None:
        _reap(ctx.server_pid)
        ctx.server_pid = 0
