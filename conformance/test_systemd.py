"""--systemd-cgroup: the container in a transient unit of systemd's; and what systemd then knows of it."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import subprocess
from collections.abc import Iterator

import pytest

from conformance.harness import (
    SCALE,
    TIMEOUT,
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

PLACEMENT = "systemd.md#systemd-unit-name-and-placement"
LIMITS = "systemd.md#resource-limits"
AUXILIARY = "systemd.md#auxiliary-properties"

FORM = "it is expected to be in the form [slice]:[prefix]:[name]."
UNIT = "which is <prefix>-<name>.scope, unless name has .slice suffix"
BACKED = "cgroup limits are first set via systemd unit properties, and when by writing to cgroupfs files"  # sic
GVARIANT = "The values must be in the gvariant text format"

MIB = 1 << 20

#: Stays where it is made until it is stopped, as every slice; the tests stop it.
SLICE = "conformance.slice"


pytestmark = requires("systemd")


def systemctl(*args: str) -> str:
    """What systemctl prints."""
    argv = ["systemctl", "--no-pager", *args]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=TIMEOUT * SCALE).stdout.strip()


def units(token: str) -> list[str]:
    """Names of the units that systemd has loaded and that have a token in their names."""
    lines = systemctl("list-units", "--all", "--plain", "--no-legend", f"*{token}*").splitlines()
    return [line.split()[0] for line in lines if line]


def show(unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit, as text."""
    lines = systemctl("show", unit, *(f"--property={name}" for name in properties)).splitlines()
    found: dict[str, str] = {}
    for name, _, value in (line.partition("=") for line in lines):
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


def cgroup(unit: str) -> pathlib.Path:
    """The directory of a unit's cgroup on v2."""
    return pathlib.Path("/sys/fs/cgroup" + show(unit, "ControlGroup")["ControlGroup"])


@pytest.fixture(autouse=True)
def clean(test: Test) -> Iterator[None]:
    """Every call has --systemd-cgroup; at the end no unit of the test's may be there."""
    test.runtime.global_args.append("--systemd-cgroup")
    yield
    for container in test.containers:
        test.runtime.run("delete", "--force", container.id)
    try:
        until(lambda: not units(test.token), "no unit is left", 5)
    finally:
        for unit in units(test.token):
            systemctl("kill", "--signal=KILL", unit)
            systemctl("stop", unit)
            systemctl("reset-failed", unit)
        systemctl("stop", SLICE)


@pytest.fixture
def unit(bundle: Bundle, container: Container) -> str:
    """The name of the scope that `container` is to have; its place is the default."""
    bundle.linux["cgroupsPath"] = f":cf:{container.id}"
    return f"cf-{container.id}.scope"


@spec(PLACEMENT, UNIT)
@spec(PLACEMENT, "If empty, it defaults to system.slice")
def test_scope(container: Container, unit: str) -> None:
    container.run_detached()
    assert units(container.runtime.token) == [unit]
    about = show(unit, "Slice", "ActiveState", "Delegate", "Transient", "ControlGroup")
    assert about == {
        "Slice": "system.slice",
        "ActiveState": "active",
        "Delegate": "yes",
        "Transient": "yes",
        "ControlGroup": f"/system.slice/{unit}",
    }
    container.delete("--force")
    until(lambda: not units(container.runtime.token), "the unit is gone")


@spec(PLACEMENT, "Note that slice can contain dashes to denote a sub-slice")
def test_slices_within_slices(bundle: Bundle, container: Container) -> None:
    bundle.linux["cgroupsPath"] = f"conformance-a-b.slice:cf:{container.id}"
    container.run_detached()
    unit = f"cf-{container.id}.scope"
    about = show(unit, "Slice", "ControlGroup")
    assert about["Slice"] == "conformance-a-b.slice"
    assert about["ControlGroup"] == (f"/conformance.slice/conformance-a.slice/conformance-a-b.slice/{unit}")
    assert about["ControlGroup"] in set(_paths(container))


