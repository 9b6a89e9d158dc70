"""pause and resume: what stands still, what still works on a paused container, and how it ends."""

from __future__ import annotations

import json
import os
import pathlib
import time

import pytest

from conformance.harness import Bundle, Container, alive, not_applicable, requires, spec, until

pytestmark = requires("controller:freezer")

PAUSE = "suspends all processes in the instance of the container"
TICK = "while :; do echo tick; sleep 0.02; done"


def paused(container: Container) -> Container:
    container.run_detached()
    container.pause()
    assert container.status == "paused"
    return container


def ticks(container: Container) -> int:
    return container.stdout.count("tick")


def stands_still(container: Container) -> bool:
    before = ticks(container)
    time.sleep(0.25)
    return ticks(container) == before


@spec("runc-pause.8", PAUSE)
def test_every_process(bundle: Bundle, container: Container) -> None:
    """Children, and what exec has put in."""
    bundle.sh(f"({TICK}) & ({TICK}) & sleep 1000")
    container.run_detached()
    container.exec("sh", "-c", "while :; do echo tick >> /tmp/beat; sleep 0.02; done", flags=["--detach"], check=True)
    beat = pathlib.Path(bundle.host("/tmp/beat"))
    container.wait_output("tick")
    until(beat.exists, "the exec's first tick")
    container.pause()
    size = beat.stat().st_size
    assert stands_still(container) and beat.stat().st_size == size
    container.resume()
    until(lambda: beat.stat().st_size > size and not stands_still(container), "ticks after resume")


@spec("runc-pause.8", PAUSE)
def test_cgroups_below(bundle: Bundle, container: Container) -> None:
    """A process in a cgroup that the container made below its own."""
    bundle.sh(f"({TICK}) & sleep 1000")
    container.run_detached()
    container.wait_output("tick")
    cgroups = container.runtime.cgroups
    top = cgroups.of(container.pid)["freezer" if cgroups.mode != "v2" else ""]
    os.mkdir(f"{top}/below")
    words = pathlib.Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
    for word in words:
        pathlib.Path(top, "below", "cgroup.procs").write_text(word)
    container.pause()
    assert stands_still(container)
    container.resume()
    assert not stands_still(container)
    container.delete("--force")
    assert not cgroups.having(container.id)


@spec("runc-delete.8", "force")
@requires("cgroup v1")
def test_delete_of_what_the_container_froze(bundle: Bundle, container: Container) -> None:
    """In a cgroup below its own, which no resume from above thaws; init can't end before it does."""
    if container.runtime.name != "pyrunc":
        not_applicable("runc and crun wait for an end that does not come")
    bundle.sh("sleep 1001 & sleep 1000")
    container.run_detached()
    child = until(lambda: _words(container.pid), "the child")[0]
    below = pathlib.Path(container.runtime.cgroups.of(container.pid)["freezer"], "below")
    below.mkdir()
    (below / "cgroup.procs").write_text(child)
    (below / "freezer.state").write_text("FROZEN")
    deleted = container.runtime.start("delete", "--force", container.id).wait(reaping_but=())
    assert deleted.status == 0, deleted
    assert not container.runtime.cgroups.having(container.id)


def _words(pid: int) -> list[str]:
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@spec("runc-pause.8", PAUSE)
def test_while_processes_are_made(bundle: Bundle, container: Container) -> None:
    """The freezer races with fork(2); it wins in the end."""
    bundle.sh("for i in 1 2 3; do (while :; do /bin/true; done) & done; while :; do /bin/true; done")
    container.run_detached()
    for _ in range(5):
        container.pause()
        assert container.status == "paused"
        container.resume()
        assert container.status == "running"
    container.delete("--force")


@spec("runc-pause.8", PAUSE)
def test_created(container: Container) -> None:
    """Also before start. A paused container can be deleted by force, too."""
    if container.runtime.name == "crun":
        not_applicable("crun calls it created")
    container.create()
    container.pause()
    assert container.status == "paused"
    container.resume()
    assert container.status == "created"
    container.start()
    assert container.status == "running"


@spec("runc-resume.8", "resume all processes that have been previously paused")
def test_many_times(bundle: Bundle, container: Container) -> None:
    bundle.sh(TICK)
    container.run_detached()
    for _ in range(10):
        container.pause()
        container.resume()
    assert container.status == "running" and not stands_still(container)


@spec("runtime.md#kill", "This operation MUST send the specified signal to the container process.")
def test_kill(container: Container) -> None:
    """Engines' `stop` of a paused container: KILL, and it is gone, with a resume at the latest."""
    paused(container).kill("KILL")
    container.runtime.run("resume", container.id)
    assert container.wait() == 137
    assert container.status == "stopped"
    container.delete()


