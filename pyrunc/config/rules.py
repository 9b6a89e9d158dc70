"""The rules of the specification that a schema can't say.

A rule is a function that takes a configuration of the right shape and raises Error, with a pointer, where it
is broken. Rules on the process alone hold for exec's process.json too. Those that ask the host are in
`check_host`. Where the specification leaves a case open, runc's answer is taken; the rule says so.
"""

from __future__ import annotations

import os
import stat

from pyrunc.config.check import pointer
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]


# -- the process ---------------------------------------------------------------------------------------------


def args(process: Config, at: str) -> None:
    """config.md, process: at least one entry of args is required (the schema refuses an empty list)."""
    if "args" not in process:
        raise Error("is required", pointer=f"{at}/args")


def rlimits(process: Config, at: str) -> None:
    """config.md, POSIX process: a type that comes twice is an error. setrlimit(2): so is soft above hard."""
    seen = set()
    for index, limit in enumerate(process.get("rlimits", ())):
        if limit["type"] in seen:
            raise Error(f"{limit['type']} comes twice", pointer=f"{at}/rlimits/{index}/type")
        if limit["soft"] > limit["hard"]:
            reason = f"soft limit {limit['soft']} is above the hard limit {limit['hard']}"
            raise Error(reason, pointer=f"{at}/rlimits/{index}/soft")
        seen.add(limit["type"])


def console_size(process: Config, at: str) -> None:
    """config.md, process: means nothing without a terminal. ioctl_tty(2): the kernel has 16 bits for each."""
    if process.get("terminal"):
        for name, value in process.get("consoleSize", {}).items():
            if name in ("height", "width") and value > 65535:
                raise Error(f"{value} is more than 65535", pointer=f"{at}/consoleSize/{name}")


def scheduler(process: Config, at: str) -> None:
    """sched_setattr(2): what a policy has no use for is refused, as by runc."""
    asked = process.get("scheduler")
    if not asked:
        return
    policy, at = asked["policy"], f"{at}/scheduler"
    if policy in ("SCHED_OTHER", "SCHED_BATCH") and not -20 <= (nice := asked.get("nice", 0)) <= 19:
        raise Error(f"invalid scheduler.nice: {nice} is not from -20 to 19", pointer=f"{at}/nice")
    if asked.get("priority") and policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise Error(f"goes with SCHED_FIFO or SCHED_RR, not with {policy}", pointer=f"{at}/priority")
    for name in ("runtime", "deadline", "period"):
        if asked.get(name) and policy != "SCHED_DEADLINE":
            raise Error(f"goes with SCHED_DEADLINE, not with {policy}", pointer=f"{at}/{name}")


def affinity(process: Config, at: str) -> None:
    """config.md, execCPUAffinity: lists of CPUs."""
    for name, cpus in process.get("execCPUAffinity", {}).items():
        if name in ("initial", "final") and cpus:
            from pyrunc.steps.scheduling import MOST_CPUS

            _numbers(cpus, MOST_CPUS, f"{at}/execCPUAffinity/{name}", "not a list of CPUs")


def _numbers(text: str, most: int, at: str, what: str) -> list[int]:
    from pyrunc.linux.scheduling import number_list

    try:
        return number_list(text, most)
    except ValueError as e:
        raise Error(f"{what}: {e}", pointer=at) from None


# -- identity and version ------------------------------------------------------------------------------------


def version(config: Config) -> None:
    """config.md, ociVersion: compatible within a major version.

    A 1.x newer than this runtime is read too: what it adds are unknown properties, and engines move to a new
    version before hosts do. (runc doesn't look at all.)
    """
    if not config["ociVersion"].startswith("1."):
        raise Error(f'version "{config["ociVersion"]}" can\'t be read, only 1.x', pointer="/ociVersion")


def process(config: Config) -> None:
    """config.md, process: "This property is REQUIRED when start is called", not before."""
    if "process" in config:
        check_process(config["process"], "/process")


# -- namespaces ----------------------------------------------------------------------------------------------


def _spaces(config: Config) -> dict[str, str]:
    """Namespace types of a configuration, new and joined, with the path of those to join, "" for new ones."""
    return {space["type"]: space.get("path", "") for space in config.get("linux", {}).get("namespaces", ())}


