"""run: the foreground, its stdio, signals and status; descriptors, environment and signal state of the process."""

from __future__ import annotations

import functools
import os
import pathlib
import signal
import socket
import subprocess
import time
from typing import Any

import pytest

from conformance.harness import (
    Bundle,
    Container,
    alive,
    describe_process,
    direct_children,
    not_applicable,
    proc_status,
    requires,
    spec,
    until,
    xfail_on,
)

# ---------------------------------------------------------------------------------------------- status and stdio


@spec("runc-run.8", "You can think of run as a shortcut for create followed by start.")
@pytest.mark.parametrize("status", [0, 1, 7, 126, 127, 255])
def test_status_is_the_container_s(container: Container, status: int) -> None:
    assert container.run_output("sh", "-c", f"exit {status}") == (status, "")


@spec("runc-run.8", "You can think of run as a shortcut for create followed by start.")
@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV"])
def test_status_of_a_process_ended_by_a_signal(bundle: Bundle, container: Container, name: str) -> None:
    """Its own signals do not end a PID 1 that has no handler for them; the host's do."""
    bundle.args("sleep", "1000")
    if name != "KILL":
        bundle.namespaces(drop=["pid"])
    running = container.run_background()
    container.wait_status("running")
    os.kill(container.state()["pid"], getattr(signal, f"SIG{name}"))
    assert running.wait().status == 128 + getattr(signal, f"SIG{name}")


@spec("runc-run.8")
def test_nothing_is_left_after_run(container: Container) -> None:
    assert container.run_output("true") == (0, "")
    assert not container.exists()


@spec("runc-run.8", "Keep container's state directory and cgroup.")
@requires("flag:run --keep")
def test_keep(container: Container) -> None:
    container.bundle.sh("exit 3")
    assert container.run("--keep").status == 3
    assert container.status == "stopped"
    container.delete()
    assert not container.exists()


@spec(
    "runtime-linux.md#file-descriptors",
    "only the stdin, stdout and stderr file descriptors are kept open for the application",
)
def test_stdio_passes_through(bundle: Bundle, container: Container) -> None:
    bundle.sh("cat; echo out; echo err >&2")
    result = container.run(input="some input\n")
    assert (result.status, result.stdout, result.stderr) == (0, "some input\nout\n", "err\n")


@spec("runtime-linux.md#file-descriptors")
def test_a_megabyte_through_pipes(bundle: Bundle, container: Container) -> None:
    bundle.args("cat")
    data = os.urandom(1 << 20)
    bundle.write(f"/{container.id}")
    argv = container.runtime.argv("run", "--bundle", bundle.path, container.id)
    done = subprocess.run(argv, input=data, capture_output=True, timeout=60, env=container.runtime.env, check=False)
    assert done.returncode == 0
    assert done.stdout == data


@spec("runtime-linux.md#file-descriptors")
def test_stdio_is_the_caller_s_own(bundle: Bundle, container: Container) -> None:
    """The process gets the very files, not copies through a pipe of the runtime's."""
    path = container.runtime.scratch("own")
    with open(path, "wb") as out:
        container.run_detached(stdout=out)
    assert os.stat(f"/proc/{container.pid}/fd/1").st_ino == os.stat(path).st_ino


@spec("runtime-linux.md#file-descriptors")
def test_closed_stdin_is_end_of_file(bundle: Bundle, container: Container) -> None:
    bundle.sh("cat; echo done")
    assert container.run_output() == (0, "done\n")


# ------------------------------------------------------------------------------------------------------- signals


@spec("runc-run.8")
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "CONT"])
def test_signals_are_forwarded(bundle: Bundle, container: Container, name: str) -> None:
    """A signal to the foreground runtime is the container's."""
    if container.runtime.name == "crun" and name == "CONT":
        not_applicable("crun keeps CONT to itself")
    bundle.sh(f"trap 'echo got-{name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done")
    running = container.run_background()
    until(lambda: "ready" in running.stdout, "the container's trap")
    running.signal(getattr(signal, f"SIG{name}"))
    result = running.wait()
    assert result.stdout == f"ready\ngot-{name}\n"
    assert result.status == 9


@spec("runc-run.8")
def test_signals_are_forwarded_many_times(bundle: Bundle, container: Container) -> None:
    bundle.sh("n=0; trap 'n=$((n+1)); echo $n' USR1; trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done")
    running = container.run_background()
    until(lambda: "ready" in running.stdout, "the container's trap")

    def said(n: int) -> bool:
        return f"\n{n}\n" in running.stdout

    for n in range(1, 11):
        running.signal(signal.SIGUSR1)
        until(functools.partial(said, n), f"signal {n}")
    running.signal(signal.SIGTERM)
    assert running.wait().status == 4


