"""Managers on this machine's own cgroups."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyrunc.cgroups import Layout, manager
from pyrunc.cgroups.base import Manager, number, read, write
from pyrunc.cgroups.devices import Filter, attach, build, parse
from pyrunc.cgroups.v1 import V1
from pyrunc.cgroups.v2 import V2
from pyrunc.errors import Error
from pyrunc.linux import bpf
from pyrunc.linux.process import CLONE_NEWUSER, unshare

pytestmark = pytest.mark.root

DENY_ALL = {"allow": False, "access": "rwm"}
KMSG = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}


@pytest.fixture(params=["v1", "v2"])
def either(request: pytest.FixtureRequest) -> Manager:
    found: Manager = request.getfixturevalue(request.param)
    return found


def apply(found: Manager, resources: dict[str, Any], devices: bool = False) -> None:
    for setting in found.settings(resources, devices=devices):
        found.apply(setting)


def reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# -- life


def test_a_process_is_placed_in_every_hierarchy(either: Manager, spawn: Callable[[], int], name: str) -> None:
    either.create()
    assert either.exists()
    assert either.procs() == []
    pid = spawn()
    either.add(pid)
    assert either.procs() == [pid]
    lines = [line for line in read(f"/proc/{pid}/cgroup").splitlines() if line.endswith(f"/{name}/web")]
    assert len(lines) == len(either.dirs)


def test_a_process_joins_by_itself(either: Manager, name: str) -> None:
    either.create()
    pid = os.fork()
    if pid == 0:
        try:
            either.join()
            where = read("/proc/self/cgroup")
            os._exit(0 if where.count(f"/{name}/web\n") == len(either.dirs) else 1)
        except (OSError, Error):
            os._exit(2)
    assert reap(pid) == 0


def test_a_process_enters_by_doors_that_it_could_not_open(either: Manager, name: str) -> None:
    """Init of a container with a user namespace is nobody on the host."""
    either.create()
    doors = either.doors()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(54321, 54321, 54321)
            either.enter(doors)
            where = read("/proc/self/cgroup")
            os._exit(0 if where.count(f"/{name}/web\n") == len(either.dirs) else 1)
        except (OSError, Error):
            os._exit(2)
    for fd in doors.values():
        os.close(fd)
    assert reap(pid) == 0


def test_without_a_path_the_cgroup_is_below_the_runtimes_own(layout: Layout, name: str) -> None:
    own = read("/proc/self/cgroup")
    found = manager("", name, layout, own)
    found.create()
    try:
        pid = os.fork()
        if pid == 0:
            found.join()
            mine = read("/proc/self/cgroup").splitlines()
            starts = [os.path.dirname(line) if layout.mode == "v2" else line for line in own.splitlines()]
            os._exit(0 if mine == [f"{start.rstrip('/')}/{name}" for start in starts] else 1)
        assert reap(pid) == 0
    finally:
        found.remove()
    assert not found.exists()


def test_a_cgroup_in_use_is_refused(either: Manager, spawn: Callable[[], int]) -> None:
    either.check_empty()
    either.create()
    either.check_empty()
    either.add(pid := spawn())
    with pytest.raises(Error, match=rf"container's cgroup is not empty: 1 process.*{pid}"):
        either.check_empty()


def test_a_frozen_cgroup_is_refused(either: Manager) -> None:
    either.create()
    either.freeze()
    with pytest.raises(Error, match="container's cgroup unexpectedly frozen"):
        either.check_empty()
    either.thaw()
    either.check_empty()


def test_remove_takes_the_containers_own_cgroups_too(either: Manager) -> None:
    either.create()
    for directory in either.dirs:
        os.makedirs(directory + "/a/b")
    either.remove()
    assert not either.exists()
    either.remove()


def test_remove_waits_for_dying_processes(either: Manager, spawn: Callable[[], int]) -> None:
    either.create()
    pids = [spawn() for _ in range(5)]
    for pid in pids:
        either.add(pid)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    either.remove()
    assert not either.exists()


def test_remove_of_a_cgroup_with_processes_says_so(v2: Manager, spawn: Callable[[], int]) -> None:
    v2.create()
    v2.add(pid := spawn())
    start = time.monotonic()
    with pytest.raises(Error, match=rf"still has 1 process.*{pid}"):
        v2.remove()
    assert time.monotonic() - start < 5


def test_a_process_that_has_ended_can_not_be_added(either: Manager, spawn: Callable[[], int]) -> None:
    either.create()
    pid = spawn()
    os.kill(pid, signal.SIGKILL)
    reap(pid)
    with pytest.raises(Error, match="the process has ended"):
        either.add(pid)


# -- freezer, kill


def state(pid: int) -> str:
    return read(f"/proc/{pid}/stat").rsplit(") ", 1)[1][0]


def test_frozen_processes_stand_still(either: Manager) -> None:
    either.create()
    there, here = os.pipe()
    pid = os.fork()
    if pid == 0:
        either.join()
        while True:
            os.write(here, b".")
            time.sleep(0.001)
    os.read(there, 1)
    assert not either.frozen()
    either.freeze()
    assert either.frozen()
    os.set_blocking(there, False)
    try:
        os.read(there, 65536)  # what was written before
    except BlockingIOError:
        pass
    time.sleep(0.05)
    with pytest.raises(BlockingIOError):
        os.read(there, 1)
    either.thaw()
    assert not either.frozen()
    os.set_blocking(there, True)
    assert os.read(there, 1) == b"."
    either.kill(signal.SIGKILL)
    assert reap(pid) == -signal.SIGKILL
    os.close(there)
    os.close(here)


def test_one_below_a_frozen_cgroup_is_not_itself_frozen(v1: Manager) -> None:
    v1.create()
    parent = os.path.dirname(v1.paths["freezer"]) + "/freezer.state"
    with open(parent, "w") as f:
        f.write("FROZEN")
    assert not v1.frozen()
    with open(parent, "w") as f:
        f.write("THAWED")


@pytest.mark.parametrize("frozen", [False, True])
def test_kill_reaches_all_and_the_frozen_too(either: Manager, spawn: Callable[[], int], frozen: bool) -> None:
    either.create()
    pids = [spawn() for _ in range(4)]
    for pid in pids:
        either.add(pid)
    if frozen:
        either.freeze()
    either.kill(signal.SIGKILL)
    assert [reap(pid) for pid in pids] == [-signal.SIGKILL] * 4
    assert either.procs() == []


def test_v2_kills_on_a_kernel_without_a_file_for_it(
    v2: Manager, spawn: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def before_5_14(path: str, text: str) -> None:
        if path.endswith("/cgroup.kill"):
            raise FileNotFoundError(errno.ENOENT, path)
        write(path, text)

    v2.create()
    pids = [spawn() for _ in range(3)]
    for pid in pids:
        v2.add(pid)
    monkeypatch.setattr("pyrunc.cgroups.v2.write", before_5_14)
    v2.kill(signal.SIGKILL)
    assert [reap(pid) for pid in pids] == [-signal.SIGKILL] * 3
    assert not v2.frozen()


def test_another_signal_is_sent_to_each_once_and_what_was_frozen_stays_so(
    either: Manager, spawn: Callable[[], int]
) -> None:
    either.create()
    pids = [spawn() for _ in range(2)]
    for pid in pids:
        either.add(pid)
    either.freeze()
    either.kill(signal.SIGTERM)
    assert either.frozen()
    if isinstance(either, V1):
        assert either.procs() == pids  # v2 lets a frozen process die
    either.thaw()
    assert [reap(pid) for pid in pids] == [-signal.SIGTERM] * 2


def test_kill_outruns_forks(either: Manager) -> None:
    """A process that does nothing but fork, and whose children do the same."""
    either.create()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        either.join()
        for depth in range(400):
            if os.fork() == 0 and depth > 5:
                time.sleep(0.01)
            else:
                time.sleep(0.002)
            if len(either.procs()) > 60:
                time.sleep(60)
        os._exit(0)
    time.sleep(0.1)
    either.kill(signal.SIGKILL)
    reap(pid)
    for _ in range(100):
        if not either.procs():
            break
        time.sleep(0.01)
    assert either.procs() == []


def test_v1_kills_what_the_container_has_frozen_below(v1: Manager, spawn: Callable[[], int]) -> None:
    """Thawing from above does not thaw it."""
    v1.create()
    below = v1.paths["freezer"] + "/a"
    os.makedirs(below + "/b")
    pid = spawn()
    v1.add(pid)
    write(below + "/b/cgroup.procs", str(pid))
    write(below + "/b/freezer.state", "FROZEN")
    v1.kill(signal.SIGKILL)
    assert reap(pid) == -signal.SIGKILL
    v1.remove()


# -- exec: cgroups below, and after init


def test_v2_goes_where_init_is_if_its_own_cgroup_hands_controllers_down(v2: Manager, spawn: Callable[[], int]) -> None:
    v2.create()
    top = v2.paths[""]
    domain = [c for c in read(top + "/cgroup.controllers").split() if c not in ("cpu", "cpuset", "pids", "perf_event")]
    if not domain:
        pytest.skip("needs a controller on cgroup v2 that is not for threads")
    os.mkdir(top + "/init")
    leader = spawn()
    write(top + "/init/cgroup.procs", str(leader))
    write(top + "/cgroup.subtree_control", "+" + domain[0])

    def where(follow: bool) -> str:
        there, here = os.pipe()
        pid = os.fork()
        if pid == 0:
            found = V2(dict(v2.paths), v2.unified, False)
            if follow:
                found.follow(leader)
            try:
                found.join()
                os.write(here, read("/proc/self/cgroup").splitlines()[-1].encode())
            except Error as e:
                os.write(here, str(e).encode())
            os._exit(0)
        reap(pid)
        text = os.read(there, 4096).decode()
        os.close(there)
        os.close(here)
        return text

    assert where(follow=True) == f"0::{top.removeprefix(v2.unified or '')}/init"
    assert "adding pid of the new process to cgroups" in where(follow=False)
    assert "resource busy" in where(follow=False)


def test_v2_goes_where_init_is_if_its_own_cgroup_is_gone(v2: Manager, spawn: Callable[[], int]) -> None:
    parent = os.path.dirname(v2.paths[""])
    os.mkdir(parent)
    leader = spawn()
    write(parent + "/cgroup.procs", str(leader))
    v2.follow(leader)
    doors = v2.doors()
    assert list(doors) == [parent] == v2.dirs
    for fd in doors.values():
        os.close(fd)
    v2.paths, v2.dirs = {"": parent + "/web"}, [parent + "/web"]
    v2.follow(leader)
    os.kill(leader, signal.SIGKILL)
    reap(leader)
    with pytest.raises(Error, match="does not exist"):
        v2.doors()


# -- limits


def test_v1_limits_reach_the_kernel(v1: Manager) -> None:
    v1.create()
    apply(
        v1,
        {
            "memory": {"limit": 1 << 26, "swap": 1 << 27, "reservation": 1 << 25, "swappiness": 10},
            "cpu": {
                "shares": 512,
                "quota": 50000,
                "period": 100000,
                "burst": 1000,
                "cpus": "0",
                "mems": "0",
                "idle": 0,
            },
            "pids": {"limit": 17},
        },
    )

    def values(controller: str, *files: str) -> list[str]:
        return [read(f"{v1.paths[controller]}/{file}").strip() for file in files]

    assert values(
        "memory",
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.soft_limit_in_bytes",
        "memory.swappiness",
    ) == [str(1 << 26), str(1 << 27), str(1 << 25), "10"]
    assert values("cpu", "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us") == [
        "512", "50000", "100000", "1000",
    ]  # fmt: skip
    assert values("cpuset", "cpuset.cpus", "cpuset.mems") == ["0", "0"]
    assert values("pids", "pids.max") == ["17"]


def disk() -> tuple[int, int]:
    """Numbers of a disk; some containers see none."""
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith(("loop", "ram", "zram", "sr", "fd", "nbd")):
            major, minor = read(f"/sys/block/{name}/dev").strip().split(":")
            return int(major), int(minor)
    pytest.skip("needs a disk")


def throttle(rate: int) -> dict[str, Any]:
    major, minor = disk()
    kinds = ("throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice")
    return {kind: [{"major": major, "minor": minor, "rate": rate + i}] for i, kind in enumerate(kinds)}


def test_v1_block_limits_reach_the_kernel(v1: Manager) -> None:
    v1.create()
    apply(v1, {"blockIO": throttle(1000000)})
    files = ("read_bps_device", "write_bps_device", "read_iops_device", "write_iops_device")
    node = ":".join(map(str, disk()))
    there = [read(f"{v1.paths['blkio']}/blkio.throttle.{file}") for file in files]
    assert there == [f"{node} {rate}\n" for rate in range(1000000, 1000004)]


@pytest.mark.parametrize(
    ("before", "after"),
    [((26, 27), (28, 29)), ((28, 29), (25, 26)), ((26, 26), (27, 27)), ((27, 27), (26, 26)), ((25, 28), (27, 27))],
)
def test_v1_memory_and_swap_limits_go_up_and_down(v1: Manager, before: tuple[int, int], after: tuple[int, int]) -> None:
    v1.create()
    for limit, swap in (before, after):
        apply(v1, {"memory": {"limit": 1 << limit, "swap": 1 << swap}})
        directory = v1.paths["memory"]
        assert number(directory + "/memory.limit_in_bytes") == 1 << limit
        assert number(directory + "/memory.memsw.limit_in_bytes") == 1 << swap
    apply(v1, {"memory": {"limit": -1}})
    assert number(directory + "/memory.memsw.limit_in_bytes") > 1 << 60


def test_v1_period_below_the_quota_that_is_there(v1: Manager) -> None:
    """The kernel holds a new period against the parent's quota and the present one."""
    v1.create()
    parent = os.path.dirname(v1.paths["cpu"])
    for file, text in (("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")):
        with open(f"{parent}/{file}", "w") as f:
            f.write(text)
    apply(v1, {"cpu": {"quota": 40000, "period": 100000}})
    apply(v1, {"cpu": {"quota": 4000, "period": 10000}})
    assert number(v1.paths["cpu"] + "/cpu.cfs_period_us") == 10000
    assert number(v1.paths["cpu"] + "/cpu.cfs_quota_us") == 4000


