"""SIGKILL at every step, of the runtime and of init: nothing hangs, no command is lost, `delete --force` clears."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyrunc import Error
from pyrunc.container import containers, discard
from pyrunc.errors import NoSuchContainer, NotRunning
from pyrunc.steps.mounts import BindMount
from pyrunc.steps.process import PrepareExec, WaitForStart
from robustness.lab import Lab, Tamper, in_lab, plan_of, wait_for


def _kill_self(ctx: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Halt:
    """A place in init where it stops, tells the test, and goes on when the test lets it.

    Attributes:
        pid: the process that has stopped, once `reached`.
    """

    def __init__(self) -> None:
        self._told, tell = socket.socketpair()
        self._told.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # who writes to it is told, in our numbers
        self.tell = tell.detach()
        self.wait, self._gate = os.pipe()
        self.pid = 0

    def __call__(self, ctx: Any) -> None:
        if _is_open(self._gate):  # else it would never see the test's end of the pipe close
            os.close(self._gate)
        os.write(self.tell, b".")
        os.read(self.wait, 1)

    def reached(self) -> bool:
        """Wait until somebody stops there; False if all who could have ended."""
        os.close(self.tell)
        with self._told:
            word, told, _, _ = self._told.recvmsg(1, socket.CMSG_SPACE(12))
        for _, kind, data in told:
            if kind == socket.SCM_CREDENTIALS:
                self.pid = struct.unpack("3i", data)[0]
        return word == b"."

    def go(self) -> None:
        """Let it go on."""
        os.write(self._gate, b".")  # a runtime that lives has this end of the pipe too
        os.close(self._gate)
        os.close(self.wait)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _clear(lab: Lab, what: str) -> None:
    """After any accident every question has an answer, `delete --force` clears, and the ID can be used again."""
    try:
        container = lab.load()
        status = container.state()["status"]
        if status not in ("creating", "created", "stopped", "running"):
            lab.fault(f"{what}: status {status}")
        if [entry["id"] for entry in containers(str(lab.root))] != ["c"]:
            lab.fault(f"{what}: list has {containers(str(lab.root))}")
        container.pids()
        try:
            container.kill(0)
        except NotRunning:
            pass
        container.delete(force=True)
    except NoSuchContainer:
        if containers(str(lab.root)):
            lab.fault(f"{what}: list has a container that does not exist")
    discard("c", root=str(lab.root))
    lab.poststops()
    lab.expect_clean(what, orphans=True)
    if (lab.root / ".~").exists():
        lab.fault(f"{what}: left: {list((lab.root / '.~').iterdir())}")


@pytest.mark.parametrize("kind", ["full", "user", "joined", "host"])
@in_lab
def test_create(lab: Lab, kind: str) -> None:
    """The runtime that creates is killed before each of its own steps and at each of init's, and so is init."""
    bundle = lab.full(kind)
    plan = plan_of(lambda: lab.create(bundle))
    lab.expect_clean("planning")
    for index, step in enumerate(plan["runtime"]):
        what = f"{kind}: runtime killed at its step {index} ({step.describe()})"
        with Tamper("runtime", index, before=_kill_self):
            status = wait_for(lab.forked(lambda: lab.create(bundle)))
        if status != -signal.SIGKILL:
            lab.fault(f"{what}: it ended with {status} {lab.said()}")
        _clear(lab, what)
        if wait_for(lab.forked(lambda: lab.create(bundle))) != 0:
            lab.fault(f"{what}: the next create said {lab.said()}")
        _clear(lab, f"{what}, the next create")
    waits = next(i for i, s in enumerate(plan["init"]) if isinstance(s, WaitForStart))
    for process, length in (("stage", len(plan["stage"])), ("init", waits + 1)):
        for index in range(length):
            for victim in ("runtime", "init"):
                what = f"{kind}: {victim} killed at {process} step {index} ({plan[process][index].describe()})"
                halt = Halt()
                with Tamper(process, index, before=halt, keep=(halt.tell, halt.wait)):
                    runtime = lab.forked(lambda: lab.create(bundle))
                _kill_at(lab, what, halt, runtime, victim)
                _clear(lab, what)


