"""The order of what init does last, between holding every privilege and being the container's program."""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

import pytest

from pyrunc import cgroups
from pyrunc import plan as planner
from pyrunc.linux.process import CAP_SYS_ADMIN, CAPABILITIES
from pyrunc.plan.process import capability_mask, process_steps
from pyrunc.resctrl import Group
from pyrunc.seccomp import Filter
from pyrunc.steps import Step
from pyrunc.steps import process as s
from pyrunc.steps.apparmor import ChangeProfile
from pyrunc.steps.hooks import RunHook
from pyrunc.steps.listener import SendListener
from pyrunc.steps.network import MoveNetDevice
from pyrunc.steps.runtime import Await, StartInit

T = TypeVar("T", bound=Step)

FILTER = Filter(b"\6\0\0\0\0\0\377\177", 4, False)
ASKING = Filter(b"\6\0\0\0\0\0\377\177", 8, True)


def process(**more: Any) -> dict[str, Any]:
    """A process with everything in it."""
    names = ["CAP_CHOWN", "CAP_KILL"]
    return {
        "args": ["sh", "-c", "true"],
        "cwd": "/srv",
        "env": ["PATH=/bin"],
        "user": {"uid": 1000, "gid": 100, "additionalGids": [5], "umask": 0o77},
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), names),
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
    } | more


def plan(seccomp: Filter | None = FILTER, *, joining: bool = False, hooks: Any = None, **more: Any) -> list[Step]:
    return process_steps(process(**more), {"hooks": hooks or {}}, seccomp, joining=joining)


def names(steps: list[Step]) -> list[str]:
    return [type(step).__name__ for step in steps]


def at(steps: list[Step], kind: type[Step]) -> int:
    """The place of the only step of a kind."""
    (place,) = [i for i, step in enumerate(steps) if isinstance(step, kind)]
    return place


def only(steps: list[Step], kind: type[T]) -> T:
    step = steps[at(steps, kind)]
    assert isinstance(step, kind)
    return step


VARIANTS = [
    {"joining": joining, "seccomp": seccomp, "noNewPrivileges": no_new_privileges}
    for joining, seccomp, no_new_privileges in itertools.product((False, True), (None, FILTER), (False, True))
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_bounding_set_goes_before_the_user_changes(variant: dict[str, Any]) -> None:
    """PR_CAPBSET_DROP takes CAP_SETPCAP in the effective set, which another user does not have any more."""
    steps = plan(**variant)
    assert at(steps, s.DropBoundingSet) < at(steps, s.SetUser) < at(steps, s.SetCapabilities)


@pytest.mark.parametrize("variant", VARIANTS)
def test_descriptors_are_closed_before_paths_of_the_image_are_looked_up(variant: dict[str, Any]) -> None:
    """CVE-2024-21626: /proc/self/fd/N as working directory, home's passwd or program."""
    steps = plan(**variant)
    closed = at(steps, s.CloseDescriptors)
    for i, step in enumerate(steps):
        if isinstance(step, s.SetEnvironment | s.ChangeDirectory | s.FindExecutable | s.Exec):
            assert closed < i


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_directory_is_entered_as_root_and_else_as_the_user(variant: dict[str, Any]) -> None:
    steps = plan(**variant)
    first, second = [i for i, step in enumerate(steps) if isinstance(step, s.ChangeDirectory)]
    assert first < at(steps, s.SetUser) < second
    assert [steps[i].last for i in (first, second)] == [False, True]  # type: ignore[attr-defined]


@pytest.mark.parametrize("variant", VARIANTS)
def test_limits_come_before_the_user(variant: dict[str, Any]) -> None:
    steps = plan(**variant)
    assert at(steps, s.SetRlimit) < at(steps, s.SetUser)
    assert only(steps, s.SetRlimit).origin == "/process/rlimits/0"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_program_is_looked_up_as_the_user_while_create_still_listens(variant: dict[str, Any]) -> None:
    """With the environment's PATH, from the working directory, with the user's rights."""
    steps = plan(**variant)
    found = at(steps, s.FindExecutable)
    assert max(at(steps, s.SetEnvironment), at(steps, s.SetUser), at(steps, s.SetCapabilities)) < found
    assert max(i for i, step in enumerate(steps) if isinstance(step, s.ChangeDirectory)) < found
    assert found < at(steps, s.WaitForStart)


@pytest.mark.parametrize("variant", VARIANTS)
def test_execution_comes_last_and_nothing_but_the_filter_right_before(variant: dict[str, Any]) -> None:
    """Every call after the filter would have to be in the program's profile."""
    tail = names(plan(**variant))
    end = ["PrepareExec", "LoadSeccomp", "Exec"] if variant["seccomp"] else ["PrepareExec", "Exec"]
    assert tail[-len(end) :] == end
    assert tail.index("WaitForStart") < tail.index("PrepareExec")


def test_start_container_hooks_are_between_start_and_the_filter() -> None:
    hooks = {"startContainer": [{"path": "/one"}, {"path": "/two"}]}
    found = names(plan(hooks=hooks))
    first = found.index("RunHook")
    assert found[first : first + 2] == ["RunHook"] * 2
    assert found.index("WaitForStart") < first < found.index("LoadSeccomp")
    assert [step.seccomp for step in plan(hooks=hooks) if isinstance(step, RunHook)] == [FILTER, FILTER]


def test_the_hooks_before_start_are_told_created() -> None:
    """runtime.md: the status is "created" after "step 2 in the lifecycle"; these hooks are steps 3 to 7."""
    before = ("prestart", "createRuntime", "createContainer", "startContainer")
    config = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": process(),
        "hooks": {kind: [{"path": "/hook"}] for kind in before},
        "linux": {"namespaces": [{"type": "mount"}]},
    }
    steps = created(config)
    init = only(steps, StartInit).init
    found = [(step.kind, step.status, step.inside) for step in [*steps, *init] if isinstance(step, RunHook)]
    assert found == [(kind, "created", kind in before[2:]) for kind in before]