@spec("runc-run.8", "Disable the use of the subreaper used to reap reparented processes.")
def test_orphans_of_the_container_are_reaped(bundle: Bundle, container: Container) -> None:
    """Without a pid namespace the container's orphans come to the runtime: it reaps, and waits for the first only."""
    bundle.namespaces(drop=["pid"])
    bundle.sh("for i in 1 2 3 4 5; do sh -c 'sleep 0.1 & exit' ; done; sleep 0.5; exit 6")
    running = container.run_background()
    assert running.wait().status == 6


@spec("runc-run.8")
def test_the_runtime_sleeps_while_the_container_runs(bundle: Bundle, container: Container) -> None:
    bundle.args("sleep", "1.5")
    running = container.run_background()
    container.wait_status("running")
    time.sleep(0.3)

    def ticks() -> int:
        fields = pathlib.Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(0.7)
    assert ticks() - before <= 2
    assert running.wait().status == 0


@spec("runc-run.8")
def test_kill_while_in_the_foreground(bundle: Bundle, container: Container) -> None:
    bundle.args("sleep", "1000")
    running = container.run_background()
    container.wait_status("running")
    container.kill("KILL")
    assert running.wait().status == 137
    assert not container.exists()


# -------------------------------------------------------------------------------------------------- detach, files


@spec("runc-run.8", "Detach from the container's process.")
@pytest.mark.parametrize("flag", ["--detach", "-d"])
def test_detach(bundle: Bundle, container: Container, flag: str) -> None:
    bundle.sh("echo up; sleep 1000")
    bundle.write(f"/{container.id}")
    pid_file = container.runtime.scratch("pid")
    argv = ["run", "--bundle", bundle.path, flag, "--pid-file", pid_file, container.id]
    container.created = container.runtime.run(*argv, check=True)
    assert container.status == "running"
    assert int(pathlib.Path(pid_file).read_text()) == container.state()["pid"]
    container.wait_output("up")


@spec("runc.8", "the container will be spawned as a direct child of the process supervisor")
def test_a_detached_container_comes_to_the_caller(bundle: Bundle, container: Container) -> None:
    """No process of the runtime's stays between the engine and the container."""
    bundle.sh("sleep 0.2; exit 5")
    container.run_detached()
    assert container.pid in direct_children()
    assert container.wait() == 5


@spec("runc-run.8", "Specify the file to write the initial container process' PID to.")
def test_pid_file(bundle: Bundle, container: Container) -> None:
    bundle.args("sleep", "1000")
    path = container.runtime.scratch("pid")
    running = container.run_background("--pid-file", path)
    container.wait_status("running")
    assert pathlib.Path(path).read_text() == str(container.state()["pid"])
    container.kill("KILL")
    running.wait()


@spec("runc-run.8", "Specify the file to write the initial container process' PID to.")
def test_pid_file_in_a_missing_directory(container: Container) -> None:
    result = container.run_detached("--pid-file", os.path.join(container.runtime.directory, "no/such/pid"), check=False)
    assert result.status != 0
    assert "Traceback" not in result.stderr
    assert not container.exists()


@spec("runc-run.8", "Path to the root of the bundle directory. Default is current directory.")
def test_bundle_is_the_current_directory(bundle: Bundle, container: Container) -> None:
    bundle.sh("echo here")
    bundle.write(f"/{container.id}")
    assert container.runtime.run("run", container.id, cwd=bundle.path, check=True).stdout == "here\n"


# ---------------------------------------------------------------------------------------------------- descriptors


@spec(
    "runtime-linux.md#file-descriptors", "By default, only the stdin, stdout and stderr file descriptors are kept open"
)
@pytest.mark.parametrize("how", ["run", "create", "exec"])
def test_no_descriptor_leaks_in(bundle: Bundle, container: Container, how: str) -> None:
    """CVE-2024-21626: neither the runtime's descriptors nor the caller's inheritable ones reach the process."""
    bundle.sh("ls -l /proc/$$/fd; echo end; sleep 1000")

    def leave_open() -> None:
        opened = os.open("/", os.O_RDONLY)
        for fd in range(3, 21):
            os.dup2(opened, fd, inheritable=True)

    keep: Any = {"close_fds": False, "preexec_fn": leave_open}
    if how == "run":
        container.run_detached(**keep)
    elif how == "create":
        container.create(**keep)
        container.start(**keep)
    else:
        bundle.args("sleep", "1000")
        container.run_detached()
        result = container.exec("sh", "-c", "ls -l /proc/$$/fd; echo end", check=True, **keep)
    text = result.stdout if how == "exec" else container.wait_output("end")
    open_fds = sorted(line.split(" -> ")[0].split()[-1] for line in text.splitlines() if " -> " in line)
    assert open_fds in (["0", "1", "2"], ["0", "1", "10", "2"]), text  # 10 is ash's own, for the terminal
    if "10" in open_fds:
        assert "10 -> /dev/tty" in text


