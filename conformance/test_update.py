"""update: limits of a container that exists; what is not named stays, what is refused changes nothing."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest

from conformance.harness import (
    Bundle,
    Container,
    Result,
    not_applicable,
    pyrunc_promise,
    requires,
    spec,
    until,
    xfail_on,
)

pytestmark = requires("subcommand:update")

UPDATE = "The update command change the resource constraints of a running container instance."
FROM_FILE = "parsed from JSON provided as a file or from stdin"
IGNORED = "If this option is used, all other options are ignored."

MIB = 1 << 20

#: A limit's name here: controller and file on v1, file on v2.
FILES = {
    "limit": ("memory", "memory.limit_in_bytes", "memory.max"),
    "swap": ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
    "reservation": ("memory", "memory.soft_limit_in_bytes", "memory.low"),
    "pids": ("pids", "pids.max", "pids.max"),
    "cpus": ("cpuset", "cpuset.cpus", "cpuset.cpus"),
    "idle": ("cpu", "cpu.idle", "cpu.idle"),
    "burst": ("cpu", "cpu.cfs_burst_us", "cpu.max.burst"),
}


def directory(container: Container, controller: str) -> str:
    cgroups = container.runtime.cgroups
    found = cgroups.of(container.pid)
    return found[""] if cgroups.mode == "v2" else found[controller]


def read(container: Container, name: str) -> str:
    """A limit as the kernel tells it."""
    controller, v1, v2 = FILES[name]
    file = v2 if container.runtime.cgroups.mode == "v2" else v1
    path = pathlib.Path(directory(container, controller), file)
    if not path.exists():
        not_applicable(f"the kernel has no {file}")
    return path.read_text().strip()


def quota(container: Container) -> tuple[int, int]:
    """CPU quota, -1 for none, and period."""
    top = pathlib.Path(directory(container, "cpu"))
    if container.runtime.cgroups.mode == "v2":
        limit, period = (top / "cpu.max").read_text().split()
        return -1 if limit == "max" else int(limit), int(period)
    return int((top / "cpu.cfs_quota_us").read_text()), int((top / "cpu.cfs_period_us").read_text())


def has(container: Container, file: str) -> bool:
    return os.path.exists(f"{directory(container, 'cpu')}/{file}")


def unlimited(container: Container, name: str) -> bool:
    return read(container, name) in ("max", str((1 << 63) - os.sysconf("SC_PAGE_SIZE")))


def swap(limit: int, both: int, container: Container) -> str:
    """What the file for swap is to read where memory and swap together are limited to `both`."""
    return str(both - limit if container.runtime.cgroups.mode == "v2" else both)


@pytest.fixture
def limited(bundle: Bundle, container: Container) -> Container:
    """A running container with limits."""
    if not container.runtime.cgroups.has("memory"):
        not_applicable("the host has no memory controller")
    bundle.linux["resources"] |= {
        "memory": {"limit": 32 * MIB, "reservation": 24 * MIB},
        "cpu": {"shares": 100, "quota": 500000, "period": 1000000},
        "pids": {"limit": 20},
    }
    container.run_detached()
    return container


def update(container: Container, *flags: str, check: bool = True, **resources: Any) -> Result:
    """Update by flags, or by a document on standard input."""
    if resources:
        return container.runtime.run("update", "-r", "-", container.id, input=json.dumps(resources), check=check)
    return container.runtime.run("update", *flags, container.id, check=check)


# ------------------------------------------------------------------------------------------------------------- flags


@spec("runc-update.8", UPDATE)
@requires("controller:memory")
@pytest.mark.parametrize("size, count", [("67108864", 64 * MIB), ("50M", 50 * MIB), ("65536k", 64 * MIB)])
def test_memory(limited: Container, size: str, count: int) -> None:
    if limited.runtime.name == "crun" and not size.isdigit():
        not_applicable("crun takes bytes only")
    update(limited, "--memory", size)
    assert read(limited, "limit") == str(count)
    assert read(limited, "reservation") == str(24 * MIB)


@spec("runc-update.8", "Set memory reservation, or soft limit")
@requires("controller:memory")
def test_memory_reservation(limited: Container) -> None:
    update(limited, "--memory-reservation", str(16 * MIB))
    assert read(limited, "reservation") == str(16 * MIB)
    assert read(limited, "limit") == str(32 * MIB)


@spec("runc-update.8", "Set total memory + swap usage")
@requires("controller:memory")
def test_memory_with_swap(limited: Container) -> None:
    """Up and down: at no moment may the one be above the other."""
    read(limited, "swap")
    for limit, both in ((30, 50), (60, 80), (90, 90), (40, 50)):
        update(limited, "--memory", str(limit * MIB), "--memory-swap", str(both * MIB))
        assert read(limited, "limit") == str(limit * MIB)
        assert read(limited, "swap") == swap(limit * MIB, both * MIB, limited)


@spec("runc-update.8", "Use -1 to unset the limit (i.e. use unlimited swap).")
@xfail_on("crun", "crun 1.8 leaves v1's limit of memory and swap in the way")
@requires("controller:memory")
def test_no_memory_limit(limited: Container) -> None:
    read(limited, "swap")
    update(limited, "--memory", str(30 * MIB), "--memory-swap", str(50 * MIB))
    update(limited, "--memory-swap", "-1")
    assert unlimited(limited, "swap") and not unlimited(limited, "limit")
    update(limited, "--memory", str(30 * MIB), "--memory-swap", str(50 * MIB))
    update(limited, "--memory", "-1")
    assert unlimited(limited, "limit") and unlimited(limited, "swap")


@spec("runc-update.8", "Set total memory + swap usage")
@requires("controller:memory")
def test_swap_stays_what_it_is_with_memory(limited: Container) -> None:
    """A new memory limit by itself leaves what memory and swap may have together (config-linux.md, memory.swap)."""
    if limited.runtime.name == "crun":
        not_applicable("crun keeps nothing of an update for the next")
    read(limited, "swap")
    update(limited, "--memory", str(30 * MIB), "--memory-swap", str(50 * MIB))
    update(limited, "--memory", str(40 * MIB))
    assert read(limited, "limit") == str(40 * MIB)
    assert read(limited, "swap") == swap(40 * MIB, 50 * MIB, limited)
    result = update(limited, "--memory", str(60 * MIB), check=False)
    assert result.status != 0 and result.stderr
    assert read(limited, "limit") == str(40 * MIB)


@spec("runc-update.8", "Set CPU usage limit within a given period (in microseconds).")
@xfail_on("crun", "crun 1.8 takes -1 for a very large number")
@requires("controller:cpu")
def test_quota_and_period(limited: Container) -> None:
    """One of the two by itself leaves the other."""
    if limited.runtime.name == "crun" and limited.runtime.cgroups.mode == "v2":
        not_applicable("crun keeps nothing of an update for the next")
    assert quota(limited) == (500000, 1000000)
    update(limited, "--cpu-period", "900000")
    assert quota(limited) == (500000, 900000)
    update(limited, "--cpu-quota", "600000")
    assert quota(limited) == (600000, 900000)
    update(limited, "--cpu-quota", "-1")
    assert quota(limited) == (-1, 900000)
    update(limited, "--cpu-quota", "3000", "--cpu-period", "10000")
    assert quota(limited) == (3000, 10000)


@spec("runc-update.8", "Set CPU usage limit within a given period (in microseconds).")
@requires("controller:cpu")
@pytest.mark.parametrize(
    "flags, after", [(("--cpu-period", "50000"), (-1, 50000)), (("--cpu-quota", "30000"), (30000, 100000))]
)
def test_quota_or_period_where_there_was_none(
    container: Container, flags: tuple[str, str], after: tuple[int, int]
) -> None:
    container.run_detached()
    update(container, *flags)
    assert quota(container) == after


@spec("runc-update.8", "Set CPU burst limit within a given period (in microseconds).")
@requires("flag:update --cpu-burst")
def test_cpu_burst(limited: Container) -> None:
    assert read(limited, "burst") == "0"
    update(limited, "--cpu-period", "900000", "--cpu-burst", "500000")
    assert read(limited, "burst") == "500000"
    update(limited, "--memory", str(100 * MIB))
    assert read(limited, "burst") == "500000"
    update(limited, "--cpu-burst", "0")
    assert read(limited, "burst") == "0"


@spec("runc-update.8", "Set CPU shares (relative weight vs. other containers).")
@requires("controller:cpu")
def test_cpu_share(limited: Container) -> None:
    name = "cpu.weight" if limited.runtime.cgroups.mode == "v2" else "cpu.shares"
    file = pathlib.Path(directory(limited, "cpu"), name)
    before = int(file.read_text())
    update(limited, "--cpu-share", "200")
    after = int(file.read_text())
    assert after == 200 if name == "cpu.shares" else before < after < 100


@spec("runc-update.8", UPDATE)
@requires("flag:update --cpu-idle")
def test_cpu_idle(limited: Container) -> None:
    if not has(limited, "cpu.idle"):
        not_applicable("the kernel has no cpu.idle")
    for value in ("1", "0", "1"):
        update(limited, "--cpu-idle", value)
        assert read(limited, "idle") == value
    update(limited, "--cpu-period", "10000", "--cpu-quota", "5000")
    assert read(limited, "idle") == "1"
    for value in ("-1", "2", "3"):
        assert update(limited, "--cpu-idle", value, check=False).status != 0
        assert read(limited, "idle") == "1"
    update(limited, cpu={"idle": 0})
    assert read(limited, "idle") == "0"


@spec("runc-update.8", "Set CPU(s) to use. The list can contain commas and ranges.")
@requires("controller:cpuset")
def test_cpus(limited: Container) -> None:
    update(limited, "--cpuset-cpus", "0", "--cpuset-mems", "0")
    assert read(limited, "cpus") == "0"
    assert "Cpus_allowed_list:\t0\n" in pathlib.Path(f"/proc/{limited.pid}/status").read_text()


@spec("runc-update.8", "Set the maximum number of processes allowed in the container. Use -1 to unset the limit.")
@xfail_on("crun", "crun 1.8 writes -1")
@requires("controller:pids")
def test_pids(limited: Container) -> None:
    for given, after in (("12345", "12345"), ("-1", "max"), ("10", "10")):
        update(limited, "--pids-limit", given)
        assert read(limited, "pids") == after


@spec("runc-update.8", UPDATE)
@requires("controller:pids")
def test_no_pids(limited: Container) -> None:
    """systemd can't say 0, so that it is 1 with both drivers; newer than runc 1.2."""
    if limited.runtime.name != "pyrunc":
        not_applicable("older runtimes take 0 for no limit")
    update(limited, "--pids-limit", "0")
    assert read(limited, "pids") == "1"


