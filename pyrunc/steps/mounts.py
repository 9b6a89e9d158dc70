"""Steps of the mount namespace: the root filesystem, what is mounted on it, what is hidden in it."""

from __future__ import annotations

import errno
import os
import stat

from pyrunc import cgroups
from pyrunc.errors import Error
from pyrunc.linux import mount as m
from pyrunc.linux.path import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, fd_path, make_in_root, open_in_root, openat2
from pyrunc.linux.proc import read_text
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.mountopts import MountOptions
    from pyrunc.steps.context import Context


def open_source(ctx: Context, path: str) -> int:
    """A descriptor of a host path that the caller closes: opened now, for by now there may be a mount, in the root
    filesystem one of the container's; where this process may not go, the one that OpenSources opened early."""
    early = ctx.sources.pop(path, -1)
    try:
        now = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        if early < 0:
            raise
        return early
    if early >= 0:
        os.close(early)
    return now


class OpenSources(Step):
    """Open host paths while this process still is the host's user.

    In a user namespace init becomes that namespace's root, which need not be able to walk to a volume below a
    directory such as /root (mode 0700), although the user who asked for the mount is.
    """

    __slots__ = ("paths",)

    def __init__(self, paths: list[tuple[str, str]]) -> None:
        super().__init__()
        self.paths = paths

    def describe(self) -> str:
        return "open " + ", ".join(path for path, _ in self.paths)

    def run(self, ctx: Context) -> None:
        for path, origin in self.paths:
            try:
                ctx.sources[path] = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # it may be there when it is wanted, below a mount of the container's
            except OSError as e:
                raise Error.from_os(e, pointer=origin, action=f"open {path}") from None


class SetRootPropagation(Step):
    """Cut or keep the ties between this mount namespace and the one it was copied from."""

    __slots__ = ("propagation", "recursive", "word")

    def __init__(self, word: str, propagation: int, recursive: bool, origin: str) -> None:
        super().__init__(origin)
        self.word = word
        self.propagation = propagation
        self.recursive = recursive

    def describe(self) -> str:
        return f"make / {self.word}"

    def run(self, ctx: Context) -> None:
        fd = m.open_tree(m.AT_FDCWD, "/", clone=False)
        m.mount_setattr(fd, propagation=self.propagation, recursive=self.recursive)
        os.close(fd)


class BindRoot(Step):
    """Make the root filesystem a mount of its own in the runtime's mount namespace, for a container that has none.

    What is mounted for the container lies below it, is private to it, and goes with it: a single unmount undoes all, at
    `delete` or when creation fails. Run by the runtime, which outlives init.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        super().__init__("/root/path")
        self.path = path

    def describe(self) -> str:
        return f"bind {self.path} on itself, on the host"

    def run(self, ctx: Context) -> None:
        fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        tree = m.open_tree(fd, "", recursive=True)
        m.move_mount(tree, fd)
        ctx.mounts = [(self.path, m.mount_id(tree))]
        m.mount_setattr(tree, propagation=m.MS_PRIVATE, recursive=True)
        os.close(tree)
        os.close(fd)

    def undo(self, ctx: Context) -> None:
        for path, mount_id in ctx.mounts:
            unmount(path, mount_id)
        ctx.mounts = []


def unmount(path: str, mount_id: int) -> None:
    """Unmount what a container had on the host, with all below; nothing where another mount is there by now."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    found = m.mount_id(fd)
    os.close(fd)
    if found == mount_id:
        m.umount2(path, m.MNT_DETACH | m.UMOUNT_NOFOLLOW)