@spec("CVE-2024-21626")
@pytest.mark.parametrize("n", range(3, 12))
def test_no_descriptor_of_the_host_s_to_change_into(bundle: Bundle, container: Container, n: int) -> None:
    """A working directory under /proc/self/fd would be the host's, were a directory of it open in the runtime."""
    bundle.process["cwd"] = f"/proc/self/fd/{n}"
    bundle.sh("ls ..; ls ../../../../..; pwd")
    result = container.run()
    assert "vmlinuz" not in result.stdout and "lib64" not in result.stdout
    assert result.status != 0


@spec(
    "runc-run.8",
    "Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total). Default is 0.",
)
@pytest.mark.parametrize("detached", [False, True])
def test_preserve_fds(bundle: Bundle, container: Container, detached: bool) -> None:
    bundle.sh("cat <&3; cat <&4; [ -e /proc/self/fd/5 ] || echo no 5; echo end")
    paths = []
    for word in ("three\n", "four\n", "five\n"):
        paths.append(container.runtime.scratch("fd"))
        pathlib.Path(paths[-1]).write_text(word)
    opened = [os.open(path, os.O_RDONLY) for path in paths]

    def place() -> None:
        high = [os.dup2(fd, 30 + i) for i, fd in enumerate(opened)]
        for i, fd in enumerate(high):
            os.dup2(fd, 3 + i, inheritable=True)

    keep: Any = {"close_fds": False, "preexec_fn": place}
    if detached:
        container.run_detached("--preserve-fds", "2", **keep)
        text = container.wait_output("end")
    else:
        text = container.run("--preserve-fds", "2", check=True, **keep).stdout
    for fd in opened:
        os.close(fd)
    assert text == "three\nfour\nno 5\nend\n"


@spec("runc-create.8", "Pass N additional file descriptors to the container")
def test_preserve_fds_that_are_not_open(container: Container) -> None:
    """More promised than there is: the runtime's own descriptors must not be passed instead."""
    result = container.create("--preserve-fds", "5", check=False)
    if result.status == 0:
        container.start()
        links = {os.readlink(f"/proc/{container.pid}/fd/{n}") for n in os.listdir(f"/proc/{container.pid}/fd")}
        assert len(os.listdir(f"/proc/{container.pid}/fd")) == 3, links


@spec(
    "runtime-linux.md#file-descriptors",
    "The runtime MAY pass additional file descriptors to the application to support features such as socket"
    " activation.",
)
@xfail_on("crun", "crun 1.8 passes the descriptors and LISTEN_PID, and forgets LISTEN_FDS")
@pytest.mark.parametrize("command", ["run", "create"])
def test_listen_fds(bundle: Bundle, container: Container, command: str) -> None:
    bundle.sh(
        "echo $LISTEN_FDS ${LISTEN_PID:-none} $$; readlink /proc/self/fd/3; [ -e /proc/self/fd/4 ] || echo no 4;"
        " echo end"
    )
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(container.runtime.scratch("listen"))
        listening.listen(1)
        fd = listening.fileno()

        def place() -> None:
            os.dup2(fd, 3, inheritable=True)
            os.environ.clear()
            os.environ.update(container.runtime.env, LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))

        keep: Any = {"close_fds": False, "preexec_fn": place, "env": None}
        if command == "run":
            container.run_detached(**keep)
        else:
            container.create(**keep)
            container.start()
        lines = container.wait_output("end").splitlines()
    assert lines[0] == "1 1 1"
    assert lines[1].startswith("socket:")
    assert lines[2] == "no 4"


