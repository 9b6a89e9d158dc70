"""containerd as Kubernetes drives it: a pod's containers by the Container Runtime Interface, with both cgroup managers.

The runtime and its ``SystemdCgroup`` are set in containerd's TOML file, as on every node of a cluster.
"""

from __future__ import annotations

import os

import pytest

from conformance.engines.box import retry
from conformance.engines.cri import EXITED, RUNNING, Cri
from conformance.harness import spec

pytestmark = spec("containerd-config.toml.5")

MIB = 1 << 20


def cgroup_paths(cri: Cri, container: str) -> set[str]:
    """Every cgroup that the container's process is in."""
    text = cri.box.read(f"/proc/{cri.pid(container)}/cgroup")
    return {line.split(":", 2)[2].removesuffix("/container") for line in text.splitlines()}  # crun's own level


def memory_limit(cri: Cri, container: str) -> str:
    return cri.box.cgroup_file(cri.pid(container), "memory/memory.limit_in_bytes", "memory.max")


def test_a_pods_container(cri: Cri) -> None:
    cri.run_pod()
    limits = {"memory_limit_in_bytes": 64 * MIB, "cpu_period": 100000, "cpu_quota": 50000, "cpu_shares": 512}
    container = cri.run("sh", "-c", "echo up >/up; exec sleep 1000", **limits)
    assert cri.status(container)[0] == RUNNING
    home = f"cri-containerd-{container}.scope" if cri.box.systemd else container
    assert os.path.join("/", cri.box.parent, home) in cgroup_paths(cri, container)
    assert memory_limit(cri, container) == str(64 * MIB)
    assert cri.box.cgroup_file(cri.pid(container), "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert cri.output(container, "cat", "/up") == "up\n"
    assert cri("ContainerStats", container_id=container)["stats"]["memory"]["working_set_bytes"]["value"] > 0

    # a pod's resize in place
    cri("UpdateContainerResources", container_id=container, linux=limits | {"memory_limit_in_bytes": 128 * MIB})
    assert memory_limit(cri, container) == str(128 * MIB)
    if cri.box.systemd:
        assert cri.box.unit(home, "MemoryMax", "Slice", "Delegate") == [str(128 * MIB), cri.box.parent, "yes"]
    assert cri.output(container, "cat", "/up") == "up\n"

    cri("StopContainer", container_id=container, timeout=0)
    assert cri.status(container)[:2] == (EXITED, 137)
    cri("RemoveContainer", container_id=container)
    if cri.box.systemd:
        retry(lambda: cri.box.unit(home, "ActiveState") == ["inactive"], "the scope is still there")


def test_two_containers_of_a_pod(cri: Cri) -> None:
    """Each in a cgroup of its own below the pod's."""
    cri.run_pod()
    first, second = (cri.run("sleep", "1000") for _ in range(2))
    ours, theirs = cgroup_paths(cri, first), cgroup_paths(cri, second)
    assert ours != theirs
    parents = {os.path.dirname(path) for path in ours & {path for path in ours if cri.box.name in path}}
    assert parents == {os.path.join("/", cri.box.parent)}
    assert cri.output(second, "cat", "/proc/1/cmdline").split("\0")[0] == "sleep"


def test_exit_code(cri: Cri) -> None:
    cri.run_pod()
    container = cri.run("sh", "-c", "exit 7")
    retry(lambda: cri.status(container)[0] == EXITED, "the container does not end")
    assert cri.status(container)[1] == 7


def test_a_container_that_is_out_of_memory(cri: Cri) -> None:
    """api.proto, reason: Must be set to "OOMKilled" for containers terminated by cgroup-based Out-of-Memory killer."""
    cri.run_pod()
    container = cri.run("sh", "-c", "exec head -c 64m /dev/zero | tail -c 64m", memory_limit_in_bytes=16 * MIB)
    retry(lambda: cri.status(container)[0] == EXITED, "the container does not end", seconds=20)
    retry(lambda: cri.status(container)[2] == "OOMKilled", f"it ended as {cri.status(container)}")


def test_the_default_apparmor_profile(cri: Cri) -> None:
    enabled = "/sys/module/apparmor/parameters/enabled"
    if not os.path.exists(enabled) or cri.box.run("cat", enabled).out != "Y\n":
        pytest.skip("AppArmor is not enabled in this kernel")
    cri.run_pod()
    container = cri.run("sleep", "1000")
    for file in ("/proc/1/attr/current", "/proc/self/attr/current"):
        assert cri.output(container, "cat", file).startswith("cri-containerd.apparmor.d")
    cri("StopContainer", container_id=container, timeout=5)
    assert cri.status(container)[0] == EXITED
