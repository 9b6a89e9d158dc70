"""Cgroup v1: a hierarchy for each controller, or for a few; and hybrid, with a v2 hierarchy beside them."""

from __future__ import annotations

import errno
import os
import time

from pyrunc.cgroups import below
from pyrunc.cgroups.base import SIGKILL, Manager, Setting, children, number, read, write, write_lines
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cgroups import Layout
    from pyrunc.cgroups.devices import DeviceSetting


class V1(Manager):
    """One directory in each hierarchy.

    `paths` has every controller, ``name=…`` hierarchies, and "" for hybrid's v2.
    """

    __slots__ = ()

    version = "v1"

    @staticmethod
    def place(inner: str, layout: Layout, own: dict[str, str]) -> dict[str, str]:
        paths = {}
        tail = inner if inner.startswith("/") else "/" + inner
        for hierarchies in (layout.v1, layout.named):
            for controller, mountpoint in hierarchies.items():
                start = mountpoint
                if tail is not inner and controller in own:
                    start = below(mountpoint, layout.roots[mountpoint], own[controller])
                paths[controller] = start + tail
        if layout.unified:
            paths[""] = layout.unified + tail  # as runc: beside v1, only the name matters
        return paths

    def _main(self) -> str:
        # They all hold the same processes, unless the container's own systemd sorts them in its hierarchy.
        for controller in ("devices", "freezer", "pids", "memory", "cpu"):
            if controller in self.paths:
                return self.paths[controller]
        return self.dirs[0] if self.dirs else ""

    # -- directories

    def _make(self, directory: str) -> None:
        new = self._mkdir(directory)
        if directory == self.paths.get("cpuset"):
            # A new cpuset has no CPUs and no memory nodes, and nothing can run in it.
            for file in ("cpuset.cpus", "cpuset.mems"):
                if not new and read(directory + "/" + file).strip():
                    continue
                inherited = _cpuset(os.path.dirname(directory), file)
                try:
                    write(directory + "/" + file, inherited)
                except OSError as e:
                    # A sibling may have some for itself (cpu_exclusive). The limits that follow can still
                    # name others; if they don't, joining says so.
                    if e.errno != errno.EINVAL:
                        raise

    def dispensable(self, directory: str) -> bool:
        """Beside v1's controllers, what only groups processes (named hierarchies, hybrid's v2) is an extra: users to
        whom controllers were handed down seldom have it, and runc passes over it too."""
        extra = all(c == "" or c.startswith("name=") for c, path in self.paths.items() if path == directory)
        return extra or self.rootless

    # -- freezer

    def _freezer(self) -> str:
        return self.paths.get("freezer") or self.paths.get("", "")

    def freeze(self) -> None:
        directory = self._need_freezer("freeze")
        if "freezer" not in self.paths:
            from pyrunc.cgroups import v2

            v2.freeze(directory)
            return
        state = directory + "/freezer.state"
        try:
            # While a process forks or is moved in the state stays FREEZING and has to be asked for again; now
            # and then it takes a thaw to get out of it (freezer-subsystem.rst).
            for attempt in range(1, 1001):
                if attempt % 50 == 0:
                    write(state, "THAWED")
                    time.sleep(0.01)
                write(state, "FROZEN")
                if attempt % 25 == 0:
                    time.sleep(0.00001)
                if read(state) == "FROZEN\n":
                    return
            write(state, "THAWED")  # half frozen is worse than running
        except OSError as e:
            raise Error.from_os(e, action="freeze") from None
        raise Error("processes keep appearing in the cgroup", action="freeze", errno=errno.EBUSY)

    def thaw(self) -> None:
        directory = self._need_freezer("thaw")
        if "freezer" not in self.paths:
            from pyrunc.cgroups import v2

            v2.thaw(directory)
            return
        try:
            write(directory + "/freezer.state", "THAWED")
        except OSError as e:
            raise Error.from_os(e, action="thaw") from None

    def frozen(self) -> bool:
        directory = self._freezer()
        if not directory:
            return False
        if "freezer" not in self.paths:
            from pyrunc.cgroups import v2

            return v2.frozen(directory)
        try:
            for _ in range(1000):
                state = read(directory + "/freezer.state")
                if state != "FREEZING\n":
                    break
                time.sleep(0.001)
            # A cgroup below a frozen one reads FROZEN too, and can't be thawed here.
            return state != "THAWED\n" and number(directory + "/freezer.self_freezing") == 1
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ENODEV):
                return False
            raise

    def kill(self, signal: int) -> None:
        super().kill(signal)
        if signal == SIGKILL and "freezer" in self.paths:
            # What the container itself has frozen below stays so when all is thawed from above, and can't die
            _thaw_below(self.paths["freezer"])

    # -- limits

    def settings(
        self, resources: dict[str, Any], *, devices: bool = True, at: str = "/linux/resources"
    ) -> list[Setting]:
        from pyrunc.cgroups.v1_settings import convert

        if self.unit is not None:
            resources = self.unit.agreed(resources, at)
        # A controller that v1 does not have may be on hybrid's v2 hierarchy.
        elsewhere = frozenset(() if "" not in self.paths else ("hugetlb", "rdma")) - self.paths.keys()
        return convert(resources, at, devices, elsewhere)

    def _directory(self, setting: Setting) -> str:
        directory = self.paths.get(setting.controller, "")
        if directory:
            return directory
        if setting.controller in ("hugetlb", "rdma") and "" in self.paths:
            return self.paths[""]
        raise Error(
            f"cannot set {setting.controller} limit: container could not join or create cgroup"
            if self.rootless
            else f"the {setting.controller} controller is not mounted",
            pointer=setting.pointer,
            action=setting.describe(),
        )

    def _write(self, directory: str, setting: Setting) -> None:
        if directory == self.paths.get("") and setting.controller:
            from pyrunc.cgroups.v2 import enable

            assert self.unified is not None
            enable(self.unified, os.path.dirname(directory), (setting.controller,))
        if setting.file.startswith("cpu.rt_"):
            # No cgroup has realtime that the one above does not have, and a new one has none at all
            for parent in self.made:
                if directory.startswith(parent + "/"):
                    write(parent + "/" + setting.file, setting.value)
        write_lines(directory + "/" + setting.file, setting.value)
        if setting.file == "cpu.shares":
            # The kernel takes any number and keeps the nearest one that it can do.
            kept = number(directory + "/cpu.shares")
            if kept != int(setting.value):
                bound = "most" if kept < int(setting.value) else "least"
                raise Error(f"the {bound} that the kernel takes is {kept}")

    def _explain(self, e: OSError, directory: str, setting: Setting) -> Error:
        if setting.file == "memory.limit_in_bytes" and e.errno == errno.EBUSY:
            usage, peak = (number(f"{directory}/memory.{name}_in_bytes") for name in ("usage", "max_usage"))
            return Error(
                f"unable to set memory limit: more is in use and can't be reclaimed (usage {usage}, peak {peak})",
                pointer=setting.pointer,
                action=setting.describe(),
                errno=errno.EBUSY,
            )
        if setting.controller == "cpuset" and e.errno == errno.EACCES:
            there = read(os.path.dirname(directory) + "/" + setting.file).strip()
            return Error(
                f"the cgroup above has only {there}",
                pointer=setting.pointer,
                action=setting.describe(),
                errno=errno.EACCES,
            )
        return super()._explain(e, directory, setting)

    def _apply_devices(self, setting: DeviceSetting) -> None:
        directory = self.paths.get("devices")
        if directory is None:
            if self.rootless or (not self.paths and not setting.asked):
                return
            raise Error("the devices controller is not mounted", pointer=setting.pointer, action="set device rules")
        try:
            setting.write_v1(directory)
        except OSError as e:
            from pyrunc.cgroups.devices import may_be_ignored

            if not may_be_ignored(e):
                raise Error.from_os(e, pointer=setting.pointer, action="set device rules") from None

    # -- figures

    def stats(self) -> dict[str, Any]:
        from pyrunc.cgroups.stats import v1

        return v1(self.paths)


def _cpuset(directory: str, file: str) -> str:
    """A cpuset's CPUs or memory nodes, where it has none those of its parent, which it is given."""
    mine = read(directory + "/" + file).strip()
    if not mine:
        mine = _cpuset(os.path.dirname(directory), file)
        write(directory + "/" + file, mine)
    return mine


def _thaw_below(directory: str) -> None:
    for child in children(directory):
        try:
            write(f"{directory}/{child}/freezer.state", "THAWED")
        except FileNotFoundError:  # removed meanwhile
            continue
        _thaw_below(f"{directory}/{child}")
