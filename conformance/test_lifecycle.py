"""create, start, kill, delete, state: their order, their errors, and the ids and states they go by."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
from collections.abc import Callable

import pytest

from conformance.harness import (
    Background,
    Bundle,
    Container,
    Runtime,
    Test,
    alive,
    children,
    direct_children,
    not_applicable,
    proc_status,
    requires,
    spec,
    until,
    xfail_on,
)

#: A shell as PID 1 that says when it is ready and which signals it got.
LISTENER = """
for s in HUP INT QUIT USR1 USR2 TERM; do trap "echo got-$s" $s; done
echo ready
while :; do sleep 0.05; done
"""


@spec("runtime.md#lifecycle", "The lifecycle describes the timeline of events")
def test_order(container: Container) -> None:
    assert container.status == ""
    container.create()
    assert container.status == "created"
    container.start()
    assert container.status == "running"
    container.kill("KILL")
    assert container.wait() == 128 + signal.SIGKILL
    assert container.status == "stopped"
    container.delete()
    assert container.status == ""
    assert container.runtime.run("state", container.id).status != 0


@spec(
    "runtime.md#create",
    "process.args MUST NOT be applied until triggered by the start operation.",
)
def test_created_runs_nothing(bundle: Bundle, container: Container) -> None:
    bundle.sh("touch /ran; echo ran; sleep 1000")
    container.create()
    assert not os.path.exists(bundle.host("/ran"))
    assert container.stdout == ""
    container.start()
    container.wait_output("ran")
    assert os.path.exists(bundle.host("/ran"))


@spec("runtime.md#lifecycle", "Any updates to config.json after this step MUST NOT affect the container.")
@pytest.mark.parametrize("change", ["other", "garbage", "gone"])
def test_config_is_read_once(bundle: Bundle, container: Container, change: str) -> None:
    bundle.sh("echo $WORD; hostname; sleep 1000")
    bundle.process["env"].append("WORD=first")
    container.create()
    config = pathlib.Path(bundle.path, "config.json")
    if change == "other":
        config.write_text(config.read_text().replace("WORD=first", "WORD=second").replace("conformance", "moon"))
    elif change == "garbage":
        config.write_text("{")
    else:
        config.unlink()
    container.start()
    container.wait_output("first\nconformance\n")
    container.kill("KILL")
    container.wait()
    container.delete()


@spec(
    "runtime.md#state",
    "pid (int, REQUIRED when status is created or running on Linux…) is the ID of the container process.",
)
def test_state_fields(bundle: Bundle, container: Container) -> None:
    bundle.config["annotations"] = {"org.example.key": "value", "org.example.empty": ""}
    container.create()
    for status in ("created", "running"):
        state = container.state()
        assert isinstance(state["ociVersion"], str)
        assert state["ociVersion"].split(".")[0] == "1"
        assert state["id"] == container.id
        assert state["status"] == status
        assert state["pid"] == container.pid
        assert alive(state["pid"])
        assert os.path.realpath(state["bundle"]) == os.path.realpath(bundle.path)
        assert os.path.isabs(state["bundle"])
        assert state["annotations"].items() >= {"org.example.key": "value", "org.example.empty": ""}.items()
        if status == "created":
            container.start()


@spec("runtime.md#state", "bundle (string, REQUIRED) is the absolute path to the container's bundle directory.")
@pytest.mark.parametrize("how", ["relative", "current directory"])
def test_bundle_is_absolute(bundle: Bundle, container: Container, how: str) -> None:
    bundle.write(f"/{container.id}")
    if how == "relative":
        where, flags = os.path.dirname(bundle.path), ["--bundle", os.path.basename(bundle.path)]
    else:
        where, flags = bundle.path, []
    container.runtime.run("create", *flags, container.id, cwd=where, check=True)
    assert container.state()["bundle"] == bundle.path


@spec("runtime.md#state", "If no annotations were provided then this property MAY either be absent or an empty map.")
def test_no_annotations(container: Container) -> None:
    container.create()
    assert not container.state().get("annotations")


@spec("config.md#annotations", "Values MUST be strings.")
def test_annotation_values_are_strings(bundle: Bundle, container: Container) -> None:
    bundle.config["annotations"] = {"org.example.key": 5}
    assert container.create(check=False).status != 0
    assert not container.exists()


@spec("runtime.md#state", "stopped: the container process has exited")
def test_a_zombie_is_stopped(container: Container) -> None:
    container.create()
    container.start()
    os.kill(container.pid, signal.SIGKILL)
    until(lambda: proc_status(container.pid)["State"].startswith("Z"), "the zombie")
    assert container.status == "stopped"
    assert container.wait() == 137
    assert container.status == "stopped"


@spec("runtime.md#state", "stopped: the container process has exited")
@pytest.mark.parametrize("before_start", [True, False])
def test_kill_9_from_outside(container: Container, before_start: bool) -> None:
    container.create()
    if not before_start:
        container.start()
    os.kill(container.pid, signal.SIGKILL)
    container.wait()
    assert container.status == "stopped"
    assert container.start(check=False).status != 0
    container.delete()


@spec("runtime.md#lifecycle", "The container process exits.")
@pytest.mark.parametrize("status", [0, 7])
def test_exits_by_itself(bundle: Bundle, container: Container, status: int) -> None:
    bundle.sh(f"exit {status}")
    container.create()
    container.start()
    assert container.wait() == status
    assert container.status == "stopped"
    container.delete()


@spec("runtime.md#delete", "Deleting a container MUST delete the resources that were created during the create step.")
@pytest.mark.parametrize("ended", [False, True], ids=["", "init gone"])
def test_delete_ends_what_init_left(bundle: Bundle, container: Container, ended: bool) -> None:
    """Without a pid namespace processes outlive the first one; `delete` ends them."""
    bundle.namespaces(drop=["pid"])
    bundle.sh("sleep 1000 & echo ready; wait")
    container.create()
    container.start()
    container.wait_output("ready")
    family = children(container.pid)
    assert len(family) == 1
    if ended:
        os.kill(container.pid, signal.SIGKILL)
        assert container.wait() == 137
        assert container.status == "stopped" and alive(family[0])
    container.delete(*(() if ended else ("--force",)))
    until(lambda: not alive(family[0]), "end of the container's second process")


# ------------------------------------------------------------------------------------------ illegal transitions


@spec("runtime.md#start", "This operation MUST generate an error if process was not set.")
@xfail_on("crun", "crun's start says so and ends with status 0")
def test_start_without_a_process(bundle: Bundle, container: Container) -> None:
    del bundle.config["process"]
    if container.create(check=False).status:
        not_applicable("the runtime makes no container without a process")
    started = container.start(check=False)
    assert started.status != 0
    assert "process" in started.stderr
    container.delete("--force")


@spec(
    "runtime.md#start",
    "Attempting to start a container that is not created MUST have no effect on the container and MUST"
    " generate an error.",
)
def test_start_running(container: Container) -> None:
    container.create()
    container.start()
    assert container.start(check=False).status != 0
    assert container.status == "running"
    assert alive(container.pid)


@spec(
    "runtime.md#start",
    "Attempting to start a container that is not created MUST have no effect on the container and MUST"
    " generate an error.",
)
def test_start_stopped(bundle: Bundle, container: Container) -> None:
    bundle.sh("echo x >>/ran")
    container.create()
    container.start()
    container.wait()
    assert container.start(check=False).status != 0
    assert container.status == "stopped"
    assert pathlib.Path(bundle.host("/ran")).read_text() == "x\n"


@spec(
    "runtime.md#start",
    "Attempting to start a container that is not created MUST have no effect on the container and MUST"
    " generate an error.",
)
@requires("controller:freezer")
def test_start_paused(container: Container) -> None:
    container.create()
    container.start()
    container.pause()
    try:
        assert container.start(check=False).status != 0
        assert container.status == "paused"
    finally:
        container.resume()


@spec(
    "runtime.md#delete",
    "Attempting to delete a container that is not stopped MUST have no effect on the container and MUST"
    " generate an error.",
)
def test_delete_running(container: Container) -> None:
    container.create()
    container.start()
    assert container.delete(check=False).status != 0
    assert container.status == "running"
    assert alive(container.pid)


@spec("runc-delete.8", "Forcibly delete the running container, using SIGKILL signal(7) to stop it first.")
@pytest.mark.parametrize("status", ["created", "running", "stopped", "paused"])
def test_delete_force(container: Container, status: str) -> None:
    if status == "paused" and not container.runtime.cgroups.has("freezer"):
        not_applicable("the host has no freezer controller")
    container.create()
    if status != "created":
        container.start()
    if status == "stopped":
        container.kill("KILL")
        container.wait()
    if status == "paused":
        container.pause()
    assert container.status == status
    pid = container.pid
    container.delete("--force")
    assert not container.exists()
    assert not alive(pid)


@spec("runc-delete.8", "Forcibly delete the running container")
def test_delete_force_of_nothing(container: Container) -> None:
    """Engines call it without looking first: a container that isn't there is deleted."""
    assert container.delete("--force", check=False).status == 0