@spec("runc-update.8", UPDATE)
def test_several_at_once(limited: Container) -> None:
    cpu = ("--cpu-period", "900000", "--cpu-quota", "600000", "--cpu-share", "200")
    update(limited, *cpu, "--memory", str(64 * MIB), "--pids-limit", "10")
    assert quota(limited) == (600000, 900000)
    assert (read(limited, "limit"), read(limited, "pids")) == (str(64 * MIB), "10")


# ---------------------------------------------------------------------------------------------------------- documents

DOCUMENT: dict[str, Any] = {
    "memory": {"limit": 48 * MIB, "reservation": 16 * MIB},
    "cpu": {"shares": 300, "quota": 40000, "period": 50000, "cpus": "0"},
    "pids": {"limit": 33},
}


def as_documented(container: Container) -> None:
    assert read(container, "limit") == str(48 * MIB)
    assert read(container, "reservation") == str(16 * MIB)
    assert quota(container) == (40000, 50000)
    assert read(container, "cpus") == "0"
    assert read(container, "pids") == "33"


@spec("runc-update.8", FROM_FILE)
def test_document_on_standard_input(limited: Container) -> None:
    update(limited, **DOCUMENT)
    as_documented(limited)


@spec("runc-update.8", FROM_FILE)
def test_document_in_a_file(limited: Container) -> None:
    path = limited.runtime.scratch("resources")
    pathlib.Path(path).write_text(json.dumps(DOCUMENT))
    limited.runtime.run("update", "--resources", path, limited.id, check=True)
    as_documented(limited)


