"""The rules beyond the schema: each with what it takes and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from config_samples import CONTAINERD, ENGINES, PLAIN, PODMAN, changed

from pyrunc import config as configs
from pyrunc.cli.features import structure
from pyrunc.config import rules
from pyrunc.config._table import CONFIG
from pyrunc.config.check import go_decoded, valid
from pyrunc.errors import Error

ROOT_MAPPING = [{"containerID": 0, "hostID": 100000, "size": 65536}]
NO_USER_NAMESPACE = PODMAN["linux"]["namespaces"][:5]


def namespaces(*types: str, **paths: str) -> list[dict[str, str]]:
    return [{"type": name} for name in types] + [{"type": name, "path": path} for name, path in paths.items()]


def seccomp(**values: Any) -> dict[str, Any]:
    return {"linux__seccomp": {"defaultAction": "SCMP_ACT_ALLOW"} | values}


def runs(*triples: tuple[int, int, int]) -> list[dict[str, int]]:
    return [{"containerID": a, "hostID": b, "size": n} for a, b, n in triples]


def device(path: str, kind: str = "c", major: int = 1, minor: int = 3) -> dict[str, Any]:
    return {"path": path, "type": kind, "major": major, "minor": minor}


def judge(config: dict[str, Any]) -> None:
    """All rules that need no host."""
    config = go_decoded(config, CONFIG)
    assert valid(config, CONFIG), "a rule is for what the schema can't say"
    for rule in rules.RULES:
        rule(config)


TAKEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (PLAIN, {}),
    "podman": (PODMAN, {}),
    "containerd": (CONTAINERD, {}),
    "no linux section": ({key: PLAIN[key] for key in ("ociVersion", "root", "process")}, {}),
    "version of the future": (PLAIN, {"ociVersion": "1.99.0"}),
    "version in development": (PLAIN, {"ociVersion": "1.2.0+dev"}),
    "soft limit at the hard limit": (
        PLAIN,
        {
            "process__rlimits": [
                {"type": "RLIMIT_CPU", "soft": 5, "hard": 5},
                {"type": "RLIMIT_AS", "soft": 0, "hard": 9},
            ]
        },
    ),
    "big console without a terminal": (
        PLAIN,
        {"process__terminal": False, "process__consoleSize": {"height": 2**63, "width": 1}},
    ),
    "big property beside the console's": (PLAIN, {"process__consoleSize": {"height": 1, "width": 1, "depth": 2**63}}),
    "empty host name without uts": (PLAIN, {"hostname": "", "linux__namespaces": namespaces("mount")}),
    "host name in a joined uts": (PLAIN, {"linux__namespaces": namespaces("mount", uts="/proc/1/ns/uts")}),
    "no paths without mount": (
        PLAIN,
        {"linux__namespaces": namespaces("uts"), "linux__maskedPaths": [], "linux__readonlyPaths": []},
    ),
    "namespace with an empty path is new": (
        PODMAN,
        {"linux__namespaces": [*NO_USER_NAMESPACE, {"type": "user", "path": ""}]},
    ),
    "empty mappings without user": (PLAIN, {"linux__uidMappings": [], "linux__gidMappings": []}),
    "joined user namespace without mappings": (
        PODMAN,
        {
            "linux__namespaces": NO_USER_NAMESPACE + namespaces(user="/u"),
            "linux__uidMappings": [],
            "linux__gidMappings": [],
        },
    ),
    "any id in a joined user namespace": (
        PODMAN,
        {"linux__namespaces": NO_USER_NAMESPACE + namespaces(user="/u"), "process__user__uid": 4000000000},
    ),
    "mapping in pieces": (
        PODMAN,
        {"linux__uidMappings": runs((0, 1000, 1), (1, 100000, 999), (1000, 200000, 1), (2000, 0, 1000))},
    ),
    "last id of a mapping": (PODMAN, {"process__user__uid": 65535, "process__user__additionalGids": [65535]}),
    "half a user is root's other half": (PODMAN, {"process__user": {"uid": 5}}),
    "no user is root": (PODMAN, {"process": {"cwd": "/", "args": ["a"]}}),
    "no process: it is asked for at start": (PLAIN, {"process": None}),
    "mapping to the last id": (PODMAN, {"linux__uidMappings": runs((0, 0, 4294967295))}),
    "time offsets": (
        PLAIN,
        {
            "linux__namespaces": namespaces("time", "uts", "mount"),
            "linux__timeOffsets": {"monotonic": {"secs": -1, "nanosecs": 999999999}, "boottime": {}},
        },
    ),
    "no time offsets without time": (PLAIN, {"linux__timeOffsets": {}}),
    "network devices": (
        PLAIN,
        {
            "linux__netDevices": {
                "eth0": {},
                "eth1": {"name": "e" * 15},
                "a%d": {"name": "net%d"},
                "b": {"name": "net%d"},
            }
        },
    ),
    "sysctl of ipc": (PLAIN, {"linux__sysctl": {"kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "5"}}),
    "sysctl of network": (PLAIN, {"linux__sysctl": {"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/mtu": "9"}}),
    "sysctl of uts": (PLAIN, {"linux__sysctl": {"kernel.domainname": "a"}}),
    "sysctl of user": (PODMAN, {"linux__sysctl": {"user.max_user_namespaces": "5"}}),
    "sysctl by slashes": (PLAIN, {"linux__sysctl": {"kernel/msgmax": "8193"}}),
    "a FIFO has no numbers": (PLAIN, {"linux__devices": [{"path": "/dev/x", "type": "p"}]}),
    "one device at two paths": (PLAIN, {"linux__devices": [device("/dev/a"), device("/dev/b", "u")]}),
    "one device twice": (PLAIN, {"linux__devices": [device("/dev/a"), device("/dev/a", "u")]}),
    "largest device": (PLAIN, {"linux__devices": [device("/dev/a", "b", 4095, 1048575)]}),
    "errno of ERRNO": (PLAIN, seccomp(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=1)),
    "errno of TRACE": (PLAIN, seccomp(syscalls=[{"names": ["a"], "action": "SCMP_ACT_TRACE", "errnoRet": 2}])),
    "an agent": (
        PLAIN,
        seccomp(syscalls=[{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}], listenerPath="/run/agent"),
    ),
    "listener that nobody needs": (PLAIN, seccomp(listenerPath="/run/agent", listenerMetadata="x")),
    "empty values of what comes later": (
        PLAIN,
        {
            "process__apparmorProfile": "",
            "process__selinuxLabel": "",
            "linux__mountLabel": "",
            "linux__netDevices": {},
            "mounts": [{"destination": "/x", "options": ["rro"], "uidMappings": [], "gidMappings": []}],
        },
    ),
    "when and where it runs": (
        PLAIN,
        {
            "process__scheduler": {"policy": "SCHED_DEADLINE", "nice": 99, "runtime": 1, "deadline": 2, "period": 3},
            "process__ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
            "process__execCPUAffinity": {"initial": "", "final": "0-3,7"},
            "linux__memoryPolicy": {"mode": "MPOL_PREFERRED", "flags": []},
            "linux__personality": {"domain": "LINUX32", "flags": []},
        },
    ),
    "null values of when and where it runs": (
        PLAIN,
        {
            "process__scheduler": None,
            "process__ioPriority": None,
            "process__execCPUAffinity": None,
            "linux__memoryPolicy": None,
            "linux__personality": None,
        },
    ),
    "null values of what comes later": (
        PLAIN,
        {
            "linux__intelRdt": None,
        },
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_takes(name: str) -> None:
    base, values = TAKEN[name]
    judge(changed(base, **values))


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (PLAIN, {"ociVersion": "2.0.0"}, '/ociVersion: version "2.0.0" can\'t be read, only 1.x'),
    (PLAIN, {"ociVersion": "0.2.0"}, '/ociVersion: version "0.2.0" can\'t be read, only 1.x'),
    (PLAIN, {"ociVersion": "10.0.0"}, '/ociVersion: version "10.0.0" can\'t be read, only 1.x'),
    (PLAIN, {"process__args": None}, "/process/args: is required"),
    (
        PLAIN,
        {"process__rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 5}] * 2},
        "/process/rlimits/1/type: RLIMIT_CPU comes twice",
    ),
    (
        PLAIN,
        {"process__rlimits": [{"type": "RLIMIT_CPU", "soft": 6, "hard": 5}]},
        "/process/rlimits/0/soft: soft limit 6 is above the hard limit 5",
    ),
    (
        PLAIN,
        {"process__consoleSize": {"height": 65536, "width": 1}},
        "/process/consoleSize/height: 65536 is more than 65535",
    ),
    (PLAIN, {"linux__namespaces": namespaces("pid", "uts", "pid")}, "/linux/namespaces/2/type: pid comes twice"),
    (
        PLAIN,
        {"linux__namespaces": namespaces("pid", pid="/proc/1/ns/pid")},
        "/linux/namespaces/1/type: pid comes twice",
    ),
    (PLAIN, {"linux__namespaces": namespaces("mount")}, "/hostname: needs a uts namespace"),
    (
        PLAIN,
        {"linux__namespaces": namespaces("mount"), "hostname": "", "domainname": "d"},
        "/domainname: needs a uts namespace",
    ),
    (PLAIN, {"linux__namespaces": namespaces("uts")}, "/linux/maskedPaths: needs a mount namespace"),
    (
        PLAIN,
        {"linux__namespaces": namespaces("uts"), "linux__maskedPaths": []},
        "/linux/readonlyPaths: needs a mount namespace",
    ),
    (PODMAN, {"linux__namespaces": NO_USER_NAMESPACE}, "/linux/uidMappings: needs a user namespace"),
    (
        PODMAN,
        {"linux__namespaces": NO_USER_NAMESPACE, "linux__uidMappings": []},
        "/linux/gidMappings: needs a user namespace",
    ),
    (PODMAN, {"linux__uidMappings": []}, "/linux/uidMappings: is required for a new user namespace"),
    (PODMAN, {"linux__gidMappings": None}, "/linux/gidMappings: is required for a new user namespace"),
    (PODMAN, {"linux__uidMappings": runs((1, 1000, 5))}, "/linux/uidMappings: must map uid 0 of the container"),
    (PODMAN, {"linux__uidMappings": runs((0, 1000, 0))}, "/linux/uidMappings/0/size: 0 ids can't be mapped"),
    (
        PODMAN,
        {"linux__uidMappings": runs(*((i, i, 1) for i in range(341)))},
        "/linux/uidMappings: 341 runs of ids are more than the kernel's 340",
    ),
    (
        PODMAN,
        {"linux__uidMappings": runs((0, 0, 10), (9, 100, 5))},
        "/linux/uidMappings/1/containerID: overlaps an earlier mapping",
    ),
    (
        PODMAN,
        {"linux__gidMappings": runs((0, 5, 10), (10, 0, 6))},
        "/linux/gidMappings/1/hostID: overlaps an earlier mapping",
    ),
    (
        PODMAN,
        {"linux__uidMappings": runs((0, 1, 4294967295))},
        "/linux/uidMappings/0/hostID: runs past the last id, 4294967294",
    ),
    (
        PODMAN,
        {"process__user__uid": 65536},
        "/process/user/uid: unknown user namespace mapping: uid 65536 is not in linux.uidMappings",
    ),
    (
        PODMAN,
        {"process__user__gid": 70000},
        "/process/user/gid: unknown user namespace mapping: gid 70000 is not in linux.gidMappings",
    ),
    (
        PODMAN,
        {"process__user__additionalGids": [0, 70000]},
        "/process/user/additionalGids/1: unknown user namespace mapping: gid 70000 is not in linux.gidMappings",
    ),
    (PLAIN, {"linux__timeOffsets": {"boottime": {"secs": 1}}}, "/linux/timeOffsets: needs a time namespace"),
    (
        PLAIN,
        {"linux__timeOffsets": {"boottime": {}}, "linux__namespaces": namespaces("uts", "mount", time="/t")},
        "/linux/timeOffsets: can't be set in a time namespace that is joined",
    ),
    (
        PLAIN,
        {"linux__timeOffsets": {"wall": {}}, "linux__namespaces": namespaces("uts", "mount", "time")},
        "/linux/timeOffsets/wall: is not a clock: monotonic or boottime",
    ),
    (
        PLAIN,
        {
            "linux__timeOffsets": {"boottime": {"nanosecs": 10**9}},
            "linux__namespaces": namespaces("uts", "mount", "time"),
        },
        "/linux/timeOffsets/boottime/nanosecs: is a second or more",
    ),
    (
        PLAIN,
        {"linux__sysctl": {"net.core.somaxconn": "1"}, "linux__namespaces": namespaces("uts", "mount")},
        "/linux/sysctl/net.core.somaxconn: needs a network namespace",
    ),
    (
        PLAIN,
        {"linux__sysctl": {"fs.mqueue.msg_max": "1"}, "linux__namespaces": namespaces("uts", "mount")},
        "/linux/sysctl/fs.mqueue.msg_max: needs an ipc namespace",
    ),
    (
        PLAIN,
        {"linux__sysctl": {"kernel/sem": "1"}, "linux__namespaces": namespaces("uts", "mount")},
        "/linux/sysctl/kernel~1sem: needs an ipc namespace",
    ),
    (
        PLAIN,
        {"hostname": "", "linux__sysctl": {"kernel.domainname": "1"}, "linux__namespaces": namespaces("mount")},
        "/linux/sysctl/kernel.domainname: needs a uts namespace",
    ),
    (
        PLAIN,
        {"linux__sysctl": {"user.max_pid_namespaces": "1"}},
        "/linux/sysctl/user.max_pid_namespaces: needs a user namespace",
    ),
    (PLAIN, {"linux__sysctl": {"kernel.hostname": "a"}}, "/linux/sysctl/kernel.hostname: is set by /hostname"),
    (
        PLAIN,
        {"linux__sysctl": {"kernel.core_pattern": "|/x"}},
        "/linux/sysctl/kernel.core_pattern: belongs to no namespace, so it would be set for the whole host",
    ),
    *(
        (
            PLAIN,
            {"linux__sysctl": {key: "1"}},
            f"/linux/sysctl/{key.replace('/', '~1')}: is not the name of a kernel parameter",
        )
        for key in ("net/../kernel/core_pattern", "net..ipv4", "net.", "net.//", ".net", "", "/net/a", "net.//.a")
    ),
    (
        PLAIN,
        {"linux__devices": [device("/dev/a"), device("/dev/a", "b")]},
        "/linux/devices/1/path: /dev/a is another device already",
    ),
    (
        PLAIN,
        {"linux__devices": [device("/dev/a", "p"), device("/dev/a")]},
        "/linux/devices/1/path: /dev/a is another device already",
    ),
    (PLAIN, {"linux__devices": [device("/dev/a", "c", -1)]}, "/linux/devices/0/major: -1 is not from 0 to 4095"),
    (
        PLAIN,
        {"linux__devices": [device("/dev/a", "b", 1, 1048576)]},
        "/linux/devices/0/minor: 1048576 is not from 0 to 1048575",
    ),
    (PLAIN, seccomp(listenerMetadata="x"), "/linux/seccomp/listenerMetadata: needs listenerPath"),
    (
        PLAIN,
        seccomp(defaultErrnoRet=1),
        "/linux/seccomp/defaultErrnoRet: goes with SCMP_ACT_ERRNO or SCMP_ACT_TRACE, not with SCMP_ACT_ALLOW",
    ),
    (
        PLAIN,
        seccomp(syscalls=[{"names": ["a"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]),
        "/linux/seccomp/syscalls/0/errnoRet: goes with SCMP_ACT_ERRNO or SCMP_ACT_TRACE, not with SCMP_ACT_KILL",
    ),
    (
        PLAIN,
        seccomp(syscalls=[{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}], listenerPath=""),
        "/linux/seccomp/listenerPath: is required with SCMP_ACT_NOTIFY",
    ),
    (
        PLAIN,
        seccomp(syscalls=[{"names": ["a", "write"], "action": "SCMP_ACT_NOTIFY"}], listenerPath="/run/agent"),
        "/linux/seccomp/syscalls/0/names/1: SCMP_ACT_NOTIFY cannot be used for the write syscall",
    ),
    (
        PLAIN,
        seccomp(defaultAction="SCMP_ACT_NOTIFY"),
        "/linux/seccomp/defaultAction: SCMP_ACT_NOTIFY cannot be used as default action",
    ),
    (
        PLAIN,
        {"process__scheduler": {"policy": "SCHED_BATCH", "nice": 20}},
        "/process/scheduler/nice: invalid scheduler.nice: 20 is not from -20 to 19",
    ),
    (
        PLAIN,
        {"process__scheduler": {"policy": "SCHED_OTHER", "priority": 1}},
        "/process/scheduler/priority: goes with SCHED_FIFO or SCHED_RR, not with SCHED_OTHER",
    ),
    (
        PLAIN,
        {"process__scheduler": {"policy": "SCHED_FIFO", "priority": 1, "period": 1}},
        "/process/scheduler/period: goes with SCHED_DEADLINE, not with SCHED_FIFO",
    ),
    (
        PLAIN,
        {"process__execCPUAffinity": {"final": "0-"}},
        "/process/execCPUAffinity/final: not a list of CPUs: '0-' is not a number or a range of numbers",
    ),
    (
        PLAIN,
        {"process__execCPUAffinity": {"initial": "8192"}},
        "/process/execCPUAffinity/initial: not a list of CPUs: 8192 is more than 8191",
    ),
    (
        PLAIN,
        {"linux__netDevices": {"eth0": {}}, "linux__namespaces": namespaces("mount", "uts", "ipc")},
        "/linux/netDevices: needs a network namespace",
    ),
    *(
        (
            PLAIN,
            {"linux__netDevices": {"eth0": {"name": name}}},
            f'/linux/netDevices/eth0/name: "{name}" is not the name of a network device',
        )
        for name in (".", "..", "a/b", "a:b", "a b", "a" * 16, "eth%", "eth%s", "%d%d", "a%d%")
    ),
    (
        PLAIN,
        {"linux__netDevices": {"eth/0": {}}},
        '/linux/netDevices/eth~10: "eth/0" is not the name of a network device',
    ),
    (
        PLAIN,
        {"linux__netDevices": {"eth0": {}, "eth1": {"name": "eth0"}}},
        "/linux/netDevices/eth1/name: eth0 is another network device already",
    ),
    (
        PLAIN,
        {"linux__memoryPolicy": {"mode": "MPOL_LOCAL", "nodes": "0-7"}},
        "/linux/memoryPolicy/nodes: MPOL_LOCAL: memory policy mode requires 0 nodes but got 8",
    ),
    (
        PLAIN,
        {"linux__memoryPolicy": {"mode": "MPOL_BIND"}},
        "/linux/memoryPolicy/nodes: MPOL_BIND: memory policy mode requires at least one node but got 0",
    ),
    (
        PLAIN,
        {"linux__memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-9876543210"}},
        "/linux/memoryPolicy/nodes: invalid memory policy node: 9876543210 is more than 1023",
    ),
    (
        PLAIN,
        {"linux__personality": {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}},
        "/linux/personality/flags: no flags of a personality are supported",
    ),
    *(
        (
            PLAIN,
            {"linux__intelRdt": {"closID": name}},
            f"/linux/intelRdt/closID: {name!r} is not a class of service",
        )
        for name in (".", "..", "a/b", "/a", "a\nb")
    ),
    (
        PLAIN,
        {"linux__intelRdt": {"l3CacheSchema": "L3:0=f\nMB:0=10"}},
        "/linux/intelRdt/l3CacheSchema: is more than one line",
    ),
    (
        PLAIN,
        {"mounts": [{"destination": "/a"}, {"destination": "/b", "options": ["rbind", "idmap"]}]},
        "/mounts/1/options/1: id-mapped mounts must have both uid and gid mappings specified, "
        "or a user namespace to take them from",
    ),
    (
        PLAIN,
        {"mounts": [{"destination": "/b", "options": ["ridmap"]}]},
        "/mounts/0/options/0: id-mapped mounts are only supported for bind-mounts",
    ),
    (
        PLAIN,
        {"mounts": [{"destination": "/b", "options": ["bind", "remount"], "uidMappings": ROOT_MAPPING}]},
        "/mounts/0/uidMappings: id-mapped mounts are only supported for bind-mounts",
    ),
    (
        PLAIN,
        {"mounts": [{"destination": "/b", "type": "bind", "gidMappings": ROOT_MAPPING}]},
        "/mounts/0/uidMappings: id-mapped mounts must have both uid and gid mappings specified",
    ),
    (
        PLAIN,
        {
            "mounts": [
                {
                    "destination": "/b",
                    "options": ["bind"],
                    "uidMappings": ROOT_MAPPING,
                    "gidMappings": [{"containerID": 0, "hostID": 0, "size": 0}],
                }
            ]
        },
        "/mounts/0/gidMappings/0/size: 0 ids can't be mapped",
    ),
]


@pytest.mark.parametrize(("base", "values", "line"), REFUSED, ids=[line for _, _, line in REFUSED])
def test_refuses(base: dict[str, Any], values: dict[str, Any], line: str) -> None:
    with pytest.raises(Error) as caught:
        judge(changed(base, **values))
    assert str(caught.value) == line


#: What `features` tells of linux, by its path there, and what asks for it.
FEATURES: list[tuple[str, dict[str, Any]]] = [
    ("apparmor/enabled", {"process__apparmorProfile": "strict"}),
    ("selinux/enabled", {"process__selinuxLabel": "a:b:c:d"}),
    ("selinux/enabled", {"linux__mountLabel": "a:b:c:d"}),
    ("memoryPolicy/modes", {"linux__memoryPolicy": {"mode": "MPOL_LOCAL"}}),
    ("intelRdt/enabled", {"linux__intelRdt": {"closID": "a"}}),
    ("intelRdt/schemata", {"linux__intelRdt": {"schemata": ["MB:0=10"]}}),
    ("intelRdt/monitoring", {"linux__intelRdt": {"enableMonitoring": True}}),
    ("mountExtensions/idmap/enabled", {"mounts": [{"destination": "/b", "options": ["bind", "idmap"]}]}),
    ("netDevices/enabled", {"linux__netDevices": {"eth0": {}}}),
]


@pytest.mark.parametrize(("path", "values"), FEATURES, ids=[path for path, _ in FEATURES])
def test_features_tells_what_is_supported(path: str, values: dict[str, Any]) -> None:
    """features.md: "The runtime MUST support the elements"; and what it denies is refused here."""
    told: Any = structure()["linux"]
    for key in path.split("/"):
        told = told[key]
    refused = ""
    try:
        judge(changed(PLAIN, **values))
    except Error as e:
        refused = str(e)
    assert ("not supported yet" in refused) == (not told), refused


@pytest.mark.parametrize("rule", [*rules.RULES, *rules.PROCESS_RULES], ids=lambda rule: rule.__name__)
def test_every_rule_refuses_something(rule: Any) -> None:
    """No rule without an example above."""
    hits = 0
    for base, values, _ in REFUSED:
        config = go_decoded(changed(base, **values), CONFIG)
        target = (config,) if rule in rules.RULES else (config.get("process", {"args": ["a"]}), "/process")
        try:
            rule(*target)
        except Error:
            hits += 1
        except KeyError:  # a rule that relies on an earlier one having held
            assert rule is rules.user
    assert hits


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv6.conf.eth0/1.mtu", "net/ipv6/conf/eth0.1/mtu"),
        ("net/ipv6/conf/eth0.1/mtu", "net/ipv6/conf/eth0.1/mtu"),
        ("kernel", "kernel"),
    ],
)
def test_sysctl_names_have_two_forms(key: str, path: str) -> None:
    assert "/".join(rules.sysctl_parts(key)) == path


# -- rules that look at the host


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("rootfs")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize("name", ENGINES)
def test_a_bundle_as_engines_make_it(name: str, bundle: Path) -> None:
    assert configs.check(ENGINES[name], str(bundle)) in ([], ["/linux/seccomp/defaultErrno"])


@pytest.mark.parametrize("path", ["rootfs", "./rootfs/", "link", "/"])
def test_root_may_be(path: str, bundle: Path) -> None:
    rules.check_host(changed(PLAIN, root__path=path), str(bundle))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("nothing", "/root/path: nothing: does not exist"),
        ("file", "/root/path: file: is not a directory"),
        ("file/x", "/root/path: file/x: Not a directory"),
        ("loop", "/root/path: loop: Too many levels of symbolic links"),
    ],
)
def test_root_may_not_be(path: str, line: str, bundle: Path) -> None:
    with pytest.raises(Error) as caught:
        rules.check_host(changed(PLAIN, root__path=path), str(bundle))
    assert str(caught.value) == line


def test_network_parameters_of_the_runtimes_own_namespace_are_refused(bundle: Path) -> None:
    joined = changed(
        PLAIN,
        linux__namespaces=namespaces("uts", "mount", network=f"/proc/{os.getpid()}/ns/net"),
        linux__sysctl={"net.ipv4.ip_forward": "1"},
    )
    judge(joined)  # the path alone says nothing
    with pytest.raises(Error) as caught:
        rules.check_host(joined, str(bundle))
    assert caught.value.pointer == "/linux/sysctl/net.ipv4.ip_forward"
    assert "own network namespace" in caught.value.reason
    # another namespace file stands for another namespace
    rules.check_host(changed(joined, linux__namespaces=namespaces(network="/proc/self/ns/pid")), str(bundle))


def test_a_namespace_to_join_that_is_not_there(bundle: Path) -> None:
    config = changed(PLAIN, linux__namespaces=namespaces(network="/nowhere"), linux__sysctl={"net.a": "1"})
    with pytest.raises(Error, match=r"^/linux/namespaces/0/path: /nowhere: does not exist$"):
        rules.check_host(config, str(bundle))


def test_only_root_may_map_the_owners_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rootfs").mkdir()
    mounts = [{"destination": "/a"}, {"destination": "/b", "options": ["bind", "idmap"]}]
    config = changed(PLAIN, mounts=mounts, root__path="rootfs")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    rules.check_host(config, str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Error, match="/mounts/1: id-mapped mounts are not supported for rootless containers"):
        rules.check_host(config, str(tmp_path))