@spec(
    "runtime-linux.md#file-descriptors",
    "The runtime MAY pass additional file descriptors to the application to support features such as socket"
    " activation.",
)
@pytest.mark.parametrize("pid", ["1", ""])
@pytest.mark.parametrize("command", ["run", "exec"])
def test_listen_fds_of_another_process(bundle: Bundle, container: Container, command: str, pid: str) -> None:
    """sd_listen_fds(3): without LISTEN_PID, or with another's, the variables were inherited and the sockets not."""
    if container.runtime.name == "crun":
        not_applicable("crun takes the variables without a look at LISTEN_PID")
    told = {**container.runtime.env, "LISTEN_FDS": "1"} | ({"LISTEN_PID": pid} if pid else {})
    look = ["sh", "-c", "echo ${LISTEN_FDS:-none}; ls /proc/self/fd | wc -l"]
    if command == "run":
        bundle.args(*look)
        result = container.run(env=told)
    else:
        container.run_detached()
        result = container.exec(*look, env=told)
    assert (result.status, result.stdout) == (0, "none\n4\n")  # stdio, and the directory that ls reads


# ---------------------------------------------------------------------------------- the state of the new process


@spec("config.md#process", "env (array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008's environ")
def test_environment_is_the_config_s(bundle: Bundle, container: Container) -> None:
    bundle.process["env"] = ["PATH=/bin", "A=1", "B=with space", "C=", "D=a=b", "E=ü", "HOME=/tmp"]
    status, text = container.run_output("env")
    assert status == 0
    assert sorted(text.splitlines()) == sorted(bundle.process["env"])


@spec("config.md#process", "env (array of strings, OPTIONAL)")
def test_nothing_of_the_caller_s_environment(bundle: Bundle, container: Container) -> None:
    env = {**container.runtime.env, "SECRET": "leaked", "_LIBCONTAINER_TEST": "leaked"}
    bundle.args("sh", "-c", "cat /proc/1/environ | tr '\\0' '\\n'; env")
    result = container.run(env=env)
    assert result.status == 0
    assert "leaked" not in result.stdout
    assert "CONFORMANCE_TOKEN" not in result.stdout


@spec(
    "config.md#process",
    "args (array of strings, OPTIONAL) with similar semantics to IEEE Std 1003.1-2008 execvp's argv.",
)
def test_arguments_as_they_are(bundle: Bundle, container: Container) -> None:
    words = ["printf", "[%s]", "", " ", "a b", "*", "$HOME", "-n", "ü", "new\nline", '"', "'", "\\"]
    assert container.output(*words) == "".join(f"[{word}]" for word in words[2:])


@spec("config.md#process", "that entry is used with the same semantics as execvp's file")
@pytest.mark.parametrize("path", ["PATH=/nowhere:/tools", "PATH=/tools", "PATH=tools:/nowhere"])
def test_command_is_looked_for_in_the_container_s_path(bundle: Bundle, container: Container, path: str) -> None:
    bundle.file("/tools/mine", "#!/bin/sh\necho mine\n", 0o755)
    bundle.process["env"] = [path]
    if path.startswith("PATH=tools") and container.runtime.name == "runc":
        not_applicable("Go refuses to run what it found by a relative PATH entry")
    assert container.run_output("mine") == (0, "mine\n")


@spec("config.md#process", "cwd (string, REQUIRED) is the working directory that will be set for the executable.")
def test_working_directory(bundle: Bundle, container: Container) -> None:
    bundle.process["cwd"] = "/home/user"
    assert container.output("pwd") == "/home/user\n"


@spec("runc-run.8")
def test_signals_are_at_their_defaults(bundle: Bundle, container: Container) -> None:
    """Whatever the runtime's language does to signals for itself stays with it."""
    bundle.args("grep", "-E", "^(SigBlk|SigIgn|SigPnd|ShdPnd)", "/proc/self/status")
    for line in container.output().splitlines():
        assert int(line.split()[1], 16) == 0, line


@spec("runc-exec.8")
def test_signals_are_at_their_defaults_in_exec(container: Container) -> None:
    container.run_detached()
    text = container.exec("grep", "-E", "^(SigBlk|SigIgn|SigPnd|ShdPnd)", "/proc/self/status", check=True).stdout
    for line in text.splitlines():
        assert int(line.split()[1], 16) == 0, line


@spec("runc-run.8")
def test_sigpipe_ends_a_writer(bundle: Bundle, container: Container) -> None:
    assert container.run_output("sh", "-c", "yes | head -1") == (0, "y\n")
    assert container.run_output("sh", "-c", "(yes; echo $? >&2) | head -1")[0] == 0


@spec(
    "config.md#posix-platform-user",
    "umask (int, OPTIONAL) specifies the umask of the user. If unspecified, the umask should not be changed"
    " from the calling process' umask.",
)
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_umask_of_the_config(bundle: Bundle, container: Container, umask: int) -> None:
    bundle.process["user"]["umask"] = umask
    assert container.output("sh", "-c", "umask") == f"{umask:04o}\n"