def namespaces(config: Config) -> None:
    """config-linux.md, namespaces: a type that comes twice is an error."""
    seen = set()
    for index, space in enumerate(config.get("linux", {}).get("namespaces", ())):
        if space["type"] in seen:
            raise Error(f"{space['type']} comes twice", pointer=f"/linux/namespaces/{index}/type")
        seen.add(space["type"])


def names(config: Config) -> None:
    """As runc: a name is set in a UTS namespace of the container's (new or joined), never in the host's."""
    for name in ("hostname", "domainname"):
        if config.get(name) and "uts" not in _spaces(config):
            raise Error("needs a uts namespace", pointer=f"/{name}")


def restricted_paths(config: Config) -> None:
    """As runc: paths are masked and made read-only in a mount namespace of its own, never in the host's."""
    linux = config.get("linux", {})
    for name in ("maskedPaths", "readonlyPaths"):
        if linux.get(name) and "mount" not in _spaces(config):
            raise Error("needs a mount namespace", pointer=f"/linux/{name}")


def mappings(config: Config) -> None:
    """user_namespaces(7). A new user namespace needs both mappings, and root in them, who sets it up.

    A joined one has its mappings already. podman and containerd give some beside `path` all the same
    (runc once asked for them); they are not used.
    """
    linux, spaces = config.get("linux", {}), _spaces(config)
    for name, kind in (("uidMappings", "uid"), ("gidMappings", "gid")):
        runs, at = linux.get(name), f"/linux/{name}"
        if runs and "user" not in spaces:
            raise Error("needs a user namespace", pointer=at)
        if spaces.get("user") != "":
            continue
        if not runs:
            raise Error("is required for a new user namespace", pointer=at)
        _check_runs(runs, at)
        if not _mapped(0, runs):
            raise Error(f"must map {kind} 0 of the container", pointer=at)


def _check_runs(runs: list[Config], at: str) -> None:
    """What the kernel answers EINVAL to, in words: too many runs, empty ones, past the last id, overlapping."""
    if len(runs) > 340:  # UID_GID_MAP_MAX_EXTENTS
        raise Error(f"{len(runs)} runs of ids are more than the kernel's 340", pointer=at)
    for index, run in enumerate(runs):
        if run["size"] == 0:
            raise Error("0 ids can't be mapped", pointer=f"{at}/{index}/size")
        for side in ("containerID", "hostID"):
            if run[side] + run["size"] > 0xFFFFFFFF:
                raise Error("runs past the last id, 4294967294", pointer=f"{at}/{index}/{side}")
            for other in runs[:index]:
                if run[side] < other[side] + other["size"] and other[side] < run[side] + run["size"]:
                    raise Error("overlaps an earlier mapping", pointer=f"{at}/{index}/{side}")


def _mapped(number: int, runs: list[Config]) -> bool:
    return any(0 <= number - run["containerID"] < run["size"] for run in runs)


def user(config: Config) -> None:
    """config.md, user: ids are the container's, so a new user namespace has to have them."""
    if _spaces(config).get("user") != "":
        return
    linux, ids = config["linux"], config.get("process", {}).get("user", {})
    wanted = [(ids.get("uid", 0), "uid", "uid"), (ids.get("gid", 0), "gid", "gid")]
    wanted += [(gid, "gid", f"additionalGids/{i}") for i, gid in enumerate(ids.get("additionalGids", ()))]
    for number, kind, place in wanted:
        if not _mapped(number, linux[f"{kind}Mappings"]):
            reason = f"unknown user namespace mapping: {kind} {number} is not in linux.{kind}Mappings"
            raise Error(reason, pointer=f"/process/user/{place}")


