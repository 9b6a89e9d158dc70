"""State on disk: what is known of a container between two runs of the runtime.

    ROOT/ID/state.json        who it is: pid and start time of init, bundle, cgroups, options
    ROOT/ID/config.json       the configuration that it was created with
    ROOT/ID/exec.fifo         `start` writes here, init reads
    ROOT/ID/result/exec.fifo  init tells here how its start went, `start` reads

    ROOT/.~/ID                such a directory while it is made

Init has both FIFOs open. They share a name because it is the one by which who looks for leaked descriptors (runc's
tests) knows a runtime's FIFO.

The directory appears whole, by one rename, and state.json is replaced by rename: a reader never sees half of either.
Where state.json is there is a container, which therefore is the last file to go: whoever deletes may be killed at any
moment, and somebody else delete once more. The directory itself carries the lock (flock(2)) of who changes the
container. What can be asked of the kernel is not written down: a container is running if its init is, and `created` as
long as somebody has exec.fifo open for reading.
"""

from __future__ import annotations

import errno
import fcntl
import os

from pyrunc import jsonio
from pyrunc.errors import Error, NoSuchContainer
from pyrunc.linux.proc import start_time
from pyrunc.version import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Below the root, what is not a container's: no ID has a "~".
_HIDDEN = ".~"

#: Where init waits for `start`, and where it answers.
FIFOS = ("exec.fifo", "result/exec.fifo")

_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-")


def check_id(container_id: str) -> None:
    """An ID becomes a file name and a cgroup's name: runc's rule for what it may hold.

    Raises:
        Error: the ID is empty, too long, "." or "..", or has a character outside [a-zA-Z0-9_+.-].
    """
    if not container_id:
        raise Error("the container ID is empty")
    if len(container_id) > 255 or container_id in (".", "..") or not _ID_CHARACTERS.issuperset(container_id):
        raise Error(f"invalid container ID {container_id!r}: only letters, digits and _ + . - and at most 255 of them")