@pytest.mark.parametrize(
    ("resources", "pointer"),
    [
        ({"cpu": {"shares": 1}}, "/cpu/shares"),
        ({"cpu": {"quota": 1}}, "/cpu/quota"),
        ({"cpu": {"period": 1}}, "/cpu/period"),
        ({"cpu": {"cpus": "4096"}}, "/cpu/cpus"),
        ({"cpu": {"mems": "x"}}, "/cpu/mems"),
        ({"memory": {"limit": 1 << 26, "swap": 1 << 25}}, "/memory/swap"),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 4095, "minor": 1, "rate": 1}]}},
            "/blockIO/throttleReadBpsDevice/0",
        ),
        ({"network": {"classID": 1}}, "/network/classID"),
    ],
)  # fmt: skip
def test_v1_refusals_are_one_line_with_a_place(v1: Manager, resources: dict[str, Any], pointer: str) -> None:
    if pointer.startswith("/network") and "net_cls" in v1.paths:
        pytest.skip("this machine has net_cls")
    v1.create()
    with pytest.raises(Error) as e:
        apply(v1, resources)
    line = str(e.value)
    assert line.startswith(f"/linux/resources{pointer}: ")
    assert "no such file" not in line.lower()


def test_on_hybrid_huge_pages_are_limited_on_v2(v1: Manager) -> None:
    if "hugetlb" in v1.paths or v1.unified is None:
        pytest.skip("needs hybrid with hugetlb on v2")
    needs(v1, "hugetlb")
    size = sorted(f.split("-")[1] for f in os.listdir("/sys/kernel/mm/hugepages"))[-1]
    kib = int(size.removesuffix("kB"))
    name = f"{kib >> 20}GB" if kib >> 20 else f"{kib >> 10}MB"
    v1.create()
    apply(v1, {"hugepageLimits": [{"pageSize": name, "limit": kib << 11}]})
    assert number(f"{v1.paths['']}/hugetlb.{name}.max") == kib << 11
    assert number(f"{v1.paths['']}/hugetlb.{name}.rsvd.max") == kib << 11
    assert v1.stats()["hugetlb"][name] == {"failcnt": 0}
    with pytest.raises(Error) as e:
        apply(v1, {"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]})
    assert e.value.pointer == "/linux/resources/hugepageLimits/0"


def test_a_cpuset_is_usable_at_any_depth(v1: Manager, spawn: Callable[[], int]) -> None:
    v1.paths["cpuset"] += "/deeper"
    v1.dirs = list(v1.paths.values())
    v1.create()
    root = "/".join(v1.paths["cpuset"].split("/")[:-3])
    for file in ("cpuset.cpus", "cpuset.mems"):
        assert read(f"{v1.paths['cpuset']}/{file}") == read(f"{root}/{file}") != "\n"
    v1.add(spawn())
    v1.kill(signal.SIGKILL)
    v1.remove()


def test_a_cpuset_that_somebody_made_is_usable_too(v1: Manager, spawn: Callable[[], int]) -> None:
    os.makedirs(v1.paths["cpuset"])
    v1.create()
    assert read(v1.paths["cpuset"] + "/cpuset.cpus").strip()
    v1.add(spawn())


def test_a_cpuset_says_what_the_one_above_has(v1: Manager) -> None:
    parent = os.path.dirname(v1.paths["cpuset"])
    os.mkdir(parent)
    for file in ("cpuset.cpus", "cpuset.mems"):
        write(f"{parent}/{file}", "0")
    v1.create()
    with pytest.raises(Error) as e:
        apply(v1, {"cpu": {"cpus": "0-1"}})
    assert (e.value.pointer, e.value.reason) == ("/linux/resources/cpu/cpus", "the cgroup above has only 0")


def test_v1_realtime_is_given_to_the_cgroups_made_on_the_way(v1: Manager) -> None:
    if not os.path.exists(os.path.dirname(os.path.dirname(v1.paths["cpu"])) + "/cpu.rt_runtime_us"):
        pytest.skip("needs realtime group scheduling")
    v1.create()
    apply(v1, {"cpu": {"realtimeRuntime": 5000, "realtimePeriod": 500000}})
    for directory in (v1.paths["cpu"], os.path.dirname(v1.paths["cpu"])):
        assert number(directory + "/cpu.rt_runtime_us") == 5000
        assert number(directory + "/cpu.rt_period_us") == 500000


def test_v1_stats_count(v1: Manager) -> None:
    v1.create()
    pid = os.fork()
    if pid == 0:
        v1.join()
        ballast = bytearray(8 << 20)
        ballast[::4096] = b"x" * len(ballast[::4096])
        time.sleep(60)
        os._exit(0)
    while number(v1.paths["memory"] + "/memory.usage_in_bytes") < 8 << 20:
        time.sleep(0.01)
    apply(v1, {"pids": {"limit": 9}})
    stats = v1.stats()
    assert stats["pids"] == {"current": 1, "limit": 9}
    assert stats["memory"]["usage"]["usage"] >= 8 << 20
    assert stats["memory"]["usage"]["max"] >= stats["memory"]["usage"]["usage"] // 2
    assert stats["memory"]["raw"]["total_rss"] >= 8 << 20
    assert stats["cpu"]["usage"]["total"] > 0
    assert len(stats["cpu"]["usage"]["percpu"]) >= 1
    assert stats["cpuset"]["cpus"] == sorted(os.sched_getaffinity(1))
    v1.kill(signal.SIGKILL)
    reap(pid)


# -- devices


def attempts(found: Manager, *opens: tuple[str, int]) -> list[int]:
    """Error numbers of opens inside of the cgroup, 0 for success."""
    there, here = os.pipe()
    pid = os.fork()
    if pid == 0:
        found.join()
        for path, flags in opens:
            try:
                os.close(os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK))
                os.write(here, b"\0")
            except OSError as e:
                os.write(here, bytes([e.errno or 255]))
        os._exit(0)
    assert reap(pid) == 0
    os.close(here)
    numbers = list(os.read(there, 100))
    os.close(there)
    return numbers


PROBES = (
    ("/dev/null", os.O_RDWR),
    ("/dev/ptmx", os.O_RDWR),
    ("/dev/kmsg", os.O_RDONLY),
    ("/dev/kmsg", os.O_WRONLY),
)


@pytest.mark.skipif(not os.path.exists("/dev/kmsg"), reason="needs a device that containers don't get: /dev/kmsg")
def test_device_rules_are_in_force_and_are_replaced(either: Manager) -> None:
    either.create()
    assert attempts(either, *PROBES) == [0, 0, 0, 0]
    apply(either, {"devices": [DENY_ALL]}, devices=True)
    assert attempts(either, *PROBES) == [0, 0, 1, 1]
    apply(either, {"devices": [DENY_ALL, KMSG]}, devices=True)
    assert attempts(either, *PROBES) == [0, 0, 0, 1]
    apply(either, {"devices": [{"allow": True, "access": "rwm"}]}, devices=True)
    assert attempts(either, *PROBES) == [0, 0, 0, 0]
    apply(either, {"devices": [{"allow": True, "access": "rwm"}, KMSG | {"allow": False}]}, devices=True)
    assert attempts(either, *PROBES) == [0, 0, 1, 0]
    apply(either, {}, devices=True)
    assert attempts(either, *PROBES) == [0, 0, 1, 1]


def test_in_a_user_namespace_device_rules_are_left_to_it(either: Manager) -> None:
    either.create()
    pid = os.fork()
    if pid == 0:
        try:
            unshare(CLONE_NEWUSER)
            apply(either, {"devices": [DENY_ALL]}, devices=True)
            os._exit(0)
        except (OSError, Error):
            os._exit(2)
    assert reap(pid) == 0


def test_v1_has_exactly_the_rules_of_the_filter(v1: Manager) -> None:
    v1.create()
    directory = v1.paths["devices"]
    for rules in ([DENY_ALL], [DENY_ALL, KMSG], []):
        apply(v1, {"devices": rules}, devices=True)
        there = parse(read(directory + "/devices.list"))
        assert not there.allow
        assert there.exceptions == build(rules, "").exceptions


def test_v2_has_one_program_after_any_number_of_updates(v2: Manager) -> None:
    v2.create()
    cgroup = os.open(v2.paths[""], os.O_RDONLY)
    try:
        seen = set()
        for _ in range(3):
            attach(v2.paths[""], Filter(True))
            (program,) = bpf.prog_query(cgroup, bpf.BPF_CGROUP_DEVICE)
            seen.add(program)
        assert len(seen) == 3
        # Where somebody else has attached one as well, both are replaced.
        extra = bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, bpf.mov32_imm(0, 1) + bpf.exit_())
        bpf.prog_attach(cgroup, extra, bpf.BPF_CGROUP_DEVICE, bpf.BPF_F_ALLOW_MULTI)
        os.close(extra)
        assert len(bpf.prog_query(cgroup, bpf.BPF_CGROUP_DEVICE)) == 2
        attach(v2.paths[""], Filter(True))
        assert len(bpf.prog_query(cgroup, bpf.BPF_CGROUP_DEVICE)) == 1
    finally:
        os.close(cgroup)


