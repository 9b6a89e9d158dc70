"""Planning a container's process: from init to the program, for create and exec alike."""

from __future__ import annotations

from pyrunc.linux.process import CAP_SYS_ADMIN, CAPABILITIES
from pyrunc.steps import Step
from pyrunc.steps import process as s
from pyrunc.steps.runtime import Await, Tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pyrunc.seccomp import Filter


def capability_mask(names: Iterable[str]) -> int:
    """Names as bits. Unknown ones count nothing; SetCapabilities warns of them."""
    mask = 0
    for name in names:
        if name in CAPABILITIES:
            mask |= 1 << CAPABILITIES.index(name)
    return mask


def rlimit_steps(process: dict[str, Any]) -> list[Step]:
    """Resource limits: as late as can be, because they hinder init too, but before init changes its user, because
    prlimit(2) of another user's process takes CAP_SYS_RESOURCE."""
    return [
        s.SetRlimit(limit["type"], limit["soft"], limit["hard"], f"/process/rlimits/{i}")
        for i, limit in enumerate(process.get("rlimits", ()))
    ]


def profile_steps(process: dict[str, Any]) -> list[Step]:
    """The process's AppArmor profile or SELinux label: while init has the privileges that a procfs of its own takes."""
    steps: list[Step] = []
    if name := process.get("apparmorProfile"):
        from pyrunc.steps.apparmor import ChangeProfile

        steps.append(ChangeProfile(name))
    if label := process.get("selinuxLabel"):
        from pyrunc.steps.selinux import SetLabel

        steps.append(SetLabel("exec", label))
    return steps


def keyring_steps(process: dict[str, Any], container_id: str, new: bool, permissions: int = 0) -> list[Step]:
    """The session keyring, with the process's SELinux label.

    After init has become root of its user namespace, if it has one: by name only those keyrings are found whose owner
    the namespace knows.

    Args:
        permissions: added to those of the keyring.
    """
    steps: list[Step] = [s.NewKeyring(f"_ses.{container_id}", permissions)] if new else []
    if new and (label := process.get("selinuxLabel")):
        from pyrunc.steps.selinux import SetLabel

        steps.insert(0, SetLabel("keycreate", label))
    return steps


def scheduling_steps(process: dict[str, Any], linux: dict[str, Any]) -> list[Step]:
    """When and beside which memory the process runs: late, because a policy may leave init little time, and before it
    loses CAP_SYS_NICE."""
    scheduler, io_priority = process.get("scheduler"), process.get("ioPriority")
    personality, memory_policy = linux.get("personality"), linux.get("memoryPolicy")
    if not (scheduler or io_priority or personality or memory_policy):
        return []
    from pyrunc.steps import scheduling

    steps: list[Step] = []
    if io_priority:
        steps.append(scheduling.SetIoPriority(io_priority))
    if personality:
        steps.append(scheduling.SetPersonality(personality["domain"]))
    if memory_policy:
        steps.append(scheduling.SetMemoryPolicy(memory_policy))
    if scheduler:
        steps.append(scheduling.SetScheduler(scheduler))
    return steps


def affinity_steps(affinity: dict[str, str] | None) -> tuple[list[Step], list[Step], list[Step]]:
    """On which CPUs a process runs that is added to a container (config.md, execCPUAffinity).

    Returns:
        what the runtime does before it starts the process, and after; what the process does in its cgroup.
    """
    initial, final = (affinity or {}).get("initial"), (affinity or {}).get("final")
    if not initial and not final:
        return [], [], [s.AllowEveryCpu()]
    from pyrunc.steps.scheduling import RestoreAffinity, SetAffinity

    inside: list[Step] = [SetAffinity(final, initial=False)] if final else []
    if not initial:
        return [], [], inside
    first = SetAffinity(initial, initial=True)
    return [first], [RestoreAffinity(first)], inside


