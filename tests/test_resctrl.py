"""Intel RDT on a tree of files that stands for resctrl: the kernel's part is played by `Kernel`."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pyrunc import Container, resctrl
from pyrunc.errors import Error
from pyrunc.resctrl import Group
from pyrunc.steps.context import Context
from pyrunc.steps.resctrl import JoinResctrlGroup, MakeResctrlGroup

ALL = {"L3": "fff", "MB": "100"}


class Kernel:
    """A resctrl with two L3 domains. Directories come with their files; a file keeps what was written to it last.

    Attributes:
        refuses: paths, below the root, of directories that can't be made.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = str(root)
        self.refuses: set[str] = set()
        info = {
            "L3": {"cbm_mask": "fff", "min_cbm_bits": "1", "num_closids": "16"},
            "MB": {"bandwidth_gran": "10", "delay_linear": "1", "min_bandwidth": "10", "num_closids": "8"},
            "L3_MON": {"mon_features": "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes"},
        }
        for directory, files in info.items():
            (root / "info" / directory).mkdir(parents=True)
            for name, value in files.items():
                (root / "info" / directory / name).write_text(value + "\n")
        (root / "info" / "last_cmd_status").write_text("out of CLOSIDs\n")
        self._fill(str(root))
        monkeypatch.setattr("pyrunc.resctrl.os", self)

    def __getattr__(self, name: str) -> Any:
        """The rest of `os`, which the module is given this for."""
        return getattr(os, name)

    def _fill(self, path: str) -> None:
        for name, text in (("tasks", ""), ("schemata", "    L3:0=fff;1=fff\n    MB:0=100;1=100\n")):
            Path(path, name).write_text(text)
        for number, domain in enumerate(("mon_L3_00", "mon_L3_01")):
            Path(path, "mon_data", domain).mkdir(parents=True)
            for file in ("llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"):
                Path(path, "mon_data", domain, file).write_text(f"{len(file) + number}\n")
        if "mon_groups" not in path:
            Path(path, "mon_groups").mkdir()

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        if str(path).removeprefix(self.root + "/") in self.refuses:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.mkdir(path, mode)
        self._fill(path)

    def rmdir(self, path: str) -> None:
        shutil.rmtree(path)  # with the kernel's files in it, which are no obstacle

    def read(self, path: str) -> str:
        return Path(self.root, path).read_text()

    def groups(self) -> set[str]:
        """Groups that were made, by path below the root."""
        found = set()
        for path, directories, _ in os.walk(self.root):
            directories[:] = [name for name in directories if name not in ("info", "mon_data")]
            found |= {os.path.relpath(f"{path}/{name}", self.root) for name in directories if name != "mon_groups"}
        return found


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


def make(kernel: Kernel, rdt: dict[str, Any], pid: int = 4711) -> Group:
    """As create does it."""
    group = Group.of(rdt, "c1", kernel.root)
    group.make(rdt)
    group.add(pid)
    return Group.restore(group.save())


def test_where_it_is_mounted() -> None:
    line = "36 25 0:32 / /sys/fs/res\\040ctrl rw,relatime shared:12 - resctrl resctrl rw\n"
    other = "35 25 0:31 / /sys/fs/resctrl rw - tmpfs resctrl rw\n"
    assert resctrl.mounted(other + line) == "/sys/fs/res ctrl"
    assert resctrl.mounted(other) == ""


def test_a_group_of_its_own(kernel: Kernel) -> None:
    group = make(kernel, {"l3CacheSchema": "L3:0=f;1=f"})
    assert kernel.groups() == {"c1"}
    assert kernel.read("c1/schemata").startswith("L3:0=f;1=f\n") and kernel.read("c1/tasks") == "4711"
    group.remove()
    assert kernel.groups() == set()
    group.remove()  # twice does no harm


