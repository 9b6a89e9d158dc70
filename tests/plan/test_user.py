"""Whose user namespace it is decides who writes the mappings, and whether they are compared."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from pyrunc import plan as planner
from pyrunc.errors import Error
from pyrunc.linux.proc import read_text
from pyrunc.steps import Step
from pyrunc.steps.namespaces import CheckIds, MapIds
from pyrunc.steps.runtime import StartInit, Tell

IDS = [{"containerID": 0, "hostID": 100000, "size": 10}]


def plan(user: dict[str, str], mappings: list[dict[str, int]]) -> list[Step]:
    config = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["true"], "cwd": "/"},
        "linux": {"namespaces": [{"type": "mount"}, user], "uidMappings": mappings, "gidMappings": mappings},
    }
    manager: Any = type("Manager", (), {"settings": lambda self, resources: [], "unit": None})()
    steps = planner.create(config, "/bundle", "c", manager, planner.Options(), None)
    return [step for step in steps if isinstance(step, StartInit | MapIds | CheckIds | Tell)]


def test_a_new_one_is_mapped() -> None:
    assert [type(step) for step in plan({"type": "user"}, IDS)] == [StartInit, MapIds, Tell]


def test_a_joined_one_is_compared_with_what_is_given_before_init_goes_on() -> None:
    joined = {"type": "user", "path": "/proc/1/ns/user"}
    assert [type(step) for step in plan(joined, IDS)] == [StartInit, CheckIds, Tell]
    assert [type(step) for step in plan(joined, [])] == [StartInit, Tell]


def own_mappings(kind: str) -> list[dict[str, int]]:
    lines = read_text(f"/proc/self/{kind}_map").splitlines()
    return [dict(zip(("containerID", "hostID", "size"), map(int, line.split()), strict=True)) for line in lines]


def test_comparing() -> None:
    here: Any = SimpleNamespace(init_pid=os.getpid())
    uids, gids = own_mappings("uid"), own_mappings("gid")
    CheckIds(uids, gids[::-1]).run(here)
    with pytest.raises(Error, match="non-matching mapping") as e:
        CheckIds(uids, []).run(here)
    assert e.value.pointer == "/linux/gidMappings"
    with pytest.raises(Error, match="the namespace has 0 ") as e:
        CheckIds(IDS, gids).run(here)
    assert e.value.pointer == "/linux/uidMappings"