@spec("runtime.md#kill", "This operation MUST send the specified signal to the container process.")
def test_other_signals_wait(bundle: Bundle, container: Container) -> None:
    bundle.sh("trap 'echo heard; exit 7' TERM; echo ready; while :; do sleep 0.02; done")
    container.run_detached()
    container.wait_output("ready")
    container.pause()
    container.kill("TERM")
    time.sleep(0.1)
    assert container.status == "paused" and "heard" not in container.stdout
    container.resume()
    assert container.wait() == 7


@spec("runtime.md#delete", "Attempting to delete a container that is not stopped MUST have no effect on the container")
def test_delete(container: Container) -> None:
    assert paused(container).delete(check=False).status != 0
    assert container.status == "paused"
    container.resume()
    assert container.status == "running"


@spec("runc-delete.8", "force")
@pytest.mark.parametrize("pid_namespace", [True, False])
def test_delete_force(bundle: Bundle, container: Container, pid_namespace: bool) -> None:
    """With a PID namespace of its own, and with all processes to be found by the cgroup alone."""
    bundle.sh("sleep 1001 & sleep 1002 & wait")
    if not pid_namespace:
        if container.runtime.name == "crun":
            not_applicable("crun 1.8 kills the first process only")
        bundle.namespaces(drop=["pid"])
    container.run_detached()
    pid = container.pid
    children = until(lambda: _two_children(pid), "the children")
    container.pause()
    deleted = container.runtime.start("delete", "--force", container.id).wait(reaping_but=())
    assert deleted.status == 0, deleted
    assert not container.exists()
    until(lambda: not any(map(alive, [pid, *children])), "their end")
    assert not container.runtime.cgroups.having(container.id)


def _two_children(pid: int) -> list[int]:
    found = [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found if len(found) == 2 else []


@spec("runc-ps.8")
def test_ps(bundle: Bundle, container: Container) -> None:
    paused(container)
    pids = json.loads(container.runtime.run("ps", "--format", "json", container.id, check=True).stdout)
    assert pids == [container.pid]


@spec("config-linux.md#control-groups", "MUST generate an error if such a check fails. For example, a frozen cgroup")
def test_exec(container: Container) -> None:
    """It would hang for as long as the container is paused."""
    result = paused(container).exec("true", timeout=10)
    assert result.status != 0 and "paused" in result.stderr, result
    if container.runtime.name != "crun":
        assert result.status == 255 and "cannot exec in a paused container" in result.stderr, result
    container.resume()
    assert container.exec("true").status == 0


@spec("runc-exec.8", "--ignore-paused")
@requires("flag:exec --ignore-paused")
def test_exec_ignore_paused(container: Container) -> None:
    """It runs as soon as the container does."""
    paused(container)
    call = container.runtime.start("exec", "--ignore-paused", container.id, "echo", "ran")
    time.sleep(0.3)
    assert call.process.poll() is None and call.stdout == ""
    assert container.status == "paused"
    container.resume()
    result = call.wait()
    assert (result.status, result.stdout) == (0, "ran\n")


@spec("runc-list.8", "list")
def test_list(container: Container) -> None:
    paused(container)
    (entry,) = json.loads(container.runtime.run("list", "--format", "json", check=True).stdout)
    assert (entry["id"], entry["status"], entry["pid"]) == (container.id, "paused", container.pid)


@spec("runtime.md#state", "status (string, REQUIRED) is the runtime state of the container.")
def test_paused_from_outside(container: Container) -> None:
    """An engine, or a person, may use the freezer directly: state tells what is."""
    container.run_detached()
    cgroups = container.runtime.cgroups
    if cgroups.mode == "v2":
        file, on, off = "cgroup.freeze", "1", "0"
    else:
        file, on, off = "freezer.state", "FROZEN", "THAWED"
    path = pathlib.Path(cgroups.of(container.pid)["freezer" if cgroups.mode != "v2" else ""], file)
    path.write_text(on)
    until(lambda: container.status == "paused", "the status paused")
    path.write_text(off)
    until(lambda: container.status == "running", "the status running")


@spec("runtime.md#start", "Attempting to start a container that is not created MUST have no effect on the container")
def test_start(container: Container) -> None:
    """Paused before it was started: start says so, and does not wait for a resume that may never come."""
    if container.runtime.name == "crun":
        not_applicable("crun calls it created, and its start waits")
    container.create()
    container.pause()
    result = container.start(check=False, timeout=10)
    assert result.status != 0 and "Traceback" not in result.stderr
    container.delete("--force")
    assert not container.exists()