@spec(PLACEMENT, "A slice of - represents a root slice.")
@pytest.mark.parametrize("slice", ["-.slice", pytest.param("-", marks=pyrunc_promise)])
def test_the_root_slice(bundle: Bundle, container: Container, slice: str) -> None:
    """runc takes only the name that systemd has for it."""
    bundle.linux["cgroupsPath"] = f"{slice}:cf:{container.id}"
    container.run_detached()
    assert f"/cf-{container.id}.scope" in set(_paths(container))


@spec(
    PLACEMENT,
    "If Linux.CgroupsPath is not set or empty, it works the same way as if it would be set to :runc:<container-id>.",
)
def test_without_a_path(bundle: Bundle, container: Container) -> None:
    bundle.linux["cgroupsPath"] = None
    container.run_detached()
    (unit,) = units(container.runtime.token)
    # each has its own name for a prefix
    assert unit in (f"{container.runtime.name}-{container.id}.scope", f"{container.id}.scope")
    assert show(unit, "Slice")["Slice"] == "system.slice"


def _paths(container: Container) -> Iterator[str]:
    for line in pathlib.Path(f"/proc/{container.pid}/cgroup").read_text().splitlines():
        yield line.split(":", 2)[2]


@spec(PLACEMENT, FORM)
@xfail_on("crun", "takes any", only=["/a/b", "a.slice:b", "a:b:c:d", "system.slice:a:b/c"])
@pytest.mark.parametrize(
    "path",
    [
        "/a/b",
        "a.slice:b",
        "a:b:c:d",
        "a:b:c",
        "/a.slice:b:c",
        "a--b.slice:b:c",
        "-a.slice:b:c",
        ".slice:b:c",
        "system.slice:a:b/c",
        "system.slice:a: ",
        pytest.param("system.slice:a:", marks=pyrunc_promise),
        pytest.param("::-.slice", marks=pyrunc_promise),
        pytest.param("a.slice:b:" + 250 * "x", marks=pyrunc_promise),
    ],
)
def test_paths_that_are_none(bundle: Bundle, container: Container, path: str) -> None:
    bundle.linux["cgroupsPath"] = path
    result = container.create(check=False)
    assert result.status != 0
    if container.runtime.name == "pyrunc":
        assert "/linux/cgroupsPath" in result.stderr, result
        assert len(result.stderr.splitlines()) == 1, result


@spec(LIMITS, BACKED)
@requires("cgroup v2")
def test_limits_are_properties_and_in_files(bundle: Bundle, container: Container, unit: str) -> None:
    bundle.linux["resources"] |= {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
        "cpu": {"quota": 250000, "period": 500000, "shares": 1024, "cpus": "0"},
        "pids": {"limit": 77},
    }
    container.run_detached()
    told = show(
        unit,
        "MemoryMax",
        "MemorySwapMax",
        "MemoryLow",
        "CPUQuotaPerSecUSec",
        "CPUQuotaPeriodUSec",
        "TasksMax",
        "AllowedCPUs",
    )
    assert told == {
        "MemoryMax": str(64 * MIB),
        "MemorySwapMax": str(32 * MIB),
        "MemoryLow": str(32 * MIB),
        "CPUQuotaPerSecUSec": "500ms",
        "CPUQuotaPeriodUSec": "500ms",
        "TasksMax": "77",
        "AllowedCPUs": "0",
    }
    files = _files(unit)
    assert files["memory.max"] == str(64 * MIB)
    assert files["memory.low"] == str(32 * MIB)
    assert files["cpu.max"] == "250000 500000"
    assert files["pids.max"] == "77"
    assert files["cpuset.cpus"] == "0"
    assert show(unit, "CPUWeight")["CPUWeight"] == files["cpu.weight"]


