"""Cgroup v2: where a container is put, what is written for linux.resources, what is delegated, what is refused.

What holds for v1 and v2 alike is in test_cgroups.py.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator

import pytest

from conformance.harness import Bundle, Container, Json, Runtime, not_applicable, pyrunc_promise, requires, spec

pytestmark = requires("cgroup v2")

UNIFIED = "unified (object, OPTIONAL) allows cgroup v2 parameters to be to be set and modified for the container."
UNIFIED_KEYS = "Each key in the map refers to a file in the cgroup unified hierarchy."
ENABLED = "The OCI runtime MUST ensure that the needed cgroup controllers are enabled for the cgroup."
FIT = "MUST generate an error if such a check fails. … a frozen cgroup or (for create operation) a non-empty cgroup."
OWNER = (
    "change … the owner of the container's cgroup to the host uid that maps to the value of process.user.uid in the"
    " container namespace … SHOULD only change the ownership of the container's cgroup directory and files within that"
    " directory that are listed in /sys/kernel/cgroup/delegate."
)
NOT_OWNER = (
    "SHOULD NOT change the ownership of a container cgroup unless it will also create a new cgroup namespace …"
    " Runtimes SHOULD change the cgroup ownership if and only if the cgroup filesystem is to be mounted read/write"
)
MIB = 1 << 20


def controller(name: str) -> pytest.MarkDecorator:
    return requires(f"controller:{name}")


def directory(container: Container) -> str:
    return container.runtime.cgroups.of(container.pid)[""]


def file(container: Container, name: str) -> str:
    return pathlib.Path(directory(container), name).read_text().strip()


def created(bundle: Bundle, container: Container, resources: Json) -> Container:
    bundle.linux["resources"].update(resources)
    container.create()
    return container


def disk() -> Json:
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith(("loop", "ram", "zram", "sr", "fd", "nbd")):
            major, minor = pathlib.Path(f"/sys/block/{name}/dev").read_text().strip().split(":")
            return {"major": int(major), "minor": int(minor)}
    not_applicable("the host has no disk")
    return {}


# ------------------------------------------------------------------------------------------------------ limits

#: What a configuration says and what each file reads then. Where v2 counts as v1 does, no conversion is open.
LIMITS: dict[str, tuple[str, Json, dict[str, str]]] = {
    "memory": ("memory", {"memory": {"limit": 64 * MIB}}, {"memory.max": str(64 * MIB)}),
    "memory, none": ("memory", {"memory": {"limit": -1}}, {"memory.max": "max"}),
    "reservation": ("memory", {"memory": {"reservation": 32 * MIB}}, {"memory.low": str(32 * MIB)}),
    "swap": (
        "memory",
        {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}},
        {"memory.max": str(64 * MIB), "memory.swap.max": str(32 * MIB)},
    ),
    "no swap": ("memory", {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}, {"memory.swap.max": "0"}),
    "any swap": ("memory", {"memory": {"limit": 64 * MIB, "swap": -1}}, {"memory.swap.max": "max"}),
    "quota": ("cpu", {"cpu": {"quota": 50000, "period": 200000}}, {"cpu.max": "50000 200000"}),
    "quota alone": ("cpu", {"cpu": {"quota": 50000}}, {"cpu.max": "50000 100000"}),
    "no quota": ("cpu", {"cpu": {"quota": -1, "period": 50000}}, {"cpu.max": "max 50000"}),
    "idle": ("cpu", {"cpu": {"idle": 1}}, {"cpu.idle": "1"}),
    "burst": (
        "cpu",
        {"cpu": {"quota": 50000, "period": 100000, "burst": 20000}},
        {"cpu.max": "50000 100000", "cpu.max.burst": "20000"},
    ),
    "cpus": ("cpuset", {"cpu": {"cpus": "0", "mems": "0"}}, {"cpuset.cpus": "0", "cpuset.mems": "0"}),
    "pids": ("pids", {"pids": {"limit": 100}}, {"pids.max": "100"}),
    "pids, none": ("pids", {"pids": {"limit": -1}}, {"pids.max": "max"}),
    "huge pages": (
        "hugetlb",
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]},
        {"hugetlb.2MB.max": str(4 * MIB), "hugetlb.2MB.rsvd.max": str(4 * MIB)},
    ),
    "files by name": (
        "memory",
        {"unified": {"memory.high": "33554432", "memory.oom.group": "1", "cgroup.max.depth": "3"}},
        {"memory.high": "33554432", "memory.oom.group": "1", "cgroup.max.depth": "3"},
    ),
    "a file by name comes last": (
        "memory",
        {"memory": {"limit": 64 * MIB}, "unified": {"memory.max": "41943040"}},
        {"memory.max": "41943040"},
    ),
}


@spec("config-linux.md#unified", UNIFIED)
@pytest.mark.parametrize("which", LIMITS)
def test_limits(bundle: Bundle, container: Container, which: str, runtime: Runtime) -> None:
    name, resources, want = LIMITS[which]
    if not runtime.cgroups.has(name):
        not_applicable(f"the host has no {name} controller")
    if runtime.version.startswith("1.1.") and which in ("idle", "burst", "huge pages"):
        not_applicable(f"{runtime.name} 1.1 is of an older specification")
    created(bundle, container, resources)
    top = directory(container)
    lacking = [key for key in want if not os.path.exists(f"{top}/{key}")]
    if lacking == ["memory.swap.max"] or "hugetlb.2MB.max" in lacking:
        not_applicable(f"the kernel has no {lacking[0]}")
    assert {key: file(container, key) for key in want} == want


@spec("config-linux.md#unified", UNIFIED_KEYS)
@controller("io")
def test_lines_for_devices(bundle: Bundle, container: Container) -> None:
    """A value of several lines is for a file that takes one line at a time; limits of one device add up."""
    if container.runtime.version.startswith("1.1."):
        not_applicable("runc 1.1 writes all lines at once")
    node = disk()
    number = f"{node['major']}:{node['minor']}"
    created(bundle, container, {"unified": {"io.max": f"{number} riops=333\n{number} wiops=444\n"}})
    assert file(container, "io.max") == f"{number} rbps=max wbps=max riops=333 wiops=444"


@spec("config-linux.md#block-io", "throttleReadBpsDevice")
@controller("io")
def test_throttle(bundle: Bundle, container: Container) -> None:
    node = disk()
    kinds = ("throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice")
    created(bundle, container, {"blockIO": {kind: [{**node, "rate": 1048576 + i}] for i, kind in enumerate(kinds)}})
    number = f"{node['major']}:{node['minor']}"
    assert file(container, "io.max") == f"{number} rbps=1048576 wbps=1048577 riops=1048578 wiops=1048579"


@spec("config-linux.md#block-io", "weight (uint16, OPTIONAL) - specifies per-cgroup weight.")
@controller("io")
def test_block_weight(bundle: Bundle, container: Container) -> None:
    """BFQ has v1's scale; the kernel's general one goes from 1 to 10000 where v1's goes from 10 to 1000."""
    bundle.linux["resources"]["blockIO"] = {"weight": 750}
    result = container.create(check=False)
    if result.status:
        assert "weight" in result.stderr
        not_applicable("the kernel has no scheduler with weights")
    top = directory(container)
    if os.path.exists(f"{top}/io.bfq.weight"):
        assert file(container, "io.bfq.weight").splitlines()[0].split() == ["default", "750"]
    else:
        assert file(container, "io.weight").splitlines()[0].split() == ["default", "7475"]