def asks_for_limits(process: dict[str, Any], config: dict[str, Any]) -> bool:
    """Whether the runtime has to set init's limits: in a user namespace, whose root can't raise a hard limit."""
    types = [namespace["type"] for namespace in config.get("linux", {}).get("namespaces", ())]
    return "user" in types and bool(process.get("rlimits"))


def process_steps(
    process: dict[str, Any],
    config: dict[str, Any],
    seccomp: Filter | None,
    *,
    joining: bool = False,
    unprivileged: bool = False,
) -> list[Step]:
    """What init does last: from holding every privilege to being the container's program.

    Args:
        process: process of config.json, or the one to exec.
        joining: the process joins a running container, which has its terminal's device and its hooks behind it.
        unprivileged: the runtime's user is not root.
    """
    user = process.get("user", {})
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    cwd = process.get("cwd", "/")
    no_new_privileges = process.get("noNewPrivileges", False)
    sets = {kind: capability_mask(names) for kind, names in process.get("capabilities", {}).items()}
    effective, permitted = sets.get("effective", 0), sets.get("permitted", 0)

    steps: list[Step] = []
    if process.get("terminal") and joining:
        steps.append(open_terminal(process, make_console=False))
    steps.append(s.CloseDescriptors())
    steps.append(s.SetEnvironment(process.get("env", []), uid))
    steps.append(s.ChangeDirectory(cwd, last=False))
    if asks_for_limits(process, config):
        steps += [Tell("limits"), Await("limited")]
    else:
        steps += rlimit_steps(process)
    steps += scheduling_steps(process, config.get("linux", {}))
    steps.append(s.DropBoundingSet(sets.get("bounding", 0)))
    if no_new_privileges:
        steps.append(s.NoNewPrivileges())
    steps.append(s.SetUser(uid, gid, user.get("additionalGids", []), user.get("umask")))
    steps.append(s.ChangeDirectory(cwd, last=True))
    # Loading a filter needs CAP_SYS_ADMIN where no_new_privs is not set (seccomp(2)). execve(2) drops it
    extra = 1 << CAP_SYS_ADMIN if seccomp is not None and not no_new_privileges else 0
    inheritable = sets.get("inheritable", 0)
    # Only what is both permitted and inheritable can be ambient (capabilities(7))
    asked = sets.get("ambient", 0)
    ambient = asked & permitted & inheritable
    listed = [name for names in process.get("capabilities", {}).values() for name in names]
    steps.append(
        s.SetCapabilities(
            effective | extra,
            permitted | extra,
            inheritable,
            ambient,
            wanted=capability_mask(listed),
            bounding=sets.get("bounding", 0),
            unknown=sorted(set(listed).difference(CAPABILITIES)),
            unraisable=asked & ~ambient,
        )
    )
    if process.get("args"):
        steps.append(s.FindExecutable(process["args"][0]))
    if unprivileged and not joining:
        steps.append(s.Dumpable())
    early = seccomp is not None and seccomp.notify
    if seccomp is not None and early:
        steps.append(s.LoadNotifyingSeccomp(seccomp.program, seccomp.flags, open_up=unprivileged))
    steps.append(s.WaitForStart())
    if not joining:
        from pyrunc.plan import hooks

        # As under runc, the filter is theirs too. Where init is still free of it each puts itself under it
        steps += hooks(config, "startContainer", "created", inside=True, seccomp=None if early else seccomp)
    steps.append(s.PrepareExec(joining=joining))
    if seccomp is not None and not early:
        steps.append(s.LoadSeccomp(seccomp.program, seccomp.flags))
    if process.get("args"):
        steps.append(s.Exec(process["args"]))
    return steps


def open_terminal(process: dict[str, Any], *, make_console: bool) -> Step:
    """The step that gives the process its terminal."""
    from pyrunc.steps.devices import OpenTerminal

    return OpenTerminal(process.get("consoleSize"), make_console, process.get("user", {}).get("uid", 0))
