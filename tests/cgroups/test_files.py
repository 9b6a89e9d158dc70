"""Managers on directories that are no cgroups: what is made, written, retried and said. No root."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pyrunc.cgroups import Layout, base, v2
from pyrunc.cgroups.base import Manager, Setting
from pyrunc.cgroups.v1 import V1
from pyrunc.cgroups.v2 import V2
from pyrunc.errors import Error

MISTAKABLE = ("no such file", "permission denied", "operation not permitted", "executable file not found")


class Kernel(V1):
    """A v1 manager whose files refuse and clamp as a kernel does; everything written is kept."""

    def __init__(self, directory: Path, *controllers: str, refuse: Any = None) -> None:
        super().__init__({c: f"{directory}/{c}" for c in controllers}, None, False)
        self.written: list[tuple[str, str]] = []
        self.refuse = refuse or (lambda setting, before: 0)

    def _write(self, directory: str, setting: Setting) -> None:
        if number := self.refuse(setting, dict(self.written)):
            raise OSError(number, os.strerror(number))
        self.written.append((setting.file, setting.value))


def fake_v2(root: Path, path: str, files: dict[str, str]) -> V2:
    """A v2 manager below a directory that has the files of a hierarchy's root."""
    (root / "cgroup.controllers").write_text("cpu memory pids\n")
    for directory in (root, *(root / "/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 1))):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (root / path).mkdir(exist_ok=True)
    for name, text in files.items():
        (root / path / name).write_text(text)
    return V2({"": f"{root}/{path}"}, str(root), False)


# -- apply


def test_a_setting_that_another_is_in_the_way_of_is_written_again_after_it(tmp_path: Path) -> None:
    """Raising both: the limit may not pass memory+swap. The kernel says EINVAL."""

    def refuse(setting: Setting, written: dict[str, str]) -> int:
        above = setting.file == "memory.limit_in_bytes" and "memory.memsw.limit_in_bytes" not in written
        return errno.EINVAL if above else 0

    manager = Kernel(tmp_path, "memory", refuse=refuse)
    for setting in manager.settings({"memory": {"limit": 5, "swap": 6}}, devices=False):
        manager.apply(setting)
    assert manager.written == [
        ("memory.memsw.limit_in_bytes", "6"),
        ("memory.limit_in_bytes", "5"),
        ("memory.memsw.limit_in_bytes", "6"),
    ]


def test_a_value_that_stays_refused_is_an_error_with_its_place(tmp_path: Path) -> None:
    manager = Kernel(
        tmp_path, "cpu", refuse=lambda setting, written: errno.EINVAL * (setting.file == "cpu.cfs_period_us")
    )
    first, second = manager.settings({"cpu": {"quota": 5, "period": 6}}, devices=False)
    with pytest.raises(Error) as e:
        manager.apply(first)
    assert str(e.value) == "/linux/resources/cpu/period: write '6' to cpu.cfs_period_us: Invalid argument"
    manager.apply(second)


def test_the_other_file_is_used_where_the_kernel_lacks_one(tmp_path: Path) -> None:
    manager = Kernel(tmp_path, "blkio", refuse=lambda s, written: errno.ENOENT * (s.file == "blkio.weight"))
    (setting,) = manager.settings({"blockIO": {"weight": 10}}, devices=False)
    manager.apply(setting)
    assert manager.written == [("blkio.bfq.weight", "10")]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EOPNOTSUPP, 524])
def test_what_is_optional_may_be_lacking(tmp_path: Path, number: int) -> None:
    manager = Kernel(tmp_path, "memory", refuse=lambda setting, written: number)
    optional, other = manager.settings({"memory": {"kernel": 1, "reservation": 1}}, devices=False)[::-1]
    manager.apply(optional)
    with pytest.raises(Error):
        manager.apply(other)
    assert manager.written == []


def test_a_controller_that_is_not_mounted_is_named(tmp_path: Path) -> None:
    manager = Kernel(tmp_path, "cpu")
    (setting,) = manager.settings({"memory": {"limit": 4096}}, devices=False)
    with pytest.raises(Error) as e:
        manager.apply(setting)
    assert e.value.pointer == "/linux/resources/memory/limit"
    assert e.value.reason == "the memory controller is not mounted"