class OpenRoot(Step):
    """Make the root filesystem a mount of its own (pivot_root(2) wants one) and hold it by a descriptor.

    Where the namespace still shares mounts with the host, the parent of the root is made private: nothing done to the
    root shows on the host then.
    """

    __slots__ = ("bind", "path", "private_parent")

    def __init__(self, path: str, bind: bool, private_parent: bool) -> None:
        super().__init__("/root/path")
        self.path = path
        self.bind = bind
        self.private_parent = private_parent

    def describe(self) -> str:
        return f"bind {self.path} on itself" if self.bind else f"open {self.path}"

    def run(self, ctx: Context) -> None:
        fd = open_source(ctx, self.path)
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise Error("is not a directory")
        if not self.bind:
            ctx.root_fd = fd
            return
        # Before the copy is made: the copy of a shared mount is its peer, and would show the container's mounts outside
        if self.private_parent:
            _make_private_above(fd, self.path)
        tree = m.open_tree(fd, "", recursive=True)
        m.move_mount(tree, fd)
        os.close(fd)
        ctx.root_fd = tree


def _make_private_above(fd: int, path: str) -> None:
    """Make the mount that holds the directory `fd` private.

    mount_setattr(2) takes only a mount's root, so go up from the directory until it accepts.
    """
    here = os.dup(fd)
    try:
        while True:
            try:
                m.mount_setattr(here, propagation=m.MS_PRIVATE)
                return
            except OSError as e:
                if e.errno != errno.EINVAL:
                    raise
            up = os.open("..", os.O_PATH | os.O_CLOEXEC, dir_fd=here)
            at_top = os.path.samestat(os.fstat(up), os.fstat(here))
            os.close(here)
            here = up
            if at_top:
                raise Error(f"no mount point above {path}: is / a chroot?")
    finally:
        os.close(here)


def _empty_tmpfs(label: str = "") -> int:
    """A detached, empty, read-only tmpfs: what hides a directory."""
    fs = m.fsopen("tmpfs")
    m.fsconfig(fs, "ro")
    m.fsconfig(fs, "size", "0")
    m.fsconfig(fs, "nr_inodes", "1")
    if label:
        m.fsconfig(fs, "context", label)
    mount_fd = m.fsmount(fs, m.MOUNT_ATTR_RDONLY)
    os.close(fs)
    return mount_fd


#: What may be mounted over in /proc: files that lxcfs and the like show in another form, and what runc allows besides.
MAY_HIDE_IN_PROC = (
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
)


class Mount(Step):
    """Mount something on a path in the container: the part that all kinds of mounts have in common.

    A subclass makes the detached mount; here the target is found (or made) below the root descriptor and the mount
    attached to it. What was looked up is what is mounted on: a hostile image cannot redirect it in between.
    """

    __slots__ = ("destination", "options", "source", "type")

    def __init__(self, destination: str, fstype: str, source: str, options: MountOptions, origin: str) -> None:
        super().__init__(origin)
        self.destination = destination
        self.type = fstype
        self.source = source
        self.options = options

    def describe(self) -> str:
        words = f" ({self.options.text})" if self.options.text else ""
        return f"mount {self.type} on {self.destination}{words}"

    def failed(self) -> str:
        _, _, what = self.describe().partition(" ")
        return f"error mounting {what}"  # runc's words

    def failure(self, e: OSError) -> Error:
        # "Operation not permitted" has a meaning for engines (pyrunc/errors.py): runc says so of a forbidden mount
        return Error.from_os(e, pointer=self.origin, action=self.failed(), about_command=e.errno == errno.EPERM)

    def target(self, ctx: Context, *, directory: bool = True) -> int:
        """The mount point as a descriptor, made where it is missing."""
        fd = make_in_root(ctx.root_fd, self.destination, directory=directory)
        self._spare_proc(ctx, fd)
        return fd

    def _spare_proc(self, ctx: Context, fd: int) -> None:
        """Refuse to hide /proc or a part of it: what is written there must get to the kernel (CVE-2019-16884).

        As in runc only a procfs may be mounted on /proc, and below it files that tell about the machine.
        """
        root = os.readlink(fd_path(ctx.root_fd)).rstrip("/")
        path = os.readlink(fd_path(fd)).removeprefix(root)
        if path in ("", "/"):
            # It would lie over the root that is already held, and so be out of sight; runc and crun refuse it too
            raise Error("nothing can be mounted on the root directory itself")
        if path == "/proc":
            if not self.is_proc():
                raise Error("only a proc filesystem can be mounted on /proc")
        elif path.startswith("/proc/") and path not in MAY_HIDE_IN_PROC:
            raise Error(f"nothing may be mounted on {path}, inside /proc")

    def is_proc(self) -> bool:
        """Whether it is a proc filesystem that is to be mounted."""
        return self.type == "proc"

    def attach(self, ctx: Context, mount_fd: int, target_fd: int) -> None:
        """Put the detached mount in its place and apply what works only there."""
        m.move_mount(mount_fd, target_fd)
        o = self.options
        if o.rec_set or o.rec_clear:
            m.mount_setattr(mount_fd, o.rec_set, o.rec_clear, recursive=True)
        for propagation, recursive in o.propagation:
            m.mount_setattr(mount_fd, propagation=propagation, recursive=recursive)