def _files(unit: str) -> dict[str, str]:
    top = cgroup(unit)
    names = (
        "memory.max",
        "memory.low",
        "memory.high",
        "cpu.max",
        "cpu.weight",
        "pids.max",
        "cpuset.cpus",
        "cgroup.procs",
    )
    return {name: (top / name).read_text().strip() for name in names}


@spec(LIMITS, BACKED)
@requires("cgroup v2")
def test_unified(bundle: Bundle, container: Container, unit: str) -> None:
    bundle.linux["resources"]["unified"] = {
        "memory.high": str(60 * MIB),
        "memory.max": str(64 * MIB),
        "cpu.weight": "42",
        "cpu.max": "200000 400000",
        "pids.max": "max",
        "cpuset.cpus": "0",
    }
    container.run_detached()
    told = show(unit, "MemoryHigh", "MemoryMax", "CPUWeight", "CPUQuotaPerSecUSec", "TasksMax", "AllowedCPUs")
    assert told == {
        "MemoryHigh": str(60 * MIB),
        "MemoryMax": str(64 * MIB),
        "CPUWeight": "42",
        "CPUQuotaPerSecUSec": "500ms",
        "TasksMax": "infinity",
        "AllowedCPUs": "0",
    }
    files = _files(unit)
    assert (files["memory.high"], files["memory.max"]) == (str(60 * MIB), str(64 * MIB))
    assert (files["cpu.weight"], files["cpu.max"], files["pids.max"]) == ("42", "200000 400000", "max")


@spec(LIMITS, "runc always enables accounting for all controllers, regardless of any limits being set.")
def test_accounting(container: Container, unit: str) -> None:
    container.run_detached()
    kinds = ("CPU", "IO" if container.runtime.cgroups.mode == "v2" else "BlockIO", "Memory", "Tasks")
    told = show(unit, *(f"{kind}Accounting" for kind in kinds))
    assert set(told.values()) == {"yes"}, told


@spec(LIMITS, BACKED)
@requires("cgroup v2")
def test_a_reload_changes_no_limit(bundle: Bundle, container: Container, unit: str) -> None:
    """systemd writes files of its units again at times, from what it knows itself."""
    bundle.linux["resources"] |= {
        "memory": {"limit": 64 * MIB, "reservation": 32 * MIB},
        "cpu": {"quota": 50000, "period": 100000, "shares": 512, "cpus": "0"},
        "pids": {"limit": 77},
    }
    container.run_detached()
    before = _files(unit)
    systemctl("daemon-reload")
    systemctl("set-property", "--runtime", unit, "MemoryHigh=40M", "IOWeight=50")
    after = _files(unit)
    assert after.pop("memory.high") == str(40 * MIB)
    before.pop("memory.high")
    assert after == before


@spec(LIMITS, BACKED)
@pyrunc_promise
@requires("cgroup v2")
def test_a_quota_that_systemd_can_not_keep_is_rounded_up(bundle: Bundle, container: Container, unit: str) -> None:
    """So that property and file are of one mind: systemd has whole percents of a CPU."""
    bundle.linux["resources"]["cpu"] = {"quota": 12345, "period": 100000}
    container.run_detached()
    assert show(unit, "CPUQuotaPerSecUSec")["CPUQuotaPerSecUSec"] == "130ms"
    assert _files(unit)["cpu.max"] == "13000 100000"


def _nodes(bundle: Bundle) -> None:
    """Give the container two device nodes that no rule names by itself, and what else it takes to open them."""
    bundle.process["capabilities"] = {kind: ["CAP_SYSLOG"] for kind in ("bounding", "effective", "permitted")}
    bundle.linux["devices"] = [
        {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11},
        {"path": "/dev/loop-control", "type": "c", "major": 10, "minor": 237},
    ]


def _opens(container: Container, device: str) -> bool:
    """Whether a process in the container may open a device node."""
    return container.exec("sh", "-c", f"exec 3<{device}").status == 0


