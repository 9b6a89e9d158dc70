"""Configurations to test with: one that has every property of the specification, and some as engines write."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

_MAPPING = {"containerID": 0, "hostID": 100000, "size": 65536}
_THROTTLE = {"major": 8, "minor": 16, "rate": 600}
_HOOK = {"path": "/usr/bin/hook", "args": ["hook", "now"], "env": ["A=b"], "timeout": 3}

#: Each property that the specification has for Linux, once (it is valid; no runtime could do all of it).
EVERYTHING: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "domainname": "example.test",
    "annotations": {"com.example.key": "value", "com.example.empty": ""},
    "freebsd": {},
    "solaris": {},
    "vm": {},
    "windows": {"layerFolders": None},
    "zos": {},
    "mounts": [
        {
            "destination": "/data",
            "type": "none",
            "source": "/srv/data",
            "options": ["rbind", "ridmap"],
            "uidMappings": [_MAPPING],
            "gidMappings": [_MAPPING],
        }
    ],
    "hooks": {
        "prestart": [_HOOK],
        "createRuntime": [_HOOK],
        "createContainer": [_HOOK],
        "startContainer": [_HOOK],
        "poststart": [_HOOK],
        "poststop": [_HOOK],
    },
    "process": {
        "terminal": True,
        "consoleSize": {"height": 25, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3], "username": "nobody"},
        "args": ["sh", "-c", ""],
        "commandLine": "",
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": {
            "bounding": ["CAP_CHOWN"],
            "effective": ["CAP_CHOWN"],
            "inheritable": ["CAP_CHOWN"],
            "permitted": ["CAP_CHOWN"],
            "ambient": ["CAP_OF_A_LATER_KERNEL"],
        },
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 18446744073709551615}],
        "noNewPrivileges": True,
        "apparmorProfile": "profile",
        "selinuxLabel": "system_u:system_r:svirt_lxc_net_t:s0:c124,c675",
        "oomScoreAdj": -5,
        "scheduler": {
            "policy": "SCHED_DEADLINE",
            "nice": -1,
            "priority": 1,
            "flags": ["SCHED_FLAG_RESET_ON_FORK"],
            "runtime": 1,
            "deadline": 2,
            "period": 3,
        },
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 7},
        "execCPUAffinity": {"initial": "0", "final": "0-3,7"},
    },
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}],
        "uidMappings": [_MAPPING],
        "gidMappings": [_MAPPING],
        "timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 1}},
        "devices": [
            {"path": "/dev/x", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0},
            {"path": "/dev/pipe", "type": "p"},
        ],
        "netDevices": {"eth0": {"name": "inner"}},
        "cgroupsPath": "/test/box",
        "resources": {
            "devices": [{"allow": True, "type": "c", "major": -1, "minor": 229, "access": "rwm"}],
            "memory": {
                "limit": -1,
                "reservation": 1,
                "swap": 2,
                "kernel": 3,
                "kernelTCP": 4,
                "swappiness": 100,
                "disableOOMKiller": False,
                "useHierarchy": False,
                "checkBeforeUpdate": True,
            },
            "cpu": {
                "shares": 1024,
                "quota": -1,
                "burst": 0,
                "period": 100000,
                "realtimeRuntime": 0,
                "realtimePeriod": 0,
                "cpus": "0-3",
                "mems": "0",
                "idle": 1,
            },
            "pids": {"limit": 0},
            "blockIO": {
                "weight": 10,
                "leafWeight": 10,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
                "throttleReadBpsDevice": [_THROTTLE],
                "throttleWriteBpsDevice": [_THROTTLE],
                "throttleReadIOPSDevice": [_THROTTLE],
                "throttleWriteIOPSDevice": [_THROTTLE],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 209715200}],
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
            "unified": {"io.max": "259:0 rbps=2097152 wiops=120"},
        },
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/agent",
            "listenerMetadata": "for the agent",
            "syscalls": [
                {
                    "names": ["getcwd"],
                    "action": "SCMP_ACT_TRACE",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
        "rootfsPropagation": "rslave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "system_u:object_r:svirt_sandbox_file_t:s0:c715,c811",
        "intelRdt": {
            "closID": "guaranteed",
            "schemata": ["L3:0=7f0;1=1f"],
            "l3CacheSchema": "L3:0=7f0",
            "memBwSchema": "MB:0=20",
            "enableMonitoring": True,
        },
        "memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "2-3", "flags": ["MPOL_F_STATIC_NODES"]},
        "personality": {"domain": "LINUX32", "flags": []},
    },
}

EVERYTHING = json.loads(json.dumps(EVERYTHING))  # so that no two places share a mapping or a hook

_TMPFS = ["nosuid", "strictatime", "mode=755", "size=65536k"]
_CAPS = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_NAMESPACES = [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount")]

#: As `runc spec` prints it.
PLAIN: dict[str, Any] = {
    "ociVersion": "1.0.2-dev",
    "process": {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": {"bounding": _CAPS, "effective": _CAPS, "permitted": _CAPS, "ambient": _CAPS},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "runc",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": _TMPFS},
    ],
    "linux": {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": _NAMESPACES,
        "maskedPaths": ["/proc/acpi", "/proc/kcore"],
        "readonlyPaths": ["/proc/bus", "/proc/sys"],
    },
}


def changed(base: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A copy with values put at paths: changed(PLAIN, process__user__uid=5)."""
    config = copy.deepcopy(base)
    for path, value in values.items():
        *parents, name = path.split("__")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return config