@spec("config-linux.md#cpu", "shares (uint64, OPTIONAL) - specifies a relative share of CPU time available")
@controller("cpu")
@pyrunc_promise
@pytest.mark.parametrize("shares, weight", [(2, 1), (512, 59), (1024, 100), (2048, 174), (262144, 10000)])
def test_shares(bundle: Bundle, container: Container, shares: int, weight: int) -> None:
    """The default of the one is the default of the other, as in runc 1.4 and crun 1.23."""
    created(bundle, container, {"cpu": {"shares": shares}})
    assert file(container, "cpu.weight") == str(weight)


@spec("config-linux.md#unified", ENABLED)
def test_controllers_are_enabled(bundle: Bundle, container: Container, runtime: Runtime) -> None:
    """All of them, on all the way down, for limits that come with an update."""
    bundle.linux["cgroupsPath"] = f"/{runtime.token}-a/b/{container.id}"
    container.create()
    above = pathlib.Path(runtime.cgroups.unified, "cgroup.controllers").read_text().split()
    mine = file(container, "cgroup.controllers").split()
    top = os.path.dirname(directory(container))
    container.delete("--force")
    while runtime.token in os.path.basename(top) or os.path.basename(top) == "b":
        os.rmdir(top)
        top = os.path.dirname(top)
    if runtime.name == "crun":
        not_applicable("crun enables what it needs")
    assert sorted(mine) == sorted(above)


