"""The order of the root filesystem's steps, as the planner decides it; nothing runs here."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pyrunc.linux import mount as m
from pyrunc.plan import Namespaces, Options
from pyrunc.plan.rootfs import RootfsSteps, rootfs_steps
from pyrunc.steps import Step
from pyrunc.steps import mounts as s
from pyrunc.steps.devices import MakeDevice, MakeLink, OpenTerminal, ReopenNull
from pyrunc.steps.sources import CloseLine, EndServing, OpenLine, ServeSources

MAPPING = [{"containerID": 0, "hostID": 1000, "size": 1}]
OTHER = [{"containerID": 0, "hostID": 2000, "size": 10}]

CONFIG: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs"},
    "process": {"cwd": "/work", "args": ["true"]},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/data", "source": "volume", "options": ["rbind", "ro"]},
    ],
    "linux": {
        "namespaces": [{"type": "mount"}, {"type": "pid"}],
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
    },
}


def config(**changes: Any) -> dict[str, Any]:
    made = copy.deepcopy(CONFIG)
    for path, value in changes.items():
        *way, last = path.split("__")
        place = made
        for name in way:
            place = place[name]
        place[last] = value
    return made


def plan(made: dict[str, Any], **options: bool) -> RootfsSteps:
    return rootfs_steps(made, "/bundle", Namespaces(made), Options(**options))


def kinds(steps: list[Step]) -> list[type[Step]]:
    """The types of steps, one after the other, runs of the same once."""
    found: list[type[Step]] = []
    for step in steps:
        if not found or found[-1] is not type(step):
            found.append(type(step))
    return found


def origins(steps: list[Step], kind: type[Step]) -> list[str]:
    return [step.origin for step in steps if isinstance(step, kind)]


def test_the_order_of_an_ordinary_container() -> None:
    steps = plan(config(root__readonly=True))
    assert steps.on_host == steps.before_root == []
    assert kinds(steps.mounts) == [
        s.SetRootPropagation,
        s.OpenRoot,
        s.OpenNull,
        s.FilesystemMount,
        s.BindMount,
        MakeDevice,
        MakeLink,
        ReopenNull,
        s.MakeWorkingDirectory,
    ]
    assert kinds(steps.hide) == [s.MarkRoot, s.ReadonlyPath, s.MaskPath]
    assert kinds(steps.enter) == [s.PivotRoot]


def test_mounts_are_in_the_order_listed() -> None:
    assert origins(plan(config()).mounts, s.Mount) == ["/mounts/0", "/mounts/1", "/mounts/2"]


def test_ties_to_the_host_are_cut_before_anything_is_mounted() -> None:
    steps = plan(config()).mounts
    assert isinstance(steps[0], s.SetRootPropagation)
    assert (steps[0].propagation, steps[0].recursive) == (m.MS_SLAVE, True)


@pytest.mark.parametrize(
    ("word", "before", "private_parent", "after"),
    [
        ("slave", m.MS_SLAVE, False, []),
        ("rslave", m.MS_SLAVE, False, []),
        ("private", m.MS_PRIVATE, False, []),
        ("rprivate", m.MS_PRIVATE, False, []),
        ("shared", None, True, [m.MS_SHARED]),
        ("rshared", None, True, [m.MS_SHARED]),
        ("unbindable", m.MS_PRIVATE, False, [m.MS_UNBINDABLE]),
        ("runbindable", m.MS_PRIVATE, False, [m.MS_UNBINDABLE]),
    ],
)
def test_root_propagation(word: str, before: int | None, private_parent: bool, after: list[int]) -> None:
    steps = plan(config(linux__rootfsPropagation=word))
    first = [step.propagation for step in steps.mounts if isinstance(step, s.SetRootPropagation)]
    assert first == ([] if before is None else [before])
    root = next(step for step in steps.mounts if isinstance(step, s.OpenRoot))
    assert (root.bind, root.private_parent) == (True, private_parent)
    marks = [step.propagation for step in steps.enter if isinstance(step, s.MarkRoot)]
    assert marks == after
    if after:  # the root's own word comes when it is the root: on the way there it would keep pivot_root from working
        assert kinds(steps.enter) == [s.PivotRoot, s.MarkRoot]


def test_ways_into_the_root() -> None:
    assert kinds(plan(config(), no_pivot=True).enter) == [s.MoveRoot]
    without = config(linux__namespaces=[{"type": "pid"}], linux__maskedPaths=[], linux__readonlyPaths=[])
    for no_pivot in (False, True):
        assert kinds(plan(without, no_pivot=no_pivot).enter) == [s.Chroot]


def test_without_a_mount_namespace_the_runtime_holds_the_root() -> None:
    """The host's mounts are left as they are, and one unmount undoes what is made."""
    steps = plan(config(linux__namespaces=[{"type": "pid"}], linux__maskedPaths=[], linux__readonlyPaths=[]))
    assert kinds(steps.on_host) == [s.BindRoot]
    assert not [step for step in steps.mounts if isinstance(step, s.SetRootPropagation)]
    root = next(step for step in steps.mounts if isinstance(step, s.OpenRoot))
    assert not root.bind


