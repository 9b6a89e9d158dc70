"""Intel RDT by the resctrl file system (config-linux.md, "IntelRdt"; the kernel's filesystems/resctrl.rst).

A group is a directory: the processes in its `tasks` get the share of caches and memory bandwidth that its `schemata`
names; groups in its `mon_groups` are counted apart. The file system's root is an argument everywhere, because few
machines have one.
"""

from __future__ import annotations

import os

from pyrunc.cgroups import unescape
from pyrunc.errors import Error
from pyrunc.linux.proc import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_AT = "/linux/intelRdt"
_NOT_MOUNTED = "no resctrl file system is mounted"

#: What `events` tells of monitoring, by the file of mon_data that has it.
_MONITORED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("mbm_stats", ("mbm_total_bytes", "mbm_local_bytes")),
    ("cmt_stats", ("llc_occupancy",)),
)


def mounted(mountinfo: str | None = None) -> str:
    """Where resctrl is mounted; "" where it is not.

    Args:
        mountinfo: text of /proc/PID/mountinfo; this process's by default.
    """
    for line in (read_text("/proc/self/mountinfo") if mountinfo is None else mountinfo).splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.startswith("resctrl "):
            return unescape(mount.split(" ")[4])
    return ""


def check(rdt: dict[str, Any], root: str) -> None:
    """Refuse what this host's resctrl has no files for, in runc's words.

    Args:
        root: where resctrl is mounted, "" if it isn't.

    Raises:
        Error: with the pointer in config.json.
    """
    for key, resource, what in (("l3CacheSchema", "L3", "CAT"), ("memBwSchema", "MB", "MBA")):
        if rdt.get(key) and not (root and os.path.isdir(f"{root}/info/{resource}")):
            why = f"there is no {root}/info/{resource}" if root else _NOT_MOUNTED
            raise Error(f"Intel RDT/{what} is not enabled: {why}", pointer=f"{_AT}/{key}")
    if not root:
        raise Error(f"Intel RDT is not enabled: {_NOT_MOUNTED}", pointer=_AT)


