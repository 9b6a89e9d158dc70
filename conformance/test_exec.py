"""exec: another process in a running container, with the container's namespaces, cgroups and limits."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
from typing import Any

import pytest

from conformance.harness import (
    Bundle,
    ConsoleSocket,
    Container,
    Json,
    Test,
    alive,
    namespace,
    not_applicable,
    proc_status,
    reap,
    requires,
    spec,
    until,
    xfail_on,
)


@pytest.fixture
def running(container: Container) -> Container:
    """A running container that sleeps."""
    container.run_detached()
    return container


def exec_json(container: Container, process: Json, *flags: str, **kw: Any) -> Any:
    path = container.runtime.scratch("process.json")
    pathlib.Path(path).write_text(json.dumps(process))
    return container.runtime.run("exec", "--process", path, *flags, container.id, **kw)


def process(*args: str, **more: Any) -> Json:
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": list(args),
        "cwd": "/",
        "env": ["PATH=/bin"],
    } | more


@spec("runc-exec.8", "execute new process inside the container")
def test_exec(running: Container) -> None:
    result = running.exec("sh", "-c", "echo out; echo err >&2; hostname")
    assert (result.status, result.stdout, result.stderr) == (0, "out\nconformance\n", "err\n")


@spec("runc-exec.8", "Exits with a status of command (unless -d is used), or 255 if an error occurred.")
@pytest.mark.parametrize("status", [0, 1, 7, 126, 127, 255])
def test_status(running: Container, status: int) -> None:
    assert running.exec("sh", "-c", f"exit {status}").status == status


@spec("runc-exec.8", "Exits with a status of command")
def test_status_of_a_signal(running: Container) -> None:
    assert running.exec("sh", "-c", "kill -9 $$").status == 137


@spec("runc-exec.8")
def test_stdin(running: Container) -> None:
    assert running.exec("cat", input="through\n").stdout == "through\n"


@spec("runc-exec.8", "runc exec [option ...] container-id [--] command [arg ...]")
@pytest.mark.parametrize("dashes", [True, False])
@xfail_on("runc", "runc 1.1 takes the dashes for the command", only=["True"])
@xfail_on("crun", "crun 1.8 takes the dashes for the command", only=["True"])
def test_options_of_the_command_are_the_command_s(running: Container, dashes: bool) -> None:
    dash = ["--"] if dashes else []
    result = running.runtime.run("exec", running.id, *dash, "printf", "[%s]", "-t", "--detach", "--", "-e")
    assert (result.status, result.stdout) == (0, "[-t][--detach][--][-e]")


@spec("runc-exec.8", "Set an environment variable name to value. Can be specified multiple times.")
@pytest.mark.parametrize("flag", ["--env", "-e"])
@xfail_on("crun", "with --env crun 1.8 drops the container's variables, PATH among them")
def test_env(running: Container, flag: str) -> None:
    result = running.exec("sh", "-c", "echo $A-$B-$TERM", flags=[flag, "A=1", flag, "B=x=y z", flag, "TERM=mine"])
    assert result.stdout == "1-x=y z-mine\n"


@spec("runc-exec.8")
def test_env_of_the_container(bundle: Bundle, container: Container) -> None:
    """The command starts with the variables of config.json, not with the caller's."""
    bundle.process["env"] = ["PATH=/bin", "FROM=config"]
    container.run_detached()
    result = container.exec("env", env={**container.runtime.env, "SECRET": "leaked"})
    assert "FROM=config" in result.stdout.splitlines()
    assert "SECRET" not in result.stdout
    assert "CONFORMANCE_TOKEN" not in result.stdout


@spec("runc-exec.8", "Change to path in the container before executing the command.")
def test_cwd(running: Container) -> None:
    assert running.exec("pwd", flags=["--cwd", "/home/user"]).stdout == "/home/user\n"


@spec("runc-exec.8")
def test_cwd_of_the_container(bundle: Bundle, container: Container) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun starts in / unless --cwd says otherwise")
    bundle.process["cwd"] = "/tmp"
    container.run_detached()
    assert container.exec("pwd").stdout == "/tmp\n"


@spec("runc-exec.8", "Run the command as a user (and, optionally, group) specified by uid (and gid).")
@pytest.mark.parametrize(("user", "uid", "gid"), [("1000:1001", "1000", "1001"), ("5:0", "5", "0")])
@pytest.mark.parametrize("flag", ["--user", "-u"])
def test_user(running: Container, user: str, uid: str, gid: str, flag: str) -> None:
    result = running.exec("sh", "-c", "id -u; id -g", flags=[flag, user])
    assert result.stdout.split() == [uid, gid]


