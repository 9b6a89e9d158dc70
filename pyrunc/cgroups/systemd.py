"""Cgroups that systemd makes: a container in a transient unit of its own, ``--systemd-cgroup``.

systemd claims every cgroup that it has not delegated (systemd.io/CGROUP_DELEGATION), so on a machine that it runs, a
container's cgroup belongs into a unit: a scope, which takes in processes that others have made. A `Unit` is that part
of a `Manager` (`Manager.unit`): who makes the directory and takes it away. What is in it is the same as everywhere, so
the `Manager` remains what it is, V1 or V2.

A scope begins with a process. That is the container's init, which waits until it has been moved: systemd may do so
where we may not, for an ordinary user above all, whose session and whose user@UID.service have no common parent that
is his (cgroup-v2.rst, "Delegation Containment").

Names and defaults are runc's (its docs/systemd.md), on which engines rely.
"""

from __future__ import annotations

import os

from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cgroups.base import Manager
    from pyrunc.cgroups.systemd_bus import Bus
    from pyrunc.cgroups.systemd_properties import Property

_AT = "/linux/cgroupsPath"

#: What a unit's name may have (systemd.unit(5)).
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@")
_LONGEST = 255


class Unit:
    """The transient unit of one container.

    Attributes:
        name: e.g. ``libpod-1234.scope``.
        slice: name of the slice that it is in.
        user: whether it is the calling user's systemd that has it.
        cgroup: its cgroup as systemd names it, from the root of the hierarchy.
        v2: whether the machine has cgroup v2 and nothing else.
        resources, annotations: of the configuration, for `start`.
        description: for ``systemctl status``.
    """

    __slots__ = ("annotations", "cgroup", "description", "name", "resources", "slice", "user", "v2")

    def __init__(self, name: str, slice: str, user: bool, cgroup: str, v2: bool) -> None:
        self.name = name
        self.slice = slice
        self.user = user
        self.cgroup = cgroup
        self.v2 = v2
        self.resources: dict[str, Any] = {}
        self.annotations: dict[str, str] = {}
        self.description = ""

    @classmethod
    def restore(cls, saved: dict[str, Any]) -> Unit:
        """The unit that `save` described."""
        return cls(saved["unit"], saved["slice"], saved["user"], saved["cgroup"], saved["v2"])

    def save(self) -> dict[str, Any]:
        """What `restore` needs, as JSON values."""
        return {"unit": self.name, "slice": self.slice, "user": self.user, "cgroup": self.cgroup, "v2": self.v2}

    def is_scope(self) -> bool:
        """Whether it is a scope; otherwise it is a slice."""
        return self.name.endswith(".scope")

    def describe(self) -> str:
        """What `start` does, as an imperative."""
        kind = "scope" if self.is_scope() else "slice"
        # The list of devices is told by the step that sets device rules
        told = [str(p) for p in self._limits(self.resources, "/linux/resources") if p.name != "DeviceAllow"]
        told += [str(p) for p in self._annotated()]
        whose = "the user's systemd" if self.user else "systemd"
        return f"have {whose} start the {kind} {self.name} in {self.slice}" + (
            f" with {', '.join(told)}" if told else ""
        )

    # -- what systemd does

    def start(self, pid: int) -> None:
        """Have the unit started, with all limits that systemd knows.

        Args:
            pid: the process that a scope begins with.

        Raises:
            Error: and then there is no such unit, unless there was one before.
        """
        from pyrunc.cgroups.systemd_bus import UNIT_EXISTS, Refused
        from pyrunc.cgroups.systemd_properties import basic, pointer_of

        with self._bus() as bus:
            version = bus.version()
            scope = self.is_scope()
            properties = basic(self.description, self.slice, pid, scope=scope, v2=self.v2)
            properties += self._annotated()
            properties += self._limits(self.resources, "/linux/resources", version=version)
            try:
                bus.start(self.name, properties)
            except Refused as e:
                if e.name == UNIT_EXISTS:
                    e.pointer, e.reason = _AT, "there is a unit of this name already"
                else:
                    e.pointer = pointer_of(e.reason, properties)
                raise
            except Error:
                self._give_up(bus, pid)
                raise
            _, cgroup = bus.get_unit(self.name, "Scope" if scope else "Slice", "ControlGroup")
            if cgroup != self.cgroup:
                self._give_up(bus, pid)
                raise Error(
                    f"systemd has made its cgroup {cgroup or '(none)'}, and not {self.cgroup}",
                    pointer=_AT,
                    action=f"start {self.name}",
                )

    def _give_up(self, bus: Bus, pid: int) -> None:
        try:
            os.kill(pid, 9)  # or systemd would wait for it to end by itself
        except ProcessLookupError:
            pass
        bus.stop(self.name)

    def stop(self) -> None:
        """Have the unit stopped and forgotten; fine if it is gone.

        Raises:
            Error: if it does not come to an end.
        """
        with self._bus() as bus:
            bus.stop(self.name)

    def attach(self, pid: int, directory: str) -> None:
        """Have a process moved into the unit.

        Args:
            pid: as this process sees it.
            directory: of the unit's cgroup, or of one below.
        """
        with self._bus() as bus:
            bus.attach(self.name, directory.partition("/" + self.name)[2] or "/", pid)

    def change(self, manager: Manager, resources: dict[str, Any], at: str) -> list[Property]:
        """Have the properties changed that resources come to, all or none; what they were.

        On v1 the container stands still meanwhile: systemd takes all devices away before it gives some.

        Args:
            manager: whose unit it is.
            at: JSON pointer of resources in its document.

        Raises:
            Error: with the pointer of the value that was refused.
        """
        from pyrunc.cgroups.systemd_bus import Refused
        from pyrunc.cgroups.systemd_properties import Property, pointer_of

        with self._bus() as bus:
            wanted = self._limits(resources, at, devices="devices" in resources, version=bus.version())
            interface = "Scope" if self.is_scope() else "Slice"
            names = dict.fromkeys(p.name for p in wanted)
            before = [Property(name, *bus.get_unit(self.name, interface, name)) for name in names]
            if "DeviceAllow" in names:
                before.insert(0, Property("DeviceAllow", "a(ss)", []))
            still = not self.v2 and bool(wanted) and not manager.frozen()
            if still:
                manager.freeze()
            try:
                bus.set(self.name, wanted)
            except Refused as e:
                e.pointer = pointer_of(e.reason, wanted)
                raise
            finally:
                if still:
                    manager.thaw()
            return before

    def change_back(self, before: list[Property]) -> None:
        """Undo `change`."""
        with self._bus() as bus:
            bus.set(self.name, before)

    def agreed(self, resources: dict[str, Any], at: str) -> dict[str, Any]:
        """The resources as systemd can have them: what it writes to files and what we write is to be the same."""
        from pyrunc.cgroups.systemd_properties import agreed

        return agreed(resources, at)

    def _annotated(self) -> list[Property]:
        from pyrunc.cgroups.systemd_properties import annotated

        return annotated(self.annotations)

    def _limits(
        self, resources: dict[str, Any], at: str, *, devices: bool = True, version: int | None = None
    ) -> list[Property]:
        from pyrunc.cgroups.systemd_properties import NEWEST, limits

        # A user's systemd has not the right to set device rules either
        return limits(
            resources,
            at,
            v2=self.v2,
            devices=devices and not self.user,
            version=NEWEST if version is None else version,
        )

    def _bus(self) -> Bus:
        return connect(self.user)


