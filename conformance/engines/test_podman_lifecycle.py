"""podman: a container from run to rm, and everything that is done to it in between."""

from __future__ import annotations

import concurrent.futures
import json
import os
import socket
import time

import pytest

from conformance.engines.box import lines, retry
from conformance.engines.podman import HEALTH_IMAGE, IMAGE, Podman
from conformance.harness import spec

pytestmark = spec("podman.1")


def background(podman: Podman, *args: str, name: str = "web") -> str:
    """A container that writes "up" and stays; its name."""
    podman("run", "-d", "--name", name, "--network=none", *args, IMAGE, "sh", "-c", "echo up; exec sleep 1000")
    return name


def test_run_gives_output_and_status(podman: Podman) -> None:
    done = podman.result(
        "run", "--rm", "--network=none", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 42", status=42
    )
    assert (done.out, done.err) == ("out\n", "err\n")


def test_run_rm_leaves_nothing_by_itself(podman: Podman) -> None:
    podman.image_run("--", "true")
    assert podman("ps", "-aq") == ""
    podman.nothing_left()


@pytest.mark.parametrize("number", [9, 15])
def test_run_of_a_command_ended_by_a_signal(podman: Podman, number: int) -> None:
    script = f"sh -c 'kill -{number} $$'; exit $?"
    assert podman.image_run("--", "sh", "-c", script, status=128 + number) == ""


@pytest.mark.parametrize(
    ("options", "command", "status"),
    [
        ([], ["missing"], 127),
        ([], ["/bin/missing"], 127),
        ([], ["/etc"], 126),
        ([], ["/etc/plain"], 126),
        (["-w", "/etc/plain"], ["true"], 126),
        (["--user", "nobody-here"], ["true"], 126),
    ],
    ids=["no-such-command", "no-such-path", "directory", "not-executable", "cwd-is-a-file", "no-such-user"],
)
def test_run_that_cannot_start_has_runcs_status(
    podman: Podman, options: list[str], command: list[str], status: int
) -> None:
    done = podman.result("run", "--rm", "--network=none", *options, IMAGE, *command, status=status)
    assert done.err
    podman.nothing_left()


def test_run_in_a_missing_working_directory(podman: Podman) -> None:
    done = podman.result(
        "run", "--rm", "--network=none", "-w", "/no/such", IMAGE, "true", status=126
    )  # podman looks for itself
    assert "/no/such" in done.err


@pytest.mark.parametrize(
    ("command", "status"), [(["missing"], 127), (["/bin/missing"], 127), (["/etc"], 126), (["/etc/plain"], 126)]
)
def test_exec_that_cannot_start_has_runcs_status(podman: Podman, command: list[str], status: int) -> None:
    podman("exec", background(podman), *command, status=status)
    podman("exec", "web", "true")


def test_bad_option_is_125(podman: Podman) -> None:
    podman("run", "--no-such-option", IMAGE, status=125)


def test_stdin(podman: Podman) -> None:
    assert (
        podman("run", "--rm", "-i", "--network=none", IMAGE, "cat", stdin="through and through\n")
        == "through and through"
    )


def test_large_output(podman: Podman) -> None:
    assert len(podman.image_run("--", "sh", "-c", "seq 1 200000").splitlines()) == 200000


def test_terminal(podman: Podman) -> None:
    argv = podman.argv(
        "run",
        "--rm",
        "-it",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "tty; echo ready; read x; echo got $x; stty size; exit 7",
    )
    done = podman.box.terminal(*argv, say=[("ready", "hello\n")])
    assert done.status == 7, done
    assert "/dev/pts/0" in done.out and "got hello" in done.out, done
    assert "40 100" in done.out, done


def test_terminal_interrupt(podman: Podman) -> None:
    argv = podman.argv(
        "run",
        "--rm",
        "-it",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.1; done",
    )
    done = podman.box.terminal(*argv, say=[("ready", "\x03")])
    assert done.status == 3 and "caught" in done.out, done


def test_detached_logs_wait_and_rm(podman: Podman) -> None:
    container = podman("run", "-d", "--network=none", IMAGE, "sh", "-c", "echo one; echo two >&2; exit 5")
    assert podman("wait", container) == "5"
    logs = podman.result("logs", container)
    assert (logs.out, logs.err) == ("one\n", "two\n")
    assert podman.inspect(container)["State"]["ExitCode"] == 5
    podman("rm", container)
    assert podman("ps", "-aq") == ""
    podman.nothing_left()