@spec("runc-update.8", IGNORED)
def test_flags_beside_a_document(limited: Container) -> None:
    if limited.runtime.name == "crun":
        not_applicable("crun takes both")
    document = json.dumps({"pids": {"limit": 33}})
    limited.runtime.run("update", "-r", "-", "--memory", "64M", limited.id, input=document, check=True)
    assert read(limited, "pids") == "33"
    assert read(limited, "limit") == str(32 * MIB)


@spec("runc-update.8", "Use - to read from stdin.")
def test_numbers_that_are_not_given(limited: Container) -> None:
    """Engines in Go send their structures whole: 0 and "" say nothing."""
    if limited.runtime.name == "crun":
        not_applicable("crun takes 0 for a limit")
    update(
        limited,
        memory={"limit": 0, "swap": 0, "reservation": 0},
        cpu={"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
        blockIO={"weight": 0},
        pids={"limit": 25},
    )
    assert quota(limited) == (500000, 1000000)
    assert (read(limited, "limit"), read(limited, "pids")) == (str(32 * MIB), "25")


def _disk() -> dict[str, int]:
    for name in sorted(os.listdir("/sys/block")):
        major, minor = pathlib.Path(f"/sys/block/{name}/dev").read_text().strip().split(":")
        return {"major": int(major), "minor": int(minor)}
    not_applicable("the host has no block device")
    return {}


@spec("runc-update.8", FROM_FILE)
def test_rates_of_devices(bundle: Bundle, container: Container) -> None:
    """Entries of a list replace those for the same device."""
    v2 = container.runtime.cgroups.mode == "v2"
    if not container.runtime.cgroups.has("io" if v2 else "blkio"):
        not_applicable("no controller for block devices")
    disk = _disk()
    node = f"{disk['major']}:{disk['minor']}"
    bundle.linux["resources"]["blockIO"] = {"throttleReadBpsDevice": [disk | {"rate": 485760}]}
    container.run_detached()
    if container.runtime.name == "runc" and container.runtime.version < "1.4":
        not_applicable("runc before 1.4 passes them over")
    update(
        container,
        blockIO={
            "throttleReadBpsDevice": [disk | {"rate": 10485760}],
            "throttleWriteBpsDevice": [disk | {"rate": 9437184}],
            "throttleReadIOPSDevice": [disk | {"rate": 1000}],
            "throttleWriteIOPSDevice": [disk | {"rate": 900}],
        },
    )
    top = pathlib.Path(directory(container, "blkio"))
    if v2:
        assert (top / "io.max").read_text() == f"{node} rbps=10485760 wbps=9437184 riops=1000 wiops=900\n"
    else:
        files = [f"blkio.throttle.{op}_device" for op in ("read_bps", "write_bps", "read_iops", "write_iops")]
        assert [(top / file).read_text() for file in files] == [
            f"{node} {rate}\n" for rate in (10485760, 9437184, 1000, 900)
        ]


@spec("config-linux.md#unified", "Each key in the map refers to a file in the cgroup unified hierarchy.")
@requires("cgroup v2")
def test_files_of_v2(limited: Container) -> None:
    update(limited, unified={"cpu.max": "max 100000", "pids.max": "10", "memory.high": str(16 * MIB)})
    assert quota(limited) == (-1, 100000)
    assert read(limited, "pids") == "10"
    assert pathlib.Path(directory(limited, ""), "memory.high").read_text() == f"{16 * MIB}\n"


# ---------------------------------------------------------------------------------------------------- states, refusals


@spec("runc-update.8", UPDATE)
def test_created(bundle: Bundle, container: Container) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 20}
    container.create()
    update(container, "--pids-limit", "30")
    assert read(container, "pids") == "30"
    container.start()
    assert read(container, "pids") == "30"


