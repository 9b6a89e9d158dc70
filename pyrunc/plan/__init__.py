"""The planner: from a configuration to the steps that make it true, in order. Pure: no step runs here.

The order of everything that happens to a container is decided in these few functions:

    create   what the runtime does, and within it (StartInit) what init does
    exec     the same for one more process in a running container
    hooks    one list of hooks
"""

from __future__ import annotations

from pyrunc.linux import process as p
from pyrunc.plan.process import (
    affinity_steps,
    asks_for_limits,
    keyring_steps,
    process_steps,
    profile_steps,
    rlimit_steps,
)
from pyrunc.plan.rootfs import RootfsSteps, rootfs_steps
from pyrunc.steps import Step, namespaces
from pyrunc.steps.cgroup import DelegateCgroup, MakeCgroup, SetLimit
from pyrunc.steps.process import AllowEveryCpu, NewSession, SetOomScore, Undumpable
from pyrunc.steps.runtime import Await, HoldRoot, JoinContainer, StartInit, Tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cgroups.base import Manager
    from pyrunc.resctrl import Group
    from pyrunc.seccomp import Filter


class Options:
    """What the command line adds to a configuration.

    Attributes:
        no_pivot: move the root instead of pivoting it (`--no-pivot`).
        new_keyring: give the container a session keyring (not `--no-new-keyring`).
        unprivileged: the runtime's user is not root.
    """

    __slots__ = ("new_keyring", "no_pivot", "unprivileged")

    def __init__(self, *, no_pivot: bool = False, new_keyring: bool = True, unprivileged: bool = False) -> None:
        self.no_pivot = no_pivot
        self.new_keyring = new_keyring
        self.unprivileged = unprivileged


class Namespaces:
    """A configuration's namespaces, sorted by what is to be done about them.

    Attributes:
        new: types to make.
        joined: type -> (path, origin) of those to enter.
    """

    __slots__ = ("joined", "new")

    def __init__(self, config: dict[str, Any]) -> None:
        self.new: set[str] = set()
        self.joined: dict[str, tuple[str, str]] = {}
        for i, entry in enumerate(config.get("linux", {}).get("namespaces", ())):
            if path := entry.get("path"):
                self.joined[entry["type"]] = (path, f"/linux/namespaces/{i}/path")
            else:
                self.new.add(entry["type"])

    def has(self, kind: str) -> bool:
        """Whether the container lives in another namespace of this type than the runtime, as far as is known."""
        return kind in self.new or kind in self.joined

    def flags(self) -> int:
        """CLONE_NEW* of all of them."""
        return sum(p.NAMESPACES[kind][0] for kind in self.new | self.joined.keys())


def create(
    config: dict[str, Any],
    bundle: str,
    container_id: str,
    manager: Manager,
    options: Options,
    seccomp: Filter | None,
    resctrl: Group | None = None,
) -> list[Step]:
    """The steps of the runtime that create a container; StartInit among them holds those of init.

    Args:
        config: a checked configuration.
        bundle: absolute path of the bundle.
        manager: the container's cgroups, not yet made.
        seccomp: the compiled linux.seccomp.
        resctrl: the group of linux.intelRdt.
    """
    linux = config.get("linux", {})
    spaces = Namespaces(config)
    mappings = (linux.get("uidMappings", []), linux.get("gidMappings", []))
    rootfs = rootfs_steps(config, bundle, spaces, options)
    # A systemd unit is not made without a process to be in it, and systemd moves that. Any other cgroup is made first,
    # for init to be born there or to go there itself, which is quicker
    placed = manager if manager.unit is not None else None
    moved = _net_devices(linux)
    waits = placed is not None or spaces.has("user") or bool(moved) or bool(rootfs.serve)
    init = _init_steps(config, container_id, spaces, options, rootfs, seccomp, waits)
    process = config.get("process", {})

    cgroup: list[Step] = [MakeCgroup(manager, "/linux/cgroupsPath" if linux.get("cgroupsPath") else "")]
    cgroup += [SetLimit(manager, setting) for setting in manager.settings(linux.get("resources", {}))]
    start = _start(spaces, linux, mappings, init, options, placed)
    steps = [*rootfs.on_host, start, *cgroup] if placed else [*cgroup, *rootfs.on_host, start]
    if "user" in spaces.new and start.mappings is None:
        steps.append(namespaces.MapIds(*mappings))
    if "user" in spaces.joined and any(mappings):
        steps.append(namespaces.CheckIds(*mappings))
    steps += rootfs.serve
    if (score := process.get("oomScoreAdj")) is not None:
        steps.append(SetOomScore(score))
    steps += [*delegate(config, spaces), *resctrl_steps(resctrl, linux.get("intelRdt")), *moved]
    if waits:
        steps.append(Tell("set up"))
    # "created" is the status "after step 2 in the lifecycle" (runtime.md), and all hooks come after that. runc says
    # "creating" to those of create.
    outside = hooks(config, "prestart", "created") + hooks(config, "createRuntime", "created")
    if outside:
        steps += [Await("mounted"), *outside, Tell("hooked")]
    steps += [*_limits(process, config), *_listener(config, seccomp, "creating"), Await("ready")]
    return steps + rootfs.served


