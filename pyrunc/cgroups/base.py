"""What all cgroup managers share: the interface, and the handling of directories and files."""

from __future__ import annotations

import errno
import os
import time

from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pyrunc.cgroups import Layout
    from pyrunc.cgroups.systemd import Unit

SIGKILL = 9

#: What a kernel says of a file that it lists and no longer serves (EOPNOTSUPP, and its own ENOTSUPP).
_UNSUPPORTED = (errno.ENOENT, errno.EOPNOTSUPP, 524)

#: How a kernel says that it is not for us to do.
REFUSED = (errno.EPERM, errno.EACCES, errno.EROFS)


class Setting:
    """One value for one file of a cgroup.

    Attributes:
        controller: which controller the file belongs to, "" for the cgroup core's own.
        file: file name.
        value: text to write; each line is one write, as the kernel's keyed files want it.
        pointer: JSON pointer of the value in the configuration that asks for it.
        first: a setting without which the kernel may refuse this one (EINVAL), for example a memory limit
            above the present memory+swap limit; it is written, and then this again.
        above: a file and a number: refuse, in place of the kernel, if what the file reads is not below the
            number.
        otherwise: the setting that stands in where the kernel does not have the file.
        optional: whether nothing is lost where the kernel does not have the file.
    """

    __slots__ = ("above", "controller", "file", "first", "optional", "otherwise", "pointer", "value")

    def __init__(
        self,
        controller: str,
        file: str,
        value: str,
        pointer: str,
        *,
        above: tuple[str, int] | None = None,
        otherwise: Setting | None = None,
        optional: bool = False,
    ) -> None:
        self.controller = controller
        self.file = file
        self.value = value
        self.pointer = pointer
        self.first: Setting | None = None
        self.above = above
        self.otherwise = otherwise
        self.optional = optional

    def describe(self) -> str:
        return f"write {self.value!r} to {self.file}"

    def __repr__(self) -> str:
        return f"<{self.file} = {self.value!r} for {self.pointer}>"