@spec("runc-update.8", UPDATE)
@requires("controller:freezer")
def test_paused(limited: Container) -> None:
    limited.pause()
    update(limited, "--pids-limit", "30", "--memory", str(64 * MIB))
    assert limited.status == "paused"
    assert (read(limited, "pids"), read(limited, "limit")) == ("30", str(64 * MIB))
    limited.resume()


@spec("runc-update.8", UPDATE)
def test_stopped(limited: Container) -> None:
    limited.kill()
    limited.wait()
    result = update(limited, "--pids-limit", "30", check=False)
    if limited.runtime.name == "crun" and result.status == 0:
        not_applicable("crun updates the cgroup of a stopped container")
    assert result.status != 0 and "not running" in result.stderr


@spec("runc-update.8", UPDATE)
def test_no_such_container(container: Container) -> None:
    result = update(container, "--pids-limit", "30", check=False)
    assert result.status != 0
    assert "does not exist" in result.stderr or container.runtime.name == "crun"


@spec("config-linux.md#memory", "checkBeforeUpdate (bool, OPTIONAL) - enables container memory usage check")
@requires("controller:memory")
def test_check_before_update(limited: Container) -> None:
    """Rather an error than a kill."""
    name = limited.runtime.name
    if name == "crun" or (name == "runc" and limited.runtime.cgroups.mode != "v2"):
        not_applicable(f"{name} does not look")
    before = read(limited, "limit")
    result = update(limited, check=False, memory={"limit": 1024, "checkBeforeUpdate": True})
    assert result.status != 0 and "memory limit" in result.stderr
    assert read(limited, "limit") == before and limited.status == "running"