def _member(at: str, key: str) -> str:
    """JSON pointer (RFC 6901) of a member of an object whose keys may be anything."""
    return f"{at}/{key.replace('~', '~0').replace('/', '~1')}"


def _net_devices(linux: dict[str, Any]) -> list[Step]:
    """Network devices to move: as soon as there is a namespace to move them into, before hooks look at it."""
    if not linux.get("netDevices"):
        return []
    from pyrunc.steps.network import MoveNetDevice

    return [
        MoveNetDevice(name, device.get("name") or name, _member("/linux/netDevices", name))
        for name, device in linux["netDevices"].items()
    ]


def _listener(config: dict[str, Any], seccomp: Filter | None, status: str) -> list[Step]:
    """The runtime's part in a filter that asks an agent."""
    if seccomp is None or not seccomp.notify:
        return []
    from pyrunc.steps.listener import SendListener

    profile = config["linux"]["seccomp"]
    return [SendListener(profile["listenerPath"], profile.get("listenerMetadata", ""), status)]


def _set_up(spaces: Namespaces, step: Step) -> list[Step]:
    """In a user namespace init is nobody until the runtime has mapped its IDs; everywhere else it need not wait."""
    return [step] if spaces.has("user") else []


def delegate(config: dict[str, Any], spaces: Namespaces) -> list[Step]:
    """Whether a container is to own its cgroup (config-linux.md, "Cgroup ownership"): where it may write there and sees
    no other, by a cgroup namespace of its own."""
    uid = config.get("process", {}).get("user", {}).get("uid", 0)
    if "cgroup" not in spaces.new or (uid == 0 and not spaces.has("user")):
        return []
    for i, mount in enumerate(config.get("mounts", ())):
        if (mount.get("source"), mount["destination"].rstrip("/")) == ("cgroup", "/sys/fs/cgroup"):
            return [] if "ro" in mount.get("options", ()) else [DelegateCgroup(uid, f"/mounts/{i}")]
    return []


def resctrl_steps(group: Group | None, rdt: dict[str, Any] | None = None, *, whole: bool = False) -> list[Step]:
    """Intel RDT: the process goes into its group, which is made first where there is a configuration to make it by."""
    if group is None:
        return []
    from pyrunc.steps.resctrl import JoinResctrlGroup, MakeResctrlGroup

    made: list[Step] = [] if rdt is None else [MakeResctrlGroup(group, rdt)]
    return [*made, JoinResctrlGroup(group, whole=whole)]


def _limits(process: dict[str, Any], config: dict[str, Any]) -> list[Step]:
    """The runtime's part in the limits of a process in a user namespace."""
    if not asks_for_limits(process, config):
        return []
    return [Await("limits"), *rlimit_steps(process), Tell("limited")]


def _start(
    spaces: Namespaces,
    linux: dict[str, Any],
    mappings: tuple[list[dict[str, int]], list[dict[str, int]]],
    init: list[Step],
    options: Options,
    placed: Manager | None,
) -> StartInit:
    """How init comes to be in its namespaces."""
    stage: list[Step] = []
    flags = 0
    for kind in spaces.new - {"cgroup", "time"}:  # these two are made by steps of their own
        flags |= p.NAMESPACES[kind][0]
    early: tuple[list[dict[str, int]], list[dict[str, int]]] | None = None
    if spaces.joined:
        joined = [(kind, path, origin) for kind, (path, origin) in spaces.joined.items()]
        stage.append(namespaces.JoinNamespaces(joined))
    if "time" in spaces.new:
        if options.unprivileged and "user" in spaces.new:
            stage.append(namespaces.NewUserNamespace())
            flags &= ~p.CLONE_NEWUSER
            early = mappings
        stage.append(namespaces.NewTimeNamespace(linux.get("timeOffsets", {}), "/linux/timeOffsets"))
    return StartInit(flags, stage, init, early, placed)