class FilesystemMount(Mount):
    """Mount a new filesystem: proc, sysfs, tmpfs, devpts, mqueue, overlay, …"""

    __slots__ = ()

    def run(self, ctx: Context) -> None:
        mode = self._inherited_mode(ctx)
        target = self._plain_directory(ctx) if self.type in ("proc", "sysfs") else self.target(ctx)
        mount_fd = self.make(mode)
        if self.options.copy_up:
            _copy_up(target, mount_fd)
        self.attach(ctx, mount_fd, target)
        os.close(target)
        os.close(mount_fd)

    def _inherited_mode(self, ctx: Context) -> str:
        """The mode of the directory that a tmpfs covers, which it takes over; "" where there is none before."""
        if self.type != "tmpfs" or any(key == "mode" for key, _ in self.options.filesystem):
            return ""
        try:
            fd = open_in_root(ctx.root_fd, self.destination)
        except FileNotFoundError:
            return ""  # the kernel's own, 1777
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        os.close(fd)
        return f"{mode:o}"

    def make(self, mode: str) -> int:
        """The detached mount."""
        fs = m.fsopen(self.type)
        try:
            options = list(self.options.filesystem)
            if mode:
                options.append(("mode", mode))
            if self.source:
                options.insert(0, ("source", self.source))
            _configure(fs, options)
            try:
                return m.fsmount(fs, self.options.set)
            except OSError as e:
                raise _explained(e, fs) from None
        finally:
            os.close(fs)

    def _plain_directory(self, ctx: Context) -> int:
        """/proc and /sys must lie where they say: a symbolic link there could make another path the trusted one."""
        fd = self.target(ctx)
        try:
            direct = openat2(
                ctx.root_fd,
                self.destination.lstrip("/") or ".",
                os.O_PATH | os.O_NOFOLLOW,
                RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS,
            )
        except OSError as e:
            os.close(fd)
            if e.errno == errno.ELOOP:
                raise Error(f"{self.type} must be mounted on ordinary directory, not through a symbolic link") from None
            raise
        os.close(fd)
        if not stat.S_ISDIR(os.fstat(direct).st_mode):
            os.close(direct)
            raise Error(f"{self.type} must be mounted on ordinary directory")
        return direct


