"""Steps of Intel RDT: a container's share of caches and memory bandwidth."""

from __future__ import annotations

import os

from pyrunc import resctrl
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.resctrl import Group
    from pyrunc.steps.context import Context


class MakeResctrlGroup(Step):
    """Make the container's group of resctrl, or see that the one it names is what it wants, and write its shares."""

    __slots__ = ("_made", "group", "rdt")

    def __init__(self, group: Group, rdt: dict[str, Any]) -> None:
        super().__init__("/linux/intelRdt")
        self.group = group
        self.rdt = rdt
        self._made: list[str] = []

    def describe(self) -> str:
        shares = ", ".join(resctrl.lines(self.rdt).split())
        return f"use the resctrl group {self.group.path}" + (f" with {shares}" if shares else "")

    def run(self, ctx: Context) -> None:
        self._made = self.group.make(self.rdt)

    def undo(self, ctx: Context) -> None:
        resctrl.remove(self._made)


class JoinResctrlGroup(Step):
    """Put a process of the container into its group; what it forks is born there.

    Attributes:
        whole: put all threads of all processes into it, which have been restored and not forked.
    """

    __slots__ = ("group", "whole")

    def __init__(self, group: Group, *, whole: bool = False) -> None:
        super().__init__("/linux/intelRdt")
        self.group = group
        self.whole = whole

    def describe(self) -> str:
        return f"put the process into the resctrl group {self.group.monitor or self.group.path}"

    def run(self, ctx: Context) -> None:
        if not self.whole:
            self.group.add(ctx.init_pid)
            return
        for pid in ctx.cgroup.procs() if ctx.cgroup is not None else [ctx.init_pid]:
            for thread in os.listdir(f"/proc/{pid}/task"):
                self.group.add(int(thread))