def _init_steps(
    config: dict[str, Any],
    container_id: str,
    spaces: Namespaces,
    options: Options,
    rootfs: RootfsSteps,
    seccomp: Filter | None,
    waits: bool,
) -> list[Step]:
    linux, process = config.get("linux", {}), config.get("process", {})
    steps: list[Step] = [Await("set up")] if waits else []
    steps += [AllowEveryCpu(), NewSession()]
    steps += rootfs.before_root
    if spaces.has("user"):
        steps.append(become_root(linux, spaces))
    # so that who joins finds it; in a user namespace runc lets others than its user search it, and finds it no more
    steps += keyring_steps(process, container_id, options.new_keyring, p.KEY_USR_SEARCH)
    steps.append(Undumpable())
    if "cgroup" in spaces.new:
        steps.append(namespaces.NewCgroupNamespace())
    if "network" in spaces.new:
        steps.append(namespaces.LoopbackUp())
    steps += rootfs.mounts
    if any(config.get("hooks", {}).get(kind) for kind in ("prestart", "createRuntime")):
        steps += [Tell("mounted"), Await("hooked")]
    steps += hooks(config, "createContainer", "created", inside=True)
    if name := config.get("hostname"):
        steps.append(namespaces.SetHostname(name))
    if name := config.get("domainname"):
        steps.append(namespaces.SetDomainname(name))
    steps += profile_steps(process)
    for key, value in linux.get("sysctl", {}).items():
        steps.append(namespaces.SetSysctl(key, value, _member("/linux/sysctl", key)))
    steps += rootfs.hide + rootfs.enter
    return steps + process_steps(process, config, seccomp, unprivileged=options.unprivileged)


def become_root(linux: dict[str, Any], spaces: Namespaces) -> namespaces.BecomeRoot:
    """Be root of the container's user namespace as far as its mappings have one (a joined one's are not known)."""
    joined = spaces.joined.get("user")
    origin = joined[1] if joined else "/linux/uidMappings"

    def maps_root(kind: str) -> bool:
        return joined is not None or any(m["containerID"] == 0 and m["size"] > 0 for m in linux.get(kind, ()))

    return namespaces.BecomeRoot(maps_root("uidMappings"), maps_root("gidMappings"), origin)


def exec_steps(
    config: dict[str, Any],
    process: dict[str, Any],
    container_id: str,
    options: Options,
    seccomp: Filter | None,
    resctrl: Group | None = None,
) -> list[Step]:
    """The steps that add a process to a running container.

    Args:
        config: the configuration that the container was created with.
        process: the new process, as config.json's.
        options: as the container was created with.
    """
    spaces = Namespaces(config)
    linux = config.get("linux", {})
    # as runc: these are the container's where the new process has none of its own
    for name in ("scheduler", "ioPriority", "execCPUAffinity"):
        if name not in process and name in config.get("process", {}):
            process = process | {name: config["process"][name]}
    before, after, affinity = affinity_steps(process.get("execCPUAffinity"))
    init: list[Step] = [*_set_up(spaces, Await("set up")), *affinity, NewSession()]
    if spaces.has("user"):
        init.append(become_root(linux, spaces))
    init += keyring_steps(process, container_id, options.new_keyring)
    init += [Undumpable(), HoldRoot(), *profile_steps(process)]
    init += process_steps(process, config, seccomp, joining=True, unprivileged=options.unprivileged)
    chroot = options.no_pivot or not spaces.has("mount")
    start = StartInit(0, [Undumpable(), JoinContainer(spaces.flags(), chroot)], init)
    steps: list[Step] = [*before, start, *after]
    if (score := process.get("oomScoreAdj")) is not None:
        steps.append(SetOomScore(score))
    steps += [*resctrl_steps(resctrl), *_set_up(spaces, Tell("set up")), *_limits(process, config)]
    return [*steps, *_listener(config, seccomp, "running"), Await("ready")]


def hooks(
    config: dict[str, Any], kind: str, status: str, *, inside: bool = False, seccomp: Filter | None = None
) -> list[Step]:
    """The hooks of one kind, in their order, which are told that the container's status is `status`."""
    entries = config.get("hooks", {}).get(kind, ())
    if not entries:
        return []
    from pyrunc.steps.hooks import RunHook

    return [
        RunHook(kind, hook, status, f"/hooks/{kind}/{i}", inside=inside, seccomp=seccomp)
        for i, hook in enumerate(entries)
    ]
