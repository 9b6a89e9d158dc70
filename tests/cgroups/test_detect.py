"""Which hierarchies there are, and where in them a container's cgroups are. Pure: texts in, paths out."""

from __future__ import annotations

import pytest

from pyrunc.cgroups import clean, detect, manager, restore, unescape
from pyrunc.errors import Error

HYBRID = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset,noprefix
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
V1 = "".join(line + "\n" for line in HYBRID.splitlines() if "cgroup2" not in line)
V2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
NONE = HYBRID.splitlines()[0] + "\n"
NESTED = """\
80 70 0:31 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory
81 70 0:32 / /sys/fs/cgroup/devices ro,nosuid - cgroup cgroup rw,devices
"""

OWN = """\
9:name=systemd:/s
4:memory:/user/me
3:cpuset:/
2:cpu,cpuacct:/
1:devices:/
0::/user.slice/mine.scope
"""


def test_mode_is_told_from_mountinfo() -> None:
    assert [detect(text).mode for text in (V1, HYBRID, V2, NONE, "")] == [
        "v1",
        "hybrid",
        "v2",
        "none",
        "none",
    ]


def test_each_controller_has_its_mount_point_and_options_are_no_controllers() -> None:
    layout = detect(HYBRID)
    assert layout.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuset": "/sys/fs/cgroup/cpuset",
        "memory": "/sys/fs/cgroup/memory",
        "devices": "/sys/fs/cgroup/devices",
    }
    assert layout.named == {"name=systemd": "/sys/fs/cgroup/systemd"}
    assert layout.unified == "/sys/fs/cgroup/unified"


def test_v2_is_taken_at_its_usual_place_wherever_else_it_is_mounted() -> None:
    elsewhere = V2.replace("/sys/fs/cgroup", "/mnt/cg")
    assert detect(elsewhere).unified == "/mnt/cg"
    assert detect(elsewhere + V2).unified == "/sys/fs/cgroup"
    assert detect(V2 + elsewhere).unified == "/sys/fs/cgroup"


def test_of_two_mounts_of_a_v1_controller_the_first_is_taken() -> None:
    layout = detect(V1 + V1.replace("/sys/fs/cgroup", "/run/container/sys/fs/cgroup"))
    assert layout.v1["memory"] == "/sys/fs/cgroup/memory"


def test_a_v1_net_cls_mounted_beside_v2_does_not_make_the_machine_hybrid() -> None:
    assert detect(V2 + V1.splitlines()[4].replace("/sys/fs/cgroup/memory", "/mnt/m")).mode == "v2"


def test_mount_points_are_unescaped() -> None:
    assert unescape(r"/a\040b\011c\134d") == "/a b\tc\\d"
    assert detect(V2.replace("/sys/fs/cgroup", r"/c\040g")).unified == "/c g"


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("", ""),
        ("/", "/"),
        ("/a//b/./c/", "/a/b/c"),
        ("/../../a", "/a"),
        ("/a/../..", "/"),
        ("../../a", "a"),
        ("a/../../../etc", "etc"),
        ("..", ""),
        ("...", "..."),
    ],
)
def test_no_cgroups_path_leads_out_of_its_hierarchy(path: str, cleaned: str) -> None:
    assert clean(path) == cleaned


@pytest.mark.parametrize("path", ["/", "/..", "/a/..", ".", "..", "a/.."])
@pytest.mark.parametrize("mountinfo", [V1, HYBRID, V2])
def test_the_root_cgroup_is_refused(path: str, mountinfo: str) -> None:
    with pytest.raises(Error) as e:
        manager(path, "web", detect(mountinfo), OWN)
    assert e.value.pointer == "/linux/cgroupsPath"


def test_absolute_path_is_taken_from_each_mount_point() -> None:
    paths = manager("/pod/web", "id", detect(HYBRID), OWN).paths
    assert paths == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/pod/web",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/pod/web",
        "cpuset": "/sys/fs/cgroup/cpuset/pod/web",
        "memory": "/sys/fs/cgroup/memory/pod/web",
        "devices": "/sys/fs/cgroup/devices/pod/web",
        "name=systemd": "/sys/fs/cgroup/systemd/pod/web",
        "": "/sys/fs/cgroup/unified/pod/web",
    }


def test_co_mounted_controllers_are_one_directory() -> None:
    dirs = manager("/web", "id", detect(HYBRID), OWN).dirs
    assert dirs.count("/sys/fs/cgroup/cpu,cpuacct/web") == 1
    assert len(dirs) == 6


@pytest.mark.parametrize("path", ["", "web", "./x/../web", "../../web"])
def test_relative_or_no_path_is_below_the_runtimes_own_cgroup(path: str) -> None:
    paths = manager(path, "web", detect(HYBRID), OWN).paths
    assert paths["memory"] == "/sys/fs/cgroup/memory/user/me/web"
    assert paths["cpuset"] == "/sys/fs/cgroup/cpuset/web"
    assert paths["name=systemd"] == "/sys/fs/cgroup/systemd/s/web"
    assert paths[""] == "/sys/fs/cgroup/unified/web"


def test_on_v2_a_relative_path_is_beside_the_runtimes_own_cgroup() -> None:
    assert manager("", "web", detect(V2), OWN).paths == {"": "/sys/fs/cgroup/user.slice/web"}
    assert manager("a/b", "web", detect(V2), "0::/\n").paths == {"": "/sys/fs/cgroup/a/b"}
    assert manager("/a/b", "web", detect(V2), OWN).paths == {"": "/sys/fs/cgroup/a/b"}


def test_in_a_nested_container_the_own_cgroup_is_found_below_the_mounts_root() -> None:
    layout = detect(NESTED)
    own = "4:memory:/docker/abc/sub\n1:devices:/docker/abc\n"
    paths = manager("", "web", layout, own).paths
    assert paths["memory"] == "/sys/fs/cgroup/memory/sub/web"
    assert paths["devices"] == "/sys/fs/cgroup/devices/docker/abc/web"
    outside = manager("", "web", layout, "4:memory:/docker/abcdef\n1:devices:/../x\n").paths
    assert outside["memory"] == "/sys/fs/cgroup/memory/web"
    assert outside["devices"] == "/sys/fs/cgroup/devices/web"


def test_without_cgroups_there_are_no_paths() -> None:
    found = manager("", "web", detect(NONE), "")
    assert found.paths == {}
    assert not found.exists()
    assert found.procs() == []


@pytest.mark.parametrize("mountinfo", [V1, HYBRID, V2, NONE])
def test_a_saved_manager_is_restored(mountinfo: str) -> None:
    before = manager("/pod/web", "id", detect(mountinfo), OWN)
    after = restore(before.save())
    assert type(after) is type(before)
    assert after.save() == before.save()
    assert after.dirs == before.dirs
    assert before.restore(before.save()).paths == before.paths