def test_create_and_start_attached(podman: Podman) -> None:
    podman("create", "--name", "late", "--network=none", IMAGE, "sh", "-c", "echo from inside; exit 4")
    assert podman.state("late") == "created"
    assert podman("start", "--attach", "late", status=4) == "from inside"
    assert podman("start", "--attach", "late", status=4) == "from inside"  # and once more


def test_init_then_start(podman: Podman) -> None:
    """podman init is the runtime's create alone: the namespaces are there, the command does not run."""
    podman("create", "--name", "ready", "--network=none", IMAGE, "sh", "-c", "echo ran")
    podman("init", "ready")
    assert podman.state("ready") in ("initialized", "created")
    assert podman("logs", "ready") == ""
    podman("start", "ready")
    assert podman("wait", "ready") == "0"
    assert podman("logs", "ready") == "ran"


def test_restart(podman: Podman) -> None:
    background(podman)
    first = podman.pid("web")
    podman("restart", "--time=0", "web")
    assert podman.pid("web") != first
    assert podman("logs", "web") == "up\nup"


def test_restart_policy(podman: Podman) -> None:
    podman(
        "run",
        "-d",
        "--name",
        "again",
        "--network=none",
        "--restart=on-failure:2",
        IMAGE,
        "sh",
        "-c",
        "echo turn; exit 1",
    )
    retry(lambda: podman("logs", "again").split() == ["turn"] * 3, "not started three times")
    podman.wait_for("again", "exited")


def test_inspect_names_the_runtime(podman: Podman) -> None:
    background(podman)
    about = podman.inspect("web")
    assert about["OCIRuntime"] == podman.runtime
    assert about["State"]["Status"] == "running"
    assert about["State"]["Pid"] > 1


def test_exec(podman: Podman) -> None:
    background(podman, "--env", "FROM=run")
    done = podman.result(
        "exec",
        "-e",
        "MORE=exec",
        "-w",
        "/work",
        "web",
        "sh",
        "-c",
        "echo $FROM $MORE $PWD; echo err >&2; exit 9",
        status=9,
    )
    assert (done.out, done.err) == ("run exec /work\n", "err\n")
    assert podman("exec", "-i", "web", "cat", stdin="text") == "text"
    assert podman("exec", "--user", "user", "web", "id", "-u") == "1000"


def test_exec_joins_every_namespace(podman: Podman) -> None:
    background(podman)
    script = "for n in cgroup ipc mnt net pid uts; do readlink /proc/1/ns/$n; readlink /proc/self/ns/$n; done"
    seen = podman("exec", "web", "sh", "-c", script).split()
    assert len(seen) == 12 and seen[::2] == seen[1::2], seen


def test_exec_terminal(podman: Podman) -> None:
    background(podman)
    argv = podman.argv("exec", "-it", "web", "sh", "-c", "tty; echo ready; read x; echo got $x; exit 6")
    done = podman.box.terminal(*argv, say=[("ready", "there\n")])
    assert done.status == 6 and "/dev/pts/" in done.out and "got there" in done.out, done


def test_exec_detached(podman: Podman) -> None:
    background(podman)
    podman("exec", "-d", "web", "sh", "-c", "echo done >/tmp/it")
    retry(
        lambda: podman.result("exec", "web", "cat", "/tmp/it", status=None).out == "done\n", "the command did not run"
    )


def test_exec_in_a_stopped_container_fails(podman: Podman) -> None:
    background(podman)
    podman("stop", "--time=0", "web")
    podman("exec", "web", "true", status=255)


def test_stop_asks_with_term(podman: Podman) -> None:
    podman(
        "run",
        "-d",
        "--name",
        "nice",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done",
    )
    retry(lambda: "up" in podman("logs", "nice"), "not up")
    podman("stop", "--time=20", "nice")
    assert podman.inspect("nice")["State"]["ExitCode"] == 3
    assert "bye" in podman("logs", "nice")


def test_stop_kills_after_its_timeout(podman: Podman) -> None:
    podman(
        "run",
        "-d",
        "--name",
        "deaf",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "trap '' TERM; echo up; while :; do sleep 0.1; done",
    )
    retry(lambda: "up" in podman("logs", "deaf"), "not up")
    began = time.monotonic()
    podman("stop", "--time=1", "deaf")
    assert time.monotonic() - began >= 1
    assert podman.inspect("deaf")["State"]["ExitCode"] == 137