@spec("runtime.md#kill", "This operation MUST send the specified signal to the container process.")
def test_kill_created(container: Container) -> None:
    container.create()
    container.kill("KILL")
    assert container.wait() == 137
    assert container.status == "stopped"
    container.delete()


@spec(
    "runtime.md#kill",
    "Attempting to send a signal to a container that is neither created nor running MUST have no effect on"
    " the container"
    " and MUST generate an error.",
)
def test_kill_stopped(container: Container) -> None:
    container.create()
    container.start()
    container.kill("KILL")
    container.wait()
    result = container.kill("TERM", check=False)
    assert result.status != 0
    assert container.status == "stopped"


@spec("runtime.md#query-state", "Attempting to query a container that does not exist MUST generate an error.")
@pytest.mark.parametrize("command", ["state", "start", "kill", "delete", "pause", "resume", "ps", "exec"])
def test_no_such_container(runtime: Runtime, command: str) -> None:
    more = {"kill": ["KILL"], "exec": ["true"]}.get(command, [])
    result = runtime.run(command, f"{runtime.token}-nobody", *more)
    assert result.status != 0
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr
    assert os.listdir(runtime.root) == []


@spec(
    "runtime.md#create",
    "This operation MUST generate an error if it is not provided a path to the bundle and the container ID",
)
@pytest.mark.parametrize(
    "command", ["create", "run", "state", "start", "kill", "delete", "exec", "pause", "resume", "ps"]
)
def test_no_id(runtime: Runtime, command: str, bundle: Bundle) -> None:
    bundle.write()
    result = runtime.run(command, cwd=bundle.path)
    assert result.status != 0
    assert "Traceback" not in result.stderr
    assert os.listdir(runtime.root) == []


