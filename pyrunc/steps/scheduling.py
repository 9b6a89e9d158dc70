"""Steps that say when, where and beside which memory the container's process runs."""

from __future__ import annotations

import os

from pyrunc.errors import Error
from pyrunc.linux import scheduling as s
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.steps.context import Context


class SetScheduler(Step):
    """sched_setattr(2), while the process has CAP_SYS_NICE."""

    __slots__ = ("scheduler",)

    def __init__(self, scheduler: dict[str, Any]) -> None:
        super().__init__("/process/scheduler")
        self.scheduler = scheduler

    def describe(self) -> str:
        told = [f"{name} {self.scheduler[name]}" for name in ("nice", "priority") if self.scheduler.get(name)]
        told += [f"{name} {self.scheduler[name]} ns" for name in _TIMES if self.scheduler.get(name)]
        told += self.scheduler.get("flags", ())
        return f"be scheduled by {self.scheduler['policy']}" + (f" ({', '.join(told)})" if told else "")

    def run(self, ctx: Context) -> None:
        asked = self.scheduler
        flags = sum(s.SCHEDULING_FLAGS[name] for name in set(asked.get("flags", ())))
        numbers = (asked.get("nice", 0), asked.get("priority", 0), *(asked.get(name, 0) for name in _TIMES))
        try:
            s.sched_setattr(s.POLICIES[asked["policy"]], flags, *numbers)
        except PermissionError:
            # sched_setattr(2): the affinity mask has to include all CPUs, as the kernel's admission of deadlines counts
            if ctx.config.get("linux", {}).get("resources", {}).get("cpu", {}).get("cpus"):
                raise Error("process scheduler can't be used together with AllowedCPUs (resources.cpu.cpus)") from None
            raise


_TIMES = ("runtime", "deadline", "period")


class SetIoPriority(Step):
    """ioprio_set(2) for the process group, which is the container's process and what it starts."""

    __slots__ = ("io_class", "level")

    def __init__(self, priority: dict[str, Any]) -> None:
        super().__init__("/process/ioPriority")
        self.io_class: str = priority["class"]
        self.level: int = priority.get("priority", 0)

    def describe(self) -> str:
        return f"set I/O priority {self.io_class} {self.level}"

    def run(self, ctx: Context) -> None:
        s.set_io_priority(s.IO_CLASSES[self.io_class], self.level)


class SetMemoryPolicy(Step):
    """set_mempolicy(2), which execve(2) keeps."""

    __slots__ = ("policy",)

    def __init__(self, policy: dict[str, Any]) -> None:
        super().__init__("/linux/memoryPolicy")
        self.policy = policy

    def describe(self) -> str:
        words = [self.policy["mode"], self.policy.get("nodes", ""), *self.policy.get("flags", ())]
        return f"set memory policy {' '.join(filter(None, words))}"

    def run(self, ctx: Context) -> None:
        mode = s.MEMORY_MODES[self.policy["mode"]]
        mode |= sum(s.MEMORY_FLAGS[name] for name in set(self.policy.get("flags", ())))
        nodes = self.policy.get("nodes")
        s.set_memory_policy(mode, s.number_list(nodes, MOST_NODES) if nodes else [])


#: The largest number of a memory node (MAX_NUMNODES is 1 << 10 at most) and of a CPU (NR_CPUS is 8192 at most).
MOST_NODES = 1023
MOST_CPUS = 8191


class SetPersonality(Step):
    """personality(2), before a system call filter can forbid it."""

    __slots__ = ("domain",)

    def __init__(self, domain: str) -> None:
        super().__init__("/linux/personality")
        self.domain = domain

    def describe(self) -> str:
        return f"be of the personality {self.domain}"

    def run(self, ctx: Context) -> None:
        s.personality(s.PERSONALITIES[self.domain])


class SetAffinity(Step):
    """Run on the CPUs of ``execCPUAffinity``: the process, or for a while the runtime, whose child begins there."""

    __slots__ = ("before", "cpus", "initial")

    def __init__(self, cpus: str, *, initial: bool) -> None:
        super().__init__(f"/process/execCPUAffinity/{'initial' if initial else 'final'}")
        self.cpus = s.number_list(cpus, MOST_CPUS)
        self.initial = initial
        self.before: set[int] | None = None

    def describe(self) -> str:
        if not self.initial:
            return f"run on CPUs {','.join(map(str, self.cpus))}"
        # In the words of runc's log, by which its users look for it
        return f"nsexec: affinity: {sum(1 << cpu for cpu in self.cpus):#x}, until in the container's cgroup"

    def run(self, ctx: Context) -> None:
        if self.initial:
            self.before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cpus)

    def undo(self, ctx: Context) -> None:
        if self.before is not None:
            os.sched_setaffinity(0, self.before)
            self.before = None


class RestoreAffinity(Step):
    """Run on the CPUs again on which the runtime, which may be a library in a program, ran before."""

    __slots__ = ("changed",)

    def __init__(self, changed: SetAffinity) -> None:
        super().__init__(changed.origin)
        self.changed = changed

    def describe(self) -> str:
        return "run on the same CPUs as before"

    def run(self, ctx: Context) -> None:
        self.changed.undo(ctx)