def test_stop_signal_of_the_container(podman: Podman) -> None:
    podman(
        "run",
        "-d",
        "--name",
        "usr",
        "--stop-signal=USR1",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "trap 'exit 8' USR1; echo up; while :; do sleep 0.1; done",
    )
    retry(lambda: "up" in podman("logs", "usr"), "not up")
    podman("stop", "--time=20", "usr")
    assert podman.inspect("usr")["State"]["ExitCode"] == 8


def test_kill(podman: Podman) -> None:
    podman(
        "run",
        "-d",
        "--name",
        "hup",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "trap 'echo hup' HUP; echo up; while :; do sleep 0.1; done",
    )
    retry(lambda: "up" in podman("logs", "hup"), "not up")
    podman("kill", "--signal=HUP", "hup")
    retry(lambda: "hup" in podman("logs", "hup"), "HUP did not arrive")
    podman("kill", "hup")
    assert podman("wait", "hup") == "137"
    podman("kill", "hup", status=125)


def test_rm_needs_force_while_it_runs(podman: Podman) -> None:
    background(podman)
    assert podman.result("rm", "web", status=None).status != 0
    podman("rm", "-f", "--time=0", "web")
    podman.nothing_left()


def test_ps(podman: Podman) -> None:
    background(podman)
    background(podman, name="other")
    podman("stop", "--time=0", "other")
    assert podman("ps", "--format={{.Names}}") == "web"
    assert {c["Names"][0]: c["State"] for c in json.loads(podman("ps", "-a", "--format=json"))} == {
        "web": "running",
        "other": "exited",
    }


def test_names_are_taken_once(podman: Podman) -> None:
    background(podman)
    assert "web" in podman.result("run", "--name", "web", "--network=none", IMAGE, "true", status=125).err


def test_top(podman: Podman) -> None:
    background(podman)
    podman("exec", "-d", "web", "sleep", "2000")
    retry(lambda: {"sleep 1000", "sleep 2000"} <= set(lines(podman("top", "web", "args"))), "top does not show both")


def test_top_by_the_hosts_ps(podman: Podman) -> None:
    """The image's ps knows no such option, so podman asks the runtime or the container; either names the process."""
    background(podman)
    assert "sleep" in podman("top", "web", "pid", "hpid", "comm")


def test_stats(podman: Podman) -> None:
    background(podman, "--memory=64m")
    stats = json.loads(podman("stats", "--no-stream", "--format=json", "web"))[0]
    assert stats["name"] == "web"
    assert stats["pids"] == "1"
    assert stats["mem_usage"].endswith("67.11MB")


def test_pause(podman: Podman) -> None:
    podman(
        "run",
        "-d",
        "--name",
        "clock",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "while :; do echo x >>/tmp/ticks; sleep 0.02; done",
    )
    podman("pause", "clock")
    assert podman.state("clock") == "paused"
    pid = podman.pid("clock")
    ticks = f"/proc/{pid}/root/tmp/ticks"
    before = podman.box.read(ticks)
    time.sleep(0.3)
    assert podman.box.read(ticks) == before
    podman("exec", "clock", "true", status=255)
    podman("unpause", "clock")
    assert podman.state("clock") == "running"
    retry(lambda: podman.box.read(ticks) != before, "it does not run on")


def test_rm_of_a_paused_container(podman: Podman) -> None:
    background(podman)
    podman("pause", "web")
    podman("rm", "-f", "--time=0", "web")
    podman.nothing_left()


def test_cp_in_and_out(podman: Podman) -> None:
    background(podman, "--tmpfs=/scratch")
    with open(podman.box.path("/run/letter"), "w") as f:
        f.write("dear container")
    podman("cp", "/run/letter", "web:/tmp/letter")
    assert podman("exec", "web", "cat", "/tmp/letter") == "dear container"
    podman("cp", "/run/letter", "web:/scratch/letter")  # a mount that only the container's namespace has
    assert podman("exec", "web", "cat", "/scratch/letter") == "dear container"
    podman("exec", "web", "sh", "-c", "echo dear host >/scratch/answer")
    podman("cp", "web:/scratch/answer", "/run/answer")
    assert podman.box.read("/run/answer") == "dear host\n"


