"""Steps of the control groups: the budget that a container is held to."""

from __future__ import annotations

from pyrunc.linux.proc import read_text
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cgroups.base import Manager, Setting
    from pyrunc.steps.context import Context

SIGKILL = 9


class MakeCgroup(Step):
    """Make the container's cgroup in every hierarchy; refuse one that is in use."""

    __slots__ = ("manager",)

    def __init__(self, manager: Manager, origin: str) -> None:
        super().__init__(origin)
        self.manager = manager

    def describe(self) -> str:
        if self.manager.unit is not None:
            return self.manager.unit.describe()
        if not self.manager.dirs:
            return "make no cgroup: none is mounted"
        more = len(self.manager.dirs) - 1
        return f"make cgroup {self.manager.dirs[0]}" + (f" and {more} more" if more else "")

    def run(self, ctx: Context) -> None:
        self.manager.check_empty()
        self.manager.create(ctx.init_pid)
        ctx.cgroup = self.manager

    def undo(self, ctx: Context) -> None:
        if ctx.cgroup is not None:  # not one that was refused because others live in it
            if self.manager.procs():
                self.manager.kill(SIGKILL)  # what a hook left there, or init where it is not PID 1 of its namespace
            self.manager.remove()


class SetLimit(Step):
    """Write one value into one cgroup file."""

    __slots__ = ("manager", "setting")

    def __init__(self, manager: Manager, setting: Setting) -> None:
        super().__init__(setting.pointer)
        self.manager = manager
        self.setting = setting

    def describe(self) -> str:
        return self.setting.describe()

    def run(self, ctx: Context) -> None:
        self.manager.apply(self.setting)


class DelegateCgroup(Step):
    """Give the container's cgroup to the user that its process runs as, to arrange cgroups below (cgroup-v2.rst,
    "Delegation").

    Attributes:
        uid: in the container's user namespace.
    """

    __slots__ = ("uid",)

    def __init__(self, uid: int, origin: str) -> None:
        super().__init__(origin)
        self.uid = uid

    def describe(self) -> str:
        return f"delegate the cgroup to user {self.uid} of the container"

    def run(self, ctx: Context) -> None:
        assert ctx.cgroup is not None
        # Asked of the kernel: of a user namespace that is joined the configuration does not tell the mappings
        for line in read_text(f"/proc/{ctx.init_pid}/uid_map").splitlines():
            inside, outside, size = map(int, line.split())
            if 0 <= self.uid - inside < size:
                ctx.cgroup.delegate(outside + self.uid - inside)