@in_lab
def test_the_opener_of_sources_is_killed(lab: Lab) -> None:
    """The process that opens the sources of mounts for an init in a user namespace ends early: init says so."""
    bundle = lab.full("user")
    plan = plan_of(lambda: lab.create(bundle))
    index = next(i for i, s in enumerate(plan["init"]) if isinstance(s, BindMount))
    halt = Halt()
    with Tamper("init", index, before=halt, keep=(halt.tell, halt.wait)):
        runtime = lab.forked(lambda: lab.create(bundle))
    if not halt.reached():
        lab.fault("never came there")
    children = Path(f"/proc/{runtime}/task/{runtime}/children").read_text().split()
    [server] = {int(pid) for pid in children} - {halt.pid}
    os.kill(server, signal.SIGKILL)
    halt.go()
    status, said = wait_for(runtime), lab.said()
    if status != 1 or "the process that opens sources for init ended unexpectedly" not in said:
        lab.fault(f"it ended with {status} and said {said!r}")
    _clear(lab, "the opener of sources killed")


def _kill_at(lab: Lab, what: str, halt: Halt, runtime: int, victim: str) -> None:
    """When init has come to the halt kill it, or the runtime that waits for it."""
    if not halt.reached():
        lab.fault(f"{what}: never came there")
        victim = "runtime"
    init = victim == "init"
    os.kill(halt.pid if init else runtime, signal.SIGKILL)
    status, said = wait_for(runtime), lab.said()
    halt.go()
    if status is None:
        lab.fault(f"{what}: it hangs")
    elif init and (status != 1 or not said or "\n" in said):
        lab.fault(f"{what}: it ended with {status} and said {said!r}")


@pytest.mark.parametrize("kind", ["full", "host"])
@in_lab
def test_start(lab: Lab, kind: str) -> None:
    """The runtime that starts is killed while init is at each of its last steps, and so is init."""
    bundle = lab.full(kind)
    plan = plan_of(lambda: lab.create(bundle))
    lab.expect_clean("planning")
    waits = next(i for i, s in enumerate(plan["init"]) if isinstance(s, WaitForStart))
    for index in range(waits + 1, len(plan["init"])):
        # who dies after `start` has been told that all is well has been started
        told = any(isinstance(step, PrepareExec) for step in plan["init"][:index])
        for victim in ("runtime",) if told else ("runtime", "init"):
            what = f"{kind}: {victim} killed at init step {index} ({plan['init'][index].describe()})"
            halt = Halt()
            with Tamper("init", index, before=halt, keep=(halt.tell, halt.wait)):
                container = lab.create(bundle)
            starter = lab.forked(container.start)
            _kill_at(lab, what, halt, starter, victim)
            _clear(lab, what)


@in_lab
def test_exec(lab: Lab) -> None:
    """The runtime that executes is killed at each step: no process of its own stays, and the container lives on."""
    bundle = lab.full("full")
    container = lab.create(bundle)
    container.start()
    process = lab.rich()["process"]
    # execve(2) closes what `start` waits for before it gives the process its new name, by which the lab knows it
    comm = Path(f"/proc/{container.state()['pid']}/comm")
    _until(lambda: comm.read_text() == "sleep\n")
    lab.before = lab.host()

    def execute() -> int:
        return lab.load().exec(process, stdio=lab.quiet())

    plan = plan_of(execute)
    for index in range(len(plan["runtime"])):
        what = f"runtime killed at its step {index} ({plan['runtime'][index].describe()})"
        with Tamper("runtime", index, before=_kill_self):
            if (status := wait_for(lab.forked(execute))) != -signal.SIGKILL:
                lab.fault(f"{what}: it ended with {status} {lab.said()}")
        lab.expect_clean(what, orphans=True)
    for where in ("stage", "init"):
        for index in range(len(plan[where]) - 1):
            what = f"runtime killed at {where} step {index} ({plan[where][index].describe()})"
            halt = Halt()
            with Tamper(where, index, before=halt, keep=(halt.tell, halt.wait)):
                runtime = lab.forked(execute)
            if not halt.reached():
                lab.fault(f"{what}: never came there")
            os.kill(runtime, signal.SIGKILL)
            wait_for(runtime)
            halt.go()
            if _told_to_go(plan[where], index):  # then the process runs, as it would under any runtime
                for pid in set(container.pids()) - {container.state()["pid"]}:
                    os.kill(pid, signal.SIGKILL)
            lab.expect_clean(what, orphans=True)
    if container.state()["status"] != "running":
        lab.fault("the container did not survive")
    container.delete(force=True)