@spec("config-linux.md#allowed-device-list", "configures the allowed device list.")
def test_device_rules(bundle: Bundle, container: Container, unit: str) -> None:
    """The rules hold, also after systemd had reason to set its own again."""
    _nodes(bundle)
    rules = bundle.linux["resources"]["devices"]
    rules += [{"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"}]
    container.run_detached()
    seen = show(unit, "DevicePolicy", "DeviceAllow")
    assert seen["DevicePolicy"] == "strict"
    assert "/dev/char/1:11 rwm" in seen["DeviceAllow"]
    for _ in range(2):
        assert _opens(container, "/dev/null")
        assert _opens(container, "/dev/kmsg")
        assert not _opens(container, "/dev/loop-control")
        systemctl("daemon-reload")
        systemctl("set-property", "--runtime", unit, "TasksMax=100", "MemoryHigh=100M")


@spec("config-linux.md#allowed-device-list", "The runtime MUST apply entries in the listed order.")
@xfail_on("runc", "systemd's program denies all devices after it had reason to set it again", only=["again"])
@xfail_on("crun", "systemd's program denies all devices after it had reason to set it again", only=["again"])
@requires("cgroup v2")
@pytest.mark.parametrize("reloaded", [False, True], ids=["at first", "again"])
def test_what_systemd_can_not_say_about_devices(
    bundle: Bundle, container: Container, unit: str, reloaded: bool
) -> None:
    """All but one: systemd knows only what is allowed."""
    _nodes(bundle)
    bundle.linux["resources"]["devices"] = [
        {"allow": True, "access": "rwm"},
        {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rw"},
    ]
    container.run_detached()
    if reloaded:
        systemctl("daemon-reload")
        systemctl("set-property", "--runtime", unit, "TasksMax=100", "DeviceAllow=/dev/null rw")
        systemctl("set-property", "--runtime", unit, "DeviceAllow=")
    assert _opens(container, "/dev/null")
    assert _opens(container, "/dev/loop-control")
    assert not _opens(container, "/dev/kmsg")


@spec(AUXILIARY, GVARIANT)
@pytest.mark.parametrize(
    ("name", "value", "property", "told"),
    [
        ("TimeoutStopUSec", "uint64 123456789", "TimeoutStopUSec", "2min 3.456789s"),
        ("CollectMode", "'inactive-or-failed'", "CollectMode", "inactive-or-failed"),
        ("Description", '"what for"', "Description", "what for"),
        ("After", "['time-sync.target']", "After", "time-sync.target"),
        pytest.param("TimeoutStopSec", "7", "TimeoutStopUSec", "7s", marks=requires(lambda r: _crun(r))),
        pytest.param("RuntimeMaxSec", "1.5e3", "RuntimeMaxUSec", "25min", marks=requires(lambda r: _crun(r))),
        ("MemoryHigh", "uint64 0x4000000", "MemoryHigh", str(64 * MIB)),
        ("IPAccounting", "true", "IPAccounting", "yes"),
    ],
)
def test_annotations(
    bundle: Bundle, container: Container, unit: str, name: str, value: str, property: str, told: str
) -> None:
    bundle.config["annotations"] = {f"org.systemd.property.{name}": value}
    container.run_detached()
    assert told in show(unit, property)[property]


def _crun(runtime: Runtime) -> str | None:
    return "seconds as in unit files are runc's addition" if runtime.name == "crun" else None


@spec(AUXILIARY, GVARIANT)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TimeoutStopUSec", "uint64"),
        ("TimeoutStopUSec", "'a"),
        ("CollectMode", "plain text"),
        pytest.param("TimeoutStopSec", "'seven'", marks=requires(lambda r: _crun(r))),
        pytest.param("Timeout-StopUSec", "uint64 1", marks=requires(lambda r: _crun(r))),
        ("NoSuchProperty", "'a'"),
        ("TimeoutStopUSec", "'a'"),
        ("After", "[]"),
        ("Description", "'a' 'b'"),
    ],
)
def test_annotations_that_are_wrong(bundle: Bundle, container: Container, unit: str, name: str, value: str) -> None:
    bundle.config["annotations"] = {f"org.systemd.property.{name}": value}
    result = container.create(check=False)
    if container.runtime.name == "crun" and result.status == 0 and value in ("[]", "'a' 'b'", "'a"):
        not_applicable("crun reads less of the format")
    assert result.status != 0
    assert not units(container.runtime.token)
    if container.runtime.name == "pyrunc":
        assert f"/annotations/org.systemd.property.{name}" in result.stderr, result
        assert len(result.stderr.splitlines()) == 1, result