def _profile() -> dict[str, Any]:
    """A seccomp profile of the size that engines have: some 400 names."""
    allowed = [f"syscall_{number}" for number in range(400)]
    masked = {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "defaultErrno": "ENOSYS",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": allowed, "action": "SCMP_ACT_ALLOW", "args": []},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [masked]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ],
    }


#: As podman writes it: rootful, a user namespace, a limit or two, and a profile.
PODMAN = changed(
    PLAIN,
    process__user={"uid": 1000, "gid": 1000, "umask": 18, "additionalGids": [1000]},
    annotations={"io.container.manager": "libpod", "org.opencontainers.image.stopSignal": "15"},
    root={"path": "rootfs"},
    linux__uidMappings=[_MAPPING],
    linux__gidMappings=[_MAPPING],
    linux__namespaces=[*_NAMESPACES, {"type": "user"}, {"type": "cgroup"}],
    linux__sysctl={"kernel.msgmax": "8193", "net.ipv4.ping_group_range": "0 0"},
    linux__cgroupsPath="/libpod_parent/libpod-de75cf50fa74",
    linux__resources={
        "memory": {"limit": 104857600, "swap": 209715200},
        "cpu": {"quota": 100000, "period": 100000},
        "pids": {"limit": 2048},
    },
    linux__devices=[
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 8630, "uid": 0, "gid": 0}
    ],
    linux__seccomp=_profile(),
    hooks={"poststop": [{"path": "/usr/bin/podman", "args": ["podman", "cleanup"], "timeout": 10}]},
)

#: As containerd writes it for a container of a pod: namespaces joined, nulls where Go had nil.
CONTAINERD = changed(
    PLAIN,
    ociVersion="1.1.0",
    process__env=None,
    process__oomScoreAdj=1000,
    process__apparmorProfile="",
    annotations={"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "d33"},
    hooks=None,
    linux__namespaces=[
        {"type": "pid"},
        {"type": "ipc", "path": "/proc/4422/ns/ipc"},
        {"type": "uts", "path": "/proc/4422/ns/uts"},
        {"type": "mount"},
        {"type": "network", "path": "/proc/4422/ns/net"},
        {"type": "user", "path": "/proc/4422/ns/user"},
        {"type": "cgroup"},
    ],
    linux__uidMappings=[{"containerID": 0, "hostID": 0, "size": 1}],
    linux__gidMappings=[{"containerID": 0, "hostID": 0, "size": 1}],
    linux__cgroupsPath="/kubepods/besteffort/pod1/d33",
    linux__resources={
        "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3}],
        "memory": {"limit": None},
        "cpu": {"shares": 2, "quota": 0, "period": 100000},
        "unified": None,
    },
    linux__seccomp=None,
)

ENGINES = {"plain": PLAIN, "podman": PODMAN, "containerd": CONTAINERD}


def make_bundle(folder: Path, config: Any) -> str:
    """A bundle whose root file system is an empty directory; config is a value to write as JSON, or bytes."""
    (folder / "rootfs").mkdir(parents=True, exist_ok=True)
    data = config if isinstance(config, bytes) else json.dumps(config).encode()
    (folder / "config.json").write_bytes(data)
    return str(folder)