# ------------------------------------------------------------------------------------------------------ refused


@spec("config-linux.md#control-groups", FIT)
def test_a_frozen_cgroup(bundle: Bundle, container: Container, runtime: Runtime) -> None:
    if runtime.name == "crun":
        not_applicable("crun does not look")
    top = f"{runtime.cgroups.unified}/{container.id}"
    os.mkdir(top)
    pathlib.Path(top, "cgroup.freeze").write_text("1")
    bundle.args("true")
    result = container.run(timeout=15)
    os.rmdir(top)
    assert result.status != 0 and "frozen" in result.stderr, result


@pytest.fixture
def above(runtime: Runtime) -> Iterator[str]:
    """A cgroup that the test makes, for a container to live below."""
    path = f"{runtime.cgroups.unified}/{runtime.token}-above"
    os.mkdir(path)
    yield path
    os.rmdir(path)


@pytest.fixture
def lodger(above: str) -> Iterator[int]:
    """A process in that cgroup."""
    pid = os.fork()
    if pid == 0:
        os.execvp("sleep", ["sleep", "1000"])
    pathlib.Path(above, "cgroup.procs").write_text(str(pid))
    yield pid
    os.kill(pid, 9)
    os.waitpid(pid, 0)


@spec("runtime.md#create", "If the runtime cannot apply a property as specified in the configuration")
@controller("pids")
@pyrunc_promise
def test_a_limit_below_a_cgroup_with_processes(bundle: Bundle, container: Container, above: str, lodger: int) -> None:
    """Which may not hand controllers down (cgroup-v2.rst, "No Internal Process Constraint")."""
    bundle.linux["cgroupsPath"] = f"/{os.path.basename(above)}/{container.id}"
    bundle.linux["resources"]["pids"] = {"limit": 10}
    result = container.run(timeout=15)
    assert result.status == 1 and "/linux/resources/pids/limit" in result.stderr, result
    assert f"{above} has processes" in result.stderr
    assert not os.path.exists(f"{above}/{container.id}")
    assert pathlib.Path(above, "cgroup.type").read_text() == "domain\n"


@spec("config-linux.md#cgroups-path", "Runtimes MAY consider certain cgroupsPath values to be invalid")
@pyrunc_promise
def test_a_threaded_place(bundle: Bundle, container: Container, above: str) -> None:
    pathlib.Path(above, "cgroup.type").write_text("threaded")
    bundle.linux["cgroupsPath"] = f"/{os.path.basename(above)}/{container.id}"
    result = container.run(timeout=15)
    assert result.status == 1 and "/linux/cgroupsPath" in result.stderr and "threaded" in result.stderr, result
    assert not os.path.exists(f"{above}/{container.id}")