@spec(
    PLACEMENT,
    "When creating a container, runc requests systemd (over dbus) to create a transient unit for the container",
)
def test_a_unit_in_use_is_refused(
    bundle: Bundle, container: Container, new_container: object, test: Test, unit: str
) -> None:
    container.run_detached()
    other = test.container(bundle, f"{test.token}-other")
    result = other.create(check=False)
    assert result.status != 0
    assert container.status == "running"
    assert show(unit, "ActiveState")["ActiveState"] == "active"


@spec(
    PLACEMENT,
    "When creating a container, runc requests systemd (over dbus) to create a transient unit for the container",
)
@pyrunc_promise
def test_a_foreign_unit_is_refused(container: Container, unit: str) -> None:
    """An active unit that has no process: one of another type has no cgroup either."""
    subprocess.run(
        ["systemd-run", "--slice=conformance.slice", f"--unit={unit}", "--scope", "true"],
        check=True,
        capture_output=True,
    )
    sleeper = subprocess.Popen(
        ["systemd-run", "--slice=conformance.slice", f"--unit={unit}", "--scope", "sleep", "1000"],
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: show(unit, "ActiveState")["ActiveState"] == "active", "the unit is there")
        result = container.create(check=False)
        assert result.status != 0
        assert "/linux/cgroupsPath" in result.stderr
        assert "there is a unit of this name already" in result.stderr
        assert sleeper.poll() is None
        assert show(unit, "ActiveState")["ActiveState"] == "active"
    finally:
        sleeper.kill()
        sleeper.wait()


@spec(
    PLACEMENT,
    "When creating a container, runc requests systemd (over dbus) to create a transient unit for the container",
)
def test_a_failed_unit_is_no_obstacle(container: Container, unit: str) -> None:
    """What is left of an earlier life is cleared away."""
    subprocess.run(
        ["systemd-run", "--scope", f"--unit={unit}", "--property=RuntimeMaxSec=1", "sleep", "100"],
        check=False,
        capture_output=True,
    )
    until(lambda: show(unit, "ActiveState")["ActiveState"] == "failed", "the unit has failed")
    container.run_detached()
    assert show(unit, "ActiveState")["ActiveState"] == "active"


@spec("runtime.md#delete", "Deleting a container MUST delete the resources that were created during the create step.")
def test_a_failed_unit_stays_until_delete(bundle: Bundle, container: Container, unit: str) -> None:
    """Who wonders what became of a container can ask systemd."""
    if container.runtime.name == "crun":
        not_applicable("crun has systemd forget it at once")
    seconds = {"RuntimeMaxSec": "5", "TimeoutStopSec": "1"}
    bundle.config["annotations"] = {f"org.systemd.property.{name}": value for name, value in seconds.items()}
    container.run_detached()
    until(lambda: container.status == "stopped", "the unit's time is over")
    until(lambda: show(unit, "ActiveState")["ActiveState"] == "failed", "the unit has failed")
    assert show(unit, "Result")["Result"] == "timeout"
    container.delete()
    assert show(unit, "LoadState")["LoadState"] == "not-found"