def test_in_a_user_namespace_sources_are_opened_before() -> None:
    made = config(linux__namespaces=[{"type": "mount"}, {"type": "user"}], linux__uidMappings=MAPPING)
    steps = plan(made, unprivileged=True)
    [opened] = steps.before_root
    assert isinstance(opened, s.OpenSources)
    assert opened.paths == [("/bundle/rootfs", "/root/path"), ("/bundle/volume", "/mounts/2")]
    assert not steps.serve
    assert all(step.bind for step in steps.mounts if isinstance(step, MakeDevice))


def bind(steps: RootfsSteps) -> s.BindMount:
    [found] = [step for step in steps.mounts if isinstance(step, s.BindMount)]
    return found


def test_in_a_user_namespace_root_opens_the_sources_for_init() -> None:
    made = config(linux__namespaces=[{"type": "mount"}, {"type": "user"}], linux__uidMappings=MAPPING)
    steps = plan(made)
    [opened] = steps.before_root
    assert isinstance(opened, s.OpenSources)
    assert opened.paths == [("/bundle/rootfs", "/root/path")]
    assert kinds(steps.on_host) == [OpenLine]
    [serve] = steps.serve
    assert isinstance(serve, ServeSources)
    assert [(source.path, source.recursive, source.mapping) for source in serve.sources] == [
        ("/bundle/volume", True, None)
    ]
    assert bind(steps).served == 0
    assert kinds(steps.served) == [EndServing]
    line = kinds(steps.mounts).index(CloseLine)
    assert kinds(steps.mounts).index(s.BindMount) < line < kinds(steps.mounts).index(MakeDevice)


def test_init_opens_by_itself_what_it_may() -> None:
    steps = plan(config())
    assert (steps.on_host, steps.serve, steps.served) == ([], [], [])
    assert bind(steps).served == -1


@pytest.mark.parametrize(
    ("user", "mount", "expected"),
    [
        ({}, {"uidMappings": MAPPING, "gidMappings": OTHER}, ("/mounts/0", False, MAPPING, OTHER, "")),
        (
            {"type": "user"},
            {"options": ["bind", "ridmap"], "uidMappings": MAPPING, "gidMappings": OTHER},
            ("/mounts/0", True, MAPPING, OTHER, ""),
        ),
        ({"type": "user"}, {"options": ["bind", "idmap"]}, ("/linux", False, OTHER, MAPPING, "")),
        ({"type": "user", "path": "/ns"}, {"options": ["rbind", "ridmap"]}, ("/mounts/0", True, [], [], "/ns")),
    ],
    ids=["own", "own, user namespace", "the container's", "a joined user namespace's"],
)
def test_the_id_mapping_of_a_mount(user: dict[str, Any], mount: dict[str, Any], expected: tuple[Any, ...]) -> None:
    made = config(
        linux__namespaces=[{"type": "mount"}, *([user] if user else [])],
        linux__uidMappings=OTHER,
        linux__gidMappings=MAPPING,
        mounts=[{"destination": "/data", "source": "/volume", "options": ["bind"], **mount}],
    )
    steps = plan(made)
    [serve] = steps.serve
    assert isinstance(serve, ServeSources)
    [source] = serve.sources
    assert source.mapping is not None
    mapping = source.mapping
    assert (mapping.at, mapping.recursive, mapping.uids, mapping.gids, mapping.path) == expected


def test_without_a_user_namespace_only_what_is_mapped_is_opened_for_init() -> None:
    mounts: list[dict[str, Any]] = [
        {"destination": "/a", "source": "/a", "options": ["bind"]},
        {
            "destination": "/b",
            "source": "/b",
            "options": ["bind"],
            "uidMappings": MAPPING,
            "gidMappings": MAPPING,
        },
    ]
    steps = plan(config(mounts=mounts))
    assert [step.served for step in steps.mounts if isinstance(step, s.BindMount)] == [-1, 0]


def test_a_destination_may_be_the_place_on_the_host() -> None:
    mounts = [
        {"destination": place, "source": "/volume", "options": ["bind"]}
        for place in ("/bundle/rootfs/data", "/bundle/rootfsdata", "/data")
    ]
    steps = plan(config(mounts=mounts))
    found = [step.destination for step in steps.mounts if isinstance(step, s.BindMount)]
    assert found == ["/data", "/bundle/rootfsdata", "/data"]