def id_mapped_mounts(config: Config) -> None:
    """config.md, uidMappings of a mount: one goes with the other; idmap and ridmap need them or a user namespace.

    As runc: only of bind mounts, whose source is a mount already. mount_setattr(2): and only as they are made.
    """
    for index, mount in enumerate(config.get("mounts", ())):
        at, options = f"/mounts/{index}", mount.get("options", ())
        words = [place for place, option in enumerate(options) if option in ("idmap", "ridmap")]
        uids, gids = mount.get("uidMappings"), mount.get("gidMappings")
        if not (words or uids or gids):
            continue
        asked = f"{at}/options/{words[0]}" if words else f"{at}/{'uidMappings' if uids else 'gidMappings'}"
        if not ({"bind", "rbind"} & set(options) or mount.get("type") == "bind") or "remount" in options:
            raise Error("id-mapped mounts are only supported for bind-mounts", pointer=asked)
        if bool(uids) != bool(gids):
            reason = "id-mapped mounts must have both uid and gid mappings specified"
            raise Error(reason, pointer=f"{at}/{'gidMappings' if uids else 'uidMappings'}")
        if uids and gids:
            _check_runs(uids, f"{at}/uidMappings")
            _check_runs(gids, f"{at}/gidMappings")
        elif "user" not in _spaces(config):
            reason = (
                "id-mapped mounts must have both uid and gid mappings specified, or a user namespace to take them from"
            )
            raise Error(reason, pointer=asked)


def time_offsets(config: Config) -> None:
    """config-linux.md, timeOffsets. time_namespaces(7): two clocks, set before the namespace is entered."""
    offsets, spaces = config.get("linux", {}).get("timeOffsets"), _spaces(config)
    if not offsets:
        return
    if "time" not in spaces:
        raise Error("needs a time namespace", pointer="/linux/timeOffsets")
    if spaces["time"]:
        raise Error("can't be set in a time namespace that is joined", pointer="/linux/timeOffsets")
    for clock, offset in offsets.items():
        if clock not in ("monotonic", "boottime"):
            raise Error("is not a clock: monotonic or boottime", pointer=pointer("/linux/timeOffsets", clock))
        if offset.get("nanosecs", 0) > 999_999_999:
            raise Error("is a second or more", pointer=f"/linux/timeOffsets/{clock}/nanosecs")


def net_devices(config: Config) -> None:
    """config-linux.md, netDevices: they go into a network namespace of the container's, by names that Linux takes."""
    devices, taken = config.get("linux", {}).get("netDevices"), set()
    if devices and "network" not in _spaces(config):
        raise Error("needs a network namespace", pointer="/linux/netDevices")
    for name, device in (devices or {}).items():
        at = pointer("/linux/netDevices", name)
        _check_interface(name, at, template=False)
        new = device.get("name")
        if new:
            _check_interface(new, f"{at}/name", template=True)
        if (new or name) in taken and "%" not in (new or name):
            raise Error(f"{new or name} is another network device already", pointer=f"{at}/name" if new else at)
        taken.add(new or name)


def _check_interface(name: str, at: str, *, template: bool) -> None:
    """dev_valid_name and dev_alloc_name of the kernel's net/core/dev.c; there is room for a NUL in its IFNAMSIZ, 16."""
    good = name not in ("", ".", "..") and len(name.encode()) < 16 and not any(c in "/:" or c.isspace() for c in name)
    if not good or (template and "%" in name and (name.count("%") > 1 or "%d" not in name)):
        raise Error(f'"{name}" is not the name of a network device', pointer=at)


def intel_rdt(config: Config) -> None:
    """config-linux.md, intelRdt: closID names a directory, or "/"; a line is a line."""
    rdt = config.get("linux", {}).get("intelRdt", {})
    name = rdt.get("closID", "")
    if name in (".", "..") or (name != "/" and "/" in name) or not name.isprintable():
        raise Error(f"{name!r} is not a class of service", pointer="/linux/intelRdt/closID")
    if "\n" in rdt.get("l3CacheSchema", ""):
        raise Error("is more than one line", pointer="/linux/intelRdt/l3CacheSchema")


# -- sysctl --------------------------------------------------------------------------------------------------

_IPC_SYSCTLS = (
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
)


