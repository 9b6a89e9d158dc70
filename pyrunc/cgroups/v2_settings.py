"""``linux.resources`` as values for the files of cgroup v2 (config-linux.md, admin-guide/cgroup-v2.rst).

The configuration speaks of v1's files; where v2 counts differently there is a conversion.
"""

from __future__ import annotations

from pyrunc.cgroups.base import Setting
from pyrunc.cgroups.v1_settings import check_swap, escape, hugetlb, pids_max, rdma
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: resources.blockIO.throttle…: key in io.max.
_THROTTLE = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}

_DEFAULT_PERIOD = 100000  # µs


def convert(resources: dict[str, Any], at: str, devices: bool) -> list[Setting]:
    """See `pyrunc.cgroups.base.Manager.settings`.

    What v2 has nothing for is refused, but for kernel memory: that is obsolete on v1 as well, and ignored
    there too.
    """
    found: list[Setting] = []
    if devices:
        from pyrunc.cgroups.devices import DeviceSetting

        found.append(DeviceSetting(resources.get("devices") or [], at + "/devices"))
    if (limit := (resources.get("pids") or {}).get("limit")) is not None:
        found.append(Setting("pids", "pids.max", pids_max(limit), at + "/pids/limit"))
    if memory := resources.get("memory"):
        found += _memory(memory, at + "/memory")
    if block := resources.get("blockIO"):
        found += _block(block, at + "/blockIO")
    if cpu := resources.get("cpu"):
        found += _cpu(cpu, at + "/cpu")
    if limits := resources.get("hugepageLimits"):
        found += hugetlb(limits, at + "/hugepageLimits", ".max")
    if network := resources.get("network"):
        _refuse(network, ("classID", "priorities"), at + "/network")
    if devices_of := resources.get("rdma"):
        found += rdma(devices_of, at + "/rdma")
    for key, value in (resources.get("unified") or {}).items():
        found.append(_unified(key, value, f"{at}/unified/{escape(key)}"))
    return found


def _refuse(values: dict[str, Any], keys: tuple[str, ...], at: str) -> None:
    for key in keys:
        if values.get(key):
            raise Error("cgroup v2 has nothing for it", pointer=f"{at}/{key}")


def _memory(memory: dict[str, Any], at: str) -> list[Setting]:
    _refuse(memory, ("swappiness", "disableOOMKiller"), at)
    found = []
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    check = memory.get("checkBeforeUpdate")
    if swap or limit == -1:
        value = swap_max(limit, swap, at)
        found.append(
            Setting(
                "memory",
                "memory.swap.max",
                value,
                at + ("/swap" if swap else "/limit"),
                above=("memory.current", swap) if check and swap > 0 else None,
                # A kernel that doesn't count swap limits it neither way.
                optional=value in ("0", "max"),
            )
        )
    if limit:
        above = ("memory.current", limit) if check and limit > 0 else None
        found.append(Setting("memory", "memory.max", _or_max(limit), at + "/limit", above=above))
    if reservation := memory.get("reservation"):
        found.append(Setting("memory", "memory.low", _or_max(reservation), at + "/reservation"))
    return found


def _or_max(value: int) -> str:
    return "max" if value == -1 else str(value)


def swap_max(limit: int, swap: int, at: str) -> str:
    """memory.swap.max, which counts swap alone, for ``memory.swap``, which counts memory and swap together.

    Args:
        limit: ``memory.limit``; 0: not given; -1: none.
        swap: ``memory.swap``, likewise. Not given beside a limit of -1 it is -1.
    """
    if swap in (-1, 0):
        return "max"
    if limit in (-1, 0):
        raise Error("on cgroup v2 it needs a memory limit to be counted from", pointer=at + "/swap")
    check_swap(limit, swap, at)
    return str(swap - limit)


def _block(block: dict[str, Any], at: str) -> list[Setting]:
    _refuse(block, ("leafWeight",), at)
    found = []
    if weight := block.get("weight"):
        found.append(_weight("", weight, at + "/weight"))
    for i, device in enumerate(block.get("weightDevice") or ()):
        here = f"{at}/weightDevice/{i}"
        _refuse(device, ("leafWeight",), here)
        if weight := device.get("weight"):
            found.append(_weight(f"{device['major']}:{device['minor']} ", weight, here + "/weight"))
    for key, word in _THROTTLE.items():
        for i, device in enumerate(block.get(key) or ()):
            # 0 takes a limit away on v1, whose numbers these are; here "max" does, and 0 is refused
            value = f"{device['major']}:{device['minor']} {word}={device['rate'] or 'max'}"
            found.append(Setting("io", "io.max", value, f"{at}/{key}/{i}"))
    return found


def _weight(device: str, weight: int, pointer: str) -> Setting:
    """BFQ has a file and v1's scale of its own; without it there is io.weight."""
    general = Setting("io", "io.weight", device + str(io_weight(weight)), pointer)
    return Setting("io", "io.bfq.weight", device + str(weight), pointer, otherwise=general)


def io_weight(weight: int) -> int:
    """io.weight, 1 to 10000, for a ``blockIO.weight``, 10 to 1000: linear."""
    return 1 + (weight - 10) * 9999 // 990


def _cpu(cpu: dict[str, Any], at: str) -> list[Setting]:
    _refuse(cpu, ("realtimeRuntime", "realtimePeriod"), at)
    found = []
    if cpu.get("idle") is not None:
        found.append(Setting("cpu", "cpu.idle", str(cpu["idle"]), at + "/idle"))
    if shares := cpu.get("shares"):
        found.append(Setting("cpu", "cpu.weight", str(cpu_weight(shares)), at + "/shares"))
    burst = None
    if cpu.get("burst") is not None:
        burst = Setting("cpu", "cpu.max.burst", str(cpu["burst"]), at + "/burst")
        found.append(burst)
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota or period:
        value = f"{quota if quota > 0 else 'max'} {period or _DEFAULT_PERIOD}"
        limit = Setting("cpu", "cpu.max", value, at + ("/quota" if quota else "/period"))
        if burst and quota:
            burst.first = limit  # the kernel holds the burst against the quota that it has
        found.append(limit)
    for key in ("cpus", "mems"):
        if cpu.get(key):
            found.append(Setting("cpuset", "cpuset." + key, cpu[key], f"{at}/{key}"))
    return found


def cpu_weight(shares: int) -> int:
    """cpu.weight, 1 to 10000 and 100 by default, for v1's ``cpu.shares``, 2 to 262144 and 1024 by default.

    Of all engines' numbers the default is the one that matters most, so both defaults are to mean the same:
    in the logarithms, a parabola through minimum, default and maximum. (Older runtimes went straight from one
    end to the other, which makes of 1024 shares a weight of 39.)

    >>> [cpu_weight(shares) for shares in (2, 1024, 262144)]
    [1, 100, 10000]
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    from math import ceil, log2

    log = log2(shares)
    exponent = (log * log + 125 * log) / 612 - 7 / 34
    return ceil(10**exponent)


def _unified(key: str, value: str, pointer: str) -> Setting:
    controller, dot, parameter = key.partition(".")
    if "/" in key or not dot or not controller or not parameter:
        raise Error("a key is the name of a cgroup file, CONTROLLER.PARAMETER", pointer=pointer)
    return Setting(controller, key, value, pointer)