def test_a_filter_that_asks_an_agent_is_loaded_while_the_runtime_is_there() -> None:
    """Who takes the listener out of init is there until init is ready."""
    hooks = {"startContainer": [{"path": "/one"}]}
    for joining in (False, True):
        steps = plan(ASKING, hooks=hooks, joining=joining)
        found = names(steps)
        assert found.index("FindExecutable") < found.index("LoadNotifyingSeccomp") < found.index("WaitForStart")
        assert "LoadSeccomp" not in found
        assert [step.seccomp for step in steps if isinstance(step, RunHook)] == ([] if joining else [None])


@pytest.mark.parametrize("kind", ["create", "exec"])
def test_the_runtime_sends_the_listener_before_init_is_ready(kind: str) -> None:
    profile = {"listenerPath": "/run/agent", "listenerMetadata": "m", "syscalls": []}
    config = {"linux": {"namespaces": [], "seccomp": profile}, "root": {"path": "rootfs"}, "process": process()}
    if kind == "create":
        manager = cgroups.manager("", "id", cgroups.detect(""), "")
        steps = planner.create(config, "/bundle", "id", manager, planner.Options(), ASKING)
    else:
        steps = planner.exec_steps(config, process(), "id", planner.Options(), ASKING)
    sending = only(steps, SendListener)
    assert (sending.path, sending.metadata) == ("/run/agent", "m")
    assert sending.status == ("creating" if kind == "create" else "running")
    after = [step.kind for step in steps[at(steps, SendListener) + 1 :] if isinstance(step, Await)]
    assert at(steps, StartInit) < at(steps, SendListener) and after == ["ready"]


def test_hooks_are_not_for_a_process_that_joins() -> None:
    assert "RunHook" not in names(plan(hooks={"startContainer": [{"path": "/one"}]}, joining=True))


def created(config: dict[str, Any]) -> list[Step]:
    """The runtime's steps of create."""
    manager: Any = type("Manager", (), {"settings": lambda self, resources: [], "unit": None})()
    return planner.create(config, "/bundle", "c", manager, planner.Options(), FILTER)


def whole(kind: str, **more: Any) -> list[Step]:
    """Init's steps of create or exec: a container with everything that has to do with AppArmor's place."""
    config: dict[str, Any] = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "hostname": "h",
        "process": process(**more),
        "hooks": {"createContainer": [{"path": "/one"}], "startContainer": [{"path": "/two"}]},
        "linux": {
            "namespaces": [{"type": name} for name in ("mount", "uts", "ipc", "pid")],
            "sysctl": {"kernel.shmmax": "1"},
            "maskedPaths": ["/proc/kcore"],
        },
    }
    if kind == "create":
        steps = created(config)
    else:
        steps = planner.exec_steps(config, config["process"], "c", planner.Options(), FILTER)
    return only(steps, StartInit).init


