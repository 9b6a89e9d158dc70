"""linux.cgroupsPath and linux.resources: what is written, what it does, what is left."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
from collections.abc import Iterator

import pytest

from conformance.harness import (
    Bundle,
    Container,
    Json,
    Runtime,
    Test,
    not_applicable,
    pyrunc_promise,
    requires,
    spec,
    until,
    xfail_on,
)

MEMORY = "Values for memory specify the limit in bytes, or -1 for unlimited memory."
CPU = "The following parameters can be specified to set up the controller:"
DEVICES = "The runtime MUST apply entries in the listed order."
FIT = "MUST generate an error if such a check fails. … a frozen cgroup or (for create operation) a non-empty cgroup."
PLACE = "the runtime MUST take the path to be relative to the cgroups mount point"

MIB = 1 << 20


def resources(bundle: Bundle, **more: object) -> None:
    bundle.linux["resources"].update(more)


def value(container: Container, controller: str, file: str) -> str:
    """What a v1 control file of the container's cgroup reads."""
    return container.runtime.cgroups.file(container.pid, (controller, file), file)


def leave_nothing(container: Container) -> list[str]:
    """The cgroups that a failed create has left, after taking them away."""
    left = sorted(container.runtime.cgroups.having(container.id), key=len, reverse=True)
    for directory in left:
        os.rmdir(directory)
    return left


# --------------------------------------------------------------------------------------------------- placement


@pytest.fixture
def parent(test: Test) -> Iterator[str]:
    """A cgroup's path for containers to live below; what a runtime makes on the way there is taken away at the end."""
    name = f"/{test.token}-parent"
    yield name
    for container in test.containers:
        test.runtime.run("delete", "--force", container.id)
    for top in test.runtime.cgroups.mountpoints:
        for directory in (f"{top}{name}/deep", f"{top}{name}"):
            if os.path.isdir(directory):
                os.rmdir(directory)  # fails where something is in it


@spec("config-linux.md#cgroups-path", PLACE)
@pytest.mark.parametrize("tail", ["one", "deep/two", "deep/../one", "./one//"])
def test_absolute_path(bundle: Bundle, container: Container, parent: str, tail: str) -> None:
    bundle.linux["cgroupsPath"] = f"{parent}/{tail}"
    container.create()
    want = os.path.normpath(f"{parent}/{tail}")
    cgroups = container.runtime.cgroups
    for controller in ("memory", "cpu", "pids", "devices", "freezer", "cpuset", "blkio"):
        if cgroups.mode != "v2" and cgroups.has(controller):
            assert cgroups.of(container.pid)[controller] == cgroups.controllers[controller] + want
    if cgroups.mode == "v2":
        assert cgroups.of(container.pid)[""].startswith(cgroups.unified + want)
    container.delete("--force")
    assert not [top for top in cgroups.mountpoints if os.path.exists(top + want)]


@spec("config-linux.md#cgroups-path", "In the case of a relative path … the runtime MAY interpret the path relative to")
@pytest.mark.parametrize("path", ["{id}", "./{id}"])
def test_relative_path(bundle: Bundle, container: Container, path: str) -> None:
    bundle.linux["cgroupsPath"] = path.format(id=container.id)
    container.create()
    first = container.runtime.cgroups.of(container.pid)
    assert all(container.id in path for path in container.runtime.cgroups.having(container.id)) and first
    container.delete("--force")
    container.create()
    assert container.runtime.cgroups.of(container.pid) == first, "MUST consistently attach to the same place"
    container.delete("--force")


@spec("config-linux.md#cgroups-path", "If the value is not specified, the runtime MAY define the default cgroups path.")
def test_no_path(bundle: Bundle, container: Container) -> None:
    """A cgroup of its own in every hierarchy that counts."""
    bundle.linux["cgroupsPath"] = None
    container.create()
    cgroups = container.runtime.cgroups
    mine, theirs = cgroups.of(os.getpid()), cgroups.of(container.pid)
    for controller in ("memory", "pids", "devices", "freezer"):
        if controller in theirs:
            assert theirs[controller] != mine[controller]
    container.delete("--force")
    assert not cgroups.having(container.id)


