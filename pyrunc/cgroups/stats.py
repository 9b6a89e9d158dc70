"""What a container uses, read from its cgroups, in the shape of the "data" of runc's ``events --stats``.

Numbers are bytes, nanoseconds and counts. As in runc's JSON many members are left out while they are 0, and
what v1 and v2 both have is told in v1's words.
"""

from __future__ import annotations

import os

from pyrunc.cgroups.base import number, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX = 0xFFFFFFFFFFFFFFFF
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

#: Our member: name of the statistic in v1's file names. Without an I/O scheduler that counts, only throttle's
#: two are.
_BLKIO = {
    "ioServiceBytesRecursive": "io_service_bytes",
    "ioServicedRecursive": "io_serviced",
    "ioQueueRecursive": "io_queued",
    "ioServiceTimeRecursive": "io_service_time",
    "ioWaitTimeRecursive": "io_wait_time",
    "ioMergedRecursive": "io_merged",
    "ioTimeRecursive": "time",
    "sectorsRecursive": "sectors",
}

#: Key in v2's io.stat: our member and v1's word.
_IO_STAT = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}

_CPUSET_NUMBERS = (
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
)


def v1(paths: dict[str, str]) -> dict[str, Any]:
    """Statistics from v1's hierarchies, those of huge pages on a hybrid machine from v2's.

    Raises:
        OSError: if a cgroup is gone.
    """
    cpu: dict[str, Any] = {"usage": {"kernel": 0, "user": 0}, "throttling": {}}
    if directory := paths.get("cpuacct"):
        cpu["usage"] = _cpuacct(directory)
    if directory := paths.get("cpu"):
        cpu["throttling"] = _throttling(_keyed(directory + "/cpu.stat"), "throttled_time", 1)
    pids: dict[str, Any] = {}
    if directory := paths.get("pids"):
        pids = _pids(directory)
    blkio: dict[str, Any] = {}
    if directory := paths.get("blkio"):
        blkio = _blkio(directory)
    hugetlb: dict[str, Any] = {}
    if directory := paths.get("hugetlb"):
        hugetlb = _hugetlb_v1(directory)
    elif directory := paths.get(""):
        hugetlb = _hugetlb_v2(directory)
    memory: dict[str, Any] = {}
    if directory := paths.get("memory"):
        memory = _memory_v1(directory)
    return _whole(cpu, _cpuset(paths.get("cpuset", "")), memory, pids, blkio, hugetlb)


def v2(directory: str) -> dict[str, Any]:
    """Statistics from a v2 cgroup; of controllers that it does not have there are none.

    Raises:
        OSError: if the cgroup is gone.
    """
    stat = _keyed(directory + "/cpu.stat")
    cpu: dict[str, Any] = {
        "usage": _some(total=stat.get("usage_usec", 0) * 1000)
        | {"kernel": stat.get("system_usec", 0) * 1000, "user": stat.get("user_usec", 0) * 1000},
        "throttling": _throttling(stat, "throttled_usec", 1000),
    } | _pressure(directory, "cpu")
    if os.path.exists(directory + "/pids.current"):
        pids = _pids(directory)
    else:
        pids = _some(current=read(directory + "/cgroup.threads").count("\n"))
    memory: dict[str, Any] = {}
    if os.path.exists(directory + "/memory.current"):
        memory = _memory_v2(directory)
    memory |= _pressure(directory, "memory")
    blkio = _io_stat(directory) | _pressure(directory, "io")
    return _whole(cpu, _cpuset(""), memory, pids, blkio, _hugetlb_v2(directory))


