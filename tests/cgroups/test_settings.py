"""Every value of ``linux.resources`` and what it becomes on v1 and on v2."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.cgroups.base import Setting
from pyrunc.cgroups.v1_settings import convert as convert_v1
from pyrunc.cgroups.v2_settings import convert as convert_v2
from pyrunc.cgroups.v2_settings import cpu_weight, io_weight, swap_max
from pyrunc.errors import Error

AT = "/linux/resources"


def brief(settings: list[Setting]) -> list[tuple[str, str, str]]:
    return [(s.file, s.value, s.pointer.removeprefix(AT)) for s in settings]


def v1(resources: dict[str, Any]) -> list[Setting]:
    return convert_v1(resources, AT, devices=False)


def v2(resources: dict[str, Any]) -> list[Setting]:
    return convert_v2(resources, AT, devices=False)


THROTTLE = {
    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
    "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 4}, {"major": 8, "minor": 32, "rate": 5}],
}

V1: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
    ({}, []),
    ({"memory": {}, "cpu": {}, "pids": {}, "blockIO": {}, "network": {}, "unified": {}}, []),
    ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, []),
    ({"memory": {"limit": 4096}}, [("memory.limit_in_bytes", "4096", "/memory/limit")]),
    (
        {"memory": {"swap": 9, "limit": 8, "reservation": 7}},
        [
            ("memory.limit_in_bytes", "8", "/memory/limit"),
            ("memory.memsw.limit_in_bytes", "9", "/memory/swap"),
            ("memory.soft_limit_in_bytes", "7", "/memory/reservation"),
        ],
    ),
    (
        {"memory": {"limit": -1}},
        [
            ("memory.limit_in_bytes", "-1", "/memory/limit"),
            ("memory.memsw.limit_in_bytes", "-1", "/memory/limit"),
        ],
    ),
    (
        {"memory": {"kernel": 1, "kernelTCP": 2, "swappiness": 0, "disableOOMKiller": True}},
        [
            ("memory.kmem.limit_in_bytes", "1", "/memory/kernel"),
            ("memory.kmem.tcp.limit_in_bytes", "2", "/memory/kernelTCP"),
            ("memory.swappiness", "0", "/memory/swappiness"),
            ("memory.oom_control", "1", "/memory/disableOOMKiller"),
        ],
    ),
    ({"memory": {"disableOOMKiller": False}}, [("memory.oom_control", "0", "/memory/disableOOMKiller")]),
    (
        {
            "cpu": {
                "shares": 512,
                "quota": -1,
                "period": 100000,
                "burst": 0,
                "realtimeRuntime": 9,
                "realtimePeriod": 10,
                "cpus": "0-1",
                "mems": "0",
                "idle": 1,
            }
        },
        [
            ("cpu.rt_period_us", "10", "/cpu/realtimePeriod"),
            ("cpu.rt_runtime_us", "9", "/cpu/realtimeRuntime"),
            ("cpu.shares", "512", "/cpu/shares"),
            ("cpu.cfs_period_us", "100000", "/cpu/period"),
            ("cpu.cfs_burst_us", "0", "/cpu/burst"),
            ("cpu.cfs_quota_us", "-1", "/cpu/quota"),
            ("cpu.idle", "1", "/cpu/idle"),
            ("cpuset.cpus", "0-1", "/cpu/cpus"),
            ("cpuset.mems", "0", "/cpu/mems"),
        ],
    ),
    ({"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}}, []),
    ({"pids": {"limit": 5}}, [("pids.max", "5", "/pids/limit")]),
    ({"pids": {"limit": 0}}, [("pids.max", "1", "/pids/limit")]),
    ({"pids": {"limit": -1}}, [("pids.max", "max", "/pids/limit")]),
    (
        {"blockIO": {"weight": 10, "leafWeight": 1000}},
        [("blkio.weight", "10", "/blockIO/weight"), ("blkio.leaf_weight", "1000", "/blockIO/leafWeight")],
    ),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}]}},
        [
            ("blkio.weight_device", "8:0 500", "/blockIO/weightDevice/0/weight"),
            ("blkio.leaf_weight_device", "8:0 300", "/blockIO/weightDevice/0/leafWeight"),
        ],
    ),
    (
        {"blockIO": THROTTLE},
        [
            ("blkio.throttle.read_bps_device", "8:0 1", "/blockIO/throttleReadBpsDevice/0"),
            ("blkio.throttle.write_bps_device", "8:0 2", "/blockIO/throttleWriteBpsDevice/0"),
            ("blkio.throttle.read_iops_device", "8:0 3", "/blockIO/throttleReadIOPSDevice/0"),
            ("blkio.throttle.write_iops_device", "8:16 4", "/blockIO/throttleWriteIOPSDevice/0"),
            ("blkio.throttle.write_iops_device", "8:32 5", "/blockIO/throttleWriteIOPSDevice/1"),
        ],
    ),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 209715200}]},
        [
            ("hugetlb.2MB.limit_in_bytes", "209715200", "/hugepageLimits/0"),
            ("hugetlb.2MB.rsvd.limit_in_bytes", "209715200", "/hugepageLimits/0"),
        ],
    ),
    (
        {"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]}},
        [
            ("net_cls.classid", "1048577", "/network/classID"),
            ("net_prio.ifpriomap", "eth0 500", "/network/priorities/0"),
        ],
    ),
    (
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "a/b": {"hcaObjects": 0}}},
        [
            ("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000", "/rdma/mlx5_1"),
            ("rdma.max", "a/b hca_object=0", "/rdma/a~1b"),
        ],
    ),
]

V2: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
    ({}, []),
    ({"memory": {}, "cpu": {}, "pids": {}, "blockIO": {}, "network": {}, "unified": {}}, []),
    ({"memory": {"limit": 4096}}, [("memory.max", "4096", "/memory/limit")]),
    (
        {"memory": {"limit": 4096, "swap": 4096, "reservation": 1024}},
        [
            ("memory.swap.max", "0", "/memory/swap"),
            ("memory.max", "4096", "/memory/limit"),
            ("memory.low", "1024", "/memory/reservation"),
        ],
    ),
    (
        {"memory": {"limit": -1, "reservation": -1}},
        [
            ("memory.swap.max", "max", "/memory/limit"),
            ("memory.max", "max", "/memory/limit"),
            ("memory.low", "max", "/memory/reservation"),
        ],
    ),
    ({"memory": {"kernel": 1, "kernelTCP": 2, "disableOOMKiller": False, "swappiness": 0}}, []),
    (
        {
            "cpu": {
                "shares": 1024,
                "quota": 50000,
                "period": 200000,
                "burst": 10,
                "cpus": "0",
                "mems": "0",
                "idle": 0,
            }
        },
        [
            ("cpu.idle", "0", "/cpu/idle"),
            ("cpu.weight", "100", "/cpu/shares"),
            ("cpu.max.burst", "10", "/cpu/burst"),
            ("cpu.max", "50000 200000", "/cpu/quota"),
            ("cpuset.cpus", "0", "/cpu/cpus"),
            ("cpuset.mems", "0", "/cpu/mems"),
        ],
    ),
    ({"cpu": {"quota": 5000}}, [("cpu.max", "5000 100000", "/cpu/quota")]),
    ({"cpu": {"quota": -1}}, [("cpu.max", "max 100000", "/cpu/quota")]),
    ({"cpu": {"period": 5000}}, [("cpu.max", "max 5000", "/cpu/period")]),
    ({"cpu": {"realtimeRuntime": 0, "realtimePeriod": 0}}, []),
    ({"pids": {"limit": 0}}, [("pids.max", "1", "/pids/limit")]),
    ({"pids": {"limit": -1}}, [("pids.max", "max", "/pids/limit")]),
    (
        {"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}},
        [
            ("io.bfq.weight", "500", "/blockIO/weight"),
            ("io.bfq.weight", "8:0 10", "/blockIO/weightDevice/0/weight"),
        ],
    ),
    (
        {"blockIO": THROTTLE},
        [
            ("io.max", "8:0 rbps=1", "/blockIO/throttleReadBpsDevice/0"),
            ("io.max", "8:0 wbps=2", "/blockIO/throttleWriteBpsDevice/0"),
            ("io.max", "8:0 riops=3", "/blockIO/throttleReadIOPSDevice/0"),
            ("io.max", "8:16 wiops=4", "/blockIO/throttleWriteIOPSDevice/0"),
            ("io.max", "8:32 wiops=5", "/blockIO/throttleWriteIOPSDevice/1"),
        ],
    ),
    (
        {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 0}]}},
        [("io.max", "8:0 rbps=max", "/blockIO/throttleReadBpsDevice/0")],
    ),
    (
        {"hugepageLimits": [{"pageSize": "1GB", "limit": 1}]},
        [
            ("hugetlb.1GB.max", "1", "/hugepageLimits/0"),
            ("hugetlb.1GB.rsvd.max", "1", "/hugepageLimits/0"),
        ],
    ),
    ({"rdma": {"mlx5_1": {"hcaHandles": 3}}}, [("rdma.max", "mlx5_1 hca_handle=3", "/rdma/mlx5_1")]),
    (
        {"unified": {"memory.high": "max", "io.max": "8:0 rbps=1\n8:16 rbps=2"}},
        [
            ("memory.high", "max", "/unified/memory.high"),
            ("io.max", "8:0 rbps=1\n8:16 rbps=2", "/unified/io.max"),
        ],
    ),
]


@pytest.mark.parametrize(("resources", "expected"), V1)
def test_v1(resources: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    assert brief(v1(resources)) == expected


@pytest.mark.parametrize(("resources", "expected"), V2)
def test_v2(resources: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    assert brief(v2(resources)) == expected


def test_controllers_are_named_as_mounted() -> None:
    """`Setting.controller` finds the directory: on v1 the file's prefix is not always it."""
    whole = [s for resources, _ in V1 for s in v1(resources)]
    assert {s.controller for s in whole} == {
        "memory", "cpu", "cpuset", "pids", "blkio", "hugetlb", "net_cls", "net_prio", "rdma",
    }  # fmt: skip
    assert all(s.file.startswith(s.controller + ".") for s in whole)
    whole = [s for resources, _ in V2 for s in v2(resources)]
    assert {s.controller for s in whole} == {"memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma"}
    assert all(s.file.startswith(s.controller + ".") for s in whole)


