"""containerd: its runc shim drives the runtime; ctr(8) drives containerd."""

from __future__ import annotations

import concurrent.futures
import json
import os
import time

from conformance.engines.box import retry
from conformance.engines.containerd import IMAGE, Containerd
from conformance.harness import spec

pytestmark = spec("ctr.8")


def background(containerd: Containerd, *options: str, script: str = "exec sleep 1000", name: str = "web") -> int:
    """A detached container; its PID."""
    containerd("run", "-d", *options, IMAGE, name, "sh", "-c", script)
    return containerd.tasks()[name][0]


def signalled(containerd: Containerd, name: str = "web") -> None:
    containerd.wait_for(name, "STOPPED")


def test_foreground(containerd: Containerd) -> None:
    done = containerd.result("run", "--rm", IMAGE, "one", "sh", "-c", "echo out; echo err >&2; exit 42", status=42)
    assert (done.out, done.err) == ("out\n", "err\n")
    assert containerd("containers", "ls", "-q") == ""
    containerd.nothing_left()


def test_missing_command(containerd: Containerd) -> None:
    done = containerd.result("run", "--rm", IMAGE, "none", "missing", status=1)
    assert "executable file" in done.err and "not found" in done.err, done


def test_detached(containerd: Containerd) -> None:
    pid = background(containerd)
    assert containerd.tasks()["web"] == (pid, "RUNNING")
    assert containerd.box.read(f"/proc/{pid}/cmdline").split("\0")[:2] == ["sleep", "1000"]
    for kind in ("ipc", "mnt", "net", "pid", "uts"):
        assert os.readlink(containerd.box.path(f"/proc/{pid}/ns/{kind}")) != os.readlink(
            containerd.box.path(f"/proc/1/ns/{kind}")
        )


def test_terminal(containerd: Containerd) -> None:
    argv = containerd.argv(
        "run",
        "--rm",
        "-t",
        IMAGE,
        "tty",
        "sh",
        "-c",
        "tty; echo ready; read x; echo got $x; until stty size | grep '^[1-9]'; do sleep 0.1; done; exit 7",
    )
    done = containerd.box.terminal(*argv, say=[("ready", "hello\n")])
    assert done.status == 7 and "/dev/pts/0" in done.out and "got hello" in done.out and "40 100" in done.out, done


def test_exec(containerd: Containerd) -> None:
    background(containerd)
    done = containerd.result(
        "tasks", "exec", "--exec-id", "e1", "web", "sh", "-c", "echo out; echo err >&2; exit 9", status=9
    )
    assert (done.out, done.err) == ("out\n", "err\n")
    assert containerd("tasks", "exec", "--exec-id", "e2", "--cwd", "/work", "web", "pwd") == "/work"
    assert containerd("tasks", "exec", "--exec-id", "e3", "--user", "1000:1000", "web", "id", "-u") == "1000"
    containerd("tasks", "exec", "--exec-id", "e4", "web", "missing", status=1)
    containerd("tasks", "exec", "--exec-id", "e5", "web", "true")


def test_exec_terminal(containerd: Containerd) -> None:
    background(containerd)
    argv = containerd.argv(
        "tasks", "exec", "-t", "--exec-id", "e1", "web", "sh", "-c", "tty; echo ready; read x; echo got $x; exit 6"
    )
    done = containerd.box.terminal(*argv, say=[("ready", "there\n")])
    assert done.status == 6 and "/dev/pts/" in done.out and "got there" in done.out, done


def test_exec_detached(containerd: Containerd) -> None:
    pid = background(containerd)
    containerd("tasks", "exec", "-d", "--exec-id", "e1", "web", "sh", "-c", "echo done >/tmp/it")
    it = containerd.box.path(f"/proc/{pid}/root/tmp/it")
    retry(lambda: os.path.exists(it), "the command did not run")


