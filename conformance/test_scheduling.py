"""When, on which CPUs and beside which memory a process runs, and as what machine it is told of."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conformance.harness import Bundle, Container, Runtime, not_applicable, pyrunc_promise, requires, spec


def since(**first: tuple[int, int]) -> Callable[[Runtime], str | None]:
    """A requirement: this version of a runtime or a later one; a runtime that is not named has it."""

    def ask(runtime: Runtime) -> str | None:
        least = first.get(runtime.name)
        if least is None:
            return None
        major, minor = runtime.version.split(".")[:2]
        return None if (int(major), int(minor)) >= least else f"{runtime.name} {runtime.version} does not know it yet"

    return ask


NEVER = (99, 0)


def _several_cpus(_: Runtime) -> str | None:
    return None if len(os.sched_getaffinity(0)) > 1 else "one CPU is all that there is"


def _numa(_: Runtime) -> str | None:
    return None if os.path.exists("/proc/self/numa_maps") else "this kernel has no NUMA"


def _nice_to_itself(_: Runtime) -> str | None:
    """Realtime policies take CAP_SYS_NICE."""
    status = pathlib.Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return None if effective >> 23 & 1 else "CAP_SYS_NICE is lacking"


def exec_process(container: Container, process: dict[str, Any]) -> int:
    """Run `process` in the container, detached; its process ID."""
    scratch = container.runtime.scratch
    described, pid_file = scratch("process.json"), scratch("pid")
    pathlib.Path(described).write_text(
        json.dumps({"cwd": "/", "env": ["PATH=/bin"], "args": ["sleep", "1000"]} | process)
    )
    flags = ["--detach", "--pid-file", pid_file, "--process", described]
    container.runtime.run("exec", *flags, container.id, check=True)
    return int(pathlib.Path(pid_file).read_text())


# -- scheduler

SCHEDULER = "scheduler (object, OPTIONAL) is an object describing the scheduler properties for the process."
scheduled = requires(since(runc=(1, 2), crun=(1, 9)))


def policy(pid: int) -> tuple[int, int, int]:
    """Policy with its SCHED_RESET_ON_FORK, static priority, nice value."""
    return os.sched_getscheduler(pid), os.sched_getparam(pid).sched_priority, os.getpriority(os.PRIO_PROCESS, pid)


@spec("config.md#linux-process", SCHEDULER)
@scheduled
@requires(_nice_to_itself)
@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"policy": "SCHED_OTHER", "nice": 7}, (os.SCHED_OTHER, 0, 7)),
        ({"policy": "SCHED_BATCH", "nice": 19, "priority": 0}, (os.SCHED_BATCH, 0, 19)),
        ({"policy": "SCHED_IDLE"}, (os.SCHED_IDLE, 0, 0)),
        ({"policy": "SCHED_OTHER", "nice": -5}, (os.SCHED_OTHER, 0, -5)),
    ],
    ids=["other", "batch", "idle", "a negative nice value"],
)
def test_scheduler(
    bundle: Bundle, container: Container, scheduler: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    bundle.process["scheduler"] = scheduler
    container.run_detached()
    assert policy(container.pid) == expected


@spec("config.md#linux-process", SCHEDULER)
@scheduled
@requires(_nice_to_itself)
def test_realtime_scheduler(bundle: Bundle, container: Container) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_RR", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    result = container.run("--detach")
    if result.status != 0 and any(words in result.stderr for words in ("peration not permitted", "EPERM")):
        not_applicable("this cgroup may have no realtime processes")
    assert result.status == 0, result
    assert policy(container.pid)[:2] == (os.SCHED_RR | os.SCHED_RESET_ON_FORK, 3)


@spec("config.md#linux-process", "runtime (uint64, OPTIONAL) represents the amount of time in nanoseconds")
@scheduled
@requires(_nice_to_itself)
@requires("command:chrt")
def test_deadline_scheduler_of_exec(bundle: Bundle, container: Container) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 3}
    container.run_detached()
    times = {"runtime": 1000000, "deadline": 2000000, "period": 10000000}
    pid = exec_process(
        container, {"scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"], **times}}
    )
    told = subprocess.run(["chrt", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    assert "SCHED_DEADLINE|SCHED_RESET_ON_FORK" in told
    assert "1000000/2000000/10000000" in told
    assert policy(container.pid) == (os.SCHED_BATCH, 0, 3)


@spec("config.md#linux-process", SCHEDULER)
@requires(since(runc=(1, 2), crun=NEVER))
def test_exec_is_scheduled_as_the_container(bundle: Bundle, container: Container) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 3}
    container.run_detached()
    assert policy(exec_process(container, {})) == (os.SCHED_BATCH, 0, 3)
    assert policy(exec_process(container, {"scheduler": {"policy": "SCHED_IDLE"}}))[0] == os.SCHED_IDLE


@spec("config.md#linux-process", SCHEDULER)
@requires(since(runc=(1, 2), crun=NEVER))
@pytest.mark.parametrize(
    ("scheduler", "pointer"),
    [
        ({"policy": "SCHED_OTHER", "nice": 20}, "nice"),
        ({"policy": "SCHED_BATCH", "priority": 1}, "priority"),
        ({"policy": "SCHED_FIFO", "priority": 1, "runtime": 5}, "runtime"),
        ({"policy": "SCHED_ISO"}, ""),
        ({"policy": "SCHED_FIFO", "priority": 1000}, ""),
        ({"policy": "SCHED_SOON"}, "policy"),
        ({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_HURRY"]}, "flags/0"),
    ],
)
def test_schedulers_that_there_are_not(
    bundle: Bundle, container: Container, scheduler: dict[str, Any], pointer: str
) -> None:
    bundle.process["scheduler"] = scheduler
    result = container.create(check=False)
    assert result.status != 0
    if container.runtime.name == "pyrunc":
        assert "/process/scheduler" + (f"/{pointer}: " if pointer else ": ") in result.stderr


@spec("config.md#linux-process", SCHEDULER)
@requires(since(runc=(1, 2), crun=NEVER))
@requires(_several_cpus)
@requires("controller:cpuset")
@requires(_nice_to_itself)
def test_deadlines_are_for_all_cpus(bundle: Bundle, container: Container) -> None:
    bundle.linux["resources"]["cpu"] = {"cpus": str(min(os.sched_getaffinity(0)))}
    times = {"runtime": 42000, "deadline": 1000000, "period": 1000000}
    bundle.process["scheduler"] = {"policy": "SCHED_DEADLINE", **times}
    result = container.create(check=False)
    assert result.status != 0
    assert "process scheduler can't be used together with AllowedCPUs" in result.stderr


# -- I/O priority

IO_PRIORITY = "ioPriority (object, OPTIONAL) configures the I/O priority settings for the container's processes"


def io_priority(pid: int) -> str:
    return subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True, check=True).stdout.strip()


@spec("config.md#linux-process", IO_PRIORITY)
@requires(since(runc=(1, 2), crun=(1, 9)))
@requires("command:ionice")
@pytest.mark.parametrize(
    ("io_class", "level", "expected"),
    [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_RT", 0, "realtime: prio 0"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ],
)
def test_io_priority(bundle: Bundle, container: Container, io_class: str, level: int, expected: str) -> None:
    bundle.process["ioPriority"] = {"class": io_class, "priority": level}
    container.run_detached()
    assert io_priority(container.pid) == expected


@spec("config.md#linux-process", IO_PRIORITY)
@requires(since(runc=(1, 2), crun=NEVER))
@requires("command:ionice")
def test_io_priority_of_exec(bundle: Bundle, container: Container) -> None:
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    container.run_detached()
    assert io_priority(exec_process(container, {})) == "best-effort: prio 6"
    assert io_priority(exec_process(container, {"ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0}})) == "idle"


@spec("config.md#linux-process", "The value should be an integer ranging from 0 (highest) to 7 (lowest).")
@requires(since(runc=(1, 2), crun=NEVER))
@pytest.mark.parametrize("wrong", [{"class": "IOPRIO_CLASS_BE", "priority": 8}, {"class": "BE", "priority": 1}])
def test_io_priorities_that_there_are_not(bundle: Bundle, container: Container, wrong: dict[str, Any]) -> None:
    bundle.process["ioPriority"] = wrong
    assert container.create(check=False).status != 0


# -- CPU affinity

FINAL = (
    "final (string, OPTIONAL) is a list of CPUs the process will be run on after the transition to container's cgroup."
)
affine = requires(since(runc=(1, 3), crun=NEVER))


@pytest.fixture
def one_cpu() -> Iterator[int]:
    """The runtime's caller runs on one CPU, this one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield min(before)
    os.sched_setaffinity(0, before)