def test_settings_point_into_the_document_that_they_came_from() -> None:
    """An update's resources.json is linux.resources itself."""
    assert [s.pointer for s in convert_v1({"pids": {"limit": 1}}, "", devices=False)] == ["/pids/limit"]
    assert [s.pointer for s in convert_v2({"pids": {"limit": 1}}, "", devices=False)] == ["/pids/limit"]


REFUSED_V1: list[tuple[dict[str, Any], str]] = [
    ({"unified": {"memory.max": "1"}}, "/unified"),
    ({"memory": {"swappiness": 101}}, "/memory/swappiness"),
]
REFUSED_V2: list[tuple[dict[str, Any], str]] = [
    ({"memory": {"swap": 4096}}, "/memory/swap"),
    ({"memory": {"limit": -1, "swap": 4096}}, "/memory/swap"),
    ({"memory": {"limit": 4096, "swap": 4095}}, "/memory/swap"),
    ({"memory": {"swappiness": 60}}, "/memory/swappiness"),
    ({"memory": {"disableOOMKiller": True}}, "/memory/disableOOMKiller"),
    ({"cpu": {"realtimeRuntime": 1}}, "/cpu/realtimeRuntime"),
    ({"cpu": {"realtimePeriod": 1}}, "/cpu/realtimePeriod"),
    ({"blockIO": {"leafWeight": 10}}, "/blockIO/leafWeight"),
    (
        {"blockIO": {"weightDevice": [{"major": 1, "minor": 1, "leafWeight": 10}]}},
        "/blockIO/weightDevice/0/leafWeight",
    ),
    ({"network": {"classID": 1}}, "/network/classID"),
    ({"network": {"priorities": [{"name": "lo", "priority": 1}]}}, "/network/priorities"),
    ({"unified": {"a/b.c": "1"}}, "/unified/a~1b.c"),
    ({"unified": {"../memory.max": "1"}}, "/unified/..~1memory.max"),
    ({"unified": {"memory": "1"}}, "/unified/memory"),
    ({"unified": {".max": "1"}}, "/unified/.max"),
]