def test_the_order_of_the_shares(kernel: Kernel) -> None:
    """ "l3CacheSchema first and memBwSchema last", and "schemata field must be written last"."""
    rdt = {"schemata": ["L2:0=f", "MB:0=30"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=7f0"}
    assert resctrl.lines(rdt) == "L3:0=7f0\nMB:0=20\nL2:0=f\nMB:0=30\n"
    make(kernel, rdt)
    assert kernel.read("c1/schemata").startswith(resctrl.lines(rdt))


def test_nothing_is_written_that_is_not_asked_for(kernel: Kernel) -> None:
    """ "If none of l3CacheSchema, memBwSchema or schemata is set, runtimes MUST NOT write to schemata files" """
    before = kernel.read("schemata")
    make(kernel, {})
    assert kernel.read("c1/schemata") == kernel.read("schemata") == before


def test_a_class_of_service_must_be_there(kernel: Kernel) -> None:
    with pytest.raises(Error) as caught:
        make(kernel, {"closID": "gold"})
    assert caught.value.pointer == "/linux/intelRdt/closID" and kernel.groups() == set()


def test_a_class_of_service_is_made_with_shares_and_stays(kernel: Kernel) -> None:
    """ "If closID is set …, the runtime MUST NOT remove the sub-directory when the container is deleted." """
    group = make(kernel, {"closID": "gold", "schemata": ["MB:0=20"]})
    group.remove()
    assert kernel.groups() == {"gold"} and kernel.read("gold/tasks") == "4711"


def test_somebody_else_s_group_of_this_name_stays(kernel: Kernel) -> None:
    kernel.mkdir(f"{kernel.root}/c1")
    make(kernel, {}).remove()
    assert kernel.groups() == {"c1"}


def test_the_default_class(kernel: Kernel) -> None:
    make(kernel, {"closID": "/"}).remove()
    assert kernel.read("tasks") == "4711" and kernel.groups() == set()


@pytest.mark.parametrize(
    ("rdt", "fits"),
    [
        ({"l3CacheSchema": "L3:0=fff;1=fff"}, True),
        ({"l3CacheSchema": "L3:1=0FFF"}, True),  # the same, in other words
        ({"l3CacheSchema": "L3:00=fff"}, True),
        ({"l3CacheSchema": "L3:0=ff"}, False),
        ({"l3CacheSchema": "L3:2=fff"}, False),
        ({"memBwSchema": "MB:0=100;1=100"}, True),
        ({"memBwSchema": "MB:0=93"}, True),  # the kernel rounds up
        ({"memBwSchema": "MB:0=90"}, False),
        ({"schemata": ["MB:0=50"]}, True),  # only the other two are compared
    ],
)
def test_a_class_of_service_is_compared(kernel: Kernel, rdt: dict[str, Any], fits: bool) -> None:
    kernel.mkdir(f"{kernel.root}/gold")
    before = kernel.read("gold/schemata")
    if fits:
        make(kernel, {"closID": "gold", **rdt})
        return
    with pytest.raises(Error, match="is not what"):
        make(kernel, {"closID": "gold", **rdt})
    assert (kernel.read("gold/schemata"), kernel.read("gold/tasks")) == (before, "")


@pytest.mark.parametrize(("rdt", "where"), [({}, "c1"), ({"closID": "gold"}, "gold"), ({"closID": "/"}, ".")])
def test_monitoring(kernel: Kernel, rdt: dict[str, Any], where: str) -> None:
    """A group of the container's ID below its class, which goes with the container."""
    kernel.mkdir(f"{kernel.root}/gold")
    group = make(kernel, {**rdt, "enableMonitoring": True})
    monitor = os.path.normpath(f"{where}/mon_groups/c1")
    assert monitor in kernel.groups() and kernel.read(f"{monitor}/tasks") == "4711"
    group.remove()
    assert kernel.groups() == {"gold"}


def test_no_more_groups(kernel: Kernel) -> None:
    """ "If creation of the MON group fails … the runtime MUST return an error." It has the kernel's reason."""
    kernel.refuses.add("c1/mon_groups/c1")
    with pytest.raises(Error) as caught:
        make(kernel, {"enableMonitoring": True})
    assert "No space left" in caught.value.reason and "out of CLOSIDs" in caught.value.reason
    assert kernel.groups() == set()


def test_the_steps(kernel: Kernel) -> None:
    rdt = {"closID": "gold", "schemata": ["MB:0=20"], "enableMonitoring": True}
    group = Group.of(rdt, "c1", kernel.root)
    ctx = Context("c1", "/", {})
    ctx.init_pid = 17
    making, joining = MakeResctrlGroup(group, rdt), JoinResctrlGroup(group)
    for step in (making, joining):
        step.run(ctx)
        assert "gold" in step.describe()
    assert kernel.read("gold/mon_groups/c1/tasks") == kernel.read("gold/tasks") == "17"
    making.undo(ctx)
    assert kernel.groups() == set()


def test_all_threads_of_what_is_restored(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    group = make(kernel, {})
    added: list[int] = []
    monkeypatch.setattr(Group, "add", lambda self, pid: added.append(pid))
    ctx = Context("c1", "/", {})
    ctx.init_pid = os.getpid()
    JoinResctrlGroup(group, whole=True).run(ctx)
    assert added == [int(thread) for thread in os.listdir("/proc/self/task")]


def test_statistics(kernel: Kernel) -> None:
    group = make(kernel, {"l3CacheSchema": "L3:0=f;1=f", "enableMonitoring": True})
    Path(kernel.root, "c1/mon_groups/c1/mon_data/mon_L3_00/mbm_total_bytes").write_text("1234\n")
    Path(kernel.root, "c1/mon_groups/c1/mon_data/mon_L3_01/llc_occupancy").write_text("Unavailable\n")
    found = group.stats()
    assert found["l3_cache_info"] == {"cbm_mask": "fff", "min_cbm_bits": 1, "num_closids": 16}
    assert found["mem_bw_info"] == {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8}
    assert found["l3_cache_schema_root"] == "L3:0=fff;1=fff" and found["l3_cache_schema"] == "L3:0=f;1=f"
    assert found["schemata"][0] == "L3:0=f;1=f"
    assert found["mbm_stats"][0] == {"mbm_total_bytes": 1234, "mbm_local_bytes": 15}
    assert found["cmt_stats"] == [{"llc_occupancy": 13}, {"llc_occupancy": 0}]


def test_statistics_where_nothing_is_monitored(kernel: Kernel) -> None:
    shutil.rmtree(f"{kernel.root}/info/L3_MON")
    shutil.rmtree(f"{kernel.root}/info/L3")
    found = make(kernel, {}).stats()
    assert set(found) == {"mem_bw_info", "mem_bw_schema", "mem_bw_schema_root", "schemata"}


@pytest.mark.parametrize(
    ("rdt", "line"),
    [
        ({"l3CacheSchema": "L3:0=f"}, "/linux/intelRdt/l3CacheSchema: Intel RDT/CAT is not enabled: "),
        ({"memBwSchema": "MB:0=10"}, "/linux/intelRdt/memBwSchema: Intel RDT/MBA is not enabled: "),
    ],
)
def test_what_the_host_lacks(kernel: Kernel, rdt: dict[str, Any], line: str) -> None:
    resctrl.check(rdt, kernel.root)
    for name in ("L3", "MB"):
        shutil.rmtree(f"{kernel.root}/info/{name}")
    resctrl.check({}, kernel.root)
    for root in (kernel.root, ""):
        with pytest.raises(Error) as caught:
            resctrl.check(rdt, root)
        assert str(caught.value).startswith(line)


def test_a_host_without() -> None:
    with pytest.raises(Error) as caught:
        resctrl.check({}, "")
    assert str(caught.value) == "/linux/intelRdt: Intel RDT is not enabled: no resctrl file system is mounted"


BUSYBOX = shutil.which("busybox")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
@pytest.mark.skipif(BUSYBOX is None, reason="no busybox (Debian package busybox-static)")
def test_a_container_s_life(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> None:
    """Its process is put into the group, one more too; shares are changed, all or none; the group ends with it."""
    monkeypatch.setattr("pyrunc.resctrl.mounted", lambda: kernel.root)
    bundle = tmp_path_factory.mktemp("bundle")
    (bundle / "rootfs/bin").mkdir(parents=True)
    assert BUSYBOX is not None
    shutil.copy(BUSYBOX, bundle / "rootfs/bin/sleep")
    process = {"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"]}
    config = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": process,
        "linux": {
            "cgroupsPath": f"/pyrunc-test-resctrl-{os.getpid()}",
            "namespaces": [{"type": kind} for kind in ("pid", "mount")],
            "intelRdt": {"l3CacheSchema": "L3:0=f;1=f", "enableMonitoring": True},
        },
    }
    (bundle / "config.json").write_text(json.dumps(config))
    container = Container.create("c1", str(bundle), root=str(bundle / "state"))
    try:
        init = container.state()["pid"]
        for tasks in ("c1/tasks", "c1/mon_groups/c1/tasks"):
            assert kernel.read(tasks) == str(init)
        container.start()
        assert container.exec(process | {"args": ["sleep", "0"]}) == 0
        assert kernel.read("c1/tasks") != str(init)
        container.update({}, intel_rdt={"memBwSchema": "MB:0=50"})
        assert kernel.read("c1/schemata").startswith("L3:0=f;1=f\nMB:0=50\n")
        assert container.config()["linux"]["intelRdt"]["memBwSchema"] == "MB:0=50"
        before = kernel.read("c1/schemata").splitlines()[:2]
        with pytest.raises(Error):
            container.update({"cpu": {"cpus": "4000"}}, intel_rdt={"l3CacheSchema": "L3:0=1;1=1"})
        assert kernel.read("c1/schemata").splitlines()[:2] == before
        assert container.stats()["intel_rdt"]["l3_cache_schema"] == "L3:0=f;1=f"
    finally:
        container.delete(force=True)
    assert kernel.groups() == set()
    # a failure takes back what was made
    (bundle / "rootfs/bin/sleep").unlink()
    with pytest.raises(Error):
        Container.create("c1", str(bundle), root=str(bundle / "state"))
    assert kernel.groups() == set()