def test_kill(containerd: Containerd) -> None:
    background(
        containerd,
        script="trap 'echo hup >/tmp/hup' HUP; trap 'exit 3' TERM; echo >/tmp/up; while :; do sleep 0.05; done",
    )
    pid = containerd.tasks()["web"][0]
    root = containerd.box.path(f"/proc/{pid}/root/tmp")
    retry(lambda: os.path.exists(f"{root}/up"), "not up")
    containerd("tasks", "kill", "-s", "HUP", "web")
    retry(lambda: os.path.exists(f"{root}/hup"), "HUP did not arrive")
    containerd("tasks", "kill", "web")
    signalled(containerd)
    assert "exit code 3" in containerd.result("tasks", "rm", "web").err


def test_kill_with_sigkill_and_delete(containerd: Containerd) -> None:
    background(containerd)
    containerd("tasks", "kill", "-s", "KILL", "web")
    signalled(containerd)
    assert "exit code 137" in containerd.result("tasks", "rm", "web").err
    containerd("containers", "rm", "web")
    containerd.nothing_left()


def test_kill_all(containerd: Containerd) -> None:
    background(containerd, script="sleep 2000 & exec sleep 1000")
    containerd("tasks", "kill", "--all", "-s", "KILL", "web")
    signalled(containerd)
    assert not [p for p in containerd.box.processes() if " sleep " in p]


def test_kill_all_on_a_shared_pid_namespace(containerd: Containerd) -> None:
    """Without a PID namespace, the runtime has to find the processes by the cgroup."""
    background(containerd, "--with-ns", "pid:/proc/1/ns/pid", script="sleep 2000 & exec sleep 1000")
    containerd("tasks", "kill", "--all", "-s", "KILL", "web")
    signalled(containerd)
    retry(lambda: not [p for p in containerd.box.processes() if " sleep " in p], "the second process lives")


def test_delete_of_a_running_task_needs_force(containerd: Containerd) -> None:
    background(containerd)
    assert containerd.result("tasks", "rm", "web", status=None).status != 0
    assert containerd.tasks()["web"][1] == "RUNNING"
    containerd.result("tasks", "rm", "--force", "web", status=None)
    assert containerd.tasks() == {}


def test_pause_and_resume(containerd: Containerd) -> None:
    pid = background(containerd, script="while :; do echo x >>/tmp/ticks; sleep 0.02; done")
    ticks = f"/proc/{pid}/root/tmp/ticks"
    retry(lambda: os.path.exists(containerd.box.path(ticks)), "not up")
    containerd("tasks", "pause", "web")
    assert containerd.tasks()["web"][1] == "PAUSED"
    before = containerd.box.read(ticks)
    time.sleep(0.3)
    assert containerd.box.read(ticks) == before
    containerd("tasks", "resume", "web")
    assert containerd.tasks()["web"][1] == "RUNNING"
    retry(lambda: containerd.box.read(ticks) != before, "it does not run on")


def test_metrics(containerd: Containerd) -> None:
    background(containerd, "--memory-limit", str(64 << 20))
    metrics = json.loads(containerd("tasks", "metrics", "--format=json", "web"))
    assert metrics["pids"]["current"] == 1
    memory = metrics["memory"]
    assert str(memory.get("usage_limit") or memory["usage"]["limit"]) == str(64 << 20)


def test_ps(containerd: Containerd) -> None:
    pid = background(containerd, script="sleep 2000 & exec sleep 1000")
    listed = {int(line.split()[0]) for line in containerd("tasks", "ps", "web").splitlines()[1:]}
    assert pid in listed and len(listed) == 2


def test_memory_and_cpu_limits(containerd: Containerd) -> None:
    pid = background(containerd, "--memory-limit", str(64 << 20), "--cpu-quota", "50000", "--cpu-period", "100000")
    assert containerd.box.cgroup_file(pid, "memory/memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert containerd.box.cgroup_file(pid, "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"


def test_rootfs_of_ones_own(containerd: Containerd) -> None:
    assert containerd("run", "--rm", "--rootfs", "/run/box/rootfs", "own", "/bin/cat", "/etc/plain") == "not a program"


def test_seccomp(containerd: Containerd) -> None:
    status = containerd("run", "--rm", "--seccomp", IMAGE, "filtered", "grep", "^Seccomp:", "/proc/self/status")
    assert status.split()[1] == "2"
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}],
    }
    with open(containerd.box.path("/run/box/profile.json"), "w") as f:
        json.dump(profile, f)
    own = ["--seccomp", "--seccomp-profile", "/run/box/profile.json"]
    assert (
        "Disk quota exceeded" in containerd.result("run", "--rm", *own, IMAGE, "own", "mkdir", "/tmp/x", status=1).err
    )