@spec("config-linux.md#cgroups-path", "Runtimes MAY consider certain cgroupsPath values to be invalid")
@pyrunc_promise
@pytest.mark.parametrize("path", ["/", "/..", "/a/..", ".", "../.."])
def test_root_of_the_hierarchy(bundle: Bundle, container: Container, path: str) -> None:
    bundle.linux["cgroupsPath"] = path
    result = container.run(timeout=15)
    assert result.status != 0 and "/linux/cgroupsPath" in result.stderr


@spec("config-linux.md#cgroups-path", "The cgroups will be created if they don't exist.")
@requires("cgroup v1")
def test_an_existing_cgroup(bundle: Bundle, container: Container) -> None:
    """An engine may have made it; it is used, and removed with the container."""
    cgroups = container.runtime.cgroups
    made = [f"{cgroups.controllers[name]}/{container.id}" for name in ("memory", "pids") if cgroups.has(name)]
    for directory in made:
        os.mkdir(directory)
    bundle.args("true")
    assert container.run().status == 0
    assert not [directory for directory in made if os.path.exists(directory)]


@spec("config-linux.md#cgroups-path", "The cgroups will be created if they don't exist.")
@requires("cgroup v1")
@requires("controller:cpuset")
def test_an_existing_cpuset(bundle: Bundle, container: Container) -> None:
    """A new cpuset has no CPUs; whoever has made it, the container is to get those of the cgroup above."""
    if container.runtime.name == "crun":
        not_applicable("crun 1.8 asks for what to put into it")
    top = container.runtime.cgroups.controllers["cpuset"]
    os.mkdir(f"{top}/{container.id}")
    bundle.args("grep", "Cpus_allowed_list", "/proc/self/status")
    text = container.output()
    assert text.split()[1] == pathlib.Path(top, "cpuset.cpus").read_text().strip()


@spec("config-linux.md#cpu", "cpus (string, OPTIONAL) - list of CPUs the container will run on.")
@requires("cgroup v1")
@requires("controller:cpuset")
@pyrunc_promise
def test_cpus_that_the_cgroup_above_lacks(bundle: Bundle, container: Container, parent: str) -> None:
    if (os.cpu_count() or 1) < 2:
        not_applicable("the host has one CPU")
    top = pathlib.Path(container.runtime.cgroups.controllers["cpuset"] + parent)
    top.mkdir()
    for file in ("cpuset.cpus", "cpuset.mems"):
        (top / file).write_text("0")
    bundle.linux["cgroupsPath"] = f"{parent}/{container.id}"
    resources(bundle, cpu={"cpus": "0-1"})
    result = container.run(timeout=15)
    assert result.status == 1 and "/linux/resources/cpu/cpus" in result.stderr and "only 0" in result.stderr, result


@spec("config-linux.md#cpu", "realtimeRuntime (int64, OPTIONAL)")
@requires("cgroup v1")
@requires("controller:cpu")
@pytest.mark.parametrize("deep", [False, True])
def test_realtime(bundle: Bundle, container: Container, parent: str, deep: bool) -> None:
    """Also where the runtime makes the cgroups above, which have none by themselves."""
    if not os.path.exists(container.runtime.cgroups.controllers["cpu"] + "/cpu.rt_runtime_us"):
        not_applicable("the kernel has no realtime group scheduling")
    if deep:
        if container.runtime.name != "pyrunc":
            not_applicable("runc and crun leave the cgroups above to the engine")
        bundle.linux["cgroupsPath"] = f"{parent}/{container.id}"
    resources(bundle, cpu={"realtimeRuntime": 5000, "realtimePeriod": 500000})
    container.create()
    files = [value(container, "cpu", file) for file in ("cpu.rt_runtime_us", "cpu.rt_period_us")]
    assert files == ["5000", "500000"]


