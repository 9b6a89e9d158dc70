"""When and where a process runs: which steps, and their place in the order."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pyrunc.linux.scheduling import number_list
from pyrunc.plan import Options, exec_steps
from pyrunc.plan.process import affinity_steps, process_steps
from pyrunc.steps import Step
from pyrunc.steps.context import Context
from pyrunc.steps.process import AllowEveryCpu, LoadSeccomp, SetUser
from pyrunc.steps.runtime import StartInit
from pyrunc.steps.scheduling import RestoreAffinity, SetAffinity, SetIoPriority, SetScheduler

LINUX = {"personality": {"domain": "LINUX32"}, "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}}
PROCESS: dict[str, Any] = {
    "args": ["sh"],
    "cwd": "/",
    "scheduler": {
        "policy": "SCHED_DEADLINE",
        "runtime": 1,
        "deadline": 2,
        "period": 3,
        "flags": ["SCHED_FLAG_RECLAIM"],
    },
    "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
}


def kinds(steps: list[Step]) -> list[str]:
    return [type(step).__name__ for step in steps]


def test_the_scheduler_comes_last_of_them_and_before_privileges_go() -> None:
    """A deadline policy may leave init next to no time, and without CAP_SYS_NICE nothing of this can be set."""
    steps = process_steps(PROCESS, {"linux": LINUX}, None)
    names = kinds(steps)
    asked = ["SetIoPriority", "SetPersonality", "SetMemoryPolicy", "SetScheduler"]
    assert [name for name in names if name in asked] == asked
    assert names.index("SetScheduler") < names.index("DropBoundingSet") < names.index(SetUser.__name__)
    assert LoadSeccomp.__name__ not in names[: names.index("SetScheduler")]


def test_nothing_where_nothing_is_asked() -> None:
    names = kinds(process_steps({"args": ["sh"], "cwd": "/"}, {}, None))
    assert not [name for name in names if name.startswith(("SetIo", "SetPers", "SetMem", "SetSched"))]


def test_what_they_say() -> None:
    scheduler = SetScheduler(PROCESS["scheduler"])
    assert scheduler.describe() == (
        "be scheduled by SCHED_DEADLINE (runtime 1 ns, deadline 2 ns, period 3 ns, SCHED_FLAG_RECLAIM)"
    )
    assert scheduler.origin == "/process/scheduler"
    assert SetIoPriority(PROCESS["ioPriority"]).describe() == "set I/O priority IOPRIO_CLASS_BE 3"
    assert SetAffinity("0-1,3", initial=True).describe().startswith("nsexec: affinity: 0xb")
    assert SetAffinity("0-1,3", initial=False).describe() == "run on CPUs 0,1,3"


def test_a_process_without_its_own_has_the_containers() -> None:
    affinity = {"initial": "0", "final": "1"}
    config = {"process": PROCESS | {"execCPUAffinity": affinity}, "linux": {"namespaces": [{"type": "mount"}]}}
    steps = exec_steps(config, {"args": ["sh"], "cwd": "/"}, "c", Options(), None)
    assert kinds(steps)[:3] == ["SetAffinity", "StartInit", "RestoreAffinity"]
    (start,) = [step for step in steps if isinstance(step, StartInit)]
    inside = kinds(start.init)
    assert inside.index("SetAffinity") < inside.index("NewSession") and "SetScheduler" in inside
    own = {"args": ["sh"], "cwd": "/", "execCPUAffinity": {"final": "0"}, "scheduler": {"policy": "SCHED_IDLE"}}
    steps = exec_steps(config, own, "c", Options(), None)
    assert kinds(steps)[0] == "StartInit"
    (start,) = [step for step in steps if isinstance(step, StartInit)]
    (scheduler,) = [step for step in start.init if isinstance(step, SetScheduler)]
    assert scheduler.scheduler["policy"] == "SCHED_IDLE"


@pytest.mark.parametrize(
    ("affinity", "expected"),
    [
        (None, ([], [], ["AllowEveryCpu"])),
        ({"initial": "", "final": ""}, ([], [], ["AllowEveryCpu"])),
        ({"final": "0"}, ([], [], ["SetAffinity"])),
        ({"initial": "0"}, (["SetAffinity"], ["RestoreAffinity"], [])),
        ({"initial": "0", "final": "0"}, (["SetAffinity"], ["RestoreAffinity"], ["SetAffinity"])),
    ],
)
def test_affinity(affinity: dict[str, str] | None, expected: tuple[list[str], ...]) -> None:
    assert tuple(map(kinds, affinity_steps(affinity))) == expected


@pytest.mark.parametrize("undone", [True, False])
def test_the_runtime_runs_where_it_ran_before(undone: bool) -> None:
    """It may be a library in a program."""
    ctx = Context("c", "/b", {})
    before = os.sched_getaffinity(0)
    step = SetAffinity(str(min(before)), initial=True)
    step.run(ctx)
    try:
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        step.undo(ctx) if undone else RestoreAffinity(step).run(ctx)
    assert os.sched_getaffinity(0) == before
    AllowEveryCpu().run(ctx)
    assert os.sched_getaffinity(0) >= before


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", [0]), ("0-3,7", [0, 1, 2, 3, 7]), ("3,1-2,2", [1, 2, 3]), (" 1, 2-2 ", [1, 2])]
)
def test_lists_of_numbers(text: str, numbers: list[int]) -> None:
    assert number_list(text, 7) == numbers


@pytest.mark.parametrize("text", ["", "8", "0-8", "2-1", "1-", "-1", ",", "a", "0x1", "1-2-3"])
def test_no_lists_of_numbers(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        number_list(text, 7)