@spec("runc-delete.8", "runc delete [--force|-f] container-id")
@pytest.mark.parametrize("command", ["create", "run", "state", "start", "delete", "pause", "resume"])
def test_too_many_arguments(runtime: Runtime, bundle: Bundle, command: str) -> None:
    """An argument too many is a mistyped command; it is better refused than half done."""
    if runtime.name == "crun":
        not_applicable("crun's delete takes several ids and the other commands ignore what follows")
    bundle.write()
    result = runtime.run(command, f"{runtime.token}-a", f"{runtime.token}-b", cwd=bundle.path)
    assert result.status != 0
    assert os.listdir(runtime.root) == []


# ---------------------------------------------------------------------------------------------------------- ids


@spec(
    "runtime.md#create",
    "If the ID provided is not unique across all containers within the scope of the runtime, or is not valid"
    " in any other"
    " way, the implementation MUST generate an error and a new container MUST NOT be created.",
)
@pytest.mark.parametrize("status", ["created", "running", "stopped"])
def test_id_taken(container: Container, new_bundle: Callable[[], Bundle], status: str) -> None:
    container.create()
    if status != "created":
        container.start()
    if status == "stopped":
        container.kill("KILL")
        container.wait()
    before = container.state()
    other = new_bundle()
    other.write(f"/{container.id}-other")
    for command in ("create", "run"):
        result = container.runtime.run(command, "--bundle", other.path, container.id)
        assert result.status != 0
    assert container.state() == before
    assert container.status == status
    if status != "stopped":
        assert alive(container.pid)