def sysctls(config: Config) -> None:
    """config-linux.md, sysctl. As runc: only parameters that a namespace of the container has for its own."""
    spaces = _spaces(config)
    for key in config.get("linux", {}).get("sysctl", ()):
        parts = sysctl_parts(key)
        at = pointer("/linux/sysctl", key)
        if not all(part and part not in (".", "..") for part in parts):
            raise Error("is not the name of a kernel parameter", pointer=at)
        space = _space_of_sysctl(key)
        if space is None:
            raise Error("belongs to no namespace, so it would be set for the whole host", pointer=at)
        if space not in spaces:
            raise Error(f"needs {'an' if space == 'ipc' else 'a'} {space} namespace", pointer=at)
        if parts == ["kernel", "hostname"]:
            raise Error("is set by /hostname", pointer=at)


def sysctl_parts(key: str) -> list[str]:
    """The path of a parameter below /proc/sys, for net.ipv4.ip_forward and for net/ipv4/ip_forward.

    sysctl(8): the separator is whichever of the two comes first, and the other one then belongs to a name:
    net.ipv6.conf.eth0/1.mtu and net/ipv6/conf/eth0.1/mtu are the same file.
    """
    dot, slash = key.find("."), key.find("/")
    if slash >= 0 and (dot < 0 or slash < dot):
        return key.split("/")
    return [part.replace("/", ".") for part in key.split(".")]


def _space_of_sysctl(key: str) -> str | None:
    """The type of namespace that a parameter belongs to; None where there is one for the whole host."""
    parts = sysctl_parts(key)
    dotted = ".".join(parts)
    if parts[0] == "net":
        return "network"
    if parts[0] == "user":
        return "user"
    if dotted in _IPC_SYSCTLS or parts[:2] == ["fs", "mqueue"]:
        return "ipc"
    return "uts" if dotted in ("kernel.domainname", "kernel.hostname") else None


# -- the process's kernel personality and memory -------------------------------------------------------------


def personality(config: Config) -> None:
    """config-linux.md, personality: no flag is defined yet."""
    if config.get("linux", {}).get("personality", {}).get("flags"):
        raise Error("no flags of a personality are supported", pointer="/linux/personality/flags")


def memory_policy(config: Config) -> None:
    """set_mempolicy(2): which modes have nodes, which have none."""
    policy = config.get("linux", {}).get("memoryPolicy")
    if not policy:
        return
    from pyrunc.steps.scheduling import MOST_NODES

    at, mode, text = "/linux/memoryPolicy/nodes", policy["mode"], policy.get("nodes")
    nodes = _numbers(text, MOST_NODES, at, "invalid memory policy node") if text else []
    if mode in ("MPOL_DEFAULT", "MPOL_LOCAL") and nodes:
        raise Error(f"{mode}: memory policy mode requires 0 nodes but got {len(nodes)}", pointer=at)
    if mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED") and not nodes:
        raise Error(f"{mode}: memory policy mode requires at least one node but got 0", pointer=at)


# -- devices, seccomp ----------------------------------------------------------------------------------------


def devices(config: Config) -> None:
    """config-linux.md, devices: a path can't be two devices, and the kernel has to have such numbers."""
    seen: dict[str, tuple[Any, ...]] = {}
    for index, device in enumerate(config.get("linux", {}).get("devices", ())):
        at = f"/linux/devices/{index}"
        if device["type"] == "p":
            identity: tuple[Any, ...] = ("p",)
        else:
            # MINORBITS of the kernel's kdev_t.h: 12 bits and 20
            for name, most in (("major", 0xFFF), ("minor", 0xFFFFF)):
                if not 0 <= device[name] <= most:
                    raise Error(f"{device[name]} is not from 0 to {most}", pointer=f"{at}/{name}")
            identity = ("b" if device["type"] == "b" else "c", device["major"], device["minor"])
        if seen.setdefault(device["path"], identity) != identity:
            raise Error(f"{device['path']} is another device already", pointer=f"{at}/path")