@spec("runtime.md#create", "If the runtime cannot apply a property as specified in the configuration")
@pytest.mark.parametrize("fault", ["limit", "mount", "program", "hook"])
def test_a_failed_create_leaves_no_unit(bundle: Bundle, container: Container, unit: str, fault: str) -> None:
    if fault == "limit":
        bundle.linux["resources"]["hugepageLimits"] = [{"pageSize": "3MB", "limit": 4096}]
    elif fault == "mount":
        bundle.config["mounts"].append({"destination": "/x", "type": "nonsense", "source": "x"})
    elif fault == "hook":
        bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    else:
        bundle.args("/no/such/program")
    result = container.run()
    assert result.status != 0
    until(lambda: not units(container.runtime.token), "no unit is left")


@spec("runtime.md#delete", "Deleting a container MUST delete the resources that were created during the create step.")
def test_delete_with_cgroups_below(bundle: Bundle, container: Container, unit: str) -> None:
    container.run_detached()
    for directory in container.runtime.cgroups.having(unit):
        os.makedirs(f"{directory}/a/b")
    container.delete("--force")
    until(lambda: not units(container.runtime.token), "the unit is gone")


@spec("runtime.md#delete", "Deleting a container MUST delete the resources that were created during the create step.")
def test_delete_when_systemd_was_quicker(container: Container, unit: str) -> None:
    """An empty scope goes by itself."""
    container.run_detached()
    container.kill("KILL")
    until(lambda: not units(container.runtime.token), "the unit is gone")
    container.wait_status("stopped")
    container.delete()


@spec("runtime.md#delete", "Deleting a container MUST delete the resources that were created during the create step.")
@requires("controller:memory")
def test_delete_after_it_ran_out_of_memory(bundle: Bundle, container: Container, unit: str) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 16 * MIB, "swap": 16 * MIB}
    bundle.sh("exec tail /dev/zero")
    container.run_detached()
    container.wait_status("stopped", 30)
    container.delete()
    if container.runtime.name == "pyrunc":
        until(lambda: not units(container.runtime.token), "the unit is gone")
    else:
        systemctl("reset-failed", unit)  # what a runtime leaves of a failed unit is not what this is about


@spec("runc-exec.8", "Execute a new process inside the container.")
def test_exec_is_in_the_scope(container: Container, unit: str) -> None:
    container.run_detached()
    container.exec("sleep", "999", flags=["--detach"], check=True)
    pids = until(lambda: _two(container), "ps tells of both")
    for pid in pids:
        paths = pathlib.Path(f"/proc/{pid}/cgroup").read_text()
        assert f"/system.slice/{unit}" in paths


def _two(container: Container) -> list[int]:
    pids: list[int] = json.loads(container.runtime.run("ps", "--format", "json", container.id, check=True).stdout)
    return pids if len(pids) == 2 else []


@spec("runc-pause.8", "The pause command suspends all processes in a container.")
def test_pause(container: Container, unit: str) -> None:
    container.run_detached()
    container.pause()
    assert container.status == "paused"
    container.resume()
    assert container.status == "running"
    container.pause()
    container.delete("--force")


@spec("runc-update.8", "The update command change the resource constraints of a running container instance.")
@requires("cgroup v2")
@requires("subcommand:update")
def test_update(bundle: Bundle, container: Container, unit: str) -> None:
    bundle.linux["resources"] |= {"memory": {"limit": 64 * MIB}, "pids": {"limit": 50}}
    container.run_detached()
    change: Json = {"memory": {"limit": 80 * MIB}, "pids": {"limit": 60}, "cpu": {"quota": 20000, "period": 100000}}
    container.runtime.run("update", "--resources", "-", container.id, input=json.dumps(change), check=True)
    told = show(unit, "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec")
    assert told == {"MemoryMax": str(80 * MIB), "TasksMax": "60", "CPUQuotaPerSecUSec": "200ms"}
    systemctl("daemon-reload")
    files = _files(unit)
    assert (files["memory.max"], files["pids.max"], files["cpu.max"]) == (str(80 * MIB), "60", "20000 100000")
    assert _opens(container, "/dev/null")


