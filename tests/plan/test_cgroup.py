"""When a container's cgroup becomes its user's: config-linux.md, "Cgroup ownership"."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc import plan as planner
from pyrunc.steps import Step
from pyrunc.steps.cgroup import DelegateCgroup
from pyrunc.steps.runtime import StartInit, Tell

CGROUP = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "rw"]}


def plan(namespaces: list[dict[str, str]], mounts: list[dict[str, Any]], uid: int) -> list[Step]:
    config = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "process": {"user": {"uid": uid, "gid": 0}, "args": ["true"], "cwd": "/"},
        "linux": {"namespaces": namespaces},
    }
    manager: Any = type("Manager", (), {"settings": lambda self, resources: [], "unit": None})()
    return planner.create(config, "/bundle", "c", manager, planner.Options(), None)


def kinds(*names: str) -> list[dict[str, str]]:
    return [{"type": name} for name in ("mount", "pid", *names)]


@pytest.mark.parametrize(
    ("namespaces", "mount", "uid", "delegated"),
    [
        (kinds("user", "cgroup"), CGROUP, 0, True),
        (kinds("user", "cgroup"), CGROUP, 7, True),
        (kinds("user", "cgroup"), {**CGROUP, "destination": "/sys/fs/cgroup/", "options": []}, 0, True),
        ([*kinds("cgroup"), {"type": "user", "path": "/proc/1/ns/user"}], CGROUP, 0, True),
        (kinds("cgroup"), CGROUP, 7, True),
        (kinds("cgroup"), CGROUP, 0, False),  # root's already
        (kinds("user"), CGROUP, 0, False),
        ([*kinds("user"), {"type": "cgroup", "path": "/proc/1/ns/cgroup"}], CGROUP, 0, False),
        (kinds("user", "cgroup"), {**CGROUP, "options": ["ro"]}, 0, False),
        (kinds("user", "cgroup"), {**CGROUP, "destination": "/cgroup"}, 0, False),
        (kinds("user", "cgroup"), {**CGROUP, "type": "bind", "source": "/sys/fs/cgroup"}, 0, False),
    ],
)
def test_ownership(namespaces: list[dict[str, str]], mount: dict[str, Any], uid: int, delegated: bool) -> None:
    steps = plan(namespaces, [{"destination": "/proc", "type": "proc", "source": "proc"}, mount], uid)
    found = [step for step in steps if isinstance(step, DelegateCgroup)]
    assert [(step.uid, step.origin) for step in found] == ([(uid, "/mounts/1")] if delegated else [])


def test_it_is_there_when_init_goes_on() -> None:
    """And init exists, whose user namespace is asked for the mapping."""
    steps = plan(kinds("user", "cgroup"), [CGROUP], 0)
    order = [type(step) for step in steps if isinstance(step, StartInit | DelegateCgroup | Tell)]
    assert order[:3] == [StartInit, DelegateCgroup, Tell]