def _whole(
    cpu: dict[str, Any],
    cpuset: dict[str, Any],
    memory: dict[str, Any],
    pids: dict[str, Any],
    blkio: dict[str, Any],
    hugetlb: dict[str, Any],
) -> dict[str, Any]:
    return {
        "cpu": cpu,
        "cpuset": cpuset,
        "memory": memory,
        "pids": pids,
        "blkio": blkio,
        "hugetlb": hugetlb,
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _some(**values: Any) -> dict[str, Any]:
    """Those that are not 0 or empty."""
    return {key: value for key, value in values.items() if value}


def _number(path: str) -> int:
    """The number in a file, 0 if the kernel has no such file."""
    try:
        return number(path)
    except FileNotFoundError:
        return 0


def _keyed(path: str) -> dict[str, int]:
    """A file with a name and a number on each line."""
    found = {}
    for line in read(path).splitlines():
        key, _, value = line.partition(" ")
        found[key] = int(value)
    return found


# -- cpu, cpuset


def _cpuacct(directory: str) -> dict[str, Any]:
    ticks = _keyed(directory + "/cpuacct.stat")
    # Its lines are: cpu user system, after a heading.
    by_cpu = [line.split() for line in read(directory + "/cpuacct.usage_all").splitlines()[1:]]
    return _some(
        total=number(directory + "/cpuacct.usage"),
        percpu=[int(n) for n in read(directory + "/cpuacct.usage_percpu").split()],
        percpu_kernel=[int(fields[2]) for fields in by_cpu],
        percpu_user=[int(fields[1]) for fields in by_cpu],
    ) | {"kernel": ticks["system"] * _NS_PER_TICK, "user": ticks["user"] * _NS_PER_TICK}


def _throttling(stat: dict[str, int], time: str, unit: int) -> dict[str, Any]:
    return _some(
        periods=stat.get("nr_periods"),
        throttledPeriods=stat.get("nr_throttled"),
        throttledTime=stat.get(time, 0) * unit,
    )


def _cpuset(directory: str) -> dict[str, Any]:
    if not directory:
        return dict.fromkeys(_CPUSET_NUMBERS, 0)
    found = _some(cpus=_set(read(directory + "/cpuset.cpus")), mems=_set(read(directory + "/cpuset.mems")))
    return found | {name: _number(f"{directory}/cpuset.{name}") for name in _CPUSET_NUMBERS}


def _set(text: str) -> list[int]:
    """The numbers of a list like ``0-3,8``."""
    found: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    return found


# -- memory


def _memory_v1(directory: str) -> dict[str, Any]:
    raw = _keyed(directory + "/memory.stat")
    found: dict[str, Any] = _some(cache=raw["cache"])
    for member, infix in (("usage", ""), ("swap", "memsw."), ("kernel", "kmem."), ("kernelTCP", "kmem.tcp.")):
        prefix = f"{directory}/memory.{infix}"
        found[member] = _entry(
            limit=_number(prefix + "limit_in_bytes"),
            usage=_number(prefix + "usage_in_bytes"),
            peak=_number(prefix + "max_usage_in_bytes"),
            failcnt=_number(prefix + "failcnt"),
        )
    found["raw"] = raw
    return found


def _memory_v2(directory: str) -> dict[str, Any]:
    raw = _keyed(directory + "/memory.stat")
    usage, limit = number(directory + "/memory.current"), number(directory + "/memory.max")
    swap, swap_limit = _number(directory + "/memory.swap.current"), _number(directory + "/memory.swap.max")
    return _some(cache=raw.get("file")) | {
        "usage": _entry(limit, usage, _number(directory + "/memory.peak"), 0),
        # v1 counts both together.
        "swap": _entry(min(limit + swap_limit, _MAX), usage + swap, 0, 0),
        "kernel": _entry(0, 0, 0, 0),
        "kernelTCP": _entry(0, 0, 0, 0),
        "raw": raw,
    }


def _entry(limit: int, usage: int, peak: int, failcnt: int) -> dict[str, int]:
    return {"limit": limit} | _some(usage=usage, max=peak) | {"failcnt": failcnt}


# -- pids, huge pages


def _pids(directory: str) -> dict[str, Any]:
    limit = number(directory + "/pids.max")
    return _some(current=number(directory + "/pids.current"), limit=0 if limit == _MAX else limit)


def _hugetlb_v1(directory: str) -> dict[str, Any]:
    found = {}
    for size, name in _huge_pages(directory, ".usage_in_bytes"):
        prefix = f"{directory}/{name}"
        found[size] = _some(usage=number(prefix + ".usage_in_bytes"), max=number(prefix + ".max_usage_in_bytes")) | {
            "failcnt": number(prefix + ".failcnt")
        }
    return found


def _hugetlb_v2(directory: str) -> dict[str, Any]:
    found = {}
    for size, name in _huge_pages(directory, ".current"):
        events = _keyed(f"{directory}/hugetlb.{size}.events")
        found[size] = _some(usage=number(f"{directory}/{name}.current")) | {"failcnt": events["max"]}
    return found


def _huge_pages(directory: str, suffix: str) -> list[tuple[str, str]]:
    """Each page size, and how its files' names begin: those that count reservations, if there are any."""
    files = os.listdir(directory)
    found = []
    for file in sorted(files):
        name = file.removesuffix(suffix)
        if name is not file and name.startswith("hugetlb.") and not name.endswith(".rsvd"):
            found.append((name[8:], name + ".rsvd" if name + ".rsvd" + suffix in files else name))
    return found


# -- block devices


def _blkio(directory: str) -> dict[str, Any]:
    found = {}
    for member, name in _BLKIO.items():
        for file in (f"bfq.{name}_recursive", f"{name}_recursive", f"throttle.{name}_recursive"):
            try:
                text = read(f"{directory}/blkio.{file}")
            except FileNotFoundError:
                continue
            if entries := _device_lines(text):
                found[member] = entries
                break
    return found


def _device_lines(text: str) -> list[dict[str, Any]]:
    """Lines like ``8:0 Read 4096`` and ``8:0 17``; the total at the end is left out."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if ":" in fields[0]:
            major, minor = fields[0].split(":")
            operation = fields[1] if len(fields) == 3 else ""
            found.append(_some(major=int(major), minor=int(minor), op=operation, value=int(fields[-1])))
    return found


def _io_stat(directory: str) -> dict[str, Any]:
    try:
        text = read(directory + "/io.stat")
    except FileNotFoundError:
        return {}
    found: dict[str, Any] = {}
    for line in text.splitlines():
        device, *pairs = line.split()
        major, minor = device.split(":")
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key in _IO_STAT:
                member, operation = _IO_STAT[key]
                entry = _some(major=int(major), minor=int(minor), op=operation, value=int(value))
                found.setdefault(member, []).append(entry)
    return found


# -- pressure (Documentation/accounting/psi.rst)


def _pressure(directory: str, resource: str) -> dict[str, Any]:
    try:
        text = read(f"{directory}/{resource}.pressure")
    except OSError:  # without CONFIG_PSI there is no such file; switched off, it can't be read
        return {}
    found = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split("=") for pair in pairs)
        found[kind] = {key: int(v) if key == "total" else float(v) for key, v in values.items()}
    return {"psi": found}
