"""Made from schema/config-schema.json by scripts/make-check; pyrunc/config/check.py explains it."""

from __future__ import annotations

from pyrunc.config.texts import (
    absolute,
    absolute_or_empty,
    memory_bandwidth,
    one_line,
    page_size,
    semver,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROOT: Any = (object, {"path": str, "readonly": bool}, ("path",), ())
UINT64: Any = (int, 0, 18446744073709551615)
CONSOLE_SIZE: Any = (object, {"height": UINT64, "width": UINT64}, ("height", "width"), ())
UINT32: Any = (int, 0, 4294967295)
USER: Any = (
    object,
    {"uid": UINT32, "gid": UINT32, "umask": UINT32, "additionalGids": (list, UINT32, 0), "username": object},
    (),
    (),
)
STRINGS: Any = (list, str, 0)
CAPABILITIES: Any = (
    object,
    {
        "bounding": STRINGS,
        "effective": STRINGS,
        "inheritable": STRINGS,
        "permitted": STRINGS,
        "ambient": STRINGS,
    },
    (),
    (),
)
RLIMIT: Any = (
    object,
    {
        "type": frozenset(
            {
                "RLIMIT_AS",
                "RLIMIT_CORE",
                "RLIMIT_CPU",
                "RLIMIT_DATA",
                "RLIMIT_FSIZE",
                "RLIMIT_LOCKS",
                "RLIMIT_MEMLOCK",
                "RLIMIT_MSGQUEUE",
                "RLIMIT_NICE",
                "RLIMIT_NOFILE",
                "RLIMIT_NPROC",
                "RLIMIT_RSS",
                "RLIMIT_RTPRIO",
                "RLIMIT_RTTIME",
                "RLIMIT_SIGPENDING",
                "RLIMIT_STACK",
            }
        ),
        "soft": UINT64,
        "hard": UINT64,
    },
    ("type", "soft", "hard"),
    (),
)
INT32: Any = (int, -2147483648, 2147483647)
SCHEDULER: Any = (
    object,
    {
        "policy": frozenset(
            {
                "SCHED_BATCH",
                "SCHED_DEADLINE",
                "SCHED_FIFO",
                "SCHED_IDLE",
                "SCHED_ISO",
                "SCHED_OTHER",
                "SCHED_RR",
            }
        ),
        "nice": INT32,
        "priority": INT32,
        "flags": (
            list,
            frozenset(
                {
                    "SCHED_FLAG_DL_OVERRUN",
                    "SCHED_FLAG_KEEP_PARAMS",
                    "SCHED_FLAG_KEEP_POLICY",
                    "SCHED_FLAG_RECLAIM",
                    "SCHED_FLAG_RESET_ON_FORK",
                    "SCHED_FLAG_UTIL_CLAMP_MAX",
                    "SCHED_FLAG_UTIL_CLAMP_MIN",
                }
            ),
            0,
        ),
        "runtime": UINT64,
        "deadline": UINT64,
        "period": UINT64,
    },
    ("policy",),
    (),
)
IO_PRIORITY: Any = (
    object,
    {
        "class": frozenset({"IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE", "IOPRIO_CLASS_RT"}),
        "priority": (int, 0, 7),
    },
    ("class",),
    (),
)
EXEC_C_P_U_AFFINITY: Any = (object, {"initial": str, "final": str}, (), ())
PROCESS: Any = (
    object,
    {
        "terminal": bool,
        "consoleSize": CONSOLE_SIZE,
        "user": USER,
        "args": (list, str, 1),
        "commandLine": object,
        "env": STRINGS,
        "cwd": absolute,
        "capabilities": CAPABILITIES,
        "rlimits": (list, RLIMIT, 0),
        "noNewPrivileges": bool,
        "apparmorProfile": str,
        "selinuxLabel": str,
        "oomScoreAdj": (int, -1000, 1000),
        "scheduler": SCHEDULER,
        "ioPriority": IO_PRIORITY,
        "execCPUAffinity": EXEC_C_P_U_AFFINITY,
    },
    ("cwd",),
    (),
)
ID_MAPPING: Any = (
    object,
    {"containerID": UINT32, "hostID": UINT32, "size": UINT32},
    ("containerID", "hostID", "size"),
    (),
)
ID_MAPPINGS: Any = (list, ID_MAPPING, 0)
MOUNT: Any = (
    object,
    {
        "destination": str,
        "type": str,
        "source": str,
        "options": STRINGS,
        "uidMappings": ID_MAPPINGS,
        "gidMappings": ID_MAPPINGS,
    },
    ("destination",),
    (),
)
HOOK: Any = (
    object,
    {"path": absolute, "args": STRINGS, "env": STRINGS, "timeout": (int, 1, 9223372036854775807)},
    ("path",),
    (),
)
HOOK_LIST: Any = (list, HOOK, 0)
HOOKS: Any = (
    object,
    {
        "prestart": HOOK_LIST,
        "createRuntime": HOOK_LIST,
        "createContainer": HOOK_LIST,
        "startContainer": HOOK_LIST,
        "poststart": HOOK_LIST,
        "poststop": HOOK_LIST,
    },
    (),
    (),
)
ANNOTATIONS: Any = (dict, str, 1)
NAMESPACE: Any = (
    object,
    {
        "type": frozenset({"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}),
        "path": absolute_or_empty,
    },
    ("type",),
    (),
)
INT64: Any = (int, -9223372036854775808, 9223372036854775807)
TIME_OFFSET: Any = (object, {"secs": INT64, "nanosecs": UINT32}, (), ())
DEVICE: Any = (
    object,
    {
        "type": frozenset({"b", "c", "p", "u"}),
        "path": absolute,
        "major": INT64,
        "minor": INT64,
        "fileMode": UINT32,
        "uid": UINT32,
        "gid": UINT32,
    },
    ("type", "path"),
    (((), {"type": "p"}), (("major", "minor"), {})),
)
NET_DEVICE: Any = (object, {"name": str}, (), ())
DEVICE_RULE: Any = (
    object,
    {"allow": bool, "type": frozenset({"a", "b", "c"}), "major": INT64, "minor": INT64, "access": str},
    ("allow",),
    (),
)
LIMIT: Any = (int, -1, 9223372036854775807)
MEMORY: Any = (
    object,
    {
        "limit": LIMIT,
        "reservation": LIMIT,
        "swap": LIMIT,
        "kernel": LIMIT,
        "kernelTCP": LIMIT,
        "swappiness": (int, 0, 100),
        "disableOOMKiller": bool,
        "useHierarchy": bool,
        "checkBeforeUpdate": bool,
    },
    (),
    (),
)
CPU: Any = (
    object,
    {
        "shares": UINT64,
        "quota": INT64,
        "burst": UINT64,
        "period": UINT64,
        "realtimeRuntime": INT64,
        "realtimePeriod": UINT64,
        "cpus": str,
        "mems": str,
        "idle": INT64,
    },
    (),
    (),
)
PIDS: Any = (object, {"limit": LIMIT}, (), ())
UINT16: Any = (int, 0, 65535)
WEIGHT_DEVICE: Any = (
    object,
    {"major": INT64, "minor": INT64, "weight": UINT16, "leafWeight": UINT16},
    ("major", "minor"),
    ((("weight",), {}), (("leafWeight",), {})),
)
THROTTLES: Any = (
    list,
    (object, {"major": INT64, "minor": INT64, "rate": UINT64}, ("major", "minor", "rate"), ()),
    0,
)
BLOCK_I_O: Any = (
    object,
    {
        "weight": UINT16,
        "leafWeight": UINT16,
        "weightDevice": (list, WEIGHT_DEVICE, 0),
        "throttleReadBpsDevice": THROTTLES,
        "throttleWriteBpsDevice": THROTTLES,
        "throttleReadIOPSDevice": THROTTLES,
        "throttleWriteIOPSDevice": THROTTLES,
    },
    (),
    (),
)
HUGEPAGE_LIMIT: Any = (object, {"pageSize": page_size, "limit": UINT64}, ("pageSize", "limit"), ())
NETWORK_CLASS: Any = (
    object,
    {
        "classID": UINT32,
        "priorities": (list, (object, {"name": str, "priority": UINT32}, ("name", "priority"), ()), 0),
    },
    (),
    (),
)
RDMA: Any = (
    object,
    {"hcaHandles": UINT32, "hcaObjects": UINT32},
    (),
    ((("hcaHandles",), {}), (("hcaObjects",), {})),
)
TEXT_MAP: Any = (dict, str, 0)
RESOURCES: Any = (
    object,
    {
        "devices": (list, DEVICE_RULE, 0),
        "memory": MEMORY,
        "cpu": CPU,
        "pids": PIDS,
        "blockIO": BLOCK_I_O,
        "hugepageLimits": (list, HUGEPAGE_LIMIT, 0),
        "network": NETWORK_CLASS,
        "rdma": (dict, RDMA, 0),
        "unified": TEXT_MAP,
    },
    (),
    (),
)
SECCOMP_ACTION: Any = frozenset(
    {
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    }
)
SECCOMP_ARG: Any = (
    object,
    {
        "index": (int, 0, 5),
        "value": UINT64,
        "valueTwo": UINT64,
        "op": frozenset(
            {
                "SCMP_CMP_EQ",
                "SCMP_CMP_GE",
                "SCMP_CMP_GT",
                "SCMP_CMP_LE",
                "SCMP_CMP_LT",
                "SCMP_CMP_MASKED_EQ",
                "SCMP_CMP_NE",
            }
        ),
    },
    ("index", "value", "op"),
    (),
)
SECCOMP_RULE: Any = (
    object,
    {"names": (list, str, 1), "action": SECCOMP_ACTION, "errnoRet": UINT16, "args": (list, SECCOMP_ARG, 0)},
    ("names", "action"),
    (),
)
SECCOMP: Any = (
    object,
    {
        "defaultAction": SECCOMP_ACTION,
        "defaultErrnoRet": UINT16,
        "architectures": (
            list,
            frozenset(
                {
                    "SCMP_ARCH_AARCH64",
                    "SCMP_ARCH_ARM",
                    "SCMP_ARCH_LOONGARCH64",
                    "SCMP_ARCH_M68K",
                    "SCMP_ARCH_MIPS",
                    "SCMP_ARCH_MIPS64",
                    "SCMP_ARCH_MIPS64N32",
                    "SCMP_ARCH_MIPSEL",
                    "SCMP_ARCH_MIPSEL64",
                    "SCMP_ARCH_MIPSEL64N32",
                    "SCMP_ARCH_PARISC",
                    "SCMP_ARCH_PARISC64",
                    "SCMP_ARCH_PPC",
                    "SCMP_ARCH_PPC64",
                    "SCMP_ARCH_PPC64LE",
                    "SCMP_ARCH_RISCV64",
                    "SCMP_ARCH_S390",
                    "SCMP_ARCH_S390X",
                    "SCMP_ARCH_SH",
                    "SCMP_ARCH_SHEB",
                    "SCMP_ARCH_X32",
                    "SCMP_ARCH_X86",
                    "SCMP_ARCH_X86_64",
                }
            ),
            0,
        ),
        "flags": (
            list,
            frozenset(
                {
                    "SECCOMP_FILTER_FLAG_LOG",
                    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                    "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                }
            ),
            0,
        ),
        "listenerPath": str,
        "listenerMetadata": str,
        "syscalls": (list, SECCOMP_RULE, 0),
    },
    ("defaultAction",),
    (),
)
ABSOLUTE_PATHS: Any = (list, absolute, 0)
INTEL_RDT: Any = (
    object,
    {
        "closID": str,
        "schemata": (list, one_line, 0),
        "l3CacheSchema": str,
        "memBwSchema": memory_bandwidth,
        "enableMonitoring": bool,
    },
    (),
    (),
)
MEMORY_POLICY: Any = (
    object,
    {
        "mode": frozenset(
            {
                "MPOL_BIND",
                "MPOL_DEFAULT",
                "MPOL_INTERLEAVE",
                "MPOL_LOCAL",
                "MPOL_PREFERRED",
                "MPOL_PREFERRED_MANY",
                "MPOL_WEIGHTED_INTERLEAVE",
            }
        ),
        "nodes": str,
        "flags": (
            list,
            frozenset({"MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"}),
            0,
        ),
    },
    ("mode",),
    (),
)
PERSONALITY: Any = (object, {"domain": frozenset({"LINUX", "LINUX32"}), "flags": STRINGS}, ("domain",), ())
LINUX: Any = (
    object,
    {
        "namespaces": (list, NAMESPACE, 0),
        "uidMappings": ID_MAPPINGS,
        "gidMappings": ID_MAPPINGS,
        "timeOffsets": (dict, TIME_OFFSET, 0),
        "devices": (list, DEVICE, 0),
        "netDevices": (dict, NET_DEVICE, 0),
        "cgroupsPath": str,
        "resources": RESOURCES,
        "sysctl": TEXT_MAP,
        "seccomp": SECCOMP,
        "rootfsPropagation": frozenset(
            {
                "private",
                "rprivate",
                "rshared",
                "rslave",
                "runbindable",
                "shared",
                "slave",
                "unbindable",
            }
        ),
        "maskedPaths": ABSOLUTE_PATHS,
        "readonlyPaths": ABSOLUTE_PATHS,
        "mountLabel": str,
        "intelRdt": INTEL_RDT,
        "memoryPolicy": MEMORY_POLICY,
        "personality": PERSONALITY,
    },
    (),
    (),
)
CONFIG: Any = (
    object,
    {
        "ociVersion": semver,
        "root": ROOT,
        "process": PROCESS,
        "hostname": str,
        "domainname": str,
        "mounts": (list, MOUNT, 0),
        "hooks": HOOKS,
        "annotations": ANNOTATIONS,
        "linux": LINUX,
        "freebsd": object,
        "solaris": object,
        "vm": object,
        "windows": object,
        "zos": object,
    },
    ("ociVersion", "root"),
    (),
)