@spec("runtime.md#delete", "Deleting a container MUST delete the resources that were created during the create step.")
@requires("cgroup v1")
def test_cgroups_that_are_gone(bundle: Bundle, container: Container) -> None:
    """Somebody has removed them, as a service manager does: delete has less to do."""
    bundle.args("true")
    container.run_detached()
    container.wait()
    for path in sorted(container.runtime.cgroups.having(container.id), key=len, reverse=True):
        os.rmdir(path)
    container.delete()
    assert not container.exists()


@spec("runtime.md#delete", "Deleting a container MUST delete the resources that were created during the create step.")
def test_cgroups_below_are_removed(bundle: Bundle, container: Container) -> None:
    """A container that runs containers, or systemd, has made some."""
    container.run_detached()
    tops = sorted(set(container.runtime.cgroups.of(container.pid).values()))
    for top in tops:
        if container.id in top:
            os.makedirs(f"{top}/a/b")
            os.mkdir(f"{top}/c")
    container.kill("KILL")
    container.wait()
    container.delete()
    assert not container.runtime.cgroups.having(container.id)


@spec("runtime.md#delete", "Deleting a container MUST delete the resources that were created during the create step.")
def test_processes_in_cgroups_below(bundle: Bundle, container: Container) -> None:
    """And what runs in them ends with it, although the container's PID namespace is the host's."""
    if container.runtime.name == "runc":
        not_applicable("runc 1.1 does not look below the container's own cgroup")
    bundle.namespaces(drop=["pid"])
    bundle.sh("sleep 1001 & sleep 1002 & wait")
    container.run_detached()
    cgroups = container.runtime.cgroups
    tops = {path for path in cgroups.of(container.pid).values() if container.id in path}
    pids = until(lambda: _children(container.pid), "the children")
    for top in tops:
        os.mkdir(f"{top}/below")
        if cgroups.mode != "v2" and "cpuset" not in top:
            pathlib.Path(f"{top}/below/cgroup.procs").write_text(str(pids[0]))
    container.delete("--force")
    assert not cgroups.having(container.id)