class Manager:
    """The cgroups of one container.

    Attributes:
        paths: directory for each controller; on v2 one directory under the key "".
        unified: mount point of the v2 hierarchy, if there is one.
        rootless: whether to go without what may not be made (see `pyrunc.cgroups.manager`).
        unit: the systemd unit whose cgroup it is; None where directories are made and removed here (cgroupfs).
    """

    __slots__ = ("dirs", "made", "paths", "rootless", "unified", "unit")

    #: "v1" or "v2", as saved.
    version = ""

    def __init__(self, paths: dict[str, str], unified: str | None, rootless: bool) -> None:
        self.paths = paths
        self.unified = unified
        self.rootless = rootless
        #: The distinct directories; co-mounted controllers share one.
        self.dirs = list(dict.fromkeys(paths.values()))
        #: What this object has made, parents first: what a failed create takes back.
        self.made: list[str] = []
        self.unit: Unit | None = None

    @staticmethod
    def place(inner: str, layout: Layout, own: dict[str, str]) -> dict[str, str]:
        """The directory of each controller.

        Args:
            inner: cleaned path of the container's cgroup, relative or absolute (see
                `pyrunc.cgroups.manager`).
            own: the runtime's own cgroup by controller, "" for v2's.
        """
        raise NotImplementedError

    @staticmethod
    def restore(saved: dict[str, Any]) -> Manager:
        """The manager that `save` described."""
        from pyrunc.cgroups import restore

        return restore(saved)

    def save(self) -> dict[str, Any]:
        """What `restore` needs, as JSON values."""
        return {
            "version": self.version,
            "paths": self.paths,
            "unified": self.unified,
            "rootless": self.rootless,
            **({"systemd": self.unit.save()} if self.unit is not None else {}),
        }

    # -- directories

    def create(self, pid: int = 0) -> None:
        """Make the directories. Existing ones are used as they are.

        Args:
            pid: for a systemd unit, which is not made without: the process to put into it.

        Raises:
            Error: with what was made taken away again.
        """
        if self.unit is None:
            self._create()
            return
        self.unit.start(pid)
        try:
            self._create()  # what systemd has no use for: hierarchies of v1, controllers of v2
            for directory in self.dirs:
                if pid not in _procs(directory, False):
                    _join(directory, str(pid))
        except (Error, OSError) as e:
            self.kill(SIGKILL)  # or systemd would wait for it to end by itself
            self.unit.stop()
            self._unmake()
            raise self._explain_join(e, self._main(), str(pid)) if isinstance(e, OSError) else e from None

    def _create(self) -> None:
        for directory in self.dirs.copy():
            try:
                self._make(directory)
            except OSError as e:
                if e.errno in REFUSED and self.dispensable(directory):
                    self._go_without(directory)
                    continue
                self._unmake()
                if e.errno == errno.EACCES and os.geteuid() != 0:
                    # runc's words for what happens to ordinary users, whom engines tell to run as root
                    reason = "unable to apply cgroup configuration: permission denied"
                    raise Error(reason, action=f"make cgroup {directory}", errno=e.errno) from None
                raise Error.from_os(e, action=f"make cgroup {directory}") from None
            except Error:
                self._unmake()
                raise

    def _make(self, directory: str) -> None:
        raise NotImplementedError

    def _mkdir(self, directory: str) -> bool:
        """Make a directory and its missing parents; False if it was there."""
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            return False
        except FileNotFoundError:
            self._mkdir(os.path.dirname(directory))
            os.mkdir(directory, 0o755)
        self.made.append(directory)
        return True

    def _unmake(self) -> None:
        """Take away what `create` made. What is in use by now is somebody's and stays."""
        for directory in reversed(self.made):
            try:
                os.rmdir(directory)
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.EBUSY):
                    raise
        self.made.clear()

    def dispensable(self, directory: str) -> bool:
        """Whether the container can do without a directory that may not be made or used."""
        return self.rootless

    def _go_without(self, directory: str) -> None:
        """Forget a directory that may not be used, and take it away if it could at least be made."""
        self.dirs.remove(directory)
        if directory in self.made:
            self.made.remove(directory)
            _remove(directory)
        for controller in [c for c, path in self.paths.items() if path == directory]:
            del self.paths[controller]

    def remove(self) -> None:
        """Remove the directories with the cgroups that the container made in them. Gone already is fine.

        After a `create` of this same object its new parent directories go too, if nobody uses them.

        Raises:
            Error: if processes are still in one after about two seconds; the others are removed.
        """
        if self.unit is not None:
            self.unit.stop()  # which removes its cgroup; not all of v1's, and not always cgroups below
        busy: Error | None = None
        for directory in self.dirs:
            try:
                _remove(directory)
            except Error as e:
                busy = busy or e
        if busy is not None:
            raise busy
        self._unmake()

    def exists(self) -> bool:
        """Whether any of the directories is there."""
        return any(os.path.exists(directory) for directory in self.dirs)

    def delegate(self, uid: int, gid: int = -1) -> None:
        """Hand the cgroup to a user, to arrange below it what he likes (cgroup-v2.rst, "Delegation").

        On v1, where this would not be safe, nothing is done.

        Args:
            uid: host user ID of the container's process.
            gid: host group ID, -1 to leave it.
        """

    def within(self, subgroups: dict[str, str]) -> Manager:
        """The manager of cgroups below these, to which a process is to be added (``exec --cgroup``).

        Args:
            subgroups: for each controller the path from the container's cgroup; under "" one for all of them.

        Raises:
            Error: if there is no such controller or cgroup, or a path leads out of the container's cgroup.
        """
        moved: dict[str, str] = {}
        for controller, path in subgroups.items():
            if controller and controller not in self.paths:
                raise Error(f"unknown controller {controller} in --cgroup {controller}:{path}")
            for directory in [self.paths[controller]] if controller else self.dirs:
                inner = os.path.normpath(f"{directory}/{path}")
                if inner != directory and not inner.startswith(directory + "/"):
                    raise Error(f"bad sub cgroup path: {path}")
                if moved.setdefault(directory, inner) != inner:
                    raise Error(f"{controller} shares its hierarchy with a controller for which another path is given")
                if not os.path.isdir(inner):
                    # in the words that runc has for it; no engine passes --cgroup and would take them for the command's
                    raise Error("no such file or directory", action=_adding(inner), errno=errno.ENOENT)
        paths = {controller: moved.get(directory, directory) for controller, directory in self.paths.items()}
        return self.restore({**self.save(), "paths": paths})

    def follow(self, pid: int) -> None:
        """Let a process that can't join the cgroup be added to another's: that of the container's init.

        For the moment when init has moved to a cgroup below and had the container's own hand controllers down, which
        then may have no processes, or has moved elsewhere and the container's own is gone. Nothing is done on v1.

        Args:
            pid: host process ID of init.
        """

    # -- processes

    def add(self, pid: int) -> None:
        """Move a process into the cgroups.

        Args:
            pid: as this process sees it; 0 is this process.

        Raises:
            Error: if it may not be moved, or isn't there.
        """
        text = str(pid)
        for directory in self.dirs.copy():
            try:
                _join(directory, text)
            except OSError as e:
                if e.errno in REFUSED and self.dispensable(directory):
                    self._go_without(directory)
                    continue
                raise self._explain_join(e, directory, text) from None

    def doors(self, *, unified: bool = True) -> dict[str, int]:
        """Descriptors (close-on-exec) by which a process yet to be made can `enter`, whoever it is by then.

        `add` may have to wait, around 10 ms on an idle machine, until the kernel has brought all forks and
        exits to a halt (cgroup_threadgroup_rwsem). It does so for every move but that of the caller's own
        thread, which only v1's "tasks" can ask for. A v2 cgroup is reached without the wait by
        CLONE_INTO_CGROUP of clone3(2).

        Args:
            unified: false if the process will be born into the v2 cgroup (``paths[""]``).

        Returns:
            by directory; `enter` closes them.

        Raises:
            Error: if one may not be opened, with none left open.
        """
        beside = self.paths.get("")
        found: dict[str, int] = {}
        for directory in self.dirs.copy():
            if directory == beside and not unified:
                continue
            file = "/cgroup.procs" if directory == beside else "/tasks"
            try:
                found[directory] = os.open(directory + file, os.O_WRONLY | os.O_CLOEXEC)
            except OSError as e:
                if e.errno in REFUSED and self.dispensable(directory):
                    self._go_without(directory)
                    continue
                for fd in found.values():
                    os.close(fd)
                raise self._explain_join(e, directory) from None
        return found

    def enter(self, doors: dict[str, int]) -> None:
        """Move the calling process, which must have but one thread, through `doors`, and close them.

        Raises:
            Error: if it may not be moved.
        """
        try:
            for directory, fd in doors.items():
                try:
                    os.write(fd, b"0")
                except OSError as e:
                    if self.unit is not None and e.errno in REFUSED:
                        self.unit.attach(os.getpid(), directory)  # systemd may what we may not
                    elif e.errno not in REFUSED or not self.dispensable(directory):
                        raise self._explain_join(e, directory) from None
        finally:
            for fd in doors.values():
                os.close(fd)

    def join(self, *, unified: bool = True) -> None:
        """Move the calling process, which must have but one thread, into the cgroups: `doors` and `enter` in one.

        Raises:
            Error: if it may not be moved.
        """
        self.enter(self.doors(unified=unified))

    def _explain_join(self, e: OSError, directory: str, pid: str = "of the new process") -> Error:
        action = _adding(directory, pid)
        if e.errno == errno.ENOSPC:
            return Error("its cpuset has no CPUs or no memory nodes", action=action, errno=errno.ENOSPC)
        if e.errno == errno.ESRCH:
            return Error("the process has ended", action=action, errno=errno.ESRCH)
        return Error.from_os(e, action=action)

    def _main(self) -> str:
        """The directory that stands for all where one is enough, "" if there is none."""
        raise NotImplementedError

    def procs(self, recursive: bool = True) -> list[int]:
        """Process IDs in the container's cgroup, and in those below it if recursive; none if it is gone."""
        directory = self._main()
        return _procs(directory, recursive) if directory else []

    def check_empty(self) -> None:
        """A new container must not share its cgroup with others' processes, nor begin its life frozen.

        What is another user's, whose container has the same ID, is none of its own.

        Raises:
            Error: if the cgroup has processes or is frozen.
        """
        for directory in self.dirs.copy():
            if self.dispensable(directory) and _is_of_others(directory):
                self._go_without(directory)
        directory = self._main()
        if not directory:
            return
        if pids := self.procs():
            raise Error(
                f"container's cgroup is not empty: {len(pids)} process(es) found, e.g. {pids[0]}",
                action=f"check cgroup {directory}",
            )
        if self.frozen():
            raise Error("container's cgroup unexpectedly frozen", action=f"check cgroup {directory}")

    def kill(self, signal: int) -> None:
        """Send a signal to every process in the cgroup, those included that are forked meanwhile.

        SIGKILL also thaws: a frozen process can't die on v1.
        """
        can_freeze = bool(self._freezer())
        was_frozen = can_freeze and self.frozen()
        if can_freeze and not was_frozen:
            try:
                self.freeze()
            except Error:  # processes fork faster than v1 can freeze; the rounds below still get them
                can_freeze = False
        try:
            # Frozen, nothing is forked and one round reaches all. Otherwise forks race with the list.
            for _ in range(1 if can_freeze or signal != SIGKILL else 100):
                pids = self.procs()
                for pid in pids:
                    try:
                        os.kill(pid, signal)
                    except ProcessLookupError:
                        pass
                    except OSError as e:
                        raise Error.from_os(e, action=f"send signal {signal} to process {pid}") from None
                if not pids:
                    break
                if not can_freeze:
                    time.sleep(0.001)
        finally:
            if can_freeze and (signal == SIGKILL or not was_frozen):
                self.thaw()

    # -- freezer

    def _freezer(self) -> str:
        """The directory whose files freeze, "" if there is none."""
        raise NotImplementedError

    def freezer(self) -> str:
        """The directory by which all its processes can be frozen, "" if there is none."""
        return self._freezer()

    def _need_freezer(self, action: str) -> str:
        directory = self._freezer()
        if not directory:
            raise Error("cgroups not configured for container", action="cannot toggle freezer")
        return directory

    def freeze(self) -> None:
        """Stop every process of the cgroup, and return when they have stopped.

        Raises:
            Error: if they would not stop; they run on then.
        """
        raise NotImplementedError

    def thaw(self) -> None:
        """Let the processes run on."""
        raise NotImplementedError

    def frozen(self) -> bool:
        """Whether `freeze` was done; False if there is no freezer, or only a cgroup above is frozen."""
        raise NotImplementedError

    # -- limits

    def settings(
        self, resources: dict[str, Any], *, devices: bool = True, at: str = "/linux/resources"
    ) -> list[Setting]:
        """What to write for ``linux.resources``, in order. Touches nothing.

        Args:
            resources: as in config.json. A number 0 where the specification gives it no meaning is "not
                given".
            devices: whether to set device rules: those of ``resources.devices`` and, after them, those that
                every container has (`pyrunc.cgroups.devices.DEFAULT_DEVICE_RULES`). All else is denied, also
                when ``devices`` is absent. False leaves device rules alone, as an update does.
            at: JSON pointer of resources in its document.

        Raises:
            Error: if a value contradicts another, or can't be had on this cgroup version.
        """
        raise NotImplementedError

    def apply(self, setting: Setting) -> None:
        """Write a setting.

        Raises:
            Error: with the setting's pointer.
        """
        from pyrunc.cgroups.devices import DeviceSetting

        if isinstance(setting, DeviceSetting):
            self._apply_devices(setting)
            return
        directory = self._directory(setting)
        check_above(directory, setting)
        try:
            self._write(directory, setting)
        except Error as e:
            e.pointer, e.action = setting.pointer, setting.describe()
            raise
        except OSError as e:
            if setting.otherwise is not None and e.errno in _UNSUPPORTED:
                self.apply(setting.otherwise)
            elif setting.first is not None and e.errno == errno.EINVAL:
                self.apply(setting.first)
                try:
                    self._write(directory, setting)
                except OSError as again:
                    raise self._explain(again, directory, setting) from None
            elif not setting.optional or e.errno not in _UNSUPPORTED:
                raise self._explain(e, directory, setting) from None

    def update(self, resources: dict[str, Any], *, at: str = "") -> None:
        """Change limits of a living container: all that are given, or none if one is refused.

        Args:
            resources: as in config.json. Device rules are left alone if there are none; `settings` says what
                those that are given come to.
            at: JSON pointer of resources in its document.

        Raises:
            Error: with the pointer of the value that was refused.
        """
        from pyrunc.cgroups.change import change

        change(self, self.settings(resources, devices="devices" in resources, at=at), resources, at)

    def _apply_devices(self, setting: Any) -> None:
        raise NotImplementedError

    def _directory(self, setting: Setting) -> str:
        """The directory of a setting's file; an Error if the controller has none."""
        raise NotImplementedError

    def _write(self, directory: str, setting: Setting) -> None:
        write_lines(directory + "/" + setting.file, setting.value)

    def _explain(self, e: OSError, directory: str, setting: Setting) -> Error:
        if e.errno == errno.ENOENT:
            reason = f"the {setting.controller or 'cgroup'} controller has no file {setting.file} in {directory}"
            if setting.controller == "hugetlb":
                sizes = {name.split(".")[1] for name in os.listdir(directory) if name.startswith("hugetlb.")}
                reason = f"the kernel has huge pages of {', '.join(sorted(sizes))}"
            return Error(
                reason,
                pointer=setting.pointer,
                action=setting.describe(),
                errno=errno.ENOENT,
            )
        return Error.from_os(e, pointer=setting.pointer, action=setting.describe())

    # -- figures

    def stats(self) -> dict[str, Any]:
        """Usage, in the shape of the "data" of runc's ``events --stats``."""
        raise NotImplementedError