@spec("config-linux.md#cpu", "cpus (string, OPTIONAL) - list of CPUs the container will run on.")
@requires(since(runc=(1, 4), crun=NEVER))
@requires(_several_cpus)
def test_the_callers_affinity_is_not_the_containers(bundle: Bundle, container: Container) -> None:
    """As runc: it runs on all CPUs that its cgroup has."""
    everywhere = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(everywhere)})
        container.run_detached()
        added = exec_process(container, {})
    finally:
        os.sched_setaffinity(0, everywhere)
    assert os.sched_getaffinity(container.pid) == everywhere
    assert os.sched_getaffinity(added) == everywhere


@spec("config-linux.md#cpu", "cpus (string, OPTIONAL) - list of CPUs the container will run on.")
@requires(since(runc=(1, 4), crun=NEVER))
@requires(_several_cpus)
@requires("controller:cpuset")
def test_all_cpus_of_the_cgroup(bundle: Bundle, container: Container, one_cpu: int) -> None:
    other = max(os.sched_getaffinity(1))
    bundle.linux["resources"]["cpu"] = {"cpus": str(other), "mems": "0"}
    container.run_detached()
    assert os.sched_getaffinity(container.pid) == {other}
    assert os.sched_getaffinity(exec_process(container, {})) == {other}