def _children(pid: int) -> list[int]:
    found = [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found if len(found) == 2 else []


@spec("config-linux.md#control-groups", FIT)
@pyrunc_promise
def test_a_cgroup_in_use_is_refused(bundle: Bundle, container: Container, new_container: type[Container]) -> None:
    container.run_detached()
    bundle.linux["cgroupsPath"] = f"/{container.id}"
    second = new_container(bundle)  # type: ignore[call-arg, arg-type]
    result = second.run(timeout=15)
    assert result.status == 1 and "/linux/cgroupsPath" in result.stderr, result
    assert "container's cgroup is not empty" in result.stderr  # engines and people know it from runc
    assert second.create(check=False).status == 1
    assert container.status == "running"
    assert container.exec("true").status == 0


@spec("runtime.md#create", "If the runtime cannot apply a property as specified in the configuration")
@requires("controller:memory")
@pyrunc_promise
def test_no_memory_even_for_init(bundle: Bundle, container: Container) -> None:
    """The kernel kills it without a word; the error names the limit."""
    memory = {"limit": 100 * 4096}
    resources(bundle, memory=memory | {"swap": memory["limit"]} if _memsw(container) else memory)
    result = container.run(timeout=15)
    assert result.status != 0 and "/linux/resources/memory/limit" in result.stderr


@spec("config-linux.md#control-groups", FIT)
@requires("cgroup v1")
@requires("controller:freezer")
def test_a_frozen_cgroup_is_refused(bundle: Bundle, container: Container) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun does not look")
    directory = f"{container.runtime.cgroups.controllers['freezer']}/{container.id}"
    os.mkdir(directory)
    state = pathlib.Path(directory, "freezer.state")
    state.write_text("FROZEN")
    bundle.args("true")
    result = container.run(timeout=15)
    state.write_text("THAWED") if state.exists() else None
    if os.path.exists(directory):
        os.rmdir(directory)
    assert result.status != 0 and "frozen" in result.stderr, result


@spec("config-linux.md#control-groups", "restrict resource usage for a container and handle device access")
def test_exec_is_in_the_cgroup(bundle: Bundle, container: Container) -> None:
    """From its first breath: what it forks, too."""
    container.run_detached()
    text = container.exec("sh", "-c", "cat /proc/self/cgroup", check=True).stdout
    mine = pathlib.Path(f"/proc/{container.pid}/cgroup").read_text()
    assert sorted(text.splitlines()) == sorted(mine.splitlines())


# ------------------------------------------------------------------------------------------------------- memory


@spec("config-linux.md#memory", MEMORY)
@requires("controller:memory")
@pytest.mark.parametrize("how", ["run", "create", "exec"])
def test_four_mebibytes(bundle: Bundle, container: Container, how: str) -> None:
    """Little is enough for a shell; the runtime's own init must fit into it, too."""
    resources(bundle, memory={"limit": 4 * MIB})
    bundle.sh("true; echo fine; exit 3")
    if how == "run":
        assert container.run_output() == (3, "fine\n")
    elif how == "create":
        container.create()
        container.start()
        assert container.wait() == 3
    else:
        bundle.args("sleep", "1000")
        container.run_detached()
        assert container.exec("sh", "-c", "echo fine; exit 3").status == 3


@spec("config-linux.md#memory", "limit (int64, OPTIONAL) - sets limit of memory usage")
@requires("controller:memory")
def test_memory_limit_is_held(bundle: Bundle, container: Container) -> None:
    resources(bundle, memory={"limit": 16 * MIB, "swap": 16 * MIB} if _memsw(container) else {"limit": 16 * MIB})
    bundle.sh(
        "dd if=/dev/zero of=/dev/null bs=8M count=1 && echo small; dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?"
    )
    text = container.output(check=False)
    assert text == "small\n137\n"


def _memsw(container: Container) -> bool:
    top = container.runtime.cgroups.controllers["memory"]
    return os.path.exists(f"{top}/memory.memsw.limit_in_bytes") or container.runtime.cgroups.mode == "v2"


@spec("config-linux.md#memory", MEMORY)
@requires("cgroup v1")
@requires("controller:memory")
@pytest.mark.parametrize("key, number, file, want", [
    ("limit", 64 * MIB, "memory.limit_in_bytes", str(64 * MIB)),
    ("limit", -1, "memory.limit_in_bytes", "9223372036854771712"),
    ("reservation", 32 * MIB, "memory.soft_limit_in_bytes", str(32 * MIB)),
    ("swappiness", 0, "memory.swappiness", "0"),
    ("swappiness", 70, "memory.swappiness", "70"),
    ("disableOOMKiller", True, "memory.oom_control", "oom_kill_disable 1"),
    ("disableOOMKiller", False, "memory.oom_control", "oom_kill_disable 0"),
])  # fmt: skip
def test_memory_files(bundle: Bundle, container: Container, key: str, number: int, file: str, want: str) -> None:
    resources(bundle, memory={key: number})
    container.create()
    assert value(container, "memory", file).splitlines()[0] == want


# ---------------------------------------------------------------------------------------------------- cpu, pids


@spec("config-linux.md#cpu", CPU)
@requires("cgroup v1")
@requires("controller:cpu")
@pytest.mark.parametrize("cpu, files", [
    ({"shares": 512}, {"cpu.shares": "512"}),
    ({"quota": 50000, "period": 100000}, {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}),
    ({"quota": 20000}, {"cpu.cfs_quota_us": "20000", "cpu.cfs_period_us": "100000"}),
    ({"period": 50000}, {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "50000"}),
    ({"quota": -1, "period": 200000}, {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "200000"}),
    ({"quota": 2000, "period": 2000}, {"cpu.cfs_quota_us": "2000", "cpu.cfs_period_us": "2000"}),
])  # fmt: skip
def test_cpu_files(bundle: Bundle, container: Container, cpu: Json, files: dict[str, str]) -> None:
    if container.runtime.name == "crun" and cpu.get("quota") == -1:
        not_applicable("crun 1.8 writes -1 as a number without sign")
    resources(bundle, cpu=cpu)
    container.create()
    assert {file: value(container, "cpu", file) for file in files} == files


@spec("config-linux.md#cpu", "cpus (string, OPTIONAL) - list of CPUs the container will run on.")
@requires("controller:cpuset")
@pytest.mark.parametrize("cpus", ["0", "1", "0-1"])
@pytest.mark.parametrize("how", ["run", "exec"])
def test_cpuset(bundle: Bundle, container: Container, cpus: str, how: str) -> None:
    if (os.cpu_count() or 1) < 2:
        not_applicable("the host has one CPU")
    resources(bundle, cpu={"cpus": cpus, "mems": "0"})
    bundle.args("grep", "_allowed_list", "/proc/self/status")
    if how == "run":
        text = container.output()
    else:
        bundle.args("sleep", "1000")
        container.run_detached()
        text = container.exec("grep", "_allowed_list", "/proc/self/status", check=True).stdout
    assert text.split() == ["Cpus_allowed_list:", cpus, "Mems_allowed_list:", "0"]


@spec("config-linux.md#pids", "specifies the maximum number of tasks in the cgroup, with -1 indicating no limit (max)")
@requires("controller:pids")
def test_pids_limit_is_held(bundle: Bundle, container: Container) -> None:
    resources(bundle, pids={"limit": 4})
    bundle.sh("sleep 0.2 & sleep 0.2 & sleep 0.2 & echo three; sleep 0.2 & echo four; wait")
    result = container.run()
    assert result.stdout.startswith("three\n") and "fork" in result.stderr, result
    assert "four" not in result.stdout


@spec("config-linux.md#pids", "specifies the maximum number of tasks in the cgroup, with -1 indicating no limit (max)")
@requires("controller:pids")
@xfail_on("crun", "crun 1.8 writes -1 as it is, which the kernel refuses")
@pytest.mark.parametrize("limit, want", [(-1, "max"), (100, "100"), (32771, "32771")])
def test_pids_max(bundle: Bundle, container: Container, limit: int, want: str) -> None:
    resources(bundle, pids={"limit": limit})
    result = container.create(check=False)
    leave_nothing(container) if result.status else None
    assert result.status == 0, result
    assert value(container, "pids", "pids.max") == want


@spec("config-linux.md#pids", "0 is a valid limit value … and SHOULD be treated as such by runtimes.")
@requires("controller:pids")
@xfail_on("runc", "runc 1.1 takes 0 for no limit given")
@xfail_on("crun", "crun 1.8 takes 0 for no limit given")
def test_no_pids(bundle: Bundle, container: Container) -> None:
    resources(bundle, pids={"limit": 0})
    bundle.sh("/bin/true; echo forked")
    assert "forked" not in container.run().stdout


# ------------------------------------------------------------------------------------------------------ devices


def device(bundle: Bundle, *rules: Json) -> str:
    """Let the process try what it may with /dev/kmsg's device, by a node of its own; rules come after "deny all"."""
    if not os.path.exists("/dev/kmsg") or os.stat("/dev/kmsg").st_rdev != os.makedev(1, 11):
        not_applicable("the host has no /dev/kmsg")
    resources(bundle, devices=[{"allow": False, "access": "rwm"}, *rules])
    for names in bundle.process["capabilities"].values():
        names += ["CAP_MKNOD", "CAP_SYSLOG", "CAP_SYS_ADMIN"]
    return (
        "mknod /dev/k c 1 11 2>/dev/null && echo m; (exec 3</dev/k) 2>/dev/null && echo r;"
        " (exec 3>/dev/k) 2>/dev/null && echo w; (exec 3<>/dev/k) 2>/dev/null && echo rw; :"
    )


KMSG = {"allow": True, "type": "c", "major": 1, "minor": 11}


@spec("config-linux.md#allowed-device-list", DEVICES)
@pytest.mark.parametrize("how", ["run", "exec"])
@pytest.mark.parametrize("rules, may", [
    ([], "m"),
    ([{**KMSG, "access": "r"}], "m r"),
    ([{**KMSG, "access": "w"}], "m w"),
    ([{**KMSG, "access": "rw"}], "m r w rw"),
    ([{**KMSG, "access": "rwm"}], "m r w rw"),
    ([{"allow": True, "type": "c", "major": 1, "access": "rw"}], "m r w rw"),
    ([{"allow": True, "type": "c", "minor": 11, "access": "r"}], "m r"),
    ([{"allow": True, "type": "b", "major": 1, "minor": 11, "access": "rwm"}], "m"),
    ([{"allow": True, "type": "a", "access": "rwm"}], "m r w rw"),
    ([{"allow": True, "access": "rwm"}], "m r w rw"),
    ([{**KMSG, "access": "rw"}, {**KMSG, "allow": False, "access": "w"}], "m r"),
    ([{"allow": True, "access": "rwm"}, {**KMSG, "allow": False, "access": "w"}], "m r"),
    ([{**KMSG, "access": "rw"}, {"allow": False, "access": "rwm"}], "m"),
])  # fmt: skip
def test_device_rules(bundle: Bundle, container: Container, rules: list[Json], may: str, how: str) -> None:
    script = device(bundle, *rules)
    if how == "run":
        bundle.sh(script)
        result = container.run()
    else:
        container.run_detached()
        result = container.exec("sh", "-c", script)
    assert result.stdout.split() == may.split(), result


@spec(
    "config-linux.md#default-devices",
    "In addition to any devices configured with this setting, the runtime MUST also supply",
)
@pytest.mark.parametrize("given", [True, False])
def test_default_devices_can_be_used(bundle: Bundle, container: Container, given: bool) -> None:
    """Whatever the rules say, and where there are none at all: everything else is denied."""
    if not given:
        del bundle.linux["resources"]
    bundle.sh(
        "for d in null zero random urandom; do head -c 1 /dev/$d >/dev/null && echo x >/dev/$d && echo $d; done;"
        "head -c 1 /dev/full >/dev/null && echo full"
    )
    assert container.run().stdout.split() == ["null", "zero", "random", "urandom", "full"]


# ------------------------------------------------------------------------------------------------ block, huge pages


def _block_device() -> str:
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith(("loop", "ram")):
            return pathlib.Path(f"/sys/block/{name}/dev").read_text().strip()
    not_applicable("the host has no block device")
    return ""


@spec("config-linux.md#block-io", "throttleReadBpsDevice")
@requires("cgroup v1")
@requires("controller:blkio")
@pytest.mark.parametrize("key, file", [
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
])  # fmt: skip
def test_throttle(bundle: Bundle, container: Container, key: str, file: str) -> None:
    node = _block_device()
    major, minor = map(int, node.split(":"))
    resources(bundle, blockIO={key: [{"major": major, "minor": minor, "rate": 1048576}]})
    container.create()
    assert value(container, "blkio", file) == f"{node} 1048576"


@spec("config-linux.md#block-io", "weight (uint16, OPTIONAL) - specifies per-cgroup weight.")
@requires("cgroup v1")
@requires("controller:blkio")
def test_block_weight(bundle: Bundle, container: Container) -> None:
    """Written where the kernel has a scheduler with weights; where it has none, an error and not silence."""
    resources(bundle, blockIO={"weight": 200})
    bundle.args("true")
    result = container.create(check=False)
    if result.status == 0:
        directory = container.runtime.cgroups.of(container.pid)["blkio"]
        files = [f for f in ("blkio.weight", "blkio.bfq.weight") if os.path.exists(f"{directory}/{f}")]
        assert [f for f in files if "200" in pathlib.Path(directory, f).read_text()]
    else:
        left = leave_nothing(container)
        assert "weight" in result.stderr
        assert not left or container.runtime.name == "crun"


@spec(
    "config-linux.md#huge-page-limits", "hugepageLimits (array of objects, OPTIONAL) represents the hugetlb controller"
)
@requires("controller:hugetlb")
def test_huge_pages(bundle: Bundle, container: Container) -> None:
    cgroups = container.runtime.cgroups
    if (
        cgroups.mode == "hybrid"
        and cgroups.controllers["hugetlb"] == cgroups.unified
        and container.runtime.name == "runc"
    ):
        not_applicable("runc does not use the v2 hierarchy beside v1")
    sizes = [int(name.removeprefix("hugepages-").removesuffix("kB")) for name in os.listdir("/sys/kernel/mm/hugepages")]
    if 2048 not in sizes:
        not_applicable("the host has no huge pages of 2 MiB")
    resources(bundle, hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MIB}])
    container.create()
    dirs = cgroups.of(container.pid)
    v1, v2 = "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"
    path = pathlib.Path(dirs["hugetlb"], v1) if "hugetlb" in dirs else pathlib.Path(dirs[""], v2)
    assert path.read_text().strip() == str(4 * MIB)


