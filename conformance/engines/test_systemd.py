"""Engines that leave cgroups to systemd: podman's default, and containerd's for every node with systemd.

What is asked is asked twice: of the cgroup's file, and of the unit's property, which systemd writes to the file again
whenever it likes (daemon-reload, a change of another property).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from conformance.engines.box import Box, retry
from conformance.engines.containerd import IMAGE as CONTAINERDS_IMAGE
from conformance.engines.containerd import Containerd
from conformance.engines.podman import IMAGE, Podman
from conformance.harness import spec

pytestmark = spec("podman-run.1")

MIB = 1 << 20
STAY = ("--network=none", IMAGE, "sleep", "1000")


@pytest.fixture
def podman(podman_with_systemd: Podman) -> Iterator[Podman]:
    yield podman_with_systemd
    podman_with_systemd.clean()


@pytest.fixture
def containerd(containerd_with_systemd: Containerd) -> Iterator[Containerd]:
    yield containerd_with_systemd
    containerd_with_systemd.clean()


def scope(container: str) -> str:
    return f"libpod-{container}.scope"


def gone(box: Box, unit: str) -> None:
    """Wait for a transient unit's end: systemd forgets it."""
    retry(lambda: box.unit(unit, "LoadState", "ActiveState") == ["not-found", "inactive"], f"{unit} is still there")


def path(box: Box, pid: int) -> str:
    """The v2 (or systemd's own v1) cgroup of a process, less the level that crun makes in it."""
    lines = [line.split(":", 2) for line in box.read(f"/proc/{pid}/cgroup").splitlines()]
    found = {controllers: path for _, controllers, path in lines}
    return (found.get("name=systemd") or found[""]).removesuffix("/container")


def limit(podman: Podman, name: str, file: str) -> str:
    """A control file of the container's scope."""
    box = podman.box
    with open(f"/sys/fs/cgroup{path(box, podman.pid(name))}/{file}") as f:
        return f.read().strip()


# ----------------------------------------------------------------------------------------------------- podman


def test_podmans_default(podman: Podman) -> None:
    """podman-run(1), --cgroup-parent: without it machine.slice, where systemd keeps containers and machines."""
    assert podman("info", "--format={{.Host.CgroupManager}}") == "systemd"
    container = podman("run", "-d", "--name", "web", "--cgroup-parent=machine.slice", *STAY)
    assert path(podman.box, podman.pid("web")) == f"/machine.slice/{scope(container)}"
    assert podman.box.unit(scope(container), "ActiveState", "Slice", "Delegate") == ["active", "machine.slice", "yes"]
    podman("exec", "web", "true")
    podman("rm", "-f", "--time=0", "web")
    gone(podman.box, scope(container))


def test_limits(podman: Podman) -> None:
    options = ["--memory=64m", "--memory-swap=96m", "--memory-reservation=32m", "--cpus=0.5", "--cpu-shares=512"]
    container = podman("run", "-d", "--name", "web", *options, "--pids-limit=77", "--cpuset-cpus=0", *STAY)
    assert path(podman.box, podman.pid("web")) == f"/{podman.box.parent}/{scope(container)}"

    def files() -> list[str]:
        names = ("memory.max", "memory.swap.max", "memory.low", "cpu.max", "pids.max", "cpuset.cpus")
        return [limit(podman, "web", name) for name in names]

    wanted = [str(64 * MIB), str(32 * MIB), str(32 * MIB), "50000 100000", "77", "0"]
    assert files() == wanted
    assert int(limit(podman, "web", "cpu.weight")) in (20, 59)  # runc's old formula and the newer one
    properties = podman.box.unit(
        scope(container), "MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec", "TasksMax", "AllowedCPUs"
    )
    assert properties == [str(64 * MIB), str(32 * MIB), "500ms", "77", "0"]
    podman.box.run("systemctl", "daemon-reload")
    assert files() == wanted


def test_update(podman: Podman) -> None:
    container = podman("run", "-d", "--name", "web", "--memory=64m", *STAY)
    podman("update", "--memory=128m", "--cpus=0.25", "--pids-limit=50", "web")
    podman.box.run("systemctl", "daemon-reload")
    files = [limit(podman, "web", name) for name in ("memory.max", "cpu.max", "pids.max")]
    assert files == [str(128 * MIB), "25000 100000", "50"]
    properties = podman.box.unit(scope(container), "MemoryMax", "CPUQuotaPerSecUSec", "TasksMax")
    assert properties == [str(128 * MIB), "250ms", "50"]


def test_stats(podman: Podman) -> None:
    podman("run", "-d", "--name", "web", "--memory=64m", *STAY)
    (stats,) = json.loads(podman("stats", "--no-stream", "--format=json", "web"))
    assert (stats["name"], stats["pids"]) == ("web", "1")
    assert stats["mem_usage"].endswith("67.11MB") and not stats["mem_usage"].startswith("0B")