BAD: dict[str, tuple[Json, str]] = {
    "CPU that isn't there": ({"cpu": {"cpus": "4000"}}, "cpu/cpus"),
    "no list of CPUs": ({"cpu": {"cpus": "some"}}, "cpu/cpus"),
    "node that isn't there": ({"cpu": {"mems": "77"}}, "cpu/mems"),
    "period too short": ({"cpu": {"period": 10}}, "cpu/period"),
    "quota too small": ({"cpu": {"quota": 10}}, "cpu/quota"),
    "realtime": ({"cpu": {"realtimeRuntime": 1000}}, "cpu/realtimeRuntime"),
    "swappiness": ({"memory": {"swappiness": 50}}, "memory/swappiness"),
    "less for both than for one": ({"memory": {"limit": 64 * MIB, "swap": 32 * MIB}}, "memory/swap"),
    "swap without memory": ({"memory": {"swap": 32 * MIB}}, "memory/swap"),
    "disk that isn't there": (
        {"blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 0, "rate": 1}]}},
        "blockIO/throttleReadBpsDevice/0",
    ),
    "huge page of no size": ({"hugepageLimits": [{"pageSize": "3KB", "limit": 1}]}, "hugepageLimits/0"),
    "huge page in small letters": ({"hugepageLimits": [{"pageSize": "2mb", "limit": 1}]}, "hugepageLimits/0"),
    "network": ({"network": {"classID": 5}}, "network/classID"),
    "unknown controller": ({"unified": {"nosuch.max": "1"}}, "unified/nosuch.max"),
    "unknown file": ({"unified": {"pids.nosuch": "1"}}, "unified/pids.nosuch"),
    "file of the core": ({"unified": {"cgroup.nosuch": "1"}}, "unified/cgroup.nosuch"),
    "no controller": ({"unified": {"max": "1"}}, "unified/max"),
    "path": ({"unified": {"../pids.max": "1"}}, "unified/..~1pids.max"),
    "value": ({"unified": {"pids.max": "many"}}, "unified/pids.max"),
}


@spec(
    "runtime.md#errors",
    "generating an error MUST leave the state of the environment as if the operation were never attempted",
)
@pyrunc_promise
@pytest.mark.parametrize("which", BAD)
def test_bad_value(bundle: Bundle, container: Container, which: str, runtime: Runtime) -> None:
    wrong, pointer = BAD[which]
    bundle.linux["resources"].update(wrong)
    bundle.args("true")
    result = container.run(timeout=15)
    assert result.status == 1 and len(result.stderr.splitlines()) == 1, result
    assert f"/linux/resources/{pointer}" in result.stderr
    assert "no such file" not in result.stderr.lower() and "permi" not in result.stderr.lower()
    assert not runtime.cgroups.having(container.id)


@spec("config-linux.md#cpu", "cpus (string, OPTIONAL) - list of CPUs the container will run on.")
@controller("cpuset")
@pyrunc_promise
def test_cpus_that_the_cgroup_above_lacks(bundle: Bundle, container: Container, above: str, runtime: Runtime) -> None:
    """The kernel takes them and goes without them; v1's refuses."""
    if (os.cpu_count() or 1) < 2:
        not_applicable("the host has one CPU")
    pathlib.Path(runtime.cgroups.unified, "cgroup.subtree_control").write_text("+cpuset")
    pathlib.Path(above, "cpuset.cpus").write_text("0")
    bundle.linux["cgroupsPath"] = f"/{os.path.basename(above)}/{container.id}"
    bundle.linux["resources"]["cpu"] = {"cpus": "0-1"}
    result = container.run(timeout=15)
    assert result.status == 1 and "/linux/resources/cpu/cpus" in result.stderr and "only 0" in result.stderr, result


# --------------------------------------------------------------------------------------------------- delegation


@pytest.fixture
def owned(bundle: Bundle) -> Bundle:
    """A container with a user namespace, whose root is the host's 100000, and a cgroup namespace."""
    bundle.namespaces(add=[{"type": "user"}, {"type": "cgroup"}])
    for kind in ("uidMappings", "gidMappings"):
        bundle.linux[kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    for path in (bundle.rootfs, *(f"{bundle.rootfs}/{name}" for name in os.listdir(bundle.rootfs))):
        os.chown(path, 100000, 100000)
    mount(bundle, "rw")
    return bundle


def mount(bundle: Bundle, mode: str) -> None:
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/sys/fs/cgroup"] + [
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", mode]}
    ]


def owners(container: Container) -> dict[str, int]:
    top = directory(container)
    return {name: os.stat(f"{top}/{name}").st_uid for name in (".", *os.listdir(top))}


def may_own(runtime: Runtime) -> str | None:
    return None if runtime.name == "pyrunc" else f'"MAY": {runtime.name} does so with systemd, or otherwise'


@spec("config-linux.md#cgroup-ownership", OWNER)
@requires(may_own)
@pytest.mark.parametrize("uid, mapped", [(0, True), (1000, True), (1000, False)])
def test_delegation(owned: Bundle, container: Container, uid: int, mapped: bool) -> None:
    owned.process["user"] = {"uid": uid, "gid": uid}
    if not mapped:
        without_user_namespace(owned)
    container.create()
    owner = uid + (100000 if mapped else 0)
    listed = set(pathlib.Path("/sys/kernel/cgroup/delegate").read_text().split())
    found = owners(container)
    assert {name for name in found if found[name] == owner} == {".", *(listed & found.keys())}
    assert {found[name] for name in found if name not in listed and name != "."} == {0}


def without_user_namespace(bundle: Bundle) -> None:
    bundle.namespaces(drop=["user"])
    del bundle.linux["uidMappings"], bundle.linux["gidMappings"]


@spec("config-linux.md#cgroup-ownership", OWNER)
@requires(may_own)
@controller("pids")
def test_a_delegated_cgroup_can_be_divided(owned: Bundle, container: Container, runtime: Runtime) -> None:
    """Into parts that are held to limits; its own limits are not the container's to change."""
    owned.sh(
        "cd /sys/fs/cgroup && mkdir one two && echo $$ > one/cgroup.procs && cat /proc/self/cgroup &&"
        " echo +pids > cgroup.subtree_control && echo 5 > two/pids.max && cat two/pids.max; echo max > pids.max"
    )
    result = container.run()
    assert result.stdout == "0::/one\n5\n", result
    assert "ermission denied" in result.stderr
    assert not runtime.cgroups.having(container.id)


@spec("config-linux.md#cgroup-ownership", NOT_OWNER)
@pytest.mark.parametrize("why", ["read-only", "no mount", "no cgroup namespace"])
def test_no_delegation(owned: Bundle, container: Container, why: str) -> None:
    if why == "read-only":
        mount(owned, "ro")
    elif why == "no mount":
        owned.config["mounts"].pop()
    else:
        owned.namespaces(drop=["cgroup"])
    if container.runtime.name == "crun":
        not_applicable("crun gives every user namespace its cgroup")
    result = container.create(check=False)
    if result.status and container.runtime.version.startswith("1.1."):
        not_applicable("runc 1.1 has no cgroup mount without a cgroup namespace to offer here")
    assert result.status == 0, result
    assert set(owners(container).values()) == {0}


# -------------------------------------------------------------------------------------------------- cgroups below


@spec("runtime.md#delete", "Deleting a container MUST delete the resources that were created during the create step.")
@pytest.mark.parametrize("threaded", [False, True], ids=["domain", "threaded"])
def test_a_tree_below(bundle: Bundle, container: Container, threaded: bool) -> None:
    """Processes that the container has sorted into cgroups of its own, or only their threads."""
    container.run_detached()
    container.exec("sleep", "1000", flags=["--detach", "--pid-file", f"{container.pid_file}2"], check=True)
    pid = pathlib.Path(f"{container.pid_file}2").read_text()
    top = directory(container)
    os.mkdir(f"{top}/foo")
    if threaded:
        pathlib.Path(top, "foo", "cgroup.type").write_text("threaded")
        pathlib.Path(top, "foo", "cgroup.threads").write_text(pid)
    else:
        os.mkdir(f"{top}/foo/bar")
        pathlib.Path(top, "foo", "bar", "cgroup.procs").write_text(pid)
    if not (threaded and container.runtime.version.startswith("1.1.")):  # runc 1.1 stumbles over threaded cgroups
        listed = json.loads(container.runtime.run("ps", "--format", "json", container.id, check=True).stdout)
        assert sorted(listed) == sorted([container.pid, int(pid)])
    deleted = container.runtime.start("delete", "--force", container.id).wait(reaping_but=())
    assert deleted.status == 0, deleted
    assert not container.runtime.cgroups.having(container.id)