@spec("runc-update.8", "The update command change the resource constraints of a running container instance.")
@pyrunc_promise
@requires("cgroup v2")
def test_an_update_that_is_refused_changes_no_property(bundle: Bundle, container: Container, unit: str) -> None:
    bundle.linux["resources"] |= {"memory": {"limit": 64 * MIB}, "pids": {"limit": 50}}
    container.run_detached()
    before = _files(unit)
    properties = ("MemoryMax", "TasksMax", "CPUWeight", "CPUQuotaPerSecUSec", "AllowedCPUs")
    told = show(unit, *properties)
    change: Json = {"memory": {"limit": 80 * MIB}, "pids": {"limit": 60}, "cpu": {"shares": 2000, "cpus": "0,4000"}}
    result = container.runtime.run("update", "--resources", "-", container.id, input=json.dumps(change))
    assert result.status != 0
    assert "/cpu/cpus" in result.stderr
    assert show(unit, *properties) == told
    assert _files(unit) == before


@spec("runc-update.8", "The update command change the resource constraints of a running container instance.")
@pyrunc_promise
@requires("cgroup v2")
def test_check_before_update_comes_before_systemd(bundle: Bundle, container: Container, unit: str) -> None:
    """The kernel would kill at once."""
    bundle.linux["resources"]["memory"] = {"limit": 256 * MIB, "swap": 256 * MIB}
    bundle.sh("dd if=/dev/zero of=/dev/shm/x bs=1M count=20; exec sleep 1000")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev/shm"]
    bundle.config["mounts"].append(
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=64m"]}
    )
    container.run_detached()
    until(lambda: int((cgroup(unit) / "memory.current").read_text()) > 20 * MIB, "memory is in use")
    change: Json = {"memory": {"limit": 4 * MIB, "swap": 4 * MIB, "checkBeforeUpdate": True}}
    result = container.runtime.run("update", "--resources", "-", container.id, input=json.dumps(change))
    assert result.status != 0
    assert container.status == "running"
    assert show(unit, "MemoryMax")["MemoryMax"] == str(256 * MIB)


@spec("runc-kill.8", "kill - sends a specified signal to the container's init process")
def test_kill_where_processes_are_left(bundle: Bundle, container: Container, unit: str) -> None:
    """Without a pid namespace the kernel does not end what init leaves behind."""
    bundle.namespaces(drop=["pid"])
    bundle.sh("sleep 998 & exec sleep 997")
    container.run_detached()
    until(lambda: len(_procs(container, unit)) == 2, "both processes are there")
    container.delete("--force")
    until(lambda: not units(container.runtime.token), "the unit is gone")


def _procs(container: Container, unit: str) -> list[str]:
    directories = container.runtime.cgroups.having(unit)
    return (pathlib.Path(directories[0]) / "cgroup.procs").read_text().split() if directories else []


@spec("config-linux.md#pids", "limit (int64, REQUIRED) - specifies the maximum number of tasks in the cgroup")
@xfail_on("runc", "needs more processes to make one")
@xfail_on("crun", "needs more processes to make one")
@pytest.mark.parametrize("kind", ["new namespaces", "joined namespace"])
def test_one_task(bundle: Bundle, container: Container, unit: str, kind: str) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 1}
    if kind == "joined namespace":
        bundle.namespaces(drop=["ipc"], add=[{"type": "ipc", "path": "/proc/self/ns/ipc"}])
    container.run_detached()
    assert container.status == "running"
    assert show(unit, "TasksMax")["TasksMax"] == "1"


@pytest.fixture
def user(runtime: Runtime) -> pwd.struct_passwd:
    """An ordinary user whose systemd runs, and who may run the runtime."""
    for entry in pwd.getpwall():
        if entry.pw_uid >= 1000 and os.path.exists(f"/run/user/{entry.pw_uid}/systemd/private"):
            tried = subprocess.run([runtime.path, "--version"], capture_output=True, check=False, **_as(runtime, entry))
            if tried.returncode == 0:
                return entry
    not_applicable("no ordinary user has a running systemd and the right to execute the runtime")
    raise AssertionError