def test_privileged(containerd: Containerd) -> None:
    script = "mount -t tmpfs none /tmp && grep ^CapEff /proc/self/status"
    everything = next(
        line.split()[1] for line in containerd.box.read("/proc/1/status").splitlines() if line.startswith("CapBnd")
    )
    assert containerd("run", "--rm", "--privileged", IMAGE, "mighty", "sh", "-c", script).split()[1] == everything


def test_capabilities_and_no_new_privileges(containerd: Containerd) -> None:
    def field(name: str, *options: str) -> str:
        return containerd("run", "--rm", *options, IMAGE, "caps", "grep", f"^{name}:", "/proc/self/status").split()[1]

    usual = int(field("CapEff"), 16)
    assert int(field("CapEff", "--cap-add", "CAP_NET_ADMIN", "--cap-drop", "CAP_CHOWN"), 16) == (usual | 1 << 12) & ~1
    assert field("NoNewPrivs") == "1"
    assert field("NoNewPrivs", "--allow-new-privs") == "0"


def test_read_only(containerd: Containerd) -> None:
    assert (
        "Read-only file system"
        in containerd.result("run", "--rm", "--read-only", IMAGE, "ro", "touch", "/etc/x", status=1).err
    )


def test_host_network(containerd: Containerd) -> None:
    pid = background(containerd, "--net-host")
    assert os.readlink(containerd.box.path(f"/proc/{pid}/ns/net")) == os.readlink(containerd.box.path("/proc/1/ns/net"))


def test_no_network_has_a_loopback(containerd: Containerd) -> None:
    containerd("run", "--rm", IMAGE, "lo", "ping", "-c", "1", "-W", "2", "127.0.0.1")


def test_environment_directory_and_mount(containerd: Containerd) -> None:
    options = [
        "--env",
        "COLOUR=red",
        "--cwd",
        "/work",
        "--mount",
        "type=bind,src=/run/box/rootfs/etc,dst=/other,options=rbind:ro",
    ]
    script = "echo $COLOUR $PWD $(cat /other/plain); touch /other/x 2>/dev/null && echo writable; true"
    assert containerd("run", "--rm", *options, IMAGE, "env", "sh", "-c", script) == "red /work not a program"


def test_user_namespace(containerd: Containerd) -> None:
    pid = background(containerd, "--uidmap", "0:100000:1000", "--gidmap", "0:200000:1000")
    assert containerd.box.read(f"/proc/{pid}/uid_map").split() == ["0", "100000", "1000"]
    assert containerd.box.read(f"/proc/{pid}/gid_map").split() == ["0", "200000", "1000"]


def test_device(containerd: Containerd) -> None:
    containerd("run", "--rm", "--device", "/dev/kmsg", IMAGE, "dev", "test", "-c", "/dev/kmsg")


def test_pid_file(containerd: Containerd) -> None:
    pid = background(containerd, "--pid-file", "/run/box/pid")
    assert containerd.box.read("/run/box/pid") == str(pid)


def test_no_pivot(containerd: Containerd) -> None:
    assert containerd("run", "--rm", "--no-pivot", IMAGE, "chroot", "cat", "/etc/plain") == "not a program"


def test_the_cgroup_is_where_containerd_asked(containerd: Containerd) -> None:
    pid = background(containerd)
    paths = {line.split(":", 2)[2] for line in containerd.box.read(f"/proc/{pid}/cgroup").splitlines()}
    assert f"/{containerd.box.name}/web" in paths


def test_eight_at_once(containerd: Containerd) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(containerd, "run", "--rm", IMAGE, f"many{n}", "sh", "-c", f"echo {n}") for n in range(8)]
        assert [run.result() for run in runs] == [str(n) for n in range(8)]
    containerd.nothing_left()