@spec("runtime.md#create", "This operation MUST create a new container.")
@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_umask_of_the_caller_does_no_harm(bundle: Bundle, container: Container, umask: int) -> None:
    """Device nodes and mounts have the modes they should have."""
    bundle.process["user"]["umask"] = 0o022
    mode = ["mode=1770"]
    bundle.config["mounts"].append({"destination": "/made", "type": "tmpfs", "source": "tmpfs", "options": mode})
    bundle.sh("stat -c %a /dev/null /made; umask")

    status, text = container.run_output(preexec_fn=lambda: os.umask(umask))
    assert (status, text) == (0, "666\n1770\n0022\n")


@spec(
    "config-linux.md#namespaces",
    "pid processes inside the container will only be able to see other processes inside the same container",
)
def test_first_process(container: Container) -> None:
    """PID 1, a session of its own, and nothing of the runtime's beside it."""
    text = container.output("sh", "-c", "echo $$; cut -d ' ' -f 1,4,6 /proc/1/stat; ls /proc | grep -c '^[0-9]'")
    lines = text.splitlines()
    assert lines[0] == "1"
    assert lines[1].split()[0] == "1" and lines[1].split()[1] == "0"
    assert int(lines[2]) <= 3  # sh, ls, grep


@spec("runc-run.8")
def test_niceness_and_parent_death(container: Container) -> None:
    """The process does not die with the thread that made it, and runs at the caller's niceness."""
    container.create(preexec_fn=lambda: os.nice(3))
    container.start()
    time.sleep(0.1)
    assert alive(container.pid), describe_process(container.pid)
    assert os.getpriority(os.PRIO_PROCESS, container.pid) == 3


@spec("runc-run.8")
def test_oom_score_is_inherited(container: Container) -> None:
    """No oomScoreAdj in the config: the caller's stays, however the runtime protects itself."""
    container.create()
    mine = pathlib.Path("/proc/self/oom_score_adj").read_text()
    assert pathlib.Path(f"/proc/{container.pid}/oom_score_adj").read_text() == mine
    container.start()
    assert pathlib.Path(f"/proc/{container.pid}/oom_score_adj").read_text() == mine


@spec("CVE-2019-5736")
def test_created_init_is_not_for_others_to_open(bundle: Bundle, container: Container) -> None:
    """/proc/PID/exe of a process waiting for `start` is the runtime's: not writable through it."""
    container.create()
    exe = f"/proc/{container.pid}/exe"
    before = os.stat(exe)
    with pytest.raises(OSError):  # ETXTBSY while it runs
        os.close(os.open(exe, os.O_WRONLY))
    container.start()
    assert before.st_mode == os.stat(os.path.realpath(container.runtime.path)).st_mode or before.st_mode & 0o444


@spec("runc-run.8")
def test_an_empty_environment_of_the_caller(bundle: Bundle, container: Container) -> None:
    """Engines start runtimes with whatever environment they please."""
    bundle.sh("echo fine")
    assert container.run(env={}).stdout == "fine\n"


@spec("runc-run.8")
def test_a_removed_current_directory(bundle: Bundle, container: Container) -> None:
    gone = container.runtime.scratch("gone")
    os.mkdir(gone)
    bundle.sh("echo fine; pwd")

    def enter() -> None:
        os.chdir(gone)
        os.rmdir(gone)

    result = container.run(preexec_fn=enter, cwd=None)
    assert (result.status, result.stdout) == (0, "fine\n/\n"), result


@spec("config.md#posix-process", "rlimits (array of objects, OPTIONAL) allows setting resource limits for the process.")
@xfail_on("runc", "Go raises the soft limit on descriptors for itself, and runc 1.1 does not take that back")
def test_limits_are_inherited(bundle: Bundle, container: Container) -> None:
    """The caller's limits are the container's where the config names none."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))

    assert container.run_output("sh", "-c", "ulimit -Sn; ulimit -Hn", preexec_fn=limit) == (0, "100\n200\n")


@spec("config.md#linux-process", "noNewPrivileges")
def test_no_new_privileges(bundle: Bundle, container: Container) -> None:
    for wanted in (True, False):
        bundle.process["noNewPrivileges"] = wanted
        container.create()
        container.start()
        assert proc_status(container.pid)["NoNewPrivs"] == str(int(wanted))
        container.delete("--force")