@pytest.mark.parametrize("kind", ["create", "exec"])
def test_the_apparmor_profile_is_asked_for_with_every_privilege(kind: str) -> None:
    """A procfs of init's own takes CAP_SYS_ADMIN and, in a user namespace, a /proc in sight that nothing hides."""
    found = names(whole(kind, apparmorProfile="strict"))
    place = found.index("ChangeProfile")
    for later in ("PivotRoot", "MaskPath", "SetUser", "SetCapabilities", "FindExecutable", "LoadSeccomp", "Exec"):
        if later in found:
            assert place < found.index(later)
    if kind == "create":  # as with runc, the hook in the container's namespaces still runs as the runtime does
        hooks = [i for i, name in enumerate(found) if name == "RunHook"]
        assert hooks[0] < place < hooks[1]


@pytest.mark.parametrize("more", [{}, {"apparmorProfile": ""}])
@pytest.mark.parametrize("kind", ["create", "exec"])
def test_no_apparmor_profile_asks_nothing(kind: str, more: dict[str, str]) -> None:
    assert "ChangeProfile" not in names(whole(kind, **more))


def test_unconfined_is_a_profile_like_any_other() -> None:
    """apparmor(7): the kernel knows it by this name."""
    step = only(whole("create", apparmorProfile="unconfined"), ChangeProfile)
    assert step.describe() == "change to the AppArmor profile unconfined on exec"
    assert step.origin == "/process/apparmorProfile"


def test_no_new_privs_is_set_before_the_filter() -> None:
    """Without it, and without CAP_SYS_ADMIN, seccomp(2) is EACCES."""
    steps = plan(noNewPrivileges=True)
    assert at(steps, s.NoNewPrivileges) < at(steps, s.LoadSeccomp)
    assert "NoNewPrivileges" not in names(plan(noNewPrivileges=False))


ADMIN = 1 << CAP_SYS_ADMIN


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("seccomp, no_new_privileges, kept", [
    (FILTER, False, True),
    (FILTER, True, False),
    (None, False, False),
    (None, True, False),
])  # fmt: skip
def test_sys_admin_is_kept_only_for_the_filter(
    seccomp: Filter | None, no_new_privileges: bool, kept: bool, uid: int
) -> None:
    """In no set that survives execve(2): neither bounding nor inheritable nor ambient."""
    step = only(plan(seccomp, noNewPrivileges=no_new_privileges, user={"uid": uid, "gid": 0}), s.SetCapabilities)
    assert bool(step.permitted & ADMIN) == bool(step.effective & ADMIN) == kept
    assert not (step.inheritable | step.ambient | step.bounding | step.wanted) & ADMIN


def test_capability_mask() -> None:
    assert capability_mask([]) == 0
    assert capability_mask(["CAP_CHOWN"]) == 1
    assert capability_mask(["CAP_KILL", "CAP_CHOWN", "CAP_KILL"]) == 1 << 5 | 1
    assert capability_mask(["CAP_CHECKPOINT_RESTORE"]) == 1 << 40
    assert capability_mask(CAPABILITIES) == (1 << 41) - 1


@pytest.mark.parametrize("name", ["", "CHOWN", "cap_chown", "CAP_NO_SUCH", "CAP_CHOWN "])
def test_unknown_capabilities_count_nothing_and_are_remembered(name: str) -> None:
    assert capability_mask([name, "CAP_KILL"]) == 1 << 5
    step = only(plan(capabilities={"bounding": [name, "CAP_KILL"], "permitted": [name]}), s.SetCapabilities)
    assert step.unknown == [name]
    assert step.wanted == 1 << 5


def test_absent_capabilities_are_none() -> None:
    steps = plan(capabilities={})
    step = only(steps, s.SetCapabilities)
    assert (step.effective, step.permitted, step.inheritable, step.ambient) == (0, 0, 0, 0)
    assert only(steps, s.DropBoundingSet).keep == 0