@spec("config.md#linux-process", FINAL)
@affine
@requires(_several_cpus)
def test_final_affinity(bundle: Bundle, container: Container) -> None:
    """Of what joins the container, not of the container's first process."""
    first, *_, last = sorted(os.sched_getaffinity(0))
    bundle.process["execCPUAffinity"] = {"initial": str(first), "final": str(last)}
    container.run_detached()
    assert os.sched_getaffinity(container.pid) == os.sched_getaffinity(0)
    assert os.sched_getaffinity(exec_process(container, {})) == {last}
    assert os.sched_getaffinity(exec_process(container, {"execCPUAffinity": {"final": f"{first}"}})) == {first}


@spec("config.md#linux-process", FINAL)
@affine
@requires(_several_cpus)
def test_initial_affinity_alone(container: Container) -> None:
    """It stays where it began."""
    container.run_detached()
    last = max(os.sched_getaffinity(0))
    assert os.sched_getaffinity(exec_process(container, {"execCPUAffinity": {"initial": f"{last}"}})) == {last}


@spec("config.md#linux-process", "This is a a comma-separated list, with dashes to represent ranges.")
@affine
@pytest.mark.parametrize("cpus", ["x", "0-", ",", "-1", "3-1"])
def test_lists_of_cpus_that_are_none(container: Container, cpus: str) -> None:
    container.run_detached()
    described = container.runtime.scratch("process.json")
    process = {"cwd": "/", "args": ["true"], "execCPUAffinity": {"final": cpus}}
    pathlib.Path(described).write_text(json.dumps(process))
    result = container.runtime.run("exec", "--process", described, container.id)
    assert result.status != 0
    if container.runtime.name == "pyrunc":
        assert "/execCPUAffinity/final: not a list of CPUs" in result.stderr