@spec("config-linux.md#configlinuxdeviceallowedlist", "The runtime MUST apply entries in the listed order.")
def test_devices_are_in_reach_all_the_time(bundle: Bundle, container: Container) -> None:
    """Not for a moment is /dev/null refused, nor is more allowed."""
    bundle.linux["resources"] |= {
        "devices": [{"allow": False, "access": "rwm"}],
        "pids": {"limit": 20},
    }
    bundle.linux["devices"] = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]
    for kind in bundle.process["capabilities"].values():
        kind.append("CAP_SYSLOG")
    bundle.sh("while :; do head -c 1 /dev/kmsg 2>/dev/null && echo more; : > /dev/null || echo less; done")
    container.run_detached()
    for _ in range(10):
        update(container, "--pids-limit", "30")
    assert container.stdout == ""


@spec("runc-update.8", UPDATE)
@pyrunc_promise
def test_a_device_rule_is_added(bundle: Bundle, container: Container) -> None:
    """Those that there are stay, also when an engine sends them again."""
    bundle.linux["devices"] = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]
    for kind in bundle.process["capabilities"].values():
        kind.append("CAP_SYSLOG")
    container.run_detached()
    look = ["sh", "-c", "exec 3< /dev/kmsg"]
    assert container.exec(*look).status != 0
    rule = {"type": "c", "major": 1, "minor": 11, "access": "r"}
    update(container, devices=[{"allow": False, "access": "rwm"}, {"allow": True} | rule])
    assert container.exec(*look, check=True).status == 0
    update(container, devices=[{"allow": False, "access": "rwm"}])
    assert container.exec(*look, check=True).status == 0
    update(container, devices=[{"allow": False} | rule])
    assert container.exec(*look).status != 0
    assert container.exec("sh", "-c", ": > /dev/null").status == 0