def test_ambient_needs_permitted_and_inheritable() -> None:
    """What is not both can't be raised (capabilities(7)); configurations that ask for it are common."""
    sets = {"ambient": ["CAP_CHOWN", "CAP_KILL", "CAP_FOWNER"], "permitted": ["CAP_CHOWN", "CAP_KILL"]}
    step = only(plan(capabilities=sets | {"inheritable": ["CAP_KILL", "CAP_FOWNER"]}), s.SetCapabilities)
    assert step.ambient == 1 << 5
    assert step.unraisable == 1 << 0 | 1 << 3


def test_a_container_without_a_command_has_nothing_to_execute() -> None:
    found = names(plan(args=[]))
    assert "Exec" not in found and "FindExecutable" not in found


def test_only_command_and_directory_speak_in_words_that_engines_take_for_the_command() -> None:
    """podman makes 127 and 126 of them (pyrunc/errors.py)."""
    about = {type(step).__name__ for step in plan() if step.about_command}
    assert about == {"ChangeDirectory", "FindExecutable", "Exec"}


def test_every_step_says_what_it_does() -> None:
    for step in plan(noNewPrivileges=False):
        line = step.describe()
        assert line and "\n" not in line and not line.endswith(".")


def test_steps_of_the_configuration_know_their_place() -> None:
    origins = {type(step).__name__: step.origin for step in plan()}
    assert origins["SetUser"] == "/process/user"
    assert origins["ChangeDirectory"] == "/process/cwd"
    assert origins["SetCapabilities"] == "/process/capabilities"
    assert origins["DropBoundingSet"] == "/process/capabilities/bounding"
    assert origins["LoadSeccomp"] == "/linux/seccomp"
    assert origins["FindExecutable"] == "/process/args/0"
    assert origins["NoNewPrivileges"] == "/process/noNewPrivileges"


def test_network_devices_are_moved_before_init_goes_on() -> None:
    """Its sysctls may be about them, and the hooks after that."""
    config = {
        "root": {"path": "rootfs"},
        "process": process(),
        "hooks": {"createRuntime": [{"path": "/one"}]},
        "linux": {"namespaces": [{"type": "network"}], "netDevices": {"eth/0": {"name": "a"}, "eth1": {}}},
    }
    steps = created(config)
    assert isinstance(only(steps, StartInit).init[0], Await)
    moved = [(step.name, step.new_name, step.origin) for step in steps if isinstance(step, MoveNetDevice)]
    assert moved == [("eth/0", "a", "/linux/netDevices/eth~10"), ("eth1", "eth1", "/linux/netDevices/eth1")]
    found = names(steps)
    assert found.index("StartInit") < found.index("MoveNetDevice") < found.index("Tell") < found.index("RunHook")


def test_intel_rdt_comes_before_init_goes_on_and_before_it_is_ready() -> None:
    rdt = {"closID": "gold", "schemata": ["MB:0=10"]}
    group = Group.of(rdt, "c", "/no/resctrl")
    config = {
        "root": {"path": "rootfs"},
        "process": process(),
        "linux": {"namespaces": [{"type": "user"}], "intelRdt": rdt, "uidMappings": [], "gidMappings": []},
    }
    manager: Any = type("Manager", (), {"settings": lambda self, resources: [], "unit": None})()
    found = names(planner.create(config, "/bundle", "c", manager, planner.Options(), None, group))
    order = ["StartInit", "MakeResctrlGroup", "JoinResctrlGroup", "Tell"]
    assert [name for name in found if name in order][:4] == order
    found = names(planner.exec_steps(config, process(), "c", planner.Options(), None, group))
    assert [name for name in found if name in order][:3] == ["StartInit", "JoinResctrlGroup", "Tell"]


@pytest.mark.parametrize("kind", ["create", "exec"])
def test_the_session_keyring_comes_when_its_owner_is_one_that_the_namespace_knows(kind: str) -> None:
    mapping = [{"containerID": 0, "hostID": 1, "size": 1}]
    spaces: list[dict[str, str]] = [{"type": name} for name in ("mount", "pid", "user")]
    config: dict[str, Any] = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": process(),
        "linux": {"namespaces": spaces, "uidMappings": mapping, "gidMappings": mapping},
    }
    if kind == "create":
        steps = created(config)
    else:
        steps = planner.exec_steps(config, process(), "c", planner.Options(), FILTER)
    inner = only(steps, StartInit).init
    found = names(inner)
    assert found.index("BecomeRoot") < found.index("NewKeyring") < found.index("SetUser")
    assert bool(only(inner, s.NewKeyring).permissions) == (kind == "create")
