"""linux.intelRdt: a share of caches and memory bandwidth, by the resctrl file system, which few machines have."""

from __future__ import annotations

import os
import pathlib

import pytest

from conformance.harness import Bundle, Container, Runtime, requires, spec, xfail_on


def mounted() -> str:
    """Where resctrl is mounted, "" where it isn't."""
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.startswith("resctrl "):
            return mount.split(" ")[4]
    return ""


def resctrl(runtime: Runtime) -> str | None:
    return None if mounted() else "no resctrl file system is mounted"


def no_resctrl(runtime: Runtime) -> str | None:
    return "resctrl is mounted here" if mounted() else None


@spec(
    "config-linux.md#intelrdt",
    "If no mounted resctrl pseudo-filesystem is available in the runtime mount namespace, the runtime MUST generate an"
    " error.",
)
@requires(no_resctrl)
@pytest.mark.parametrize("rdt", [{}, {"closID": "gold"}, {"schemata": ["MB:0=20"]}, {"l3CacheSchema": "L3:0=f"}])
@xfail_on("runc", "runc 1.1 passes over it", only=["rdt0", "rdt1", "rdt2"])
@xfail_on("crun", "crun 1.8 passes over it")
def test_a_machine_without(bundle: Bundle, container: Container, rdt: dict[str, object]) -> None:
    bundle.args("true")
    bundle.linux["intelRdt"] = rdt
    result = container.run()
    assert result.status != 0 and not container.exists()
    if container.runtime.name == "pyrunc":
        assert "/linux/intelRdt" in result.stderr and "Intel RDT" in result.stderr


@spec("runc-update.8", "Set the value for Intel RDT/CAT L3 cache schema.")
@requires(no_resctrl)
@requires("flag:update --l3-cache-schema")
@pytest.mark.parametrize("flag", ["--l3-cache-schema=L3:0=f", "--mem-bw-schema=MB:0=20"])
def test_update_on_a_machine_without(container: Container, flag: str) -> None:
    container.run_detached()
    result = container.runtime.run("update", flag, container.id)
    assert result.status != 0 and "is not enabled" in result.stderr


@spec(
    "config-linux.md#intelrdt",
    "If closID is not set and the runtime has created the sub-directory, the runtime MUST remove the sub-directory when"
    " the container is deleted.",
)
@requires(resctrl)
def test_a_group_of_its_own(bundle: Bundle, container: Container) -> None:
    bundle.linux["intelRdt"] = {}
    bundle.args("sleep", "1000")
    container.run_detached()
    tasks = pathlib.Path(mounted(), container.id, "tasks")
    assert str(container.pid) in tasks.read_text().split()
    container.delete("--force")
    assert not os.path.exists(tasks.parent)
