"""``linux.resources`` as values for the files of cgroup v1 (config-linux.md, admin-guide/cgroup-v1/)."""

from __future__ import annotations

from pyrunc.cgroups.base import Setting
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

#: resources.blockIO.throttle…: file.
_THROTTLE = {
    "throttleReadBpsDevice": "blkio.throttle.read_bps_device",
    "throttleWriteBpsDevice": "blkio.throttle.write_bps_device",
    "throttleReadIOPSDevice": "blkio.throttle.read_iops_device",
    "throttleWriteIOPSDevice": "blkio.throttle.write_iops_device",
}


def convert(resources: dict[str, Any], at: str, devices: bool, elsewhere: Collection[str] = ()) -> list[Setting]:
    """See `pyrunc.cgroups.base.Manager.settings`.

    Args:
        elsewhere: controllers that are to be had on a v2 hierarchy instead.
    """
    if resources.get("unified"):
        raise Error("invalid configuration: needs cgroup v2, and this machine has v1", pointer=at + "/unified")
    found: list[Setting] = []
    if devices:
        from pyrunc.cgroups.devices import DeviceSetting

        found.append(DeviceSetting(resources.get("devices") or [], at + "/devices"))
    if memory := resources.get("memory"):
        found += _memory(memory, at + "/memory")
    if cpu := resources.get("cpu"):
        found += _cpu(cpu, at + "/cpu")
    if (limit := (resources.get("pids") or {}).get("limit")) is not None:
        found.append(Setting("pids", "pids.max", pids_max(limit), at + "/pids/limit"))
    if block := resources.get("blockIO"):
        found += _block(block, at + "/blockIO")
    if limits := resources.get("hugepageLimits"):
        found += hugetlb(limits, at + "/hugepageLimits", ".max" if "hugetlb" in elsewhere else ".limit_in_bytes")
    if network := resources.get("network"):
        found += _network(network, at + "/network")
    if devices_of := resources.get("rdma"):
        found += rdma(devices_of, at + "/rdma")
    return found


def _memory(memory: dict[str, Any], at: str) -> list[Setting]:
    found = []
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    check_swap(limit, swap, at)
    if limit:
        above = ("memory.usage_in_bytes", limit) if memory.get("checkBeforeUpdate") and limit > 0 else None
        found.append(Setting("memory", "memory.limit_in_bytes", str(limit), at + "/limit", above=above))
    if swap or limit == -1:
        # "memory.memsw" counts both, as the specification does. It may not be below the memory limit at any
        # moment: whichever of the two is in the way of the other goes first. Memory without limit makes sense
        # only with swap without limit, if the kernel counts swap.
        memsw = Setting(
            "memory",
            "memory.memsw.limit_in_bytes",
            str(swap or -1),
            at + ("/swap" if swap else "/limit"),
            above=("memory.usage_in_bytes", swap) if memory.get("checkBeforeUpdate") and swap > 0 else None,
            optional=not swap,
        )
        if limit:
            found[-1].first = memsw
        found.append(memsw)
    if reservation := memory.get("reservation"):
        found.append(Setting("memory", "memory.soft_limit_in_bytes", str(reservation), at + "/reservation"))
    # Both are on their way out of kernels and of the specification; the newer kernel just does not have them.
    for key, file in (("kernel", "kmem"), ("kernelTCP", "kmem.tcp")):
        if value := memory.get(key):
            found.append(Setting("memory", f"memory.{file}.limit_in_bytes", str(value), f"{at}/{key}", optional=True))
    if (swappiness := memory.get("swappiness")) is not None:
        if swappiness > 100:
            raise Error(f"{swappiness} is not from 0 to 100", pointer=at + "/swappiness")
        found.append(Setting("memory", "memory.swappiness", str(swappiness), at + "/swappiness"))
    if (disable := memory.get("disableOOMKiller")) is not None:
        found.append(Setting("memory", "memory.oom_control", str(int(disable)), at + "/disableOOMKiller"))
    return found


def check_swap(limit: int, swap: int, at: str) -> None:
    """Refuse a limit of memory and swap together that is below that of memory, in words; the kernel says EINVAL."""
    if 0 < swap < limit:
        raise Error(f"{swap}, for memory and swap, is less than the memory limit {limit}", pointer=at + "/swap")