def test_the_kernel_verifies_what_it_is_given(v2: Manager) -> None:
    with pytest.raises(OSError, match=r"Invalid argument|Permission denied"):
        bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, bpf.exit_())  # r0 was never set


# -- v2 with controllers: a machine without v1


def needs(found: Manager, *controllers: str) -> None:
    assert found.unified is not None
    missing = set(controllers) - set(read(found.unified + "/cgroup.controllers").split())
    if missing:
        pytest.skip(f"needs {' '.join(sorted(missing))} on cgroup v2")


def test_v2_limits_reach_the_kernel(v2: Manager) -> None:
    needs(v2, "memory", "cpu", "cpuset", "pids")
    v2.create()
    apply(
        v2,
        {
            "memory": {"limit": 1 << 26, "swap": 1 << 27, "reservation": 1 << 25},
            "cpu": {"shares": 2048, "quota": 50000, "period": 100000, "burst": 1000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 17},
            "unified": {"memory.high": "50000000", "memory.oom.group": "1", "cgroup.max.depth": "3"},
        },
    )
    values = {
        "memory.max": str(1 << 26),
        "memory.swap.max": str(1 << 26),
        "memory.low": str(1 << 25),
        "memory.high": str(50000000 // 4096 * 4096),
        "memory.oom.group": "1",
        "cgroup.max.depth": "3",
        "cpu.weight": "174",
        "cpu.max": "50000 100000",
        "cpu.max.burst": "1000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "17",
    }
    assert {file: read(f"{v2.paths['']}/{file}").strip() for file in values} == values
    apply(v2, {"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}})
    assert {read(f"{v2.paths['']}/{file}").split()[0] for file in ("memory.max", "cpu.max", "pids.max")} == {"max"}


def test_v2_block_limits_reach_the_kernel(v2: Manager) -> None:
    needs(v2, "io")
    v2.create()
    apply(v2, {"blockIO": throttle(1000000)})
    node = ":".join(map(str, disk()))
    assert read(v2.paths[""] + "/io.max") == f"{node} rbps=1000000 wbps=1000001 riops=1000002 wiops=1000003\n"
    if os.path.exists(v2.paths[""] + "/io.weight") or os.path.exists(v2.paths[""] + "/io.bfq.weight"):
        apply(v2, {"blockIO": {"weight": 500}})
        general, bfq = v2.paths[""] + "/io.weight", v2.paths[""] + "/io.bfq.weight"
        there = read(bfq) if os.path.exists(bfq) else read(general)
        assert there.split()[1] == ("500" if os.path.exists(bfq) else "4950")


def test_v2_huge_pages_and_idle_reach_the_kernel(v2: Manager) -> None:
    needs(v2, "hugetlb", "cpu")
    v2.create()
    apply(v2, {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}], "cpu": {"idle": 1}})
    values = [read(f"{v2.paths['']}/{f}").strip() for f in ("hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "cpu.idle")]
    assert values == [str(4 << 20), str(4 << 20), "1"]
    assert v2.stats()["hugetlb"]["2MB"] == {"failcnt": 0}


def test_v2_burst_above_the_quota_that_is_there(v2: Manager) -> None:
    needs(v2, "cpu")
    v2.create()
    apply(v2, {"cpu": {"quota": 10000, "period": 100000}})
    apply(v2, {"cpu": {"quota": 50000, "period": 100000, "burst": 30000}})
    assert read(v2.paths[""] + "/cpu.max.burst") == "30000\n"


def test_v2_names_the_controller_that_a_limit_lacks(v2: Manager, layout: Layout) -> None:
    v2.create()
    with pytest.raises(Error) as e:
        apply(v2, {"unified": {"nosuch.max": "1"}})
    assert e.value.pointer == "/linux/resources/unified/nosuch.max"
    assert "no nosuch controller" in e.value.reason


def test_v2_will_not_hand_down_past_processes(v2: Manager, spawn: Callable[[], int]) -> None:
    needs(v2, "memory", "pids")
    parent = os.path.dirname(v2.paths[""])
    os.mkdir(parent)
    pid = spawn()
    with open(parent + "/cgroup.procs", "w") as f:
        f.write(str(pid))
    v2.create()
    for resources in ({"memory": {"limit": 1 << 26}}, {"pids": {"limit": 1}}):
        (controller,) = resources
        with pytest.raises(Error) as e:
            apply(v2, resources)
        assert e.value.pointer == f"/linux/resources/{controller}/limit"
        assert e.value.reason == f"{parent} has processes, and so can't hand the {controller} controller down"
    v2.add(spawn())  # without limits the container runs
    assert read(parent + "/cgroup.type") == "domain\n"
    v2.kill(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    reap(pid)


def test_v2_refuses_a_threaded_place(v2: Manager) -> None:
    parent = os.path.dirname(v2.paths[""])
    os.mkdir(parent)
    with open(parent + "/cgroup.type", "w") as f:
        f.write("threaded")
    with pytest.raises(Error, match="domain invalid"):
        v2.create()
    assert not os.path.exists(v2.paths[""])


def test_v2_stats_count(v2: Manager, spawn: Callable[[], int]) -> None:
    v2.create()
    v2.add(spawn())
    stats = v2.stats()
    assert stats["pids"]["current"] == 1
    assert set(stats["cpu"]["usage"]) >= {"kernel", "user"}
    needs(v2, "memory", "pids")
    apply(v2, {"memory": {"limit": 1 << 26, "swap": 1 << 26}, "pids": {"limit": 5}})
    stats = v2.stats()
    assert stats["pids"] == {"current": 1, "limit": 5}
    assert stats["memory"]["usage"]["limit"] == 1 << 26


def test_v2_is_handed_over(v2: Manager) -> None:
    v2.create()
    v2.delegate(54321)
    directory = v2.paths[""]
    owned = {f for f in os.listdir(directory) if os.stat(f"{directory}/{f}").st_uid == 54321}
    assert owned >= {"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}
    assert "cgroup.freeze" not in owned
    assert os.stat(directory).st_uid == 54321