class BindMount(Mount):
    """Show a directory or file of the host, with or without what is mounted below it, at a path in the container."""

    __slots__ = ("recursive", "served", "shows_proc")

    def __init__(self, destination: str, source: str, recursive: bool, options: MountOptions, origin: str) -> None:
        super().__init__(destination, "rbind" if recursive else "bind", source, options, origin)
        self.recursive = recursive
        self.served = -1  # the number by which the runtime's side opens the source, -1 if that is for init to do
        self.shows_proc = False

    def is_proc(self) -> bool:
        return self.shows_proc

    def describe(self) -> str:
        words = f" ({self.options.text})" if self.options.text else ""
        return f"bind {self.source} on {self.destination}{words}"

    def run(self, ctx: Context) -> None:
        mount_fd = self._open(ctx)
        self.shows_proc = m.filesystem_magic(mount_fd) == m.PROC_SUPER_MAGIC
        o = self.options
        if o.set or o.clear or o.times:
            self._apply_flags(mount_fd)
        target = self.target(ctx, directory=stat.S_ISDIR(os.fstat(mount_fd).st_mode))
        self.attach(ctx, mount_fd, target)
        os.close(target)
        os.close(mount_fd)

    def _open(self, ctx: Context) -> int:
        """A detached copy of the mounts at the source."""
        if self.served >= 0 and ctx.source_fd >= 0:  # for CRIU this is run by who needs no help (plan/checkpoint.py)
            from pyrunc.steps.sources import ask

            return ask(ctx, self.served, self.source)
        source = open_source(ctx, self.source)
        mount_fd = m.open_tree(source, "", recursive=self.recursive)
        os.close(source)
        return mount_fd

    def _apply_flags(self, mount_fd: int) -> None:
        """The flags given and no others, as `mount --bind -o` is meant and runc does it.

        Access times are one matter: naming a mode or nodiratime settles all of it, as in mount(2). In a user namespace
        the source's nosuid, nodev, noexec, ro and access times may be locked (mount_namespaces(7)): those that were not
        asked to be cleared are kept then.
        """
        o = self.options
        flags = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
        flags |= m.MOUNT_ATTR_NOSYMFOLLOW
        times = m.MOUNT_ATTR__ATIME | m.MOUNT_ATTR_NODIRATIME if o.times else 0
        try:
            m.mount_setattr(mount_fd, o.set, ((flags | times) & ~o.set) | o.clear)
        except PermissionError:
            clear = o.clear & ~m.MOUNT_ATTR_NODIRATIME
            m.mount_setattr(mount_fd, o.set, ((m.MOUNT_ATTR_NOSYMFOLLOW | times) & ~o.set) | clear)


class Remount(Mount):
    """Change the attributes of what is already mounted at a path in the container (option `remount`)."""

    __slots__ = ()

    def describe(self) -> str:
        return f"remount {self.destination} ({self.options.text})"

    def run(self, ctx: Context) -> None:
        fd = open_in_root(ctx.root_fd, self.destination)
        o = self.options
        if o.filesystem and not (o.bind or o.rbind):
            self._reconfigure(fd)
        m.mount_setattr(fd, o.set, o.clear)
        if o.rec_set or o.rec_clear:
            m.mount_setattr(fd, o.rec_set, o.rec_clear, recursive=True)
        for propagation, recursive in o.propagation:
            m.mount_setattr(fd, propagation=propagation, recursive=recursive)
        os.close(fd)

    def _reconfigure(self, fd: int) -> None:
        """Change the filesystem's own options, not only this mount's."""
        fs = m.fspick(fd)
        try:
            _configure(fs, self.options.filesystem)
            try:
                m.fsreconfigure(fs)
            except OSError as e:
                raise _explained(e, fs) from None
        finally:
            os.close(fs)


def _configure(fs: int, options: list[tuple[str, str | None]]) -> None:
    """Give a filesystem its options; Error names the one that it does not take."""
    for key, value in options:
        try:
            m.fsconfig(fs, key, value)
        except OSError as e:
            said = m.fs_messages(fs) or os.strerror(e.errno or 0)
            name = key if value is None else f"{key}={value}"
            raise Error(f"option {name}: {said}", errno=e.errno or 0) from None


def _explained(e: OSError, fs: int) -> Error:
    """The error together with what the filesystem has to say about it."""
    said = m.fs_messages(fs)
    return Error(os.strerror(e.errno or 0) + (f" ({said})" if said else ""), errno=e.errno or 0)