# -- memory policy

MEMORY = "memoryPolicy (object, OPTIONAL) sets the NUMA memory policy for the container."
remembered = requires(since(runc=(1, 4), crun=(1, 25)))


@spec("config-linux.md#memory-policy", MEMORY)
@remembered
@requires(_numa)
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0"}, "interleave:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "prefer=relative:0"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_DEFAULT", "nodes": "", "flags": []}, "default"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_memory_policy(bundle: Bundle, container: Container, asked: dict[str, Any], expected: str) -> None:
    bundle.linux["memoryPolicy"] = asked
    container.run_detached()
    for pid in (container.pid, exec_process(container, {})):
        assert pathlib.Path(f"/proc/{pid}/numa_maps").read_text().split("\n")[0].split(" ")[1] == expected


@spec("config-linux.md#memory-policy", "Some modes require that there are no nodes")
@remembered
@requires(_numa)
@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "invalid memory policy"),
        ({"nodes": "0"}, "invalid memory policy mode"),
        ({"mode": "INTERLEAVE", "nodes": "0"}, "invalid memory policy"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_BAD"]}, "invalid memory policy flag"),
        ({"mode": "MPOL_DEFAULT", "nodes": "0-7"}, "mode requires 0 nodes but got 8"),
        ({"mode": "MPOL_BIND"}, "mode requires at least one node"),
        ({"mode": "MPOL_BIND", "nodes": "0-9876543210"}, "invalid memory policy node"),
        ({"mode": "MPOL_BIND", "nodes": "1000"}, ""),
    ],
)
def test_memory_policies_that_there_are_not(
    bundle: Bundle, container: Container, asked: dict[str, Any], words: str
) -> None:
    bundle.linux["memoryPolicy"] = asked
    result = container.create(check=False)
    assert result.status != 0
    if container.runtime.name != "crun":  # runc's words
        assert words in result.stderr
    if container.runtime.name == "pyrunc":
        assert "/linux/memoryPolicy" in result.stderr


# -- personality

PERSONALITY = "personality (object, OPTIONAL) sets the Linux execution personality."
characters = requires(since(runc=(1, 2)))


def _x86(_: Runtime) -> str | None:
    return None if os.uname().machine == "x86_64" else "only x86-64 has the name i686"


@spec("config-linux.md#personality", PERSONALITY)
@characters
@requires(_x86)
@pytest.mark.parametrize(("domain", "machine"), [("LINUX32", "i686"), ("LINUX", "x86_64")])
def test_personality(bundle: Bundle, container: Container, domain: str, machine: str) -> None:
    bundle.linux["personality"] = {"domain": domain, "flags": []}
    container.run_detached()
    assert container.exec("uname", "-m", check=True).stdout == f"{machine}\n"
    told = pathlib.Path(f"/proc/{container.pid}/personality").read_text()
    assert told == ("00000008\n" if domain == "LINUX32" else "00000000\n")


@spec("config-linux.md#personality", PERSONALITY)
@characters
@requires(_x86)
def test_a_filter_does_not_forbid_the_personality(bundle: Bundle, container: Container) -> None:
    bundle.linux["personality"] = {"domain": "LINUX32"}
    refused = {"names": ["personality"], "action": "SCMP_ACT_ERRNO"}
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}
    container.run_detached()
    assert container.exec("uname", "-m", check=True).stdout == "i686\n"


@spec("config-linux.md#personality", "Currently no flag values are supported.")
@pyrunc_promise
@pytest.mark.parametrize("asked", [{"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}, {"domain": "BSD"}, {}])
def test_personalities_that_there_are_not(bundle: Bundle, container: Container, asked: dict[str, Any]) -> None:
    bundle.linux["personality"] = asked
    result = container.create(check=False)
    assert result.status != 0
    assert "/linux/personality/" in result.stderr
