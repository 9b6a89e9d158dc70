"""Cgroup v2: one hierarchy for all controllers (admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import errno
import os
import select
import time

from pyrunc.cgroups import below
from pyrunc.cgroups.base import REFUSED, SIGKILL, Manager, Setting, read, write, write_lines
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pyrunc.cgroups import Layout
    from pyrunc.cgroups.devices import DeviceSetting

#: Files that a delegatee gets where the kernel does not list them (before 4.15).
_DELEGATE = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n"

#: Seconds to wait for processes to stop; one in an uninterruptible wait (a dead NFS server) may never.
_FREEZE_WAIT = 10.0


class V2(Manager):
    """One directory, under the key "" in `paths`."""

    __slots__ = ("_leader",)

    version = "v2"

    def __init__(self, paths: dict[str, str], unified: str | None, rootless: bool) -> None:
        super().__init__(paths, unified, rootless)
        #: Whom to `follow`; 0: nobody.
        self._leader = 0

    @staticmethod
    def place(inner: str, layout: Layout, own: dict[str, str]) -> dict[str, str]:
        assert layout.unified is not None
        if inner.startswith("/"):
            return {"": layout.unified + inner}
        # The runtime's own cgroup has processes, at least one, and so can't hand controllers to a child.
        parent = os.path.dirname(own.get("", "/"))
        return {"": below(layout.unified, layout.roots[layout.unified], parent) + "/" + inner}

    def _main(self) -> str:
        return self.paths.get("", "")

    def _freezer(self) -> str:
        return self.paths.get("", "")

    # -- directories

    def _make(self, directory: str) -> None:
        assert self.unified is not None
        self._mkdir(directory)
        kind = read(directory + "/cgroup.type").strip()
        if kind in ("threaded", "domain invalid"):
            raise Error(
                f"no process can live there, its type is {kind!r}: one above is threaded or has processes",
                action=f"make cgroup {directory}",
            )
        hand_down(self.unified, os.path.dirname(directory))

    def delegate(self, uid: int, gid: int = -1) -> None:
        directory = self._main()
        if not directory:
            return
        try:
            listed = read("/sys/kernel/cgroup/delegate")
        except FileNotFoundError:
            listed = _DELEGATE
        try:
            os.chown(directory, uid, gid)
            for name in listed.split():
                try:
                    os.chown(directory + "/" + name, uid, gid)
                except FileNotFoundError:  # of a controller that this cgroup does not have
                    pass
        except OSError as e:
            if not self.rootless or e.errno not in REFUSED:
                raise Error.from_os(e, action=f"delegate cgroup {directory} to user {uid}") from None

    # -- processes

    def follow(self, pid: int) -> None:
        self._leader = pid

    def doors(self, *, unified: bool = True) -> dict[str, int]:
        try:
            return super().doors(unified=unified)
        except Error:
            if not self._go_after():
                raise
            return super().doors(unified=unified)

    def enter(self, doors: dict[str, int]) -> None:
        try:
            super().enter(doors)
        except Error:
            if not self._go_after():
                raise
            self.join()

    def _go_after(self) -> bool:
        """Whether this is a manager of another cgroup from now on: the one to which the leader has moved."""
        pid, self._leader = self._leader, 0
        if not pid:
            return False
        try:
            lines = read(f"/proc/{pid}/cgroup").splitlines()
        except OSError:  # it has ended
            return False
        (own,) = (line[3:] for line in lines if line.startswith("0::"))
        moved = f"{self.unified}{own}"
        if moved in self.dirs or own.startswith("/.."):  # out of our own cgroup namespace's sight
            return False
        self.paths, self.dirs = {"": moved}, [moved]
        return True

    def _explain_join(self, e: OSError, directory: str, pid: str = "of the new process") -> Error:
        told = super()._explain_join(e, directory, pid)
        if e.errno == errno.EBUSY:
            told.reason += ": it hands controllers to cgroups below it, and so may not have processes of its own"
        elif e.errno == errno.EOPNOTSUPP:
            told.reason = "a cgroup above is threaded or has processes"
        return told

    def kill(self, signal: int) -> None:
        directory = self._main()
        if signal == SIGKILL and directory:
            try:
                write(directory + "/cgroup.kill", "1")  # all, forks included, frozen or not
                return
            except OSError as e:
                if e.errno == errno.ENODEV or not os.path.exists(directory):
                    return
                if e.errno != errno.ENOENT:  # a kernel before 5.14
                    raise Error.from_os(e, action="kill the cgroup's processes") from None
        super().kill(signal)

    # -- freezer

    def freeze(self) -> None:
        freeze(self._need_freezer("freeze"))

    def thaw(self) -> None:
        thaw(self._need_freezer("thaw"))

    def frozen(self) -> bool:
        directory = self._freezer()
        return bool(directory) and frozen(directory)

    # -- limits

    def settings(
        self, resources: dict[str, Any], *, devices: bool = True, at: str = "/linux/resources"
    ) -> list[Setting]:
        from pyrunc.cgroups.v2_settings import convert

        if self.unit is not None:
            resources = self.unit.agreed(resources, at)
        return convert(resources, at, devices)

    def _directory(self, setting: Setting) -> str:
        directory = self.paths.get("")
        if directory is None:
            reason = f"cannot set {setting.controller} limit: container could not join or create cgroup"
            raise Error(reason, pointer=setting.pointer, action=setting.describe())
        return directory

    def _write(self, directory: str, setting: Setting) -> None:
        path = directory + "/" + setting.file
        try:
            write_lines(path, setting.value)
        except FileNotFoundError:
            if setting.controller in ("", "cgroup"):
                raise
            assert self.unified is not None
            enable(self.unified, os.path.dirname(directory), (setting.controller,))
            write_lines(path, setting.value)
        if setting.file in ("cpuset.cpus", "cpuset.mems") and setting.value.strip():
            # The kernel takes what the cgroup above does not have, and goes without it, or without any of it
            had = read(path + ".effective").strip()
            if had != read(path).strip():
                raise Error(f"of these the cgroup above gives only {had}")

    def _apply_devices(self, setting: DeviceSetting) -> None:
        directory = self.paths.get("")
        if directory is None:
            return  # rootless; its user namespace keeps it from devices
        from pyrunc.cgroups.devices import attach, may_be_ignored

        try:
            attach(directory, setting.filter)
        except OSError as e:
            if not may_be_ignored(e):
                raise Error.from_os(e, pointer=setting.pointer, action="set device rules") from None

    # -- figures

    def stats(self) -> dict[str, Any]:
        from pyrunc.cgroups.stats import v1, v2

        return v2(self.paths[""]) if self.paths else v1({})


# -- controllers


def _chain(mountpoint: str, directory: str) -> Iterable[str]:
    """The mount point and every directory on the way down to `directory`, this included."""
    yield mountpoint
    current = mountpoint
    for name in directory[len(mountpoint) :].split("/"):
        if name:
            current += "/" + name
            yield current


def hand_down(mountpoint: str, directory: str) -> None:
    """Enable for the children of `directory` every controller that can be had there.

    Those that can't be had matter only to a container with a limit of theirs: `enable` tells why, then.
    """
    available = read(mountpoint + "/cgroup.controllers").split()
    if _missing(directory, available):
        for current in _chain(mountpoint, directory):
            missing = _missing(current, available)
            if not missing:
                continue
            if _has_processes(current):
                return
            try:
                write(current + "/cgroup.subtree_control", "+" + " +".join(missing))
            except OSError:
                for controller in missing:  # it was all or none
                    try:
                        write(current + "/cgroup.subtree_control", "+" + controller)
                    except OSError:
                        continue


def _has_processes(directory: str) -> bool:
    """Whether the rule against processes beside child cgroups keeps a cgroup from handing controllers down.

    The kernel says so itself, but of the threaded controllers (cpu, pids, …): enabling them is allowed, and makes
    the cgroup the root of a threaded subtree, in whose other cgroups no container can live any more.
    """
    try:
        return os.path.exists(directory + "/cgroup.type") and read(directory + "/cgroup.procs") != ""
    except OSError as e:
        if e.errno == errno.EOPNOTSUPP:  # threaded
            return True
        raise


def _missing(directory: str, wanted: Iterable[str]) -> list[str]:
    there = read(directory + "/cgroup.subtree_control").split()
    return [controller for controller in wanted if controller not in there]


def enable(mountpoint: str, directory: str, controllers: Iterable[str]) -> None:
    """Enable controllers for the children of `directory`.

    Raises:
        Error: why it can't be.
    """
    for current in _chain(mountpoint, directory):
        for controller in _missing(current, controllers):
            try:
                if _has_processes(current):
                    raise OSError(errno.EBUSY, "")
                write(current + "/cgroup.subtree_control", "+" + controller)
            except OSError as e:
                if e.errno == errno.EBUSY:
                    reason = f"{current} has processes, and so can't hand the {controller} controller down"
                elif e.errno in (errno.ENOENT, errno.EINVAL) and current == mountpoint:
                    reason = f"this machine has no {controller} controller on cgroup v2"
                else:
                    why = Error.from_os(e).reason
                    reason = f"the {controller} controller can't be enabled in {current}: {why}"
                raise Error(reason, errno=e.errno or 0) from None


# -- freezer, also hybrid's where v1 does not have one


def freeze(directory: str) -> None:
    """See `Manager.freeze`."""
    try:
        write(directory + "/cgroup.freeze", "1")
        if _wait_frozen(directory):
            return
        write(directory + "/cgroup.freeze", "0")  # half frozen is worse than running
    except FileNotFoundError:
        raise Error("needs Linux 5.2 or the cgroup is gone", action="freeze", errno=errno.ENOENT) from None
    except OSError as e:
        raise Error.from_os(e, action="freeze") from None
    reason = f"processes have not stopped within {_FREEZE_WAIT:.0f} s"
    raise Error(reason, action="freeze", errno=errno.ETIMEDOUT)


def _wait_frozen(directory: str) -> bool:
    events = os.open(directory + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        until = time.monotonic() + _FREEZE_WAIT
        while True:
            if b"frozen 1\n" in os.pread(events, 4096, 0):
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
    finally:
        os.close(events)


def thaw(directory: str) -> None:
    """See `Manager.thaw`."""
    try:
        write(directory + "/cgroup.freeze", "0")
    except OSError as e:
        raise Error.from_os(e, action="thaw") from None


def frozen(directory: str) -> bool:
    """See `Manager.frozen`."""
    try:
        return read(directory + "/cgroup.freeze") == "1\n"
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENODEV):
            return False
        raise