class CgroupMount(Mount):
    """Show the container its own part of the cgroup hierarchies, in the layout that the host has.

    Pure v2 without a cgroup namespace is the exception: the whole of it is shown, as runc and crun do, so that what
    /proc/self/cgroup tells is a path in it.
    """

    __slots__ = ("own_namespace",)

    def __init__(self, destination: str, own_namespace: bool, options: MountOptions, origin: str) -> None:
        super().__init__(destination, "cgroup", "cgroup", options, origin)
        self.own_namespace = own_namespace

    def run(self, ctx: Context) -> None:
        hierarchies = self._hierarchies(ctx)
        if not hierarchies:
            raise Error("the container has no cgroup to show")
        target = self.target(ctx)
        only_v2 = list(hierarchies) == [""]
        mount_fd = self._v2(hierarchies[""]) if only_v2 else self._v1_tree()
        self.attach(ctx, mount_fd, target)
        os.close(target)
        if not only_v2:
            self._v1_hierarchies(mount_fd, hierarchies)
        os.close(mount_fd)

    def bound(self, ctx: Context) -> list[tuple[str, str]]:
        """(path in the container, host directory) where it consists of bind mounts: v1 without a cgroup namespace."""
        hierarchies = self._hierarchies(ctx)
        if self.own_namespace or list(hierarchies) == [""]:
            return []
        return [(f"{self.destination}/{_directory(name)}", path) for name, path in hierarchies.items()]

    def _hierarchies(self, ctx: Context) -> dict[str, str]:
        """The controllers of each hierarchy ("cpu,cpuacct", "name=systemd", "" for v2) and the container's place in it.

        In a cgroup namespace of its own the place is wherever the container is, be it no cgroup of its own (rootless).
        """
        if ctx.cgroup is None:
            return {}
        found: dict[str, str] = {}
        if self.own_namespace:
            only_v2 = list(ctx.cgroup.paths) == [""]
            for line in read_text("/proc/self/cgroup").splitlines():
                name = line.split(":", 2)[1]
                # Each has a line here even where nobody has it mounted: v2, or v1's that were once used
                if not only_v2 if name else ctx.cgroup.unified:
                    found[name] = ""
            return found
        paths = ctx.cgroup.paths
        if not paths:  # a rootless container that had to go without lives in the runtime's cgroup
            layout = cgroups.detect(read_text("/proc/self/mountinfo"))
            paths = cgroups.own_directories(layout, read_text("/proc/self/cgroup"))
        for directory in dict.fromkeys(paths.values()):
            found[",".join(name for name, path in paths.items() if path == directory)] = directory
        return found

    def _v2(self, path: str) -> int:
        """A detached mount of pure v2."""
        try:
            return self._filesystem("", self.options.set)
        except PermissionError:  # in a user namespace, which does not own the cgroup namespace
            return self._hierarchy("", path, self.options.set)

    def _hierarchy(self, name: str, path: str, attributes: int) -> int:
        """A detached mount of one hierarchy, the container's cgroup at its root."""
        if self.own_namespace:
            return self._filesystem(name, attributes)
        fd = m.open_tree(m.AT_FDCWD, path)
        m.mount_setattr(fd, attributes)
        return fd

    def _filesystem(self, name: str, attributes: int) -> int:
        """A detached mount of one hierarchy, the cgroup namespace's root at its root."""
        fs = m.fsopen("cgroup" if name else "cgroup2")
        try:
            if name.startswith("name="):
                m.fsconfig(fs, "none")
                m.fsconfig(fs, "name", name[len("name=") :])
            elif name:
                for controller in name.split(","):
                    m.fsconfig(fs, controller)
            return m.fsmount(fs, attributes)
        finally:
            os.close(fs)

    def _v1_tree(self) -> int:
        """The tmpfs that holds the hierarchies' directories."""
        fs = m.fsopen("tmpfs")
        m.fsconfig(fs, "mode", "755")
        m.fsconfig(fs, "source", "tmpfs")
        fd = m.fsmount(fs, self.options.set & ~m.MOUNT_ATTR_RDONLY)
        os.close(fs)
        return fd

    def _v1_hierarchies(self, tree: int, hierarchies: dict[str, str]) -> None:
        for name, path in hierarchies.items():
            directory = _directory(name)
            os.mkdir(directory, 0o755, dir_fd=tree)
            target = os.open(directory, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=tree)
            mount_fd = self._hierarchy(name, path, self.options.set)
            m.move_mount(mount_fd, target)
            os.close(target)
            os.close(mount_fd)
            if "," in name:
                for controller in name.split(","):
                    os.symlink(directory, controller, dir_fd=tree)
        if self.options.set & m.MOUNT_ATTR_RDONLY:
            m.mount_setattr(tree, m.MOUNT_ATTR_RDONLY)