def _told_to_go(steps: list[Any], index: int) -> bool:
    return any(isinstance(step, WaitForStart) for step in steps[:index])


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
@in_lab
def test_hanging_hook_of_create(lab: Lab, kind: str) -> None:
    """A hook hangs while the container is created: SIGTERM, SIGINT, SIGKILL of init and `delete --force` end that."""
    marker = lab.path / "hook.keep"
    # What a hook leaves behind in the container goes with the container; on the host it is nobody's business
    sleep = "sleep 1000 & wait" if kind == "createContainer" else "exec sleep 1000"
    hang = {"path": "/bin/sh", "args": ["sh", "-c", f"echo >>{marker}; {sleep}"]}
    for pid_namespace in (True, False):
        spaces = [{"type": kind} for kind in ("pid", "mount", "network") if pid_namespace or kind != "pid"]
        bundle = lab.bundle("hang", **{"hooks": {kind: [hang]}, "linux/namespaces": spaces})
        for way in ("TERM", "INT", "KILL", "delete", "init"):
            what = f"{kind} hook hangs, {'own' if pid_namespace else 'host'} PID namespace, ended by {way}"
            runtime = lab.forked(partial(lab.create, bundle))
            _until(marker.exists)
            marker.unlink()
            if (status := lab.load().state()["status"]) != "creating":
                lab.fault(f"{what}: status {status}")
            try:
                lab.load().delete()
                lab.fault(f"{what}: delete without force succeeded")
            except Error:
                pass
            if way == "delete":
                lab.load().delete(force=True)
            elif way == "init":
                _until(lambda: lab.load()._state.data["pid"] > 0)
                os.kill(lab.load()._state.data["pid"], signal.SIGKILL)
            else:
                os.kill(runtime, getattr(signal, f"SIG{way}"))
            if wait_for(runtime) in (0, None):
                lab.fault(f"{what}: create succeeded or hangs")
            said = lab.said()
            if way in ("delete", "init") and not said:
                lab.fault(f"{what}: create said nothing")
            if way in ("TERM", "KILL"):
                _kill_group(runtime)
                try:
                    lab.load().delete(force=True)
                except NoSuchContainer:
                    lab.fault(f"{what}: no state")
            lab.expect_clean(what, orphans=True)


def _kill_group(runtime: int) -> None:
    """A runtime that is killed can't take its hooks on the host along; they are in its process group."""
    try:
        os.killpg(runtime, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@in_lab
def test_half_a_state_directory(lab: Lab) -> None:
    """What a killed `delete` or `create` could leave: list does not see it, delete removes it, create gets the ID."""
    bundle = lab.bundle("plain")
    for names in ([], ["config.json"], ["exec.fifo", ".state.json"]):
        directory = lab.root / "c"
        directory.mkdir()
        for name in names:
            (directory / name).touch()
        if containers(str(lab.root)):
            lab.fault(f"list has {containers(str(lab.root))}")
        status, said = lab.cli("state", "c")
        if status != 1 or said != "pyrunc: state c: container does not exist\n":
            lab.fault(f"state: {status} {said}")
        status, said = lab.cli("delete", "--force", "c")
        if status or said or directory.exists():
            lab.fault(f"delete --force with {names}: {status} {said}")
        lab.create(bundle).delete()
    for text in ("", "{", "[]", "{}", '{"pid": 1}'):
        (lab.root / "c").mkdir()
        (lab.root / "c" / "state.json").write_text(text)
        for command in (["list"], ["state", "c"], ["kill", "c"], ["delete", "c"], ["start", "c"]):
            status, said = lab.cli(*command)
            if "internal error" in said or "Traceback" in said or said.count("\n") > 1:
                lab.fault(f"{command} on state {text!r}: {status} {said}")
        for name in os.listdir(lab.root / "c"):
            (lab.root / "c" / name).unlink()
        if (lab.root / "c").exists():
            (lab.root / "c").rmdir()
    (lab.root / ".~" / "c").mkdir(parents=True)
    (lab.root / ".~" / "c" / "state.json").write_text("{")
    lab.create(bundle).delete()
    if (lab.root / ".~").exists():
        lab.fault("a killed create's directory is not used")
    lab.expect_clean("all")