@spec("runtime.md#delete", "Once a container is deleted its ID MAY be used by a subsequent container.")
def test_id_used_again(container: Container) -> None:
    for _ in range(2):
        container.create()
        container.start()
        container.kill("KILL")
        container.wait()
        container.delete()


@spec(
    "runtime.md#create",
    "If the ID provided is not unique … or is not valid in any other way, the implementation MUST generate an error"
    " and a new container MUST NOT be created.",
)
@pytest.mark.parametrize(
    "id", ["", ".", "..", "../up", "a/b", "/abs", "a/../b", "x\ny", "tab\there"], ids=lambda id: repr(id).strip("'")
)
def test_id_that_is_no_file_name(runtime: Runtime, bundle: Bundle, id: str) -> None:
    if runtime.name == "crun" and id in ("/abs", "x\ny", "tab\there"):
        not_applicable("the specification leaves valid ids open, and crun takes any that its --root makes a path of")
    bundle.write(f"/{runtime.token}")
    outside = sorted(os.listdir(runtime.directory))
    result = runtime.run("create", "--bundle", bundle.path, "--", id)
    try:
        assert result.status != 0
        assert "Traceback" not in result.stderr and "panic" not in result.stderr
        assert os.listdir(runtime.root) == []
        known = [name for name in os.listdir(runtime.directory) if not name.startswith(("stdout", "stderr"))]
        assert sorted(known) == [name for name in outside if not name.startswith(("stdout", "stderr"))]
    finally:
        if result.status == 0:
            runtime.run("delete", "--force", "--", id)


@spec("runtime.md#create", "is not valid in any other way, the implementation MUST generate an error")
def test_id_longer_than_a_file_name(runtime: Runtime, bundle: Bundle) -> None:
    bundle.write(f"/{runtime.token}")
    result = runtime.run("create", "--bundle", bundle.path, "a" * 5000)
    assert result.status != 0
    assert "Traceback" not in result.stderr
    assert os.listdir(runtime.root) == []


@spec("runtime.md#state", "id (string, REQUIRED) is the container's ID.")
@pytest.mark.parametrize("suffix", ["UPPER", "with_underscore", "with.dot", "with+plus", "x" * 64])
def test_ordinary_ids(runtime: Runtime, bundle: Bundle, new_container: Callable[..., Container], suffix: str) -> None:
    container = new_container(id=f"{runtime.token}{suffix}")
    container.create()
    assert container.state()["id"] == container.id
    container.delete("--force")


@spec("runtime.md#create", "This operation MUST create a new container.")
def test_two_containers_of_one_bundle(bundle: Bundle, new_container: Callable[..., Container]) -> None:
    one, two = new_container(), new_container()
    one.create()
    two.create()
    one.start()
    assert (one.status, two.status) == ("running", "created")
    one.delete("--force")
    assert (one.status, two.status) == ("", "created")


# ---------------------------------------------------------------------------------------------------- signals


@spec(
    "runc-kill.8",
    "A different signal can be specified either by its name (with or without the SIG prefix), or its numeric value.",
)
@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("TERM", "TERM"),
        ("SIGTERM", "TERM"),
        ("15", "TERM"),
        ("HUP", "HUP"),
        ("1", "HUP"),
        ("SIGUSR1", "USR1"),
        ("12", "USR2"),
    ],
)
def test_kill_names_and_numbers(bundle: Bundle, container: Container, given: str, name: str) -> None:
    bundle.sh(LISTENER)
    container.run_detached()
    container.wait_output("ready")
    container.kill(given)
    container.wait_output(f"got-{name}")
    assert container.stdout == f"ready\ngot-{name}\n"