def test_exec_pause_and_stop(podman: Podman) -> None:
    container = podman("run", "-d", "--name", "web", "--cgroupns=host", *STAY)
    podman("exec", "web", "sh", "-c", "cat /proc/1/cgroup >/tmp/1; cat /proc/self/cgroup >/tmp/2; cmp /tmp/1 /tmp/2")
    podman("pause", "web")
    assert (podman.state("web"), limit(podman, "web", "cgroup.freeze")) == ("paused", "1")
    podman("unpause", "web")
    assert podman.state("web") == "running"
    podman("stop", "--time=0", "web")
    assert podman.inspect("web")["State"]["ExitCode"] == 137
    gone(podman.box, scope(container))
    podman("start", "web")
    assert path(podman.box, podman.pid("web")) == f"/{podman.box.parent}/{scope(container)}"


def test_a_missing_command_leaves_no_scope(podman: Podman) -> None:
    container = podman("create", "--name", "none", "--network=none", IMAGE, "missing")
    assert podman.result("start", "none", status=None).status != 0
    gone(podman.box, scope(container))


def test_out_of_memory(podman: Podman) -> None:
    options = ["--memory=16m", "--memory-swap=16m", "--network=none"]
    podman.result("run", "--name", "big", *options, IMAGE, "sh", "-c", "exec tail -c 64m /dev/zero", status=None)
    assert podman.inspect("big")["State"]["OOMKilled"] is True


def test_a_pod_is_a_slice(podman: Podman) -> None:
    """podman-pod-create(1): with systemd the containers' scopes are in one slice, which can be limited as a whole."""
    podman("pod", "create", "--name", "crew", "--network=none", "--memory=64m")
    for name in ("a", "b"):
        podman("run", "-d", "--pod=crew", "--name", name, IMAGE, "sleep", "1000")
    ids = {name: podman.inspect(name)["Id"] for name in ("a", "b")}
    paths = {name: path(podman.box, podman.pid(name)) for name in ("a", "b")}
    assert {os.path.basename(paths[name]) for name in ("a", "b")} == {scope(ids[name]) for name in ("a", "b")}
    (slice_,) = {os.path.dirname(paths[name]) for name in ("a", "b")}
    assert os.path.dirname(slice_) == f"/{podman.box.parent}"
    with open(f"/sys/fs/cgroup{slice_}/memory.max") as f:
        assert f.read().strip() == str(64 * MIB)
    podman("exec", "a", "true")
    podman("pod", "rm", "-f", "--time=0", "crew")
    for name in ("a", "b"):
        gone(podman.box, scope(ids[name]))


def test_podmans_default_apparmor_profile(podman: Podman) -> None:
    enabled = "/sys/module/apparmor/parameters/enabled"
    if not os.path.exists(enabled) or podman.box.run("cat", enabled).out != "Y\n":
        pytest.skip("AppArmor is not enabled in this kernel")
    podman("run", "-d", "--name", "web", *STAY)
    assert podman.inspect("web")["AppArmorProfile"].startswith("containers-default-")
    for file in ("/proc/1/attr/current", "/proc/self/attr/current"):
        assert podman("exec", "web", "cat", file).startswith("containers-default-")
    podman("stop", "--time=5", "web")  # the profile says whose signals are let in
    free = podman.image_run("--security-opt=apparmor=unconfined", "--", "cat", "/proc/self/attr/current")
    assert not free.startswith("containers-default-")


# ------------------------------------------------------------------------------------------------- containerd


def test_ctr(containerd: Containerd) -> None:
    """ctr --runc-systemd-cgroup: cgroupsPath is then SLICE:PREFIX:NAME."""
    box = containerd.box
    limits = ["--memory-limit", str(64 * MIB), "--cpu-quota", "50000", "--cpu-period", "100000"]
    containerd("run", "-d", "--cgroup", f"{box.parent}:ctr:web", *limits, CONTAINERDS_IMAGE, "web", "sleep", "1000")
    pid = containerd.tasks()["web"][0]
    assert path(box, pid) == f"/{box.parent}/ctr-web.scope"
    assert box.unit("ctr-web.scope", "MemoryMax", "CPUQuotaPerSecUSec") == [str(64 * MIB), "500ms"]
    containerd("tasks", "pause", "web")
    assert containerd.tasks()["web"][1] == "PAUSED"
    containerd("tasks", "resume", "web")
    assert containerd("tasks", "exec", "--exec-id=e", "web", "echo", "in") == "in"
    containerd("tasks", "kill", "-s", "KILL", "web")
    containerd.wait_for("web", "STOPPED")
    containerd.result("tasks", "rm", "web", status=None)  # its status is that of the container
    gone(box, "ctr-web.scope")