def connect(user: bool) -> Bus:
    """A connection to systemd.

    Args:
        user: to the calling user's.

    Raises:
        Error: if there is none, or what it takes to talk to it is missing.
    """
    if not os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        raise Error("systemd does not run here: there is no /run/systemd/system", action="have systemd make the cgroup")
    try:
        from pyrunc.cgroups.systemd_bus import Bus
    except ImportError as e:
        raise Error(
            f"needs the Python library jeepney (Debian package python3-jeepney): {e}",
            action="have systemd make the cgroup",
        ) from None
    return Bus(user)


def unit(
    cgroups_path: str,
    container_id: str,
    config: dict[str, Any],
    *,
    rootless: bool,
    v2: bool,
) -> Unit:
    """The unit of a container. Starts nothing; a user's systemd is asked which cgroup is its own.

    Args:
        cgroups_path: ``linux.cgroupsPath``: ``SLICE:PREFIX:NAME``; "" stands for ``:pyrunc:ID``.
        config: a checked configuration, for its limits and annotations.
        rootless: whether it is for a container without root's rights.
        v2: whether the machine has cgroup v2 and nothing else.

    Raises:
        Error: if there can't be such a unit.
    """
    user = rootless or not _root_has_systemd()
    slice, name = parse(cgroups_path or f":pyrunc:{container_id}")
    if name.endswith(".slice"):
        path = expand_slice(name)
        slice = os.path.basename(os.path.dirname(path)) or "-.slice"
    else:
        slice = slice or ("user.slice" if user else "system.slice")
        path = os.path.join(expand_slice(slice), name)
    if user:
        if not v2:
            raise Error("for an ordinary user it needs cgroup v2", action="have systemd make the cgroup")
        with connect(user) as bus:
            path = bus.own_cgroup().rstrip("/") + path
    elif not os.path.isdir("/run/systemd/system"):
        connect(user)  # tells what is wrong
    found = Unit(name, slice, user, path, v2)
    found.description = f"pyrunc container {container_id}"
    found.resources = config.get("linux", {}).get("resources", {})
    found.resources = found.agreed(found.resources, "/linux/resources")
    found.annotations = config.get("annotations", {})
    found.describe()  # whatever is wrong with a value is told before anything is made
    return found