def _cpu(cpu: dict[str, Any], at: str) -> list[Setting]:
    found: list[Setting] = []
    # A process that has a realtime policy already may join only where realtime is allowed.
    period = _give(found, cpu, at, "realtimePeriod", "cpu.rt_period_us")
    runtime = _give(found, cpu, at, "realtimeRuntime", "cpu.rt_runtime_us")
    if period:
        period.first = runtime
    shares = _give(found, cpu, at, "shares", "cpu.shares")
    # The kernel holds quota/period and burst/quota against what it has, not against what comes next.
    period = _give(found, cpu, at, "period", "cpu.cfs_period_us")
    burst = None
    if cpu.get("burst") is not None:
        burst = Setting("cpu", "cpu.cfs_burst_us", str(cpu["burst"]), at + "/burst", optional=True)
        found.append(burst)
    quota = _give(found, cpu, at, "quota", "cpu.cfs_quota_us")
    if period:
        period.first = quota
    if burst:
        burst.first = quota
    if cpu.get("idle") is not None:
        idle = Setting("cpu", "cpu.idle", str(cpu["idle"]), at + "/idle")
        found.append(idle)
        if shares and not cpu["idle"]:
            shares.first = idle  # as long as it is idle it takes no shares
    for key in ("cpus", "mems"):
        if cpu.get(key):
            found.append(Setting("cpuset", "cpuset." + key, cpu[key], f"{at}/{key}"))
    return found


def _give(found: list[Setting], values: dict[str, Any], at: str, key: str, file: str) -> Setting | None:
    if not values.get(key):
        return None
    setting = Setting("cpu", file, str(values[key]), f"{at}/{key}")
    found.append(setting)
    return setting


def pids_max(limit: int) -> str:
    """pids.max for ``pids.limit``: negative is no limit.

    0 is written as 1, as systemd can't say 0, with the same effect.
    """
    return str(limit or 1) if limit >= 0 else "max"


def _block(block: dict[str, Any], at: str) -> list[Setting]:
    found = []
    if weight := block.get("weight"):
        found.append(_weight("blkio.weight", "blkio.bfq.weight", str(weight), at + "/weight"))
    if weight := block.get("leafWeight"):
        found.append(Setting("blkio", "blkio.leaf_weight", str(weight), at + "/leafWeight"))
    for i, device in enumerate(block.get("weightDevice") or ()):
        node = f"{device['major']}:{device['minor']}"
        here = f"{at}/weightDevice/{i}"
        if weight := device.get("weight"):
            found.append(
                _weight("blkio.weight_device", "blkio.bfq.weight_device", f"{node} {weight}", here + "/weight")
            )
        if weight := device.get("leafWeight"):
            found.append(Setting("blkio", "blkio.leaf_weight_device", f"{node} {weight}", here + "/leafWeight"))
    for key, file in _THROTTLE.items():
        for i, device in enumerate(block.get(key) or ()):
            value = f"{device['major']}:{device['minor']} {device['rate']}"
            found.append(Setting("blkio", file, value, f"{at}/{key}/{i}"))
    return found


def _weight(cfq: str, bfq: str, value: str, pointer: str) -> Setting:
    """The file is named after the I/O scheduler; kernels since 5.0 have only BFQ's."""
    return Setting("blkio", cfq, value, pointer, otherwise=Setting("blkio", bfq, value, pointer))


def hugetlb(limits: list[dict[str, Any]], at: str, suffix: str) -> list[Setting]:
    """Limits of huge pages in use and, on kernels that tell them apart (5.7), of those reserved by mmap."""
    found = []
    for i, limit in enumerate(limits):
        value, here = str(limit["limit"]), f"{at}/{i}"
        found.append(Setting("hugetlb", f"hugetlb.{limit['pageSize']}{suffix}", value, here))
        found.append(Setting("hugetlb", f"hugetlb.{limit['pageSize']}.rsvd{suffix}", value, here, optional=True))
    return found


def _network(network: dict[str, Any], at: str) -> list[Setting]:
    found = []
    if network.get("classID"):
        found.append(Setting("net_cls", "net_cls.classid", str(network["classID"]), at + "/classID"))
    for i, each in enumerate(network.get("priorities") or ()):
        value = f"{each['name']} {each['priority']}"
        found.append(Setting("net_prio", "net_prio.ifpriomap", value, f"{at}/priorities/{i}"))
    return found


def rdma(devices: dict[str, Any], at: str) -> list[Setting]:
    """Limits of RDMA handles and objects, in one format on v1 and v2."""
    found = []
    for name, limit in devices.items():
        value = name
        for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            if limit.get(key) is not None:
                value += f" {word}={limit[key]}"
        found.append(Setting("rdma", "rdma.max", value, at + "/" + escape(name)))
    return found


def escape(key: str) -> str:
    """A key as a reference token of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