# -- files


def read(path: str) -> str:
    """The text of a cgroup file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 65536)
        if len(data) < 4096:  # kernfs gives small files whole
            return data.decode()
        chunks = [data]
        while data := os.read(fd, 65536):
            chunks.append(data)
        return b"".join(chunks).decode()
    finally:
        os.close(fd)


def write(path: str, text: str) -> None:
    """One write of a text to a cgroup file. It is never created, should the directory not be a cgroup."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def write_lines(path: str, text: str) -> None:
    """One write for each line of a text; an empty text is one write too."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for line in text.splitlines() or [text]:
            os.write(fd, line.encode())
    finally:
        os.close(fd)


def number(path: str) -> int:
    """The number in a cgroup file; "max" is 2⁶⁴-1, as engines expect it."""
    text = read(path).strip()
    return 0xFFFFFFFFFFFFFFFF if text == "max" else int(text)


def check_above(directory: str, setting: Setting) -> None:
    if setting.above is None:
        return
    file, limit = setting.above
    try:
        usage = number(directory + "/" + file)
    except OSError:
        return  # a check as a courtesy: the write that follows tells what is wrong
    if limit <= usage:
        which = "memory+swap" if setting.pointer.endswith("/swap") else "memory"
        raise Error(
            f"rejecting {which} limit {limit} <= usage {usage}",
            pointer=setting.pointer,
            action=setting.describe(),
        )


# -- processes and directories


def _adding(directory: str, pid: str = "of the new process") -> str:
    return f"adding pid {pid} to cgroups: {directory}"


def _join(directory: str, pid: str) -> None:
    for attempt in range(6):
        try:
            write(directory + "/cgroup.procs", pid)
            return
        except OSError as e:
            # EINVAL is said of a task that is so new that the scheduler does not know it (TASK_NEW).
            if e.errno != errno.EINVAL or attempt == 5:
                raise
            time.sleep(0.001 * 2**attempt)


def _procs(directory: str, recursive: bool) -> list[int]:
    try:
        text = read(directory + "/cgroup.procs")
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENODEV):
            return []
        if e.errno != errno.EOPNOTSUPP:
            raise
        text = ""  # threaded: its threads' processes are listed by the domain above it
    pids = [int(line) for line in text.split() if line != "0"]  # 0: in a PID namespace that isn't ours
    if recursive:
        for child in children(directory):
            pids += _procs(directory + "/" + child, True)
    return pids


def children(directory: str) -> Iterable[str]:
    """Names of the cgroups right below; none if the directory is gone."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


#: Seconds; each wait is twice the one before, so that the whole is twice the last.
_FIRST_WAIT, _LAST_WAIT = 0.0001, 1.0


def _is_of_others(directory: str) -> bool:
    """Whether a cgroup is there that is not for us to use."""
    procs = directory + "/cgroup.procs"
    return os.access(procs, os.F_OK) and not os.access(procs, os.W_OK)


def _remove(directory: str) -> None:
    wait = _FIRST_WAIT
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as e:
            # A read-only cgroup file system says EROFS even of what is not there.
            if e.errno == errno.EROFS and not os.path.exists(directory):
                return
            if e.errno != errno.EBUSY:
                raise Error.from_os(e, action=f"remove cgroup {directory}") from None
        # Cgroups below, or processes: a killed one is counted until the kernel has put it away.
        for child in children(directory):
            _remove(directory + "/" + child)
        if wait > _LAST_WAIT:
            pids = _procs(directory, False)
            who = f"still has {len(pids)} process(es), e.g. {pids[0]}" if pids else "is busy"
            raise Error(f"the cgroup {who}", action=f"remove cgroup {directory}", errno=errno.EBUSY)
        time.sleep(wait)
        wait *= 2