def test_a_path_is_masked_once() -> None:
    steps = plan(config(linux__maskedPaths=["/a", "/b", "/a"]))
    assert origins(steps.hide, s.MaskPath) == ["/linux/maskedPaths/0", "/linux/maskedPaths/1"]


@pytest.mark.parametrize(
    ("mount", "late"),
    [
        ({"destination": "/data", "type": "tmpfs", "options": ["ro"]}, True),
        ({"destination": "/data", "type": "tmpfs", "options": ["ro", "tmpcopyup"]}, True),
        ({"destination": "//dev/", "type": "devtmpfs", "options": ["ro"]}, True),
        ({"destination": "/data", "type": "tmpfs", "options": ["rw"]}, False),
        ({"destination": "/data", "type": "sysfs", "options": ["ro"]}, False),
        ({"destination": "/data", "source": "/x", "options": ["bind", "ro"]}, False),
        ({"destination": "/data", "type": "tmpfs", "options": ["remount", "ro"]}, False),
    ],
)
def test_what_becomes_read_only_at_the_end(mount: dict[str, Any], late: bool) -> None:
    steps = plan(config(mounts=[mount]))
    assert origins(steps.hide, s.MarkMount) == (["/mounts/0"] if late else [])
    [step] = [step for step in steps.mounts if isinstance(step, s.Mount)]
    assert bool(step.options.set & m.MOUNT_ATTR_RDONLY) == ("ro" in mount["options"] and not late)


@pytest.mark.parametrize("destination", ["/dev", "dev", "//dev", "/dev/", "/x/../dev", "/../dev"])
def test_a_bound_dev_is_not_furnished(destination: str) -> None:
    steps = plan(config(mounts=[{"destination": destination, "source": "/dev", "options": ["rbind"]}]))
    assert not [step for step in steps.mounts if isinstance(step, MakeDevice | MakeLink)]


def test_default_devices_give_way_to_configured_ones() -> None:
    made = config(linux__devices=[{"path": "/dev/./null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}])
    found = [step for step in plan(made).mounts if isinstance(step, MakeDevice)]
    assert [(step.origin, step.mode) for step in found if step.path.endswith("null")] == [("/linux/devices/0", 0o600)]
    assert len(found) == 6


def test_default_devices_give_way_to_bind_mounts() -> None:
    made = config(mounts=[{"destination": "/dev//null", "source": "/dev/zero", "options": ["bind"]}])
    found = [step.path for step in plan(made).mounts if isinstance(step, MakeDevice)]
    assert "/dev/null" not in found
    assert len(found) == 5


def test_ptmx_is_always_the_container_s() -> None:
    made = config(linux__devices=[{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}])
    steps = plan(made).mounts
    assert "/dev/ptmx" not in [step.path for step in steps if isinstance(step, MakeDevice)]
    [link] = [step for step in steps if isinstance(step, MakeLink) and step.path == "/dev/ptmx"]
    assert (link.target, link.replace) == ("pts/ptmx", True)


def test_the_terminal_is_opened_once_dev_is_there() -> None:
    steps = plan(config(process__terminal=True)).mounts
    assert kinds(steps).index(OpenTerminal) > kinds(steps).index(MakeLink)


def test_sources_and_kinds() -> None:
    made = config(
        mounts=[
            {"destination": "/a", "source": "rel", "options": ["bind"]},
            {"destination": "/b", "source": "/abs/../x", "type": "none", "options": ["rbind"]},
            {"destination": "/c", "source": "src", "type": "bind"},
            {"destination": "/d", "type": "cgroup", "source": "cgroup"},
            {"destination": "/e", "type": "tmpfs", "options": ["remount", "size=1m"]},
        ]
    )
    found = [step for step in plan(made).mounts if isinstance(step, s.Mount)]
    assert [type(step) for step in found] == [s.BindMount, s.BindMount, s.BindMount, s.CgroupMount, s.Remount]
    assert [step.source for step in found[:3]] == ["/bundle/rel", "/x", "/bundle/src"]
    assert [step.recursive for step in found[:3] if isinstance(step, s.BindMount)] == [False, True, False]


def test_every_step_says_what_it_does() -> None:
    steps = plan(config(root__readonly=True, linux__rootfsPropagation="unbindable", process__terminal=True))
    for step in steps.before_root + steps.mounts + steps.hide + steps.enter:
        assert step.describe()
    assert any(
        step.origin == "/mounts/2" and step.describe() == "bind /bundle/volume on /data (rbind,ro)"
        for step in steps.mounts
    )