@pytest.mark.parametrize("home", [V1, V2])
def test_without_a_cgroup_limits_are_refused_and_everything_else_goes(home: type[Manager]) -> None:
    manager = home({}, None, True)
    manager.create()
    manager.check_empty()
    manager.add(os.getpid())
    manager.join()
    manager.kill(0)
    manager.remove()
    assert not manager.frozen()
    for setting in manager.settings({"devices": [{"allow": False, "access": "rwm"}]}):
        manager.apply(setting)
    (setting,) = manager.settings({"pids": {"limit": 1}}, devices=False)
    with pytest.raises(Error) as e:
        manager.apply(setting)
    assert e.value.pointer == "/linux/resources/pids/limit"
    with pytest.raises(Error, match="cgroups not configured"):
        manager.freeze()


def test_device_rules_that_were_asked_for_are_not_dropped_for_want_of_a_controller(tmp_path: Path) -> None:
    (setting,) = V1({}, None, False).settings({"devices": [{"allow": False, "access": "rwm"}]})
    with pytest.raises(Error, match="devices controller is not mounted") as e:
        V1({}, None, False).apply(setting)
    assert e.value.pointer == "/linux/resources/devices"
    (unasked,) = V1({}, None, False).settings({})
    V1({}, None, False).apply(unasked)
    with pytest.raises(Error):  # some hierarchies, and not this one: not a machine without cgroups
        Kernel(tmp_path, "memory").apply(unasked)


@pytest.mark.parametrize("file", ["memory.max", "memory.high"])
def test_a_missing_file_does_not_read_like_a_missing_command(tmp_path: Path, file: str) -> None:
    manager = fake_v2(tmp_path, "a/web", {})
    with pytest.raises(Error) as e:
        manager.apply(Setting("memory", file, "1", "/linux/resources/unified/" + file))
    assert e.value.pointer == "/linux/resources/unified/" + file
    assert file in str(e.value)
    assert not [words for words in MISTAKABLE if words in str(e.value).lower()]
    assert not (tmp_path / "a/web" / file).exists(), "an ordinary file was made"


def test_v2_says_which_controller_the_machine_does_not_have(tmp_path: Path) -> None:
    manager = fake_v2(tmp_path, "a/web", {})

    def refuse(path: str, text: str) -> None:
        raise OSError(errno.ENOENT, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v2, "write", refuse)
        with pytest.raises(Error, match="this machine has no rdma controller on cgroup v2"):
            manager.apply(Setting("rdma", "rdma.max", "x", "/p"))


def test_v2_says_which_cgroup_has_processes_in_the_way(tmp_path: Path) -> None:
    manager = fake_v2(tmp_path, "a/web", {})
    (tmp_path / "a/cgroup.subtree_control").write_text("pids\n")

    def refuse(path: str, text: str) -> None:
        raise OSError(errno.EBUSY, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v2, "write", refuse)
        with pytest.raises(Error) as e:
            manager.apply(Setting("memory", "memory.max", "1", "/p"))
    assert e.value.reason == f"{tmp_path}/a has processes, and so can't hand the memory controller down"


def test_v2_writes_each_line_of_a_unified_value(tmp_path: Path) -> None:
    manager = fake_v2(tmp_path, "web", {"io.max": ""})
    manager.apply(Setting("io", "io.max", "8:0 rbps=1\n8:16 rbps=2\n", "/p"))
    assert (tmp_path / "web/io.max").read_text() == "8:0 rbps=18:16 rbps=2"


@pytest.mark.parametrize(("usage", "fits"), [("99\n", True), ("100\n", False), ("101\n", False)])
def test_check_before_update(tmp_path: Path, usage: str, fits: bool) -> None:
    manager = fake_v2(tmp_path, "web", {"memory.current": usage, "memory.max": ""})
    (setting,) = manager.settings({"memory": {"limit": 100, "checkBeforeUpdate": True}}, devices=False)
    if fits:
        manager.apply(setting)
        assert (tmp_path / "web/memory.max").read_text() == "100"
    else:
        with pytest.raises(Error, match=f"rejecting memory limit 100 <= usage {usage.strip()}"):
            manager.apply(setting)
        assert (tmp_path / "web/memory.max").read_text() == ""