def _directory(name: str) -> str:
    """Where a v1 layout has a hierarchy."""
    return name.removeprefix("name=") or "unified"


class MaskPath(Step):
    """Hide a path: a file behind the host's /dev/null, a directory behind an empty read-only tmpfs (one for all).


    Attributes:
        label: the tmpfs's SELinux label, or "".
    """

    __slots__ = ("label", "path")

    def __init__(self, path: str, origin: str, label: str = "") -> None:
        super().__init__(origin)
        self.path = path
        self.label = label

    def describe(self) -> str:
        return f"mask {self.path}"

    def run(self, ctx: Context) -> None:
        try:
            target = open_in_root(ctx.root_fd, self.path)
        except (FileNotFoundError, NotADirectoryError):
            return  # nothing there to hide: default profiles name paths of many kernels
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            mask = m.open_tree(ctx.null_fd, "")
        elif ctx.empty_fd >= 0:
            mask = m.open_tree(ctx.empty_fd, "")
        else:
            mask = ctx.empty_fd = _empty_tmpfs(self.label)
        m.move_mount(mask, target)
        if mask != ctx.empty_fd:
            os.close(mask)
        os.close(target)


class OpenNull(Step):
    """Hold the host's /dev/null, and be sure that it is one, before the image could put something in its place."""

    __slots__ = ()

    def describe(self) -> str:
        return "open the host's /dev/null"

    def run(self, ctx: Context) -> None:
        fd = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
        status = os.fstat(fd)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
            os.close(fd)
            raise Error("the host's /dev/null is not the null device")
        ctx.null_fd = fd


class ReadonlyPath(Step):
    """Make a path read-only by mounting it read-only on itself."""

    __slots__ = ("path",)

    def __init__(self, path: str, origin: str) -> None:
        super().__init__(origin)
        self.path = path

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def run(self, ctx: Context) -> None:
        try:
            target = open_in_root(ctx.root_fd, self.path)
        except (FileNotFoundError, NotADirectoryError):
            return  # as for masked paths
        mount_fd = m.open_tree(target, "", recursive=True)
        m.mount_setattr(mount_fd, m.MOUNT_ATTR_RDONLY)
        m.move_mount(mount_fd, target)
        os.close(mount_fd)
        os.close(target)


class PivotRoot(Step):
    """Make the root filesystem the root of this mount namespace and let go of the host's."""

    __slots__ = ()

    def describe(self) -> str:
        return "pivot_root into the root filesystem"

    def run(self, ctx: Context) -> None:
        old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(ctx.root_fd)
        # The old root is stacked on the new one at the same path (pivot_root(2), NOTES): no directory has to be
        # made for it in the image.
        m.pivot_root(".", ".")
        # By its descriptor, because "." may mean either of the two. It becomes a slave first: where its mounts still
        # are peers of the host's (rootfsPropagation "shared") the unmount would take the host's away too.
        os.fchdir(old)
        m.mount_setattr(old, propagation=m.MS_SLAVE, recursive=True)
        os.close(old)
        m.umount2(".", m.MNT_DETACH)
        os.chdir("/")