class State:
    """One container's directory under the root.

    Attributes:
        directory: its path.
        data: what state.json holds.
    """

    __slots__ = ("_lock", "data", "directory")

    def __init__(self, directory: str, data: dict[str, Any]) -> None:
        self.directory = directory
        self.data = data
        self._lock = -1

    @classmethod
    def create(cls, root: str, container_id: str, data: dict[str, Any], config: str) -> State:
        """Take an ID: make its directory, locked, with a first state.json ("creating") and the configuration.

        Raises:
            Error: the ID is invalid or taken, or the root can't be written.
        """
        check_id(container_id)
        directory = f"{root}/{container_id}"
        state = cls(f"{root}/{_HIDDEN}/{container_id}", data)
        try:
            state._build(root)
            try:
                state.save()
                state._write("config.json", config)
                os.rename(state.directory, directory)
            except BaseException:
                state.remove()
                raise
        except OSError as e:
            if e.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EWOULDBLOCK):
                raise Error("a container with this ID exists already") from None
            raise Error.from_os(e, action=f"make the state directory {directory}") from None
        finally:
            _tidy(root)
        state.directory = directory
        return state

    def _build(self, root: str) -> None:
        """Make the directory, locked. What is left of one, whose maker was killed, serves as well.

        Raises:
            BlockingIOError: its maker is still at work.
        """
        while True:
            try:
                os.mkdir(self.directory, 0o711)
            except FileExistsError:
                pass
            except FileNotFoundError:
                try:
                    os.mkdir(f"{root}/{_HIDDEN}", 0o700)
                except FileNotFoundError:
                    os.makedirs(root, 0o711, exist_ok=True)
                except FileExistsError:
                    pass  # somebody else needs it, too
                continue
            try:
                fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), os.stat(self.directory)):
                    self._lock = fd
                    return
            except FileNotFoundError:
                pass  # it became the container's meanwhile
            finally:
                if self._lock != fd:
                    os.close(fd)

    @classmethod
    def load(cls, root: str, container_id: str) -> State:
        """The state of an existing container.

        Raises:
            NoSuchContainer: there is none of this ID.
        """
        check_id(container_id)
        directory = f"{root}/{container_id}"
        try:
            text = _read(f"{directory}/state.json")
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchContainer from None
        except OSError as e:
            raise Error.from_os(e, action=f"read {directory}/state.json") from None
        return cls(directory, _parse(text, directory))

    @classmethod
    def discard(cls, root: str, container_id: str) -> None:
        """Remove what is no container: directories of this ID without state.json, left by a runtime that was killed."""
        check_id(container_id)
        for directory in (f"{root}/{container_id}", f"{root}/{_HIDDEN}/{container_id}"):
            try:
                fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as e:
                if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                raise Error.from_os(e, action=f"open {directory}") from None
            state = cls(directory, {})
            state._lock = fd
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if directory != f"{root}/{container_id}" or "state.json" not in os.listdir(fd):
                    state.remove()
            except BlockingIOError:
                pass  # somebody is making it just now
            finally:
                state.unlock()
        _tidy(root)

    def lock(self, *, wait: bool = True) -> bool:
        """Wait until no other process changes this container, keep others waiting until this one ends, and read again
        what has changed.

        Returns:
            whether it is locked; without `wait` it may be another's, but what has changed is read all the same.

        Raises:
            NoSuchContainer: the container was deleted meanwhile.
        """
        if self._lock >= 0:
            return True
        try:
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoSuchContainer from None
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                self._lock = fd
            except BlockingIOError:
                pass
            self.data = _parse(_read("state.json", fd), self.directory)
        except FileNotFoundError:
            self._lock = -1
            raise NoSuchContainer from None
        except BaseException:
            self._lock = -1
            raise
        finally:
            if self._lock != fd:
                os.close(fd)
        return self._lock >= 0

    def unlock(self) -> None:
        """Let others go on; a process that ends does this too."""
        if self._lock >= 0:
            # closing alone would not do where another thread of this program has forked meanwhile
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = -1

    def locked(self) -> bool:
        """Whether somebody is changing the container: this process or another."""
        if self._lock >= 0:
            return True
        try:
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def config(self) -> dict[str, Any]:
        """The configuration that the container was created with."""
        try:
            loaded: dict[str, Any] = jsonio.loads(_read(f"{self.directory}/config.json"))
        except FileNotFoundError:
            raise NoSuchContainer from None  # it is being deleted, or was when its runtime was killed
        return loaded

    def save_config(self, config: dict[str, Any]) -> None:
        """Replace the configuration, for who has the lock."""
        self._write("config.json", jsonio.dumps(config))

    def save(self) -> None:
        """Replace state.json."""
        self._write("state.json", jsonio.dumps(self.data))

    def _write(self, name: str, text: str) -> None:
        temporary = f"{self.directory}/.{name}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            data = text.encode()
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.rename(temporary, f"{self.directory}/{name}")

    def remove(self) -> None:
        """Delete the directory and unlock; for who holds the lock, others find nothing to do.

        The names are looked up in the directory that is locked: the moment its last file is gone, there may be another
        container of this ID.
        """
        if self._lock < 0:
            return
        for name in (
            *FIFOS,
            "notify/notify.sock",
            ".config.json",
            ".state.json",
            "config.json",
            "state.json",
        ):
            try:
                os.unlink(name, dir_fd=self._lock)
            except FileNotFoundError:
                pass
        for name in ("result", "notify", "root"):  # of pyrunc/handover.py, pyrunc/notify.py and pyrunc/checkpoint.py
            try:
                os.rmdir(name, dir_fd=self._lock)
            except FileNotFoundError:
                pass
        try:
            os.rmdir(self.directory)
        except OSError as e:
            if e.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise Error.from_os(e, action=f"remove {self.directory}") from None
        self.unlock()

    # -- what the kernel knows

    def alive(self) -> bool:
        """Whether init is the process that was started as init, and has not ended."""
        pid: int = self.data["pid"]
        return pid > 0 and start_time(pid) == int(self.data["start_time"])

    def status(self) -> str:
        """creating, created, running, paused or stopped."""
        if not self.alive():
            return "stopped" if self.data["pid"] > 0 or not self.locked() else "creating"
        if self.data["creating"]:
            return "creating"
        if self._frozen():
            return "paused"  # also before `start`, which could not be heard
        return "created" if self.waiting() else "running"

    def waiting(self) -> bool:
        """Whether init still waits for `start`: it alone holds exec.fifo open, and execve(2) closes it."""
        try:
            fd = os.open(f"{self.directory}/exec.fifo", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            if e.errno in (errno.ENXIO, errno.ENOENT):
                return False
            raise
        os.close(fd)
        return True

    def forget_fifos(self) -> None:
        """Init has executed its program: don't ask exec.fifo again, which the kernel closes a moment after that."""
        for name in FIFOS:
            try:
                os.unlink(f"{self.directory}/{name}")
            except FileNotFoundError:
                pass  # `run` has none

    def _frozen(self) -> bool:
        if not self.data["cgroup"]:
            return False
        from pyrunc.cgroups.frozen import frozen

        return frozen(self.data["cgroup"])

    def oci(self) -> dict[str, Any]:
        """The state as the specification prints it (runtime.md, State), with runc's additions."""
        d = self.data
        status = self.status()
        state = {
            "ociVersion": OCI_VERSION,
            "id": d["id"],
            "pid": d["pid"] if status not in ("stopped", "creating") else 0,
            "status": status,
            "bundle": d["bundle"],
            "rootfs": d["rootfs"],
            "created": d["created"],
        }
        if d["annotations"]:
            state["annotations"] = d["annotations"]
        state["owner"] = d["owner"]
        return state


def _tidy(root: str) -> None:
    """Take the directory for unfinished ones away, unless there are others or never was one."""
    try:
        os.rmdir(f"{root}/{_HIDDEN}")
    except OSError:
        pass  # an empty directory harms nobody, and why there is none is told by who wanted to make it


#: What state.json must have. Nobody else writes it, but a disk may have been full, and a version may be another.
_KEYS = ("id", "pid", "start_time", "creating", "bundle", "hooks", "private_pid", "cgroup", "options", "annotations")


def _parse(text: str, directory: str) -> dict[str, Any]:
    try:
        data = jsonio.loads(text)
    except jsonio.JSONError as e:
        raise Error(str(e), action=f"read {directory}/state.json") from None
    if not isinstance(data, dict) or not all(key in data for key in _KEYS):
        raise Error("is not a container's state", action=f"read {directory}/state.json")
    return data


def _read(path: str, directory: int | None = None) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        text = b""
        while data := os.read(fd, 1 << 20):
            text += data
    finally:
        os.close(fd)
    return text.decode()
