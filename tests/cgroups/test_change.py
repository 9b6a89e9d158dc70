"""Changing limits, all or nothing: what is written back when one value is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pyrunc.cgroups.base import Manager, read
from pyrunc.cgroups.change import back, put_back
from pyrunc.errors import Error


@pytest.mark.parametrize(
    ("file", "before", "now", "writes"),
    [
        ("pids.max", "max", "20", ["max"]),
        ("cpuset.cpus", "", "0-1", ["\n"]),
        ("io.max", "", "8:0 rbps=1 wbps=max riops=max wiops=max", ["8:0 rbps=max wbps=max riops=max wiops=max"]),
        ("io.max", "8:0 rbps=5 wbps=max riops=max wiops=max", "", ["8:0 rbps=5 wbps=max riops=max wiops=max"]),
        ("io.bfq.weight", "default 100\n8:0 20", "default 200\n8:0 20\n8:16 30", ["default 100", "8:16 default"]),
        ("blkio.throttle.read_bps_device", "8:0 7", "8:0 9\n8:16 1", ["8:0 7", "8:16 0"]),
    ],
)
def test_the_way_back(file: str, before: str, now: str, writes: list[str]) -> None:
    assert back(file, before, now) == writes


def test_files_are_put_back_in_whatever_order_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit may not pass that of memory and swap, which comes second."""
    limit, both = str(tmp_path / "limit"), str(tmp_path / "both")
    files = {limit: 1, both: 2}

    def write(path: str, text: str) -> None:
        after = files | {path: int(text)}
        if after[limit] > after[both]:
            raise OSError(22, "Invalid argument")
        files.update(after)

    monkeypatch.setattr("pyrunc.cgroups.change.write", write)
    monkeypatch.setattr("pyrunc.cgroups.change.read", lambda path: f"{files[path]}\n")
    assert put_back({limit: "5", both: "6"}) == []
    assert files == {limit: 5, both: 6}
    assert put_back({limit: "9"}) == [limit]


FILES = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"),
    "cpu": ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.idle"),
    "pids": ("pids.max",),
    "cpuset": ("cpuset.cpus",),
    "blkio": ("blkio.throttle.read_bps_device",),
    "devices": ("devices.list",),
}


def _device() -> dict[str, int]:
    for name in sorted(os.listdir("/sys/block")):
        major, minor = read(f"/sys/block/{name}/dev").strip().split(":")
        return {"major": int(major), "minor": int(minor)}
    pytest.skip("needs a block device")


def _all(manager: Manager) -> dict[str, str]:
    return {
        file: read(f"{manager.paths[controller]}/{file}")
        for controller, files in FILES.items()
        if controller in manager.paths
        for file in files
        if os.path.exists(f"{manager.paths[controller]}/{file}")
    }


@pytest.mark.parametrize(
    ("refused", "pointer"),
    [
        ({"cpu": {"quota": 500000, "period": 1000000, "idle": 1, "cpus": "4000"}}, "/cpu/cpus"),
        ({"cpu": {"quota": 60000, "idle": 7}}, "/cpu/idle"),
        ({"cpu": {"shares": 1}}, "/cpu/shares"),
        ({"blockIO": "throttle"}, "/blockIO/throttleReadBpsDevice/1"),
    ],
)
def test_what_is_refused_changes_nothing(v1: Manager, refused: dict[str, Any], pointer: str) -> None:
    if refused.get("blockIO") == "throttle":
        rates = [_device() | {"rate": 9999}, {"major": 4000, "minor": 0, "rate": 1}]
        refused = {"blockIO": {"throttleReadBpsDevice": rates}}
    v1.create()
    v1.update({
        "memory": {"limit": 32 << 20, "swap": 64 << 20, "reservation": 16 << 20},
        "cpu": {"quota": 50000, "period": 100000, "shares": 200},
        "pids": {"limit": 20},
        "devices": [],
    })  # fmt: skip
    before = _all(v1)
    more = {
        "memory": {"limit": 128 << 20, "swap": 256 << 20},
        "pids": {"limit": 30},
        "devices": [{"allow": True, "type": "b", "access": "rwm"}],
    }
    with pytest.raises(Error) as e:
        v1.update(more | refused)
    assert e.value.pointer == pointer
    assert _all(v1) == before
    v1.update(more)
    assert _all(v1) != before


def test_on_v2_what_is_refused_changes_nothing(v2: Manager) -> None:
    v2.create()
    directory = v2.paths[""]
    if "pids" not in read(directory + "/cgroup.controllers").split():
        pytest.skip("needs pids on cgroup v2")
    v2.update({"pids": {"limit": 20}})
    with pytest.raises(Error) as e:
        v2.update({"pids": {"limit": 30}, "unified": {"pids.max": "many"}}, at="/x")
    assert e.value.pointer == "/x/unified/pids.max"
    assert read(directory + "/pids.max") == "20\n"