def test_shares_that_the_kernel_clamps_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cpu.shares").write_text("2\n")

    class Clamping(V1):
        def _directory(self, setting: Setting) -> str:
            return str(tmp_path)

    manager = Clamping({"cpu": str(tmp_path)}, None, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyrunc.cgroups.v1.write_lines", lambda path, text: None)
        with pytest.raises(Error, match="the least that the kernel takes is 2"):
            manager.apply(Setting("cpu", "cpu.shares", "1", "/p"))
        manager.apply(Setting("cpu", "cpu.shares", "2", "/p"))


# -- directories


def test_create_makes_parents_and_takes_back_what_it_made_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "one/there").mkdir(parents=True)
    (tmp_path / "two").write_text("no directory")
    manager = V1({"pids": f"{tmp_path}/one/there/pod/web", "cpu": f"{tmp_path}/two/web"}, None, False)
    with pytest.raises(Error) as e:
        manager.create()
    assert e.value.action == f"make cgroup {tmp_path}/two/web"
    assert [p.name for p in (tmp_path / "one/there").iterdir()] == []


def test_remove_after_create_takes_the_new_parents_too_and_a_restored_manager_does_not(tmp_path: Path) -> None:
    manager = V1({"pids": f"{tmp_path}/pod/web"}, None, False)
    manager.create()
    manager.remove()
    assert list(tmp_path.iterdir()) == []
    manager.create()
    manager.restore(manager.save()).remove()
    assert [p.name for p in tmp_path.iterdir()] == ["pod"]


def test_parents_that_others_use_stay(tmp_path: Path) -> None:
    manager = V1({"pids": f"{tmp_path}/pod/web"}, None, False)
    manager.create()
    (tmp_path / "pod/other").mkdir()
    with pytest.MonkeyPatch.context() as patch:  # an ordinary file system says ENOTEMPTY, cgroup's EBUSY
        real = os.rmdir

        def rmdir(path: str) -> None:
            try:
                real(path)
            except OSError as e:
                raise OSError(errno.EBUSY if e.errno == errno.ENOTEMPTY else e.errno, path) from None

        patch.setattr(os, "rmdir", rmdir)
        manager.remove()
    assert [p.name for p in (tmp_path / "pod").iterdir()] == ["other"]


def test_remove_of_what_is_gone_is_fine(tmp_path: Path) -> None:
    V1({"pids": f"{tmp_path}/gone/web"}, None, False).remove()