WRONG: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "no such CPU": (["--cpuset-cpus", "4000"], {}, "--cpuset-cpus"),
    "no list": (["--cpuset-cpus", "some"], {}, "--cpuset-cpus"),
    "short period": (["--cpu-period", "10", "--cpu-quota", "10"], {}, "--cpu-"),
    "idle": (["--cpu-idle", "7"], {}, "--cpu-idle"),
    "no size": (["--memory", "many"], {}, "--memory"),
    "no number": (["--cpu-share", "1.5"], {}, "--cpu-share"),
    "negative period": (["--cpu-period", "-5"], {}, "--cpu-period"),
    "cache": (["--l3-cache-schema", "L3:0=f"], {}, "--l3-cache-schema"),
    "type": ([], {"memory": {"limit": "much"}}, "/memory/limit"),
    "rate": (
        [],
        {"blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 0, "rate": 1}]}},
        "/blockIO/throttleReadBpsDevice/0",
    ),
    "huge page of no size": ([], {"hugepageLimits": [{"pageSize": "3KB", "limit": 1}]}, "/hugepageLimits/0"),
    "file": ([], {"unified": {"no.such": "1"}}, "/unified"),
}


@spec("runtime.md#errors", "MUST leave the state of the environment as if the operation were never attempted")
@pyrunc_promise
@pytest.mark.parametrize("which", WRONG)
def test_what_is_refused_changes_nothing(limited: Container, which: str) -> None:
    """Right values before it are taken back; the line names the flag or the place in the document."""
    flags, document, word = WRONG[which]
    if flags:
        result = update(limited, "--memory", str(64 * MIB), "--pids-limit", "5", *flags, check=False)
    else:
        right = {"memory": {"limit": 64 * MIB}, "pids": {"limit": 5}}
        whole = right | {key: right.get(key, {}) | v if isinstance(v, dict) else v for key, v in document.items()}
        result = update(limited, check=False, **whole)
    assert result.status != 0 and len(result.stderr.splitlines()) == 1, result
    assert word in result.stderr and "Traceback" not in result.stderr, result
    assert (read(limited, "limit"), read(limited, "pids")) == (str(32 * MIB), "20")
    assert quota(limited) == (500000, 1000000)
    update(limited, "--pids-limit", "21")
    assert read(limited, "limit") == str(32 * MIB)


@spec("runc-update.8", UPDATE)
@pyrunc_promise
def test_the_next_update_knows_the_one_before(limited: Container) -> None:
    """Also what a document with a wrong value would have changed is not remembered."""
    update(limited, "--cpu-quota", "40000", "--cpu-period", "50000")
    assert update(limited, "--cpu-period", "60000", "--cpu-idle", "9", check=False).status != 0
    update(limited, "--cpu-quota", "30000")
    assert quota(limited) == (30000, 50000)


@spec("runc-update.8", UPDATE)
@requires("controller:memory")
def test_less_than_is_in_use(bundle: Bundle, container: Container) -> None:
    """v1 refuses it; v2 kills (cgroup-v2.rst, memory.max)."""
    bundle.sh("dd if=/dev/zero of=/dev/shm/file bs=1M count=24; echo full; sleep 1000")
    bundle.linux["resources"]["memory"] = {"limit": 64 * MIB, "swap": 64 * MIB}
    container.run_detached()
    container.wait_output("full")
    if container.runtime.cgroups.mode == "v2":
        container.runtime.run("update", "--memory", "4194304", "--memory-swap", "4194304", container.id)
        until(lambda: container.status == "stopped", "its end")
        return
    result = update(container, "--memory", "4194304", "--memory-swap", "4194304", check=False)
    assert result.status != 0
    if container.runtime.name == "crun":
        not_applicable("crun does not take back what it has written before")
    assert "usage" in result.stderr
    assert (read(container, "limit"), read(container, "swap")) == (str(64 * MIB), str(64 * MIB))