class Group:
    """The group of a container.

    Attributes:
        root: where resctrl is mounted.
        name: of its directory there; "/" for the root's own group, the default class of service.
        id: the container's, and its monitoring group's.
        own: the group is the container's alone, and ends with it.
        monitored: it has a monitoring group.
    """

    __slots__ = ("id", "monitored", "name", "own", "root")

    def __init__(self, root: str, name: str, container_id: str, *, own: bool, monitored: bool) -> None:
        self.root = root
        self.name = name
        self.id = container_id
        self.own = own
        self.monitored = monitored

    @classmethod
    def of(cls, rdt: dict[str, Any], container_id: str, root: str) -> Group:
        """The group that a configuration asks for.

        "If closID is not set and the runtime has created the sub-directory, the runtime MUST remove the sub-directory";
        one that is there already is somebody else's.
        """
        name = rdt.get("closID") or container_id
        own = not rdt.get("closID") and not os.path.isdir(f"{root}/{name}")
        return cls(root, name, container_id, own=own, monitored=bool(rdt.get("enableMonitoring")))

    @classmethod
    def restore(cls, saved: dict[str, Any]) -> Group:
        """The group that `save` has told of."""
        return cls(saved["root"], saved["name"], saved["id"], own=saved["own"], monitored=saved["monitored"])

    def save(self) -> dict[str, Any]:
        """What state.json keeps."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def path(self) -> str:
        """Its directory."""
        return self.root if self.name == "/" else f"{self.root}/{self.name}"

    @property
    def monitor(self) -> str:
        """The directory of its monitoring group, "" without one."""
        return f"{self.path}/mon_groups/{self.id}" if self.monitored else ""

    def make(self, rdt: dict[str, Any]) -> list[str]:
        """Make what there isn't yet, and write the shares.

        Returns:
            the directories that were made.

        Raises:
            Error: with the pointer in config.json; then nothing is left of them.
        """
        made: list[str] = []
        try:
            if os.path.isdir(self.path):
                if rdt.get("closID"):
                    self._compare(rdt)
            elif rdt.get("closID") and not lines(rdt):
                reason = f"{self.path} does not exist, and without a schema it is not made"
                raise Error(reason, pointer=f"{_AT}/closID")
            else:
                self._mkdir(self.path, made)
            if self.monitor:
                self._mkdir(self.monitor, made)
            self.write(rdt)
        except BaseException:
            remove(made)
            raise
        return made

    def _mkdir(self, path: str, made: list[str]) -> None:
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            return
        except OSError as e:
            raise self._error(e, f"make {path}") from None
        made.append(path)

    def add(self, pid: int) -> None:
        """Put a process into it: into the group, and then, which goes only from there, into the monitoring group."""
        for directory in (self.path, self.monitor):
            if directory:
                self._write(f"{directory}/tasks", str(pid))

    def write(self, rdt: dict[str, Any]) -> None:
        """Write the shares: "l3CacheSchema first and memBwSchema last", and after both `schemata`."""
        if text := lines(rdt):
            self._write(f"{self.path}/schemata", text)

    def schemata(self) -> str:
        """The shares as they are."""
        return read_text(f"{self.path}/schemata")

    def remove(self) -> None:
        """Remove what ends with the container; a group takes its monitoring groups along."""
        remove([self.path] if self.own else [self.monitor] if self.monitor else [])

    def _compare(self, rdt: dict[str, Any]) -> None:
        """ "if closID directory … exists, runtimes MUST compare l3CacheSchema and/or memBwSchema value with schemata
        file, and generate an error if doesn't match" """
        there = dict(_parsed(line, self.root) for line in self.schemata().splitlines() if ":" in line)
        for key in ("l3CacheSchema", "memBwSchema"):
            for line in (rdt.get(key) or "").splitlines():
                resource, wanted = _parsed(line, self.root)
                found = there.get(resource, {})
                if any(found.get(domain) != value for domain, value in wanted.items()):
                    reason = f"{line} is not what {self.path} has: {' '.join(self.schemata().split())}"
                    raise Error(reason, pointer=f"{_AT}/{key}")

    def _write(self, path: str, text: str) -> None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as e:
            raise self._error(e, f"write {' '.join(text.split())} to {path}") from None

    def _error(self, e: OSError, action: str) -> Error:
        """The kernel tells more than a number."""
        error = Error.from_os(e, pointer=_AT, action=action)
        try:
            error.reason += f" ({read_text(f'{self.root}/info/last_cmd_status').strip()})"
        except OSError:
            pass  # it is from Linux 4.16 on
        return error

    def stats(self) -> dict[str, Any]:
        """ "intel_rdt" of the statistics, as runc has it: the shares, of the root too, and what is monitored.

        Without a monitoring group the figures are those of all processes in the group.
        """
        found: dict[str, Any] = {}
        mine, roots = self.schemata().splitlines(), read_text(f"{self.root}/schemata").splitlines()
        for resource, prefix, files in (
            ("L3", "l3_cache", ("cbm_mask", "min_cbm_bits", "num_closids")),
            ("MB", "mem_bw", ("bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids")),
        ):
            info = f"{self.root}/info/{resource}"
            if os.path.isdir(info):
                values = {name: read_text(f"{info}/{name}").strip() for name in files}
                found[f"{prefix}_info"] = {k: v if k == "cbm_mask" else int(v) for k, v in values.items()}
                for key, all_lines in (("schema_root", roots), ("schema", mine)):
                    if line := next((line.strip() for line in all_lines if resource in line), ""):
                        found[f"{prefix}_{key}"] = line
        found["schemata"] = mine
        try:
            features = read_text(f"{self.root}/info/L3_MON/mon_features").split()
        except FileNotFoundError:
            return found  # this processor monitors nothing
        data = f"{self.monitor or self.path}/mon_data"
        domains = sorted(entry.path for entry in os.scandir(data) if entry.is_dir())
        for key, counters in _MONITORED:
            if known := [name for name in counters if name in features]:
                found[key] = [{name: _number(f"{domain}/{name}") for name in known} for domain in domains]
        return found


def lines(rdt: dict[str, Any]) -> str:
    """What a configuration wants written to `schemata`."""
    wanted = [rdt.get("l3CacheSchema"), rdt.get("memBwSchema"), *rdt.get("schemata", ())]
    return "".join(f"{line}\n" for line in wanted if line)


def remove(directories: list[str]) -> None:
    """Remove groups, the last one first; one that is gone does no harm."""
    for path in reversed(directories):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError as e:
            raise Error.from_os(e, action=f"remove {path}") from None


def _number(path: str) -> int:
    """A counter; where the hardware can't tell right now ("Unavailable") it is 0."""
    text = read_text(path).strip()
    return int(text) if text.isdigit() else 0


def _parsed(line: str, root: str) -> tuple[str, dict[str, int | str]]:
    """A line of `schemata` so that two that mean the same are equal: resource, and share by domain.

    Shares of a cache are hexadecimal masks; of the memory bandwidth decimal numbers, that the kernel rounds up.
    """
    resource, _, domains = line.strip().partition(":")
    shares: dict[str, int | str] = {}
    for domain in filter(None, domains.split(";")):
        key, _, text = domain.partition("=")
        value: int | str = text.strip()
        try:
            value = int(text, 10 if resource.startswith("MB") else 16)
            if resource == "MB":
                grain = int(read_text(f"{root}/info/MB/bandwidth_gran"))
                value = -(-value // grain) * grain
        except (ValueError, FileNotFoundError):
            pass  # not a number, or no such rounding: compared as it is
        shares[key.strip().lstrip("0") or "0"] = value
    return resource.strip(), shares
