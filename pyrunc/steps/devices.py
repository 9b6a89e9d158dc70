"""Steps that furnish /dev: nodes, links, the terminal."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from pyrunc.errors import Error
from pyrunc.linux import mount as m
from pyrunc.linux.path import fd_path, make_in_root, open_in_root
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.steps.context import Context

_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def _parent(ctx: Context, path: str) -> tuple[int, str]:
    """The directory that holds `path` in the container (made where missing), and the path's last component."""
    directory, _, name = path.rstrip("/").rpartition("/")
    return make_in_root(ctx.root_fd, directory or "/", directory=True), name


class MakeDevice(Step):
    """Make a device node; where that is impossible (a user namespace) show the host's by a bind mount."""

    __slots__ = ("bind", "gid", "kind", "major", "minor", "mode", "path", "uid")

    def __init__(self, device: dict[str, object], bind: bool, origin: str) -> None:
        super().__init__(origin)
        self.path: str = device["path"]  # type: ignore[assignment]
        self.kind: str = device["type"]  # type: ignore[assignment]
        self.major: int = device.get("major") or 0  # type: ignore[assignment]
        self.minor: int = device.get("minor") or 0  # type: ignore[assignment]
        mode = device.get("fileMode")
        self.mode: int = 0o666 if mode is None else mode  # type: ignore[assignment]
        self.uid: int = device.get("uid") or 0  # type: ignore[assignment]
        self.gid: int = device.get("gid") or 0  # type: ignore[assignment]
        self.bind = bind and self.kind != "p"

    def describe(self) -> str:
        how = "bind the host's" if self.bind else "make"
        numbers = "" if self.kind == "p" else f" {self.major}:{self.minor}"
        return f"{how} {self.kind}{numbers} device {self.path}"

    def run(self, ctx: Context) -> None:
        parent, name = _parent(ctx, self.path)
        kind = _TYPES[self.kind]
        device = os.makedev(self.major, self.minor)
        if not self.bind:
            try:
                os.mknod(name, kind | self.mode, device, dir_fd=parent)
            except FileExistsError:
                # runtime-spec config-linux.md, Devices: a file that does not match the requested device is an error
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if stat.S_IFMT(found.st_mode) != kind or (self.kind != "p" and found.st_rdev != device):
                    raise Error("another file is in its place") from None
            except PermissionError:
                # CAP_MKNOD may have been taken away from us, or the device cgroup above refuse it
                self._show_host_device(parent, name, kind, device)
            else:
                # not by mknod's mode argument alone: the umask is not to count
                os.chmod(name, self.mode, dir_fd=parent)
                os.chown(name, self.uid, self.gid, dir_fd=parent)
        else:
            self._show_host_device(parent, name, kind, device)
        os.close(parent)

    def _show_host_device(self, parent: int, name: str, kind: int, device: int) -> None:
        source = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        status = os.fstat(source)
        if stat.S_IFMT(status.st_mode) != kind or status.st_rdev != device:
            raise Error(f"cannot be made here, and the host's {self.path} is another device")
        tree = m.open_tree(source, "")
        os.close(source)
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o000, dir_fd=parent))
        except FileExistsError:
            pass
        target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        if not os.path.samestat(os.fstat(target), status):  # a bind mount of the host's /dev shows it already
            m.move_mount(tree, target)
        os.close(target)
        os.close(tree)


class ReopenNull(Step):
    """Where the caller gave the host's /dev/null as standard input, output or error, use the container's instead.

    They are the same device, but the file belongs to a mount that the container can't see. CRIU can't save such a file.
    """

    __slots__ = ()

    def describe(self) -> str:
        return "use the container's /dev/null for the host's"

    def run(self, ctx: Context) -> None:
        null = os.makedev(1, 3)
        given = [fd for fd in (0, 1, 2) if _is_device(os.fstat(fd), null)]
        if not given:
            return
        try:
            found = open_in_root(ctx.root_fd, "/dev/null")
        except FileNotFoundError:
            return  # a /dev/null that the configuration makes elsewhere
        try:
            if _is_device(os.fstat(found), null):
                opened = os.open(fd_path(found), os.O_RDWR | os.O_CLOEXEC)
                for fd in given:
                    os.dup2(opened, fd)
                os.close(opened)
        except PermissionError:
            pass  # its /dev is mounted nodev, or a device rule denies it: then the host's at least serves
        finally:
            os.close(found)


def _is_device(status: os.stat_result, device: int) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == device


class MakeLink(Step):
    """Make a symbolic link in the container unless the image has something else there."""

    __slots__ = ("path", "replace", "target")

    def __init__(self, path: str, target: str, *, replace: bool = False) -> None:
        super().__init__()
        self.path = path
        self.target = target
        self.replace = replace

    def describe(self) -> str:
        return f"link {self.path} to {self.target}"

    def run(self, ctx: Context) -> None:
        parent, name = _parent(ctx, self.path)
        if self.replace:
            try:
                os.unlink(name, dir_fd=parent)
            except (FileNotFoundError, IsADirectoryError):
                pass
        try:
            os.symlink(self.target, name, dir_fd=parent)
        except FileExistsError:
            pass
        os.close(parent)


# ioctl_tty(2)
TIOCSCTTY = 0x540E
TIOCSWINSZ = 0x5414
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441


class OpenTerminal(Step):
    """Open a pseudoterminal of the container's own devpts, hand its master out and take its other end as stdio.

    The master goes to the console socket, or up to a foreground runtime, before the process has a controlling terminal.
    """

    __slots__ = ("height", "make_console", "uid", "width")

    def __init__(
        self, size: dict[str, int] | None, make_console: bool, uid: int, origin: str = "/process/terminal"
    ) -> None:
        super().__init__(origin)
        self.width = size["width"] if size else 0
        self.height = size["height"] if size else 0
        self.make_console = make_console
        self.uid = uid

    def describe(self) -> str:
        return "open a pseudoterminal"

    def run(self, ctx: Context) -> None:
        # A devpts mounted with its own ptmx at /dev/pts/ptmx is the container's for sure; /dev/ptmx may be anything
        found = open_in_root(ctx.root_fd, "/dev/pts/ptmx")
        status = os.fstat(found)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(5, 2):
            raise Error("the container's /dev/pts/ptmx is not a pseudoterminal multiplexer")
        os.close(found)
        master = open_in_root(ctx.root_fd, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("=i", 0))
        # not by the name /dev/pts/N: the image could have put something else there
        terminal = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if self.width or self.height:
            fcntl.ioctl(master, TIOCSWINSZ, struct.pack("=4H", self.height, self.width, 0, 0))
        os.fchown(terminal, self.uid, -1)
        number = struct.unpack("=I", fcntl.ioctl(master, TIOCGPTN, bytes(4)))[0]
        from pyrunc.linux.fdpass import send_descriptor

        send_descriptor(ctx.console_fd, master, f"/dev/pts/{number}".encode())
        os.close(ctx.console_fd)
        os.close(master)
        ctx.console_fd = -1
        if self.make_console:
            self._show_as_console(ctx, terminal)
        for fd in (0, 1, 2):
            os.dup2(terminal, fd)
        os.close(terminal)
        try:
            fcntl.ioctl(0, TIOCSCTTY, 0)
        except OSError as e:
            if e.errno != errno.EPERM:
                raise
            raise Error("cannot become the controlling terminal: the process leads no session") from None

    def _show_as_console(self, ctx: Context, terminal: int) -> None:
        target = make_in_root(ctx.root_fd, "/dev/console", directory=False)
        tree = m.open_tree(terminal, "")
        m.move_mount(tree, target)
        os.close(tree)
        os.close(target)