@pytest.mark.parametrize(("resources", "pointer"), REFUSED_V1)
def test_v1_refuses(resources: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Error) as e:
        v1(resources)
    assert e.value.pointer == AT + pointer


@pytest.mark.parametrize(("resources", "pointer"), REFUSED_V2)
def test_v2_refuses(resources: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Error) as e:
        v2(resources)
    assert e.value.pointer == AT + pointer


def test_on_hybrid_huge_pages_are_limited_in_v2s_files() -> None:
    limits = {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}
    found = convert_v1(limits, AT, devices=False, elsewhere=("hugetlb",))
    assert [s.file for s in found] == ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"]


def test_what_may_be_in_the_way_of_a_setting_is_known() -> None:
    cpu = {"quota": 1, "period": 2, "burst": 3, "realtimeRuntime": 4, "realtimePeriod": 5}
    by_file = {s.file: s for s in v1({"cpu": cpu, "memory": {"limit": 1, "swap": 2}})}
    ways = {file: s.first.file for file, s in by_file.items() if s.first}
    assert ways == {
        "cpu.rt_period_us": "cpu.rt_runtime_us",
        "cpu.cfs_period_us": "cpu.cfs_quota_us",
        "cpu.cfs_burst_us": "cpu.cfs_quota_us",
        "memory.limit_in_bytes": "memory.memsw.limit_in_bytes",
    }
    by_file = {s.file: s for s in v2({"cpu": {"burst": 1, "quota": 2}})}
    assert by_file["cpu.max.burst"].first is by_file["cpu.max"]