class MoveRoot(Step):
    """For `--no-pivot` (a root on initramfs cannot be pivoted): move the root filesystem's mount over / and chroot.

    The host's other mounts stay in the namespace, hidden below. What would show the host's /proc and /sys to a process
    that finds its way back is taken away first.
    """

    __slots__ = ()

    def describe(self) -> str:
        return "move the root filesystem over / and chroot"

    def run(self, ctx: Context) -> None:
        root = os.readlink(f"/proc/self/fd/{ctx.root_fd}")
        with open("/proc/self/mountinfo", "rb") as f:
            lines = f.read().split(b"\n")
        for line in lines:
            fields = line.split(b" ")
            if len(fields) < 10:
                continue
            at = os.fsdecode(fields[4])
            kind = fields[fields.index(b"-") + 1]
            if kind in (b"proc", b"sysfs") and not (at + "/").startswith(root + "/"):
                try:
                    m.umount2(at, m.MNT_DETACH)
                except OSError as e:
                    # locked by a user namespace (EINVAL, EPERM): cover it instead
                    if e.errno not in (errno.EINVAL, errno.EPERM):
                        raise
                    cover = _empty_tmpfs()
                    target = os.open(at, os.O_PATH | os.O_CLOEXEC)
                    m.move_mount(cover, target)
                    os.close(target)
                    os.close(cover)
        top = os.open("/", os.O_PATH | os.O_CLOEXEC)
        m.move_mount(ctx.root_fd, top)
        os.close(top)
        os.fchdir(ctx.root_fd)
        os.chroot(".")
        os.chdir("/")


class Chroot(Step):
    """Without a mount namespace of its own, all that a container's root can be is a changed root directory."""

    __slots__ = ()

    def describe(self) -> str:
        return "chroot into the root filesystem"

    def run(self, ctx: Context) -> None:
        os.fchdir(ctx.root_fd)
        os.chroot(".")
        os.chdir("/")


class MarkRoot(Step):
    """Set the propagation or read-only attribute of the container's root mount, now at /."""

    __slots__ = ("attributes", "propagation", "word")

    def __init__(self, word: str, origin: str, *, propagation: int = 0, attributes: int = 0) -> None:
        super().__init__(origin)
        self.word = word
        self.propagation = propagation
        self.attributes = attributes

    def describe(self) -> str:
        return f"make the root filesystem {self.word}"

    def run(self, ctx: Context) -> None:
        m.mount_setattr(ctx.root_fd, self.attributes, propagation=self.propagation)


class MarkMount(Step):
    """Make a mount read-only that had to be written to while the container was put together (/dev, copied-up tmpfs)."""

    __slots__ = ("path",)

    def __init__(self, path: str, origin: str) -> None:
        super().__init__(origin)
        self.path = path

    def describe(self) -> str:
        return f"make the mount on {self.path} read-only"

    def run(self, ctx: Context) -> None:
        fd = open_in_root(ctx.root_fd, self.path)
        m.mount_setattr(fd, m.MOUNT_ATTR_RDONLY)
        os.close(fd)


class MakeWorkingDirectory(Step):
    """Make process.cwd where the image lacks it. The specification leaves this open; runc and crun make it, and
    engines (Kubernetes with containerd) count on that."""

    __slots__ = ("path",)

    about_command = True

    def __init__(self, path: str, origin: str) -> None:
        super().__init__(origin)
        self.path = path

    def describe(self) -> str:
        return f"make the working directory {self.path}"

    def run(self, ctx: Context) -> None:
        os.close(make_in_root(ctx.root_fd, self.path, directory=True))


def _copy_up(source: int, target: int) -> None:
    """Copy what is below the directory `source` into the directory `target` (tmpcopyup), owners and modes kept."""
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source)
    names = os.listdir(here)
    for name in names:
        status = os.stat(name, dir_fd=here, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target)
            below = [os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=d) for d in (here, target)]
            _copy_up(*below)
            for fd in below:
                os.close(fd)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=here), name, dir_fd=target)
        elif kind == stat.S_IFREG:
            reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
            while os.sendfile(writer, reader, None, 1 << 20):
                pass
            os.close(reader)
            os.close(writer)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    os.close(here)