def _root_has_systemd() -> bool:
    """Whether the systemd of the whole machine takes orders from us.

    It does from root; but root of a user namespace may be an ordinary user outside, to whom the machine's systemd
    belongs to somebody else.
    """
    if os.geteuid() != 0:
        return False
    try:
        return os.stat("/run/systemd/private").st_uid == 0
    except OSError:
        return True


def parse(cgroups_path: str) -> tuple[str, str]:
    """The slice, "" for the default, and the unit's name.

    >>> parse("machine.slice:libpod:1234"), parse("::a.slice")
    (('machine.slice', 'libpod-1234.scope'), ('', 'a.slice'))

    Raises:
        Error: if it has another form.
    """
    parts = cgroups_path.split(":")
    if len(parts) != 3:
        raise Error("for systemd it has the form slice:prefix:name", pointer=_AT, action=repr(cgroups_path))
    slice, prefix, name = parts
    if not name:
        raise Error("the name after the second colon is missing", pointer=_AT, action=repr(cgroups_path))
    if slice == "-":
        slice = "-.slice"
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope"
    if not _LETTERS.issuperset(unit) or len(unit) > _LONGEST:
        reason = "a unit's name has up to 255 letters, digits and :-_.\\@"
        raise Error(reason, pointer=_AT, action=repr(unit))
    if slice:
        expand_slice(slice)
    if unit.endswith(".slice") and expand_slice(unit) == "/":
        raise Error("a container may not live in the root cgroup", pointer=_AT, action=cgroups_path)
    return slice, unit


def expand_slice(name: str) -> str:
    """The cgroup of a slice: a dash in its name is a step down (systemd.slice(5)).

    >>> expand_slice("a-b.slice"), expand_slice("-.slice")
    ('/a.slice/a-b.slice', '/')

    Raises:
        Error: if no slice can have this name.
    """
    stem = name.removesuffix(".slice")
    if stem == "-" and stem != name:
        return "/"
    parts = stem.split("-")
    if stem == name or not all(parts) or not _LETTERS.issuperset(name) or len(name) > _LONGEST:
        raise Error("no slice can have this name", pointer=_AT, action=repr(name))
    return "".join("/" + "-".join(parts[:count]) + ".slice" for count in range(1, len(parts) + 1))