def test_what_a_kernel_may_lack_without_loss_is_optional() -> None:
    assert {s.file for r, _ in V1 for s in v1(r) if s.optional} == {
        "memory.memsw.limit_in_bytes",  # for a limit of -1 alone
        "memory.kmem.limit_in_bytes",
        "memory.kmem.tcp.limit_in_bytes",
        "cpu.cfs_burst_us",
        "hugetlb.2MB.rsvd.limit_in_bytes",
    }
    assert not [s for s in v1({"memory": {"limit": 1, "swap": 2}}) if s.optional]
    assert [s.optional for s in v2({"memory": {"limit": 8, "swap": 8}})] == [True, False]
    assert [s.optional for s in v2({"memory": {"limit": 8, "swap": 9}})] == [False, False]


@pytest.mark.parametrize(("convert", "usage"), [(v1, "memory.usage_in_bytes"), (v2, "memory.current")])
def test_check_before_update_holds_limits_against_usage(convert: Any, usage: str) -> None:
    memory = {"limit": 10, "swap": 20, "checkBeforeUpdate": True}
    above = {s.pointer: s.above for s in convert({"memory": memory})}
    assert above == {AT + "/memory/limit": (usage, 10), AT + "/memory/swap": (usage, 20)}
    unlimited = {"limit": -1, "swap": -1, "checkBeforeUpdate": True}
    assert [s.above for s in convert({"memory": unlimited})] == [None, None]


@pytest.mark.parametrize(
    ("shares", "weight"),
    # The three points of the curve, both ends beyond, and values between.
    [
        (1, 1),
        (2, 1),
        (3, 2),
        (10, 4),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (65536, 3023),
        (262144, 10000),
        (10**6, 10000),
    ],
)
def test_shares_to_weight(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


def test_more_shares_never_weigh_less() -> None:
    weights = [cpu_weight(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)
    assert min(weights) >= 1
    assert max(weights) <= 10000


@pytest.mark.parametrize(("weight", "expected"), [(10, 1), (100, 910), (500, 4950), (1000, 10000)])
def test_block_weight_to_io_weight(weight: int, expected: int) -> None:
    assert io_weight(weight) == expected


@pytest.mark.parametrize(
    ("limit", "swap", "expected"),
    [
        (-1, 0, "max"),
        (-1, -1, "max"),
        (8, -1, "max"),
        (8, 8, "0"),
        (8, 12, "4"),
        (0, -1, "max"),
    ],
)
def test_swap_is_counted_apart_on_v2(limit: int, swap: int, expected: str) -> None:
    assert swap_max(limit, swap, "") == expected


def test_bfq_gives_way_to_the_general_file() -> None:
    (whole, device) = v2({"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}]}})
    assert whole.otherwise is not None
    assert device.otherwise is not None
    assert (whole.otherwise.file, whole.otherwise.value) == ("io.weight", "4950")
    assert (device.otherwise.file, device.otherwise.value) == ("io.weight", "8:0 10000")
    (cfq,) = v1({"blockIO": {"weight": 500}})
    assert cfq.otherwise is not None
    assert (cfq.otherwise.file, cfq.otherwise.value) == ("blkio.bfq.weight", "500")
