"""Updates: what stays, what is written beside what is new, what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.config.resources import given, merge, settle, to_write, weightless

MIB = 1 << 20

OLD: dict[str, Any] = {
    "devices": [{"allow": False, "access": "rwm"}],
    "memory": {"limit": 32 * MIB, "swap": 64 * MIB, "reservation": 24 * MIB},
    "cpu": {"shares": 100, "quota": 50000, "period": 100000},
    "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 0, "rate": 2}]},
    "pids": {"limit": 20},
}


@pytest.mark.parametrize(
    ("new", "written"),
    [
        ({"pids": {"limit": 0}}, {"pids": {"limit": 0}}),
        ({"memory": {"reservation": MIB}}, {"memory": {"reservation": MIB}}),
        # v2 counts swap from the limit, and has quota and period in one file
        ({"memory": {"limit": 48 * MIB}}, {"memory": {"limit": 48 * MIB, "swap": 64 * MIB}}),
        ({"memory": {"swap": 80 * MIB}}, {"memory": {"limit": 32 * MIB, "swap": 80 * MIB}}),
        ({"memory": {"limit": -1}}, {"memory": {"limit": -1}}),
        ({"memory": {"limit": -1, "swap": 5}}, {"memory": {"limit": -1, "swap": 5}}),
        ({"cpu": {"quota": -1}}, {"cpu": {"quota": -1, "period": 100000}}),
        ({"cpu": {"period": 200000}}, {"cpu": {"quota": 50000, "period": 200000}}),
        ({"cpu": {"burst": 0}}, {"cpu": {"burst": 0}}),
        ({"cpu": {"idle": 1}}, {"cpu": {"idle": 1}}),
        ({"cpu": {"idle": 0}}, {"cpu": {"idle": 0, "shares": 100}}),
        # an engine sends its rules with every update
        ({"devices": [{"allow": False, "access": "rwm"}]}, {}),
        (
            {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "access": "r"}]},
            {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "access": "r"}]},
        ),
    ],
)
def test_what_an_update_writes(new: dict[str, Any], written: dict[str, Any]) -> None:
    assert to_write(OLD, new) == written


@pytest.mark.parametrize(
    ("new", "key", "after"),
    [
        ({"memory": {"limit": 5}}, "memory", {"limit": 5, "swap": 64 * MIB, "reservation": 24 * MIB}),
        ({"memory": {"limit": -1}}, "memory", {"limit": -1, "reservation": 24 * MIB}),
        ({"cpu": {"cpus": "1"}}, "cpu", {"shares": 100, "quota": 50000, "period": 100000, "cpus": "1"}),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]}},
            "blockIO",
            {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 0, "rate": 9}]},
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 9}]}},
            "blockIO",
            {
                "throttleReadBpsDevice": [
                    {"major": 8, "minor": 0, "rate": 1},
                    {"major": 8, "minor": 0, "rate": 2},
                    {"major": 8, "minor": 16, "rate": 9},
                ]
            },
        ),
        ({"unified": {"memory.high": "1"}}, "unified", {"memory.high": "1"}),
    ],
)
def test_what_a_container_has_after_it(new: dict[str, Any], key: str, after: dict[str, Any]) -> None:
    before = repr(OLD)
    merged = merge(OLD, new)
    assert merged[key] == after
    assert {k: v for k, v in merged.items() if k != key} == {k: v for k, v in OLD.items() if k != key}
    assert repr(OLD) == before


def test_zeros_of_go_are_no_limits() -> None:
    """Docker sends its structures whole."""
    sent = {
        "memory": {"limit": 0, "swap": 0, "reservation": 0, "swappiness": 0},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "idle": 0},
        "blockIO": {"weight": 0, "throttleReadBpsDevice": []},
        "pids": {"limit": 0},
        "devices": [],
        "unified": {},
    }
    assert given(sent) == {"memory": {"swappiness": 0}, "cpu": {"idle": 0}, "pids": {"limit": 0}}


def test_a_flag_overrules_an_older_file_of_unified() -> None:
    old = {"unified": {"memory.max": "1", "memory.high": "2"}}
    new = {"memory": {"limit": MIB}}
    after = settle(merge(old, new), new, {"memory.max"})
    assert after == {"unified": {"memory.high": "2"}, "memory": {"limit": MIB}}
    both = new | {"unified": {"memory.max": "3"}}
    assert settle(merge(old, both), both, {"memory.max"})["unified"] == {"memory.max": "3", "memory.high": "2"}


@pytest.mark.parametrize(
    ("resources", "left", "note"),
    [
        ({"cpu": {"idle": 1, "shares": 5, "cpus": "0"}}, {"cpu": {"idle": 1, "cpus": "0"}}, "cpu.shares"),
        ({"cpu": {"idle": 0, "shares": 5}}, {"cpu": {"idle": 0, "shares": 5}}, ""),
        ({"unified": {"cpu.idle": "1", "cpu.weight": "8"}}, {"unified": {"cpu.idle": "1"}}, "cpu.weight"),
        ({"unified": {"cpu.weight": "8"}}, {"unified": {"cpu.weight": "8"}}, ""),
    ],
)
def test_what_is_idle_has_no_weight(resources: dict[str, Any], left: dict[str, Any], note: str) -> None:
    found, told = weightless(resources)
    assert found == left
    assert (f"unable to apply both cpu.idle and {note}" in told) if note else not told


def test_a_weight_ends_being_idle() -> None:
    assert merge({"cpu": {"idle": 1}}, {"cpu": {"shares": 5}}) == {"cpu": {"shares": 5}}
    assert merge({"cpu": {"idle": 1}}, {"cpu": {"cpus": "0"}}) == {"cpu": {"idle": 1, "cpus": "0"}}