def test_remove_waits_for_a_busy_cgroup_and_gives_up_in_the_end(tmp_path: Path) -> None:
    manager = V1({"pids": f"{tmp_path}/web"}, None, False)
    manager.create()
    waits: list[float] = []
    busy = [3]

    def rmdir(path: str) -> None:
        if busy[0]:
            busy[0] -= 1
            raise OSError(errno.EBUSY, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rmdir", rmdir)
        patch.setattr(time, "sleep", waits.append)
        manager.remove()
        assert waits == [0.0001, 0.0002, 0.0004]
        waits.clear()
        busy[0] = 1000
        with pytest.raises(Error, match="the cgroup is busy"):
            manager.remove()
    assert 1 < sum(waits) < 3


def test_rootless_goes_without_what_it_may_not_make(tmp_path: Path) -> None:
    def create(rootless: bool) -> V1:
        manager = V1({"pids": f"{tmp_path}/a/web", "cpu": f"{tmp_path}/b/web"}, None, rootless)

        def mkdir(path: str, mode: int) -> None:
            if path.startswith(f"{tmp_path}/b"):
                raise OSError(errno.EACCES, path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "mkdir", mkdir)
            patch.setattr(os, "rmdir", lambda path: None)
            manager.create()
        return manager

    assert create(rootless=True).paths == {"pids": f"{tmp_path}/a/web"}
    with pytest.raises(Error) as e:
        create(rootless=False)
    assert not [words for words in MISTAKABLE if words in str(e.value).lower()]


def test_rootless_leaves_nothing_of_what_it_may_make_and_not_use(tmp_path: Path) -> None:
    manager = V1({"pids": f"{tmp_path}/a/web", "cpuset": f"{tmp_path}/b/web"}, None, True)

    def read(path: str) -> str:
        raise OSError(errno.EACCES, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyrunc.cgroups.v1.read", read)
        manager.create()
    assert manager.paths == {"pids": f"{tmp_path}/a/web"}
    assert not (tmp_path / "b/web").exists()


@pytest.mark.parametrize("kind", ["threaded", "domain invalid"])
def test_v2_refuses_a_place_where_no_process_can_live(tmp_path: Path, kind: str) -> None:
    manager = fake_v2(tmp_path, "a/web", {"cgroup.type": kind + "\n"})
    with pytest.raises(Error, match=f"its type is '{kind}'") as e:
        manager.create()
    assert e.value.action == f"make cgroup {tmp_path}/a/web"


def test_v2_hands_down_every_controller_that_there_is(tmp_path: Path) -> None:
    manager = fake_v2(tmp_path, "a/b/web", {"cgroup.type": "domain\n"})
    (tmp_path / "a/cgroup.subtree_control").write_text("")
    (tmp_path / "a/b/cgroup.subtree_control").write_text("")
    manager.create()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "cpu memory pids\n"
    assert (tmp_path / "a/cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (tmp_path / "a/b/cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_v2_hands_down_one_by_one_what_can_be_had(tmp_path: Path) -> None:
    written: list[str] = []

    def write(path: str, text: str) -> None:
        if "cpu" in text:
            raise OSError(errno.EINVAL, path)
        written.append(text)

    fake_v2(tmp_path, "a/web", {})
    (tmp_path / "a/cgroup.subtree_control").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v2, "write", write)
        v2.hand_down(str(tmp_path), str(tmp_path / "a"))
    assert written == ["+memory", "+pids"]


def test_delegation_is_of_the_directory_and_the_files_that_the_kernel_lists(tmp_path: Path) -> None:
    manager = fake_v2(tmp_path, "web", {"cgroup.procs": "", "cgroup.threads": "", "memory.max": ""})
    given: list[str] = []

    def chown(path: str, uid: int, gid: int) -> None:
        assert (uid, gid) == (1000, -1)
        os.stat(path)
        given.append(path.removeprefix(str(tmp_path)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "chown", chown)
        manager.delegate(1000)
        V1({"pids": str(tmp_path)}, None, False).delegate(1000)
    assert given[0] == "/web"
    assert {"/web/cgroup.procs", "/web/cgroup.threads"} <= set(given)
    assert "/web/memory.max" not in given


# -- processes


def test_procs_are_those_of_the_cgroups_below_too(tmp_path: Path) -> None:
    for directory, text in (("", "1\n2\n"), ("a", "3\n0\n"), ("a/b", "")):
        (tmp_path / directory).mkdir(exist_ok=True)
        (tmp_path / directory / "cgroup.procs").write_text(text)
    manager = V1({"freezer": str(tmp_path)}, None, False)
    assert sorted(manager.procs()) == [1, 2, 3]
    assert manager.procs(recursive=False) == [1, 2]
    assert V1({"freezer": str(tmp_path / "gone")}, None, False).procs() == []


def test_a_new_task_is_tried_again_and_an_empty_cpuset_explained(tmp_path: Path) -> None:
    manager = V1({"cpuset": str(tmp_path)}, None, False)
    failures = [errno.EINVAL, errno.EINVAL]

    def write(path: str, text: str) -> None:
        if failures:
            raise OSError(failures.pop(0), path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "write", write)
        manager.add(1)
        assert failures == []
        failures[:] = [errno.ENOSPC]
        with pytest.raises(Error, match="no CPUs or no memory nodes"):
            manager.add(1)
        failures[:] = [errno.ESRCH]
        with pytest.raises(Error, match="the process has ended"):
            manager.add(1)


def test_the_own_process_joins_by_tasks_on_v1_and_by_procs_on_v2(tmp_path: Path) -> None:
    layout = Layout()
    layout.v1, layout.unified, layout.mode = {"pids": str(tmp_path / "p")}, str(tmp_path / "u"), "hybrid"
    manager = V1(V1.place("/web", layout, {}), layout.unified, False)
    for file in ("p/web/tasks", "p/web/cgroup.procs", "u/web/cgroup.procs"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")

    def joined() -> list[str]:
        return [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*")) if p.is_file() and p.read_text()]

    manager.enter(manager.doors(unified=False))
    assert joined() == ["p/web/tasks"]
    manager.join()
    assert joined() == ["p/web/tasks", "u/web/cgroup.procs"]


def test_what_is_to_be_joined_below(tmp_path: Path) -> None:
    for directory in ("m/web/a/b", "cpu,cpuacct/web/a", "p/web/a"):
        (tmp_path / directory).mkdir(parents=True)
    shared = f"{tmp_path}/cpu,cpuacct/web"
    manager = V1(
        {"memory": f"{tmp_path}/m/web", "cpu": shared, "cpuacct": shared, "pids": f"{tmp_path}/p/web"}, None, False
    )

    def of(**subgroups: str) -> dict[str, str]:
        return {c: os.path.relpath(p, tmp_path) for c, p in manager.within(subgroups).paths.items()}

    assert of(memory="a/b/", cpu="/a") == {
        "memory": "m/web/a/b", "cpu": "cpu,cpuacct/web/a", "cpuacct": "cpu,cpuacct/web/a", "pids": "p/web",
    }  # fmt: skip
    assert set(manager.within({"": "./a"}).dirs) == {f"{tmp_path}/{top}/web/a" for top in ("m", "cpu,cpuacct", "p")}
    assert manager.within({"": "/"}).paths == manager.paths


@pytest.mark.parametrize(
    ("subgroups", "words"),
    [
        ({"": ".."}, "bad sub cgroup path"),
        ({"": "../webber"}, "bad sub cgroup path"),
        ({"": "a/../../x"}, "bad sub cgroup path"),
        ({"memory": "/"}, "unknown controller memory"),
        ({"cpu": "nosuch"}, "adding pid .* to cgroups: .*/web/nosuch: no such file or directory"),
        ({"cpu": "a", "cpuacct": "b"}, "cpuacct shares its hierarchy"),
    ],
)
def test_what_can_not_be_joined_below(tmp_path: Path, subgroups: dict[str, str], words: str) -> None:
    for name in ("web/a", "web/b", "webber"):
        (tmp_path / name).mkdir(parents=True)
    manager = V1({"cpu": f"{tmp_path}/web", "cpuacct": f"{tmp_path}/web"}, None, False)
    with pytest.raises(Error, match=words):
        manager.within(subgroups)


def test_remove_goes_on_where_one_is_busy(tmp_path: Path) -> None:
    manager = V1({"cpu": f"{tmp_path}/cpu", "pids": f"{tmp_path}/pids"}, None, False)
    manager.create()
    real = os.rmdir

    def rmdir(path: str) -> None:
        if path.endswith("/cpu"):
            raise OSError(errno.EBUSY, path)
        real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rmdir", rmdir)
        patch.setattr(time, "sleep", lambda seconds: None)
        with pytest.raises(Error, match="the cgroup is busy"):
            manager.remove()
    assert [p.name for p in tmp_path.iterdir()] == ["cpu"]


def test_huge_pages_of_a_size_that_the_kernel_lacks(tmp_path: Path) -> None:
    for name in ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.numa_stat", "hugetlb.1GB.limit_in_bytes"):
        (tmp_path / name).write_text("")
    manager = V1({"hugetlb": str(tmp_path)}, None, False)
    (setting, _) = manager.settings({"hugepageLimits": [{"pageSize": "4MB", "limit": 1}]}, devices=False)
    with pytest.raises(Error, match="the kernel has huge pages of 1GB, 2MB"):
        manager.apply(setting)