def test_commit(podman: Podman) -> None:
    podman("run", "--name", "base", "--network=none", IMAGE, "sh", "-c", "echo changed >/etc/mark")
    podman("commit", "-q", "base", "localhost/changed:test")
    try:
        assert podman("run", "--rm", "--network=none", "localhost/changed:test", "cat", "/etc/mark") == "changed"
    finally:
        podman("rmi", "-f", "localhost/changed:test")


def test_build_runs_its_steps_in_the_runtime(podman: Podman) -> None:
    recipe = f"FROM {IMAGE}\nRUN id -u >/made && echo $((6*7)) >>/made\nUSER user\nRUN id -u >/tmp/user\n"
    podman(
        "build",
        "-q",
        "--network=none",
        f"--cgroup-parent=/{podman.box.name}/build",
        "-t",
        "localhost/built:test",
        "-f",
        "-",
        "/run/etc",
        stdin=recipe,
    )
    try:
        assert podman("run", "--rm", "--network=none", "localhost/built:test", "cat", "/made", "/tmp/user").split() == [
            "0",
            "42",
            "1000",
        ]
    finally:
        podman("rmi", "-f", "localhost/built:test")


def test_a_build_step_that_fails(podman: Podman) -> None:
    recipe = f"FROM {IMAGE}\nRUN exit 3\n"
    done = podman.result(
        "build",
        "--network=none",
        f"--cgroup-parent=/{podman.box.name}/build",
        "-f",
        "-",
        "/run/etc",
        stdin=recipe,
        status=None,
    )
    assert done.status and "exit status 3" in done.err, done


def test_healthcheck(podman: Podman) -> None:
    podman("run", "-d", "--name", "sick", "--network=none", HEALTH_IMAGE, "sleep", "1000")
    podman("healthcheck", "run", "sick", status=1)
    podman("exec", "sick", "touch", "/healthy")
    podman("healthcheck", "run", "sick")
    podman("run", "-d", "--name", "flag", "--health-cmd=test -d /etc", "--network=none", IMAGE, "sleep", "1000")
    podman("healthcheck", "run", "flag")


def test_update_of_a_running_container(podman: Podman) -> None:
    background(podman, "--pids-limit=50")
    done = podman.result("update", "--pids-limit=70", "web", status=None)
    if done.status:
        pytest.skip(f"this podman has no update of this: {done.err.strip().splitlines()[-1]}")
    assert podman.box.cgroup_file(podman.pid("web"), "pids/pids.max", "pids.max") == "70"


def test_eight_at_once(podman: Podman) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(podman.image_run, "--", "sh", "-c", f"echo {n}") for n in range(8)]
        assert [run.result() for run in runs] == [str(n) for n in range(8)]
    podman.nothing_left()


def test_the_program_tells_the_service_manager_that_it_is_ready(podman: Podman) -> None:
    """podman-run.1, --sdnotify=container: "pass the socket via the OCI runtime to the container"."""
    box = podman.box
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(box.path("/run/manager.sock"))
        manager.setblocking(False)
        words = podman.argv(
            "run", "-d", "--name", "ready", "--network=none", "--sdnotify=container", IMAGE, "sleep", "1000"
        )
        run = box.start("env", "NOTIFY_SOCKET=/run/manager.sock", *words)
        retry(lambda: podman.result("inspect", "ready", status=None).status == 0, "no container")
        podman.wait_for("ready", "running")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
            program.sendto(b"READY=1", box.path(f"/proc/{podman.pid('ready')}/root/run/notify/notify.sock"))
        heard: list[bytes] = []

        def said() -> bool:
            """Take what comes, and the descriptor with it (sd_notify_barrier(3)), until podman is done."""
            try:
                message, descriptors, _, _ = socket.recv_fds(manager, 4096, 1)
            except BlockingIOError:
                return run.poll() is not None
            heard.extend(message.split(b"\n"))
            for fd in descriptors:
                os.close(fd)
            return False

        retry(said, "podman run does not end")
        assert b"READY=1" in heard, heard
        _, errors = run.communicate(timeout=30)
        assert run.returncode == 0, errors
    assert podman("exec", "ready", "sh", "-c", "echo ${NOTIFY_SOCKET:-none}") == "none"
    os.unlink(box.path("/run/manager.sock"))