def seccomp(config: Config) -> None:
    """config-linux.md, seccomp: an errno goes with an action that returns one, metadata with a listener.

    As runc: who asks an agent has to say where it is, and can't ask it about write(2), by which the runtime hears of
    the listener's existence (so not about everything, either).
    """
    profile = config.get("linux", {}).get("seccomp")
    if profile is None:
        return
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        raise Error("needs listenerPath", pointer="/linux/seccomp/listenerMetadata")
    _check_errno(profile["defaultAction"], profile, "/linux/seccomp", "defaultErrnoRet")
    if profile["defaultAction"] == _NOTIFY:
        raise Error(f"{_NOTIFY} cannot be used as default action", pointer="/linux/seccomp/defaultAction")
    for index, rule in enumerate(profile.get("syscalls", ())):
        _check_errno(rule["action"], rule, f"/linux/seccomp/syscalls/{index}", "errnoRet")
        if rule["action"] != _NOTIFY:
            continue
        if not profile.get("listenerPath"):
            raise Error(f"is required with {_NOTIFY}", pointer="/linux/seccomp/listenerPath")
        if "write" in rule["names"]:
            at = f"/linux/seccomp/syscalls/{index}/names/{rule['names'].index('write')}"
            raise Error(f"{_NOTIFY} cannot be used for the write syscall", pointer=at)


_NOTIFY = "SCMP_ACT_NOTIFY"


def _check_errno(action: str, holder: Config, at: str, errno_name: str) -> None:
    if errno_name in holder and action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        raise Error(f"goes with SCMP_ACT_ERRNO or SCMP_ACT_TRACE, not with {action}", pointer=f"{at}/{errno_name}")


# -- the tables ----------------------------------------------------------------------------------------------

PROCESS_RULES: tuple[Callable[[Config, str], None], ...] = (
    args,
    rlimits,
    console_size,
    scheduler,
    affinity,
)

RULES: tuple[Callable[[Config], None], ...] = (
    version,
    process,
    namespaces,
    names,
    restricted_paths,
    mappings,
    user,
    id_mapped_mounts,
    time_offsets,
    net_devices,
    sysctls,
    personality,
    memory_policy,
    devices,
    seccomp,
    intel_rdt,
)


def check_process(process: Config, at: str) -> None:
    """Hold a process to its rules.

    Args:
        at: pointer of the process in its file, "" for a process.json.
    """
    for rule in PROCESS_RULES:
        rule(process, at)


def check_host(config: Config, bundle: str) -> None:
    """The rules that need a look at the host: is the root a directory, who maps IDs, whose are the namespaces.

    Args:
        bundle: path of the bundle's directory, where a relative root.path starts.
    """
    root = config["root"]["path"]
    try:
        mode = os.stat(os.path.join(bundle, root)).st_mode
    except OSError as e:
        raise Error.from_os(e, pointer="/root/path", action=root) from None
    if not stat.S_ISDIR(mode):
        raise Error("is not a directory", pointer="/root/path", action=root)
    if os.geteuid() != 0:
        for index, mount in enumerate(config.get("mounts", ())):
            if mount.get("uidMappings") or {"idmap", "ridmap"} & set(mount.get("options", ())):
                reason = "id-mapped mounts are not supported for rootless containers: only root may map a host's files"
                raise Error(reason, pointer=f"/mounts/{index}")
    _check_own_namespaces(config)
    if (rdt := config.get("linux", {}).get("intelRdt")) is not None:
        from pyrunc import resctrl

        resctrl.check(rdt, resctrl.mounted())


def _check_own_namespaces(config: Config) -> None:
    """What a container may do to a namespace of its own it must not do to the runtime's, which it can join by a path.

    runc asks this about network parameters.
    """
    linux = config.get("linux", {})
    asked = [(_space_of_sysctl(key), pointer("/linux/sysctl", key)) for key in linux.get("sysctl", ())]
    if linux.get("netDevices"):
        asked.append(("network", "/linux/netDevices"))
    for index, space in enumerate(linux.get("namespaces", ()) if asked else ()):
        at = next((at for kind, at in asked if kind == space["type"]), "")
        if at and space.get("path"):
            try:
                name = "net" if space["type"] == "network" else space["type"]  # as it is for ipc, uts and user
                joined, own = os.stat(space["path"]), os.stat(f"/proc/self/ns/{name}")
            except OSError as e:
                raise Error.from_os(e, pointer=f"/linux/namespaces/{index}/path", action=space["path"]) from None
            if os.path.samestat(joined, own):
                reason = f"belongs to the runtime's own {space['type']} namespace, which the container joins"
                raise Error(reason, pointer=at)