@spec("runc-exec.8", "Add additional group IDs. Can be specified multiple times.")
@requires("flag:exec --additional-gids")
def test_additional_gids(running: Container) -> None:
    flags = ["--user", "1000:1000", "--additional-gids", "10", "--additional-gids", "20"]
    result = running.exec("grep", "Groups", "/proc/self/status", flags=flags)
    assert {"10", "20"} <= set(result.stdout.split()[1:])


@spec("runc-exec.8", "get them from a process.json, a JSON file containing the process specification")
def test_process_file(running: Container) -> None:
    wanted = process("sh", "-c", "id -u; id -g; pwd; echo $WHO; ulimit -n; grep Groups /proc/self/status")
    wanted["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [10, 20]}
    wanted["cwd"] = "/tmp"
    wanted["env"] = ["PATH=/bin", "WHO=file"]
    wanted["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]
    result = exec_json(running, wanted, check=True)
    lines = result.stdout.splitlines()
    assert lines[:5] == ["1000", "1001", "/tmp", "file", "50"]
    assert {"10", "20"} <= set(lines[5].split()[1:])


@spec("config.md#posix-platform-user", "umask (int, OPTIONAL) specifies the umask of the user.")
@xfail_on("runc", "runc 1.1 heeds the umask of config.json only")
def test_process_file_s_umask(running: Container) -> None:
    wanted = process("sh", "-c", "umask", user={"uid": 0, "gid": 0, "umask": 0o027})
    assert exec_json(running, wanted, check=True).stdout == "0027\n"


@spec(
    "config.md#linux-process",
    "capabilities (object, OPTIONAL) is an object containing arrays that specifies the sets of capabilities"
    " for the process.",
)
def test_process_file_s_capabilities(running: Container) -> None:
    wanted = process("grep", "^Cap", "/proc/self/status")
    wanted["capabilities"] = {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]}
    result = exec_json(running, wanted, check=True)
    found = {line.split(":")[0]: int(line.split()[1], 16) for line in result.stdout.splitlines()}
    kill = 1 << 5
    assert found == {"CapInh": 0, "CapPrm": kill, "CapEff": kill, "CapBnd": kill, "CapAmb": 0}


@spec("config.md#linux-process", "capabilities (object, OPTIONAL)")
@xfail_on("crun", "crun 1.8 forgets the container's noNewPrivileges in exec")
def test_capabilities_as_the_container_s(running: Container) -> None:
    mine = proc_status(running.pid)
    result = running.exec("cat", "/proc/self/status", check=True)
    theirs = dict(line.split(":", 1) for line in result.stdout.splitlines())
    for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp"):
        assert theirs[name].strip() == mine[name], name


@spec("runc-exec.8", "Add a capability to the bounding set for the process. Can be specified multiple times.")
@requires("flag:exec --cap")
def test_cap(running: Container) -> None:
    result = running.exec(
        "grep", "CapEff", "/proc/self/status", flags=["--cap", "CAP_CHOWN", "--cap", "CAP_FOWNER"], check=True
    )
    assert int(result.stdout.split()[1], 16) & 0b1001 == 0b1001


@spec("runc-exec.8", 'Set the "no new privileges" value for the process.')
@pytest.mark.parametrize("flags", [[], ["--no-new-privs"]], ids=["without", "with"])
def test_no_new_privs(bundle: Bundle, container: Container, flags: list[str]) -> None:
    bundle.process["noNewPrivileges"] = False
    container.run_detached()
    result = container.exec("grep", "NoNewPrivs", "/proc/self/status", flags=flags, check=True)
    assert result.stdout.split()[1] == str(len(flags))


@spec("runc-exec.8", "execute new process inside the container")
@pytest.mark.parametrize("more", [[], ["cgroup"], ["user"]], ids=["usual", "cgroup", "user"])
def test_joins_the_namespaces(bundle: Bundle, container: Container, more: list[str]) -> None:
    bundle.namespaces(add=[{"type": kind} for kind in more])
    if more == ["user"]:
        mapping = [{"containerID": 0, "hostID": 200000, "size": 65536}]
        bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
        for directory, names, files in os.walk(bundle.rootfs):
            for name in [directory, *names, *files]:
                os.chown(os.path.join(directory, name), 200000, 200000, follow_symlinks=False)
    container.run_detached()
    kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user", "time"]
    result = container.exec("sh", "-c", f"for n in {' '.join(kinds)}; do readlink /proc/self/ns/$n; done", check=True)
    assert result.stdout.split() == [namespace(container.pid, kind) for kind in kinds]
    if more:
        assert namespace(container.pid, more[0]) != namespace("self", more[0])


@spec("runc-exec.8", "Default is empty path, which means to use container's top level cgroup.")
def test_joins_the_cgroups(running: Container) -> None:
    pid_file = running.runtime.scratch("pid")
    running.exec("sleep", "1000", flags=["--detach", "--pid-file", pid_file], check=True)
    pid = int(pathlib.Path(pid_file).read_text())
    wanted = running.runtime.cgroups.of(running.pid)
    assert wanted
    assert running.runtime.cgroups.of(pid) == wanted


@spec("runc-exec.8", "execute new process inside the container")
def test_session_and_parent(running: Container) -> None:
    """The process is not a member of the container's first session, and nobody's child within the container."""
    result = running.exec("sh", "-c", "cut -d ' ' -f 4,6 /proc/$$/stat", check=True)
    parent, session = result.stdout.split()
    assert parent == "0"
    assert session != "1"


@spec("runc-exec.8", "Detach from the container's process.")
@pytest.mark.parametrize("flag", ["--detach", "-d"])
def test_detach(running: Container, flag: str) -> None:
    pid_file = running.runtime.scratch("pid")
    result = running.exec("sh", "-c", "echo up; sleep 0.3; exit 6", flags=[flag, "--pid-file", pid_file], check=True)
    pid = int(pathlib.Path(pid_file).read_text())
    assert namespace(pid, "pid") == namespace(running.pid, "pid")
    assert os.waitpid(pid, 0) == (pid, 6 << 8)
    assert result.stdout == "up\n"
    assert running.status == "running"


@spec("runc-exec.8")
def test_signals_are_forwarded(running: Container) -> None:
    background = running.runtime.start(
        "exec", running.id, "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    )
    until(lambda: "ready" in background.stdout, "the trap")
    background.signal(signal.SIGTERM)
    assert background.wait().status == 9


@spec("runc-exec.8")
def test_several_at_once(running: Container) -> None:
    started = [running.runtime.start("exec", running.id, "sh", "-c", f"sleep 0.2; exit {n}") for n in range(6)]
    assert [background.wait().status for background in started] == list(range(6))


@spec("runc-exec.8")
def test_the_end_of_the_container_ends_it(running: Container) -> None:
    background = running.runtime.start("exec", running.id, "sh", "-c", "echo ready; sleep 1000")
    until(lambda: "ready" in background.stdout, "the process")
    running.kill("KILL")
    running.wait()
    assert background.wait().status == 137


@spec("runc-exec.8", "Pass N additional file descriptors to the container")
def test_preserve_fds(running: Container) -> None:
    path = running.runtime.scratch("three")
    pathlib.Path(path).write_text("three\n")
    fd = os.open(path, os.O_RDONLY)

    def place() -> None:
        os.dup2(os.dup2(fd, 30), 3, inheritable=True)

    flags = ["--preserve-fds", "1"]
    result = running.exec(
        "sh", "-c", "cat <&3; [ -e /proc/self/fd/4 ] || echo no 4", flags=flags, preexec_fn=place, close_fds=False
    )
    os.close(fd)
    assert result.stdout == "three\nno 4\n"


# ------------------------------------------------------------------------------------------------------ terminals


@spec("runc-exec.8", "Allocate a pseudo-TTY.")
@pytest.mark.parametrize("flag", ["--tty", "-t"])
def test_tty_detached(running: Container, console: ConsoleSocket, flag: str) -> None:
    flags = ["-d", flag, "--console-socket", console.path]
    running.exec("sh", "-c", "tty; echo end; sleep 1000", flags=flags, check=True)
    text = console.receive().read_until("end")
    assert "/dev/pts/" in text


@spec(
    "config.md#process",
    "terminal (bool, OPTIONAL) specifies whether a terminal is attached to the process, defaults to false.",
)
def test_process_file_with_terminal(running: Container, console: ConsoleSocket) -> None:
    wanted = process("sh", "-c", "tty; stty size; echo end; sleep 1000", terminal=True)
    wanted["consoleSize"] = {"height": 11, "width": 22}
    exec_json(running, wanted, "-d", "--console-socket", console.path, check=True)
    text = console.receive().read_until("end")
    assert "/dev/pts/" in text
    assert "11 22" in text


@spec("runc-exec.8", "Path to an AF_UNIX socket which will receive a file descriptor")
def test_tty_detached_without_console_socket(running: Container) -> None:
    if running.runtime.name == "crun":
        not_applicable("crun makes a terminal and lets go of its master")
    assert running.exec("true", flags=["-d", "-t"]).status != 0
    assert running.status == "running"


# --------------------------------------------------------------------------------------------------------- errors


@spec("runc-exec.8", "or 255 if an error occurred")
@pytest.mark.parametrize("status", ["stopped", "none"])
def test_not_running(bundle: Bundle, container: Container, status: str) -> None:
    if status != "none":
        container.create()
    if status == "stopped":
        container.start()
        container.kill("KILL")
        container.wait()
    result = container.exec("touch", "/touched")
    assert result.status != 0
    assert "Traceback" not in result.stderr
    assert not os.path.exists(bundle.host("/touched"))


@spec("runc-exec.8", "By default, if a container is paused, runc exec errors out")
@requires("controller:freezer")
def test_paused(running: Container) -> None:
    running.pause()
    try:
        if running.runtime.name == "crun":
            not_applicable("crun waits for the container to be resumed")
        result = running.exec("true", timeout=10)
        assert result.status != 0
        assert running.status == "paused"
    finally:
        running.resume()
    assert running.exec("true").status == 0


@spec("runc-exec.8", "A paused container needs to be resumed for the exec to complete.")
@requires("controller:freezer")
@requires("flag:exec --ignore-paused")
def test_ignore_paused(running: Container) -> None:
    running.pause()
    background = running.runtime.start("exec", "--ignore-paused", running.id, "true")
    with pytest.raises(subprocess.TimeoutExpired):
        background.process.wait(0.5)
    running.resume()
    assert background.wait().status == 0


COMMANDS = {
    "missing": ("no-such-command", "not found"),
    "missing path": ("/no/such/command", "no such file or directory"),
    "directory": ("/bin", ("permission denied", "operation not permitted", "is a directory")),
    "not executable": ("/etc/passwd", "permission denied"),
}


@spec("runc-exec.8", "or 255 if an error occurred")
@pytest.mark.parametrize("which", COMMANDS)
def test_command_that_can_t_be_run(running: Container, which: str) -> None:
    """podman tells a missing command (127) from one that may not be run (126) by these words."""
    command, words = COMMANDS[which]
    result = running.exec(command)
    assert result.status in (255, 126, 127, 1)
    alternatives = (words,) if isinstance(words, str) else words
    assert any(alternative in result.stderr.lower() for alternative in alternatives), result
    assert "Traceback" not in result.stderr
    assert running.status == "running"


@spec("runc-exec.8", "Change to path in the container before executing the command.")
def test_missing_cwd(running: Container) -> None:
    result = running.exec("pwd", flags=["--cwd", "/no/such"])
    assert result.status != 0
    assert "no such file or directory" in result.stderr.lower()


@spec("runc-exec.8")
def test_no_command(running: Container) -> None:
    assert running.runtime.run("exec", running.id).status != 0


WRONG_PROCESSES: dict[str, Any] = {
    "not JSON": "{",
    "a list": "[]",
    "no args": json.dumps({"cwd": "/", "user": {"uid": 0, "gid": 0}}),
    "empty args": json.dumps({"cwd": "/", "args": [], "user": {"uid": 0, "gid": 0}}),
    "args a string": json.dumps({"cwd": "/", "args": "true", "user": {"uid": 0, "gid": 0}}),
    "relative cwd": json.dumps({"cwd": "tmp", "args": ["true"], "user": {"uid": 0, "gid": 0}}),
}


@spec("config.md#process", "This value MUST be an absolute path.")
@pytest.mark.parametrize("which", WRONG_PROCESSES)
@xfail_on("crun", "crun 1.8 takes a relative cwd", only=["relative cwd"])
def test_wrong_process_file(running: Container, which: str) -> None:
    path = running.runtime.scratch("process.json")
    pathlib.Path(path).write_text(WRONG_PROCESSES[which])
    result = running.runtime.run("exec", "--process", path, running.id)
    assert result.status != 0
    assert result.status < 128 or result.status == 255, "the runtime crashed"
    assert "Traceback" not in result.stderr and "panic" not in result.stderr
    assert running.status == "running"


@spec("runc-exec.8")
@pytest.mark.parametrize("what", ["missing", "directory"])
def test_no_process_file(running: Container, what: str) -> None:
    path = running.runtime.scratch("process.json")
    if what == "directory":
        os.mkdir(path)
    result = running.runtime.run("exec", "--process", path, running.id, timeout=10)
    assert result.status != 0
    assert "Traceback" not in result.stderr


@spec("runc-exec.8")
def test_failed_exec_leaves_the_container_alone(running: Container, test: Test) -> None:
    before = running.state()
    for _ in range(3):
        assert running.exec("no-such-command").status != 0
    assert running.state() == before
    assert alive(running.pid)
    reap(*test.children_before)
    seen = running.exec("sh", "-c", "echo /proc/[0-9]*").stdout.split()
    assert len(seen) == 2, seen  # the container's sleep, and this shell