@spec("runc-kill.8", "A different signal can be specified either by its name (with or without the SIG prefix)")
@pytest.mark.parametrize("given", ["term", "sigterm"])
def test_kill_small_letters(bundle: Bundle, container: Container, given: str) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun knows signals by their names as written in signal(7)")
    bundle.sh(LISTENER)
    container.run_detached()
    container.wait_output("ready")
    container.kill(given)
    container.wait_output("got-TERM")


@spec("runc-kill.8", "By default, runc kill sends SIGTERM to the container's initial process only.")
def test_kill_default_is_term(bundle: Bundle, container: Container) -> None:
    bundle.sh(LISTENER)
    container.run_detached()
    container.wait_output("ready")
    container.runtime.run("kill", container.id, check=True)
    container.wait_output("got-TERM")


@spec("runc-kill.8", "either by its name (with or without the SIG prefix), or its numeric value")
@xfail_on(
    "crun", "crun 1.8 takes what it does not know for signal 0", only=["NOSUCH", "SIGNOSUCH", "9x", " 9", "SIG", "SIG9"]
)
@pytest.mark.parametrize("given", ["NOSUCH", "SIGNOSUCH", "-1", "65", "4096", "9x", " 9", "SIG", "SIG9"])
def test_kill_no_such_signal(bundle: Bundle, container: Container, given: str) -> None:
    if container.runtime.name == "runc" and given in ("65", "4096"):
        not_applicable("runc 1.1 hands any number to the kernel and says what it says")
    bundle.sh(LISTENER)
    container.run_detached()
    container.wait_output("ready")
    result = container.runtime.run("kill", "--", container.id, given)
    assert result.status != 0
    assert container.status == "running"
    assert container.stdout == "ready\n"


@spec("runc-kill.8", "By default, runc kill sends SIGTERM to the container's initial process only.")
def test_kill_is_for_the_first_process_only(bundle: Bundle, container: Container) -> None:
    bundle.sh(
        "sh -c 'trap \"echo child\" TERM; echo ready; while :; do sleep 0.05; done' & "
        "trap 'echo first' TERM; while :; do wait; done"
    )
    container.run_detached()
    container.wait_output("ready")
    container.kill("TERM")
    container.wait_output("first")
    container.kill("TERM")
    assert "child" not in container.stdout


@spec("runc.8", "kill")
@requires("flag:kill --all")
@pytest.mark.parametrize("flag", ["--all", "-a"])
def test_kill_all(bundle: Bundle, container: Container, flag: str) -> None:
    bundle.sh(
        "sh -c 'trap \"echo child; exit\" TERM; echo ready; while :; do sleep 0.05; done' & "
        "trap 'echo first' TERM; while :; do sleep 0.05; done"
    )
    container.run_detached()
    container.wait_output("ready")
    container.kill("TERM", flag)
    container.wait_output("child")
    container.wait_output("first")


@spec("runtime.md#kill", "This operation MUST send the specified signal to the container process.")
@requires("controller:freezer")
def test_kill_paused(container: Container) -> None:
    """Engines stop paused containers: KILL must get through, at the latest when it is resumed."""
    container.create()
    container.start()
    container.pause()
    container.kill("KILL")
    container.runtime.run("resume", container.id)
    assert container.wait() == 137
    container.delete()


@spec("runtime.md#kill", "This operation MUST send the specified signal to the container process.")
def test_term_does_not_end_an_init_that_ignores_it(container: Container) -> None:
    """PID 1 of a pid namespace has no default action for signals from within; TERM from outside has none either."""
    container.create()
    container.start()
    container.kill("TERM")
    container.kill("WINCH")
    assert container.status == "running"


# ------------------------------------------------------------------------------------------------ concurrency


def start_create(container: Container, bundle: Bundle) -> Background:
    runtime = container.runtime
    argv = ["create", "--bundle", bundle.path, "--pid-file", runtime.scratch("pid"), container.id]
    return runtime.start(*argv)