# --------------------------------------------------------------------------------------------------- bad values

BAD: dict[str, tuple[Json, str]] = {
    "CPU that isn't there": ({"cpu": {"cpus": "4000"}}, "/linux/resources/cpu/cpus"),
    "no list of CPUs": ({"cpu": {"cpus": "some"}}, "/linux/resources/cpu/cpus"),
    "node that isn't there": ({"cpu": {"mems": "77"}}, "/linux/resources/cpu/mems"),
    "period too short": ({"cpu": {"period": 10}}, "/linux/resources/cpu/period"),
    "quota too small": ({"cpu": {"quota": 10}}, "/linux/resources/cpu/quota"),
    "swappiness": ({"memory": {"swappiness": 101}}, "/linux/resources/memory/swappiness"),
    "disk that isn't there": (
        {"blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 0, "rate": 1}]}},
        "/linux/resources/blockIO/throttleReadBpsDevice/0",
    ),
    "huge page of no size": (
        {"hugepageLimits": [{"pageSize": "3KB", "limit": 1}]},
        "/linux/resources/hugepageLimits/0",
    ),
    "huge page in small letters": (
        {"hugepageLimits": [{"pageSize": "2mb", "limit": 1}]},
        "/linux/resources/hugepageLimits/0",
    ),
    "network without a controller": ({"network": {"classID": 5}}, "/linux/resources/network/classID"),
    "v2's file on v1": ({"unified": {"memory.high": "1"}}, "/linux/resources/unified"),
    "device type": ({"devices": [{"allow": True, "type": "x", "access": "r"}]}, "/linux/resources/devices/0/type"),
    "device access": ({"devices": [{"allow": True, "access": 7}]}, "/linux/resources/devices/0/access"),
}


@spec(
    "runtime.md#errors",
    "generating an error MUST leave the state of the environment as if the operation were never attempted",
)
@xfail_on("crun", "crun 1.8 leaves its cgroups behind")
@requires("cgroup v1")
@pytest.mark.parametrize("which", BAD)
def test_bad_value(bundle: Bundle, container: Container, which: str, runtime: Runtime) -> None:
    """Refused in one line with its place, and nothing is left of the attempt."""
    wrong, pointer = BAD[which]
    if which == "network without a controller" and runtime.cgroups.has("net_cls"):
        not_applicable("the host has net_cls")
    resources(bundle, **wrong)
    bundle.args("true")
    result = container.run(timeout=15)
    if runtime.name != "pyrunc" and result.status == 0:
        not_applicable(f"{runtime.name} passes it over")
    left = leave_nothing(container)
    assert result.status != 0, result
    assert not left
    if runtime.name == "pyrunc":
        assert len(result.stderr.splitlines()) == 1 and pointer in result.stderr, result
        assert not re.search("no such file or directory|permission denied|not permitted", result.stderr.lower())


@spec("config-linux.md#memory", MEMORY)
@requires("cgroup v1")
@requires("controller:memory")
def test_too_little_memory(bundle: Bundle, container: Container) -> None:
    """Less than anything can live on: an error, in time, and nothing left."""
    resources(bundle, memory={"limit": 64 * 1024})
    bundle.args("true")
    result = container.run(timeout=20)
    assert result.status != 0 and result.stderr.strip() and "Traceback" not in result.stderr, result
    assert subprocess.run(["true"], check=False).returncode == 0