def _as(runtime: Runtime, user: pwd.struct_passwd) -> Json:
    """Arguments of subprocess.Popen: as that user, who has no session here."""
    directory = f"/run/user/{user.pw_uid}"
    env = runtime.env | {
        "XDG_RUNTIME_DIR": directory,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={directory}/bus",
        "HOME": user.pw_dir,
    }
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "env": env}


@spec(PLACEMENT, "when cgroup v2 is used and rootless container is created, in which case it defaults to user.slice.")
@requires("cgroup v2")
def test_an_ordinary_user(bundle: Bundle, container: Container, unit: str, user: pwd.struct_passwd) -> None:
    """The process is moved by systemd: this user may not, out of a cgroup that is not his."""
    me = _as(container.runtime, user)
    mapping = {"containerID": 0, "size": 1}
    bundle.namespaces(drop=["network"], add=[{"type": "user"}])
    bundle.linux["uidMappings"] = [mapping | {"hostID": user.pw_uid}]
    bundle.linux["gidMappings"] = [mapping | {"hostID": user.pw_gid}]
    bundle.linux["resources"] = {"memory": {"limit": 64 * MIB}, "pids": {"limit": 33}}
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] not in ("/dev/pts", "/sys")]
    for top in (container.runtime.root, bundle.path):
        for directory, _, _ in os.walk(top):
            os.chown(directory, user.pw_uid, user.pw_gid)
    bundle.write()
    container.runtime.run("create", "--bundle", bundle.path, container.id, check=True, **me)
    try:
        container.runtime.run("start", container.id, check=True, **me)
        pid = json.loads(container.runtime.run("state", container.id, check=True, **me).stdout)["pid"]
        place = f"/user@{user.pw_uid}.service/user.slice/{unit}"
        path = _path(pid)
        assert path.endswith(place)
        home = pathlib.Path("/sys/fs/cgroup" + path)
        assert (home / "memory.max").read_text() == f"{64 * MIB}\n"
        assert (home / "pids.max").read_text() == "33\n"
        argv = ["systemctl", "--user", "show", unit, "--property=MemoryMax", "--property=TasksMax"]
        shown = subprocess.run(argv, capture_output=True, text=True, check=True, **me).stdout.split()
        assert sorted(shown) == [f"MemoryMax={64 * MIB}", "TasksMax=33"]
        container.runtime.run("exec", "--detach", container.id, "sleep", "999", check=True, **me)
        until(lambda: len((home / "cgroup.procs").read_text().split()) == 2, "both processes are in the scope")
        container.runtime.run("pause", container.id, check=True, **me)
        assert "frozen 1" in (home / "cgroup.events").read_text()
        container.runtime.run("resume", container.id, check=True, **me)
        container.runtime.run("update", "--pids-limit", "34", container.id, check=True, **me)
        assert (home / "pids.max").read_text() == "34\n"
    finally:
        deleted = container.runtime.start("delete", "--force", container.id, **me).wait(reaping_but=())
    assert deleted.status == 0, deleted
    until(lambda: not home.exists(), "the cgroup is gone")


def _path(pid: int) -> str:
    """A process's cgroup on v2."""
    return pathlib.Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition(":")[2]


@spec(PLACEMENT, UNIT)
@pyrunc_promise
@requires("controller:memory")
def test_the_plan_tells_it(bundle: Bundle, container: Container, unit: str) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 64 * MIB}
    bundle.write()
    said = container.runtime.run("plan", bundle.path, check=True).stdout
    assert f"have systemd start the scope {unit} in system.slice with" in said
    assert f"MemoryMax={64 * MIB}" in said
    assert not units(container.runtime.token)