@spec(
    "runtime.md#create",
    "If the ID provided is not unique across all containers within the scope of the runtime … the implementation MUST"
    " generate an error and a new container MUST NOT be created.",
)
@xfail_on("runc", "of several creates at once runc 1.1 may let none win: each finds the other's files")
def test_one_of_several_creates_wins(container: Container, new_bundle: Callable[[], Bundle]) -> None:
    bundles = [new_bundle() for _ in range(4)]
    for i, bundle in enumerate(bundles):
        bundle.config["annotations"] = {"org.example.which": str(i)}
        bundle.write(f"/{container.id}-{i}")
    results = [started.wait() for started in [start_create(container, bundle) for bundle in bundles]]
    winners = [i for i, result in enumerate(results) if result.status == 0]
    assert len(winners) == 1, results
    state = container.state()
    assert state["annotations"]["org.example.which"] == str(winners[0])
    assert state["status"] == "created"
    container.start()
    container.delete("--force")


@spec(
    "runtime.md#scope-of-a-container",
    "MUST be able to use the operations defined in this specification against that same container.",
)
def test_eight_at_a_time(new_bundle: Callable[[], Bundle], new_container: Callable[..., Container]) -> None:
    containers = []
    for i in range(8):
        bundle = new_bundle().sh(f"exit {i}")
        containers.append(new_container(bundle=bundle))
    running = [container.run_background() for container in containers]
    assert [background.wait(60).status for background in running] == list(range(8))
    assert not any(container.exists() for container in containers)


@spec("runtime.md#start", "Attempting to start a container that is not created MUST … generate an error.")
@xfail_on("runc", "of two starts at once runc's second waits for the exec fifo, which nobody opens any more")
def test_one_of_several_starts_wins(bundle: Bundle, container: Container) -> None:
    bundle.sh("echo ran; sleep 1000")
    container.create()
    started = [container.runtime.start("start", container.id) for _ in range(4)]
    statuses = [background.wait(10).status for background in started]
    assert statuses.count(0) == 1, statuses
    container.wait_output("ran")
    assert container.stdout == "ran\n"


@spec(
    "runtime.md#query-state", "This operation MUST return the state of a container as specified in the State section."
)
def test_state_at_any_moment(bundle: Bundle, container: Container) -> None:
    """While another process creates, starts and deletes, `state` says something whole or that there is nothing."""
    seen = set()
    bundle.sh("exit 3")
    running = container.run_background()
    while running.process.poll() is None:
        result = container.runtime.run("state", container.id)
        if result.status == 0:
            state = json.loads(result.stdout)
            assert state["id"] == container.id
            seen.add(state["status"])
    assert running.wait().status == 3
    assert seen <= {"creating", "created", "running", "stopped"}


# ------------------------------------------------------------------------------------------------- files of create


@spec("runc-create.8", "Specify the file to write the initial container process' PID to.")
def test_pid_file(container: Container) -> None:
    path = container.runtime.scratch("pidfile")
    container.create("--pid-file", path)
    text = pathlib.Path(path).read_text()
    assert text.isdigit()
    assert int(text) == container.state()["pid"]


@spec("runc-create.8", "Path to an AF_UNIX socket which will receive a file descriptor")
def test_console_socket_without_terminal(bundle: Bundle, container: Container) -> None:
    """A console socket that nothing will be sent to is a mistake of the caller's."""
    if container.runtime.name == "crun":
        not_applicable("crun ignores a console socket that it has no use for")
    path = container.runtime.scratch("socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(1)
        assert container.create("--console-socket", path, check=False).status != 0
    assert not container.exists()


@spec("runtime.md#create", "This operation MUST create a new container.")
def test_create_returns_while_stdout_is_open(bundle: Bundle, container: Container, test: Test) -> None:
    """The container's process has the caller's stdio from `create` on; the runtime itself must let go of it."""
    bundle.sh("echo out; echo err >&2; sleep 1000")
    container.create()
    container.start()
    container.wait_output("out")
    until(lambda: "err" in container.stderr, "stderr")
    mine = [pid for pid in direct_children() if pid not in test.children_before]
    assert mine == [container.pid]
