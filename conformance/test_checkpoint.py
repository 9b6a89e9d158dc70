"""checkpoint and restore: what a container is after CRIU has written it to files and made it anew."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from conformance.harness import (
    Background,
    Bundle,
    ConsoleSocket,
    Container,
    Result,
    Runtime,
    RuntimeFailed,
    children,
    mounts,
    namespace,
    not_applicable,
    pyrunc_promise,
    requires,
    spec,
    until,
)

#: A CRIU that works need not be where the runtime under test would look for it.
CRIU = shutil.which("criu")


def _criu_works(_: Runtime) -> str | None:
    if CRIU is None:
        return "the host has no criu"
    check = subprocess.run([CRIU, "check"], capture_output=True, text=True, check=False)
    lines = [line for line in check.stderr.splitlines() if "Error" in line]
    return None if check.returncode == 0 else f"criu check: {lines[-1] if lines else 'failed'}"


def _feature(name: str) -> Any:
    def has(_: Runtime) -> str | None:
        done = subprocess.run([str(CRIU), "check", "--feature", name], capture_output=True, check=False)
        return None if done.returncode == 0 else f"criu and this kernel lack {name}"

    return has


pytestmark = [requires("subcommand:checkpoint"), requires(_criu_works)]

CHECKPOINT = "saves the state of the running container instance"
RESTORE = "Restores the container instance from a previously performed runc checkpoint"

#: A program that goes on: CRIU ends system calls with EINTR that restart_syscall(2) would take up, and with them
#: busybox's sleep.
STAY = "tail -f /dev/null"
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


class Lines:
    """A pipe as a container's output: of a file outside, CRIU could not make sense."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.text = ""

    def read(self) -> str:
        """All that has come so far."""
        try:
            while data := os.read(self.reader, 65536):
                self.text += data.decode()
        except BlockingIOError:
            pass
        return self.text

    def wait(self, text: str) -> str:
        until(lambda: text in self.read(), f"{text!r} in the container's output {self.text[-200:]!r}")
        return self.text

    def last(self) -> int:
        """The last number."""
        return int(self.read().split()[-1])

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


class Cycle:
    """A container and the directories of its checkpoint."""

    def __init__(self, container: Container, lines: Lines) -> None:
        self.container = container
        self.lines = lines
        self.images = f"{container.bundle.path}/images"

    @property
    def popen(self) -> dict[str, Any]:
        return {"stdout": self.lines.writer, "stderr": self.lines.writer}

    def run(self, *flags: str) -> None:
        try:
            self.container.run_detached(*flags, **self.popen)
        except RuntimeFailed as e:
            pytest.fail(f"{e}\n{self.lines.read()}")

    def checkpoint(self, *flags: str, check: bool = True, **kw: Any) -> Result:
        argv = ["--image-path", self.images, *flags, self.container.id]
        return self.container.runtime.run("checkpoint", *argv, check=check, **kw)

    def restore(self, *flags: str, check: bool = True, **kw: Any) -> Result:
        """``restore --detach``; its own errors go to the container's output, too."""
        result = self.restore_in_background(*flags, **kw).wait()
        if check and result.status:
            pytest.fail(f"should have succeeded:\n{result!r}\n{self.lines.read()}")
        return result

    def restore_in_background(self, *flags: str, **kw: Any) -> Background:
        container = self.container
        container.bundle.write(f"/{container.id}")
        argv = ["--image-path", self.images, "--bundle", container.bundle.path, "--pid-file", container.pid_file]
        return container.runtime.start("restore", "--detach", *argv, *flags, container.id, **{**self.popen, **kw})

    def counts_on(self) -> None:
        """The counter runs on from where it was."""
        before = self.lines.last()
        until(lambda: self.lines.last() > before + 3, f"more numbers than {before}")
        numbers = [int(word) for word in self.lines.read().split()]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.fixture
def cycle(container: Container) -> Iterator[Cycle]:
    lines = Lines()
    container.bundle.sh(STAY)
    if CRIU is not None:
        container.runtime.env["PATH"] = f"{os.path.dirname(CRIU)}:{container.runtime.env['PATH']}"
    yield Cycle(container, lines)
    container.delete("--force", check=False)
    lines.close()


# --------------------------------------------------------------------------------------------- the whole way


@spec("runc-restore.8", RESTORE)
def test_a_life_with_two_gaps(bundle: Bundle, cycle: Cycle) -> None:
    bundle.sh(COUNT)
    container = cycle.container
    cycle.run()
    cycle.lines.wait("3\n")
    for _ in range(2):
        before = container.pid
        cycle.checkpoint()
        assert not container.exists(), "a checkpointed container is deleted"
        assert not container.runtime.cgroups.having(container.id)
        stopped = cycle.lines.last()
        time.sleep(0.2)
        assert cycle.lines.last() == stopped
        cycle.restore()
        assert container.status == "running"
        assert container.state()["pid"] == container.pid != before
        cycle.counts_on()
        shown = container.exec("cat", "/proc/1/cmdline", check=True)
        assert "while" in shown.stdout, "exec finds the restored process 1"
    container.kill("TERM")
    container.kill("KILL")
    assert container.wait() == 128 + 9
    assert container.status == "stopped"
    container.delete()


@spec("runc-checkpoint.8", CHECKPOINT)
def test_processes_files_and_settings(bundle: Bundle, cycle: Cycle) -> None:
    """More than one process, a tmpfs's contents, groups, capabilities, limits, a seccomp filter, working directory."""
    bundle.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [10]}
    bundle.process["cwd"] = "/tmp"
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["setdomainname"], "action": "SCMP_ACT_ERRNO"}],
    }
    bundle.sh(f"echo kept > /dev/shm/file; {STAY} & echo ready; {STAY}; exit 3")
    cycle.run()
    cycle.lines.wait("ready")
    container = cycle.container

    def look() -> list[str]:
        status = pathlib.Path(f"/proc/{container.pid}/status").read_text().splitlines()
        wanted = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp")
        found = [line for line in status if line.startswith(wanted)]
        found.append(os.readlink(f"/proc/{container.pid}/cwd"))
        found += pathlib.Path(f"/proc/{container.pid}/limits").read_text().splitlines()
        return found + container.exec("sh", "-c", "cat /dev/shm/file; pgrep tail; hostname", check=True).stdout.split()

    before = look()
    assert "kept" in before
    cycle.checkpoint()
    cycle.restore()
    assert look() == before


@spec("runc-restore.8", RESTORE)
def test_foreground(bundle: Bundle, cycle: Cycle) -> None:
    """Without --detach restore waits, gives the container's status, and deletes it."""
    bundle.sh("echo ready; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 7")
    cycle.run()
    cycle.lines.wait("ready")
    cycle.checkpoint()
    container = cycle.container
    argv = ["--image-path", cycle.images, "--bundle", bundle.path, container.id]
    restored = container.runtime.start("restore", *argv, **cycle.popen)
    until(lambda: container.status == "running", "the restored container runs")
    bundle.file("/tmp/go")
    assert restored.wait().status == 7
    assert not container.exists()


@spec("runc-restore.8", "--console-socket")
def test_terminal(bundle: Bundle, cycle: Cycle, console: ConsoleSocket) -> None:
    bundle.process["terminal"] = True
    bundle.sh("echo ready; read line; echo got $line; tty; read line")
    container = cycle.container
    container.run_detached("--console-socket", console.path)
    console.receive().read_until("ready")
    cycle.checkpoint()
    cycle.restore("--console-socket", console.path)
    terminal = console.receive()
    terminal.write("mail\n")
    terminal.read_until("got mail")
    terminal.read_until("/dev/")
    terminal.write("end\n")
    assert container.wait() == 0


# ------------------------------------------------------------------------------------------------------ flags


@spec("runc-checkpoint.8", "--leave-running")
def test_leave_running(bundle: Bundle, cycle: Cycle) -> None:
    bundle.sh(COUNT)
    cycle.run()
    cycle.lines.wait("3\n")
    pid = cycle.container.pid
    cycle.checkpoint("--leave-running")
    assert cycle.container.status == "running" and cycle.container.state()["pid"] == pid
    assert os.path.exists(f"{cycle.images}/inventory.img")
    cycle.counts_on()


@spec("runc-checkpoint.8", "Set path for saving criu work files and logs.")
def test_work_path(bundle: Bundle, cycle: Cycle) -> None:
    cycle.run()
    work = f"{bundle.path}/work"
    cycle.checkpoint("--work-path", work)
    assert os.path.exists(f"{work}/dump.log") and not os.path.exists(f"{cycle.images}/dump.log")
    cycle.restore("--work-path", work)
    assert os.path.exists(f"{work}/restore.log")


@spec("runc-checkpoint.8", "Set path for saving criu image files. The default is ./checkpoint.")
def test_default_image_path(bundle: Bundle, cycle: Cycle) -> None:
    container = cycle.container
    cycle.run()
    container.runtime.run("checkpoint", container.id, check=True, cwd=bundle.path)
    assert os.path.exists(f"{bundle.path}/checkpoint/inventory.img")
    cycle.images = f"{bundle.path}/checkpoint"
    cycle.restore()
    assert container.status == "running"


@spec("runc-checkpoint.8", "Allow checkpoint/restore of established TCP connections.")
def test_tcp_established(bundle: Bundle, cycle: Cycle) -> None:
    """Refused without the flag, and the connection is usable with it, once the network is there again."""
    bundle.sh(
        f"ifconfig lo up; nc -l -p 7000 -e sh -c 'read x; echo got $x; {STAY}' & sleep 0.3;"
        f" (sleep 0.2; echo ready >&2; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo mail; {STAY})"
        f" | nc 127.0.0.1 7000; {STAY}"
    )
    bundle.process["capabilities"] = {kind: ["CAP_NET_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    cycle.run()
    cycle.lines.wait("ready")
    refused = cycle.checkpoint(check=False)
    assert refused.status != 0
    assert cycle.container.status == "running"
    if cycle.checkpoint("--tcp-established", check=False).status:
        if "sockets: Can't get 1:16 opt" in pathlib.Path(cycle.images, "dump.log").read_text():
            not_applicable("this criu does not know this kernel's TCP sockets")  # SO_PASSCRED, since Linux 6.16
        pytest.fail("a checkpoint with --tcp-established failed")
    cycle.restore("--tcp-established")
    cycle.container.exec("ifconfig", "lo", "up", flags=["--cap", "CAP_NET_ADMIN"], check=True)  # runc leaves it down
    bundle.file("/tmp/go")
    cycle.lines.wait("got mail")


@spec("runc-checkpoint.8", "Allow one to link unlinked files back when possible.")
@requires("flag:checkpoint --link-remap")
def test_link_remap(bundle: Bundle, cycle: Cycle) -> None:
    """A file that has lost the name it was opened by, and has another."""
    bundle.file("/tmp/old", "kept\n")
    bundle.sh(f"exec 9</tmp/old; ln /tmp/old /tmp/new; rm /tmp/old; echo ready; {STAY}; cat <&9")
    cycle.run()
    cycle.lines.wait("ready")
    assert cycle.checkpoint(check=False).status != 0
    cycle.checkpoint("--link-remap")
    cycle.restore()
    assert cycle.container.exec("cat", "/proc/1/fd/9", check=True).stdout == "kept\n"


@spec("runc-checkpoint.8", "Allow checkpoint/restore of external unix sockets.")
@requires("flag:checkpoint --link-remap")
def test_flags_that_only_allow(bundle: Bundle, cycle: Cycle) -> None:
    """All that change nothing for a container without such things."""
    bundle.sh(COUNT)
    cycle.run()
    cycle.lines.wait("3\n")
    both = [
        "--ext-unix-sk",
        "--shell-job",
        "--tcp-established",
        "--file-locks",
        "--auto-dedup",
        "--empty-ns",
        "network",
    ]
    cycle.checkpoint(*both, "--link-remap", "--manage-cgroups-mode", "soft")
    cycle.restore(*both, "--manage-cgroups-mode", "soft", "--no-subreaper", "--no-pivot")
    cycle.counts_on()


@spec("runc-checkpoint.8", "leaving the container running after this")
@requires(_feature("mem_dirty_track"))
def test_pre_dump(bundle: Bundle, cycle: Cycle) -> None:
    bundle.sh(COUNT)
    cycle.run()
    cycle.lines.wait("3\n")
    images, cycle.images = cycle.images, f"{bundle.path}/before"
    cycle.checkpoint("--pre-dump")
    assert cycle.container.status == "running"
    cycle.counts_on()
    cycle.images = images
    cycle.checkpoint("--parent-path", "../before")
    assert os.readlink(f"{images}/parent") == "../before"
    cycle.restore()
    cycle.counts_on()


@spec("runc-checkpoint.8", "Once lazy-pages server is ready, criu writes \\0 (a zero byte) to that fd.")
@requires(_feature("uffd-noncoop"))
@requires("flag:checkpoint strict|ignore")
def test_lazy_pages(bundle: Bundle, cycle: Cycle, new_container: Any) -> None:
    """Memory comes when it is asked for; the old container is gone when all has come."""
    bundle.sh(COUNT)
    container = cycle.container
    cycle.run()
    cycle.lines.wait("3\n")
    ready, told = os.pipe()
    port = str(20000 + os.getpid() % 10000)
    argv = ["--lazy-pages", "--page-server", f"127.0.0.1:{port}", "--status-fd", str(told)]
    argv += ["--manage-cgroups-mode", "ignore", "--image-path", cycle.images, container.id]
    dump = container.runtime.start("checkpoint", *argv, pass_fds=[told])
    os.close(told)
    assert os.read(ready, 10) == b"\0", dump.stderr
    os.close(ready)
    pages = [str(CRIU), "lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", port, "-D", cycle.images]
    with subprocess.Popen(pages, cwd=cycle.images, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        until(lambda: os.path.exists(f"{cycle.images}/lazy-pages.socket"), "criu lazy-pages listens")
        other = Cycle(new_container(bundle), cycle.lines)
        other.images = cycle.images
        started = other.restore_in_background("--lazy-pages", "--manage-cgroups-mode", "ignore")
        try:
            until(lambda: server.poll() is not None and dump.process.poll() is not None, "the memory has come")
        finally:
            server.kill()
        if dump.process.returncode and "page-pipe: splice" in pathlib.Path(cycle.images, "dump.log").read_text():
            for pid in children(started.pid):
                os.kill(pid, signal.SIGKILL)  # criu does not come to an end by itself
            assert started.wait().status != 0
            not_applicable("criu can't serve memory on this kernel")  # its server's splice(2) fails, with any runtime
        assert dump.process.returncode == 0, dump.stderr
        assert started.wait().status == 0
    assert not container.exists()
    assert other.container.status == "running"
    other.counts_on()


# --------------------------------------------------------------------------------- mounts, namespaces, cgroups


@spec("config.md#mounts", "source … Path values for bind mounts are either absolute or relative to the bundle.")
def test_bind_mounts(bundle: Bundle, cycle: Cycle) -> None:
    """A directory, one nested in it, a file, and one whose destination is a symbolic link: the host's files again."""
    host = pathlib.Path(bundle.path)
    for name in ("outer", "inner", "linked"):
        (host / name).mkdir()
        (host / name / "file").write_text(f"{name}\n")
    (host / "single").write_text("single\n")
    os.makedirs(bundle.host("/real/place"))
    os.symlink("/real/place", bundle.host("/link"))
    bundle.config["mounts"] += [
        {"destination": "/outer", "source": f"{host}/outer", "options": ["bind"]},
        {"destination": "/outer/in/ner", "source": f"{host}/inner", "options": ["bind", "ro"]},
        {"destination": "/etc/single", "source": f"{host}/single", "options": ["bind"]},
        {"destination": "/link", "source": "linked", "options": ["bind"]},
    ]
    cycle.run()
    cycle.checkpoint()
    shutil.rmtree(host / "outer/in")  # it is made again, as at creation
    cycle.restore()
    files = ["/outer/file", "/outer/in/ner/file", "/etc/single", "/link/file", "/real/place/file"]
    shown = cycle.container.exec("cat", *files, check=True).stdout
    assert shown == "outer\ninner\nsingle\nlinked\nlinked\n"
    (host / "outer/new").write_text("later\n")
    assert cycle.container.exec("cat", "/outer/new", check=True).stdout == "later\n"
    assert cycle.container.exec("touch", "/outer/in/ner/x").status != 0, "still read-only"


@spec("runc-checkpoint.8", CHECKPOINT)
def test_notify_socket(bundle: Bundle, cycle: Cycle) -> None:
    """What the runtime mounted for $NOTIFY_SOCKET is not in config.json."""
    container = cycle.container
    path = container.runtime.scratch("socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        container.runtime.env["NOTIFY_SOCKET"] = path
        bundle.sh(COUNT)
        container.create(**cycle.popen)
        started = container.runtime.start("start", container.id)
        cycle.lines.wait("3\n")
        cycle.checkpoint()
        started.kill()  # runc's would wait on
        restored = cycle.restore_in_background()
        cycle.counts_on()
        assert "/run/notify" in pathlib.Path(f"/proc/{container.state()['pid']}/mountinfo").read_text()
        container.kill()
        assert restored.wait().status == 0


@spec("config-linux.md#masked-paths", "runtime will mask over the provided paths inside the container")
def test_masked_and_readonly_paths(bundle: Bundle, cycle: Cycle) -> None:
    bundle.linux["maskedPaths"] = ["/etc/secret", "/root", "/proc/kcore", "/proc/not/there"]
    bundle.linux["readonlyPaths"] = ["/proc/sys", "/etc"]
    bundle.file("/etc/secret", "secret")
    bundle.file("/root/file", "secret")
    cycle.run()

    def look() -> list[str]:
        said = cycle.container.exec("sh", "-c", "cat /etc/secret; ls /root; touch /etc/x || echo ro")
        info = pathlib.Path(f"/proc/{cycle.container.pid}/mountinfo").read_text().splitlines()
        return [said.stdout, *sorted(line.split()[4] for line in info)]

    before = look()
    assert before[0] == "ro\n"
    cycle.checkpoint()
    cycle.restore()
    assert look() == before


@spec(
    "config-linux.md#namespaces", "runtime MUST place the container process in the namespace associated with that path"
)
@pytest.mark.parametrize("kind", ["network", "ipc", "uts"])
def test_namespace_by_path(bundle: Bundle, cycle: Cycle, kind: str) -> None:
    """It is somebody else's, and the container is in it again."""
    file = {"network": "net"}.get(kind, kind)
    with subprocess.Popen(["unshare", f"--{file}", "sleep", "1000"]) as other:
        until(lambda: namespace(other.pid, file) != namespace("self", file), "a namespace")
        if kind == "uts":
            del bundle.config["hostname"]
        bundle.namespaces(drop=[kind], add=[{"type": kind, "path": f"/proc/{other.pid}/ns/{file}"}])
        cycle.run()
        cycle.checkpoint()
        cycle.restore()
        assert namespace(cycle.container.pid, file) == namespace(other.pid, file)
        cycle.container.delete("--force")
        other.kill()


@spec("runc-restore.8", RESTORE)
@pyrunc_promise
def test_loopback(bundle: Bundle, cycle: Cycle) -> None:
    """A network namespace of the container's own is made anew without its properties; but lo is up, as at creation."""
    cycle.run()
    cycle.checkpoint()
    cycle.restore()
    assert "UP LOOPBACK" in cycle.container.exec("ifconfig", "lo", check=True).stdout


@spec("config-linux.md#user-namespace-mappings", "describes the user namespace")
def test_user_namespace(bundle: Bundle, cycle: Cycle) -> None:
    bundle.namespaces(add=[{"type": "user"}])
    for kind in ("uidMappings", "gidMappings"):
        bundle.linux[kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.sh(COUNT)
    for path in ("", "dev", "proc", "sys", "tmp"):
        os.chown(bundle.host(path), 100000, 100000)
    os.mkdir(cycle.images, 0o755)  # the container's root has to find the images, too
    cycle.run()
    cycle.lines.wait("3\n")
    cycle.checkpoint()
    cycle.restore()
    cycle.counts_on()
    assert os.stat(f"/proc/{cycle.container.pid}").st_uid == 100000
    assert cycle.container.exec("sh", "-c", "id -u; echo x > /dev/null", check=True).stdout == "0\n"


@spec("config-linux.md#control-groups", "Cgroups are used to control resource usage")
@requires("controller:pids")
def test_cgroup(bundle: Bundle, cycle: Cycle) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 77}
    bundle.config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"})
    container = cycle.container
    cgroups = container.runtime.cgroups
    cycle.run()
    controller = "pids" if cgroups.mode != "v2" else ""
    before = cgroups.of(container.pid)[controller]
    shown = container.exec("ls", "/sys/fs/cgroup", check=True).stdout
    cycle.checkpoint()
    assert not os.path.exists(before)
    cycle.restore()
    assert cgroups.of(container.pid)[controller] == before
    assert pathlib.Path(before, "pids.max").read_text() == "77\n"
    container.pause()
    assert container.status == "paused"
    container.resume()
    assert container.exec("ls", "/sys/fs/cgroup", check=True).stdout == shown


@spec("runc-restore.8", "to restore the container into a different cgroup, --manage-cgroups-mode ignore must be used")
@requires("flag:checkpoint strict|ignore")
def test_another_cgroup(bundle: Bundle, cycle: Cycle) -> None:
    container = cycle.container
    cycle.run()
    cycle.checkpoint("--manage-cgroups-mode", "ignore")
    bundle.linux["cgroupsPath"] = f"/{container.id}-elsewhere"
    cycle.restore("--manage-cgroups-mode", "ignore")
    of = container.runtime.cgroups.of(container.pid)
    assert all(path.endswith("-elsewhere") for path in of.values() if container.id in path)
    assert any(path.endswith("-elsewhere") for path in of.values())


@spec("runc-restore.8", RESTORE)
@requires("systemd")
def test_cgroup_of_systemd_s(bundle: Bundle, cycle: Cycle) -> None:
    """The unit is there again, with its limits and the processes."""
    container = cycle.container
    container.runtime.global_args.append("--systemd-cgroup")
    bundle.linux["cgroupsPath"] = f"system.slice:cf:{container.id}"
    bundle.linux["resources"]["pids"] = {"limit": 77}
    bundle.sh(COUNT)
    cycle.run()
    cycle.lines.wait("3\n")
    cgroups = container.runtime.cgroups
    controller = "pids" if cgroups.mode != "v2" else ""
    before = cgroups.of(container.pid)[controller]
    assert before.endswith(f"/system.slice/cf-{container.id}.scope")
    cycle.checkpoint()
    until(lambda: not os.path.exists(before), "the scope is gone")
    cycle.restore()
    cycle.counts_on()
    assert cgroups.of(container.pid)[controller] == before
    assert pathlib.Path(before, "pids.max").read_text() == "77\n"


@spec("runc-checkpoint.8", CHECKPOINT)
@requires("controller:freezer")
def test_paused(bundle: Bundle, cycle: Cycle) -> None:
    """A paused container can be saved; restored it runs."""
    bundle.sh(COUNT)
    cycle.run()
    cycle.lines.wait("3\n")
    cycle.container.pause()
    cycle.checkpoint()
    cycle.restore()
    assert cycle.container.status == "running"
    cycle.counts_on()


@spec(
    "config.md#posix-platform-hooks",
    "The createRuntime hooks MUST be called after the runtime environment has been created",
)
def test_hooks(bundle: Bundle, cycle: Cycle) -> None:
    """Who prepares the runtime environment does it for a restored container, too: an engine's network is made there."""
    log = pathlib.Path(bundle.path, "hooks")
    script = pathlib.Path(bundle.path, "hook")
    script.write_text(f'#!/bin/sh\nread state; echo "$1 $state" >> {log}\n')
    script.chmod(0o755)
    kinds = ("prestart", "createRuntime", "poststop")
    bundle.config["hooks"] = {kind: [{"path": str(script), "args": ["hook", kind]}] for kind in kinds}

    def ran() -> list[str]:
        lines = log.read_text().splitlines()
        log.write_text("")
        return [line.split()[0] for line in lines]

    cycle.run()
    assert ran() == ["prestart", "createRuntime"]
    cycle.checkpoint()
    assert ran() == ["poststop"]
    cycle.restore()
    state = json.loads(log.read_text().splitlines()[0].partition(" ")[2])
    assert state["id"] == cycle.container.id and state["pid"] == cycle.container.pid
    assert ran() == ["prestart", "createRuntime"]
    cycle.container.kill()
    cycle.container.wait()
    cycle.container.delete()
    assert ran() == ["poststop"]


@spec("runc-checkpoint.8", CHECKPOINT)
def test_configuration_file(bundle: Bundle, cycle: Cycle) -> None:
    """The annotation org.criu.config names a file with CRIU's settings, which count more than the runtime's."""
    settings = pathlib.Path(bundle.path, "criu.conf")
    settings.write_text("log-file=other.log\n")
    bundle.config["annotations"] = {"org.criu.config": str(settings)}
    cycle.run()
    cycle.checkpoint()
    assert os.path.exists(f"{cycle.images}/other.log") and not os.path.exists(f"{cycle.images}/dump.log")
    os.unlink(f"{cycle.images}/other.log")
    cycle.restore()
    assert os.path.exists(f"{cycle.images}/other.log")


# ------------------------------------------------------------------------------------------------- refusals


@spec("runc-checkpoint.8", CHECKPOINT)
@pytest.mark.parametrize("status", ["created", "stopped"])
def test_not_running(bundle: Bundle, cycle: Cycle, status: str) -> None:
    container = cycle.container
    container.create()
    if status == "stopped":
        container.kill()
        container.wait()
    result = cycle.checkpoint(check=False)
    assert result.status != 0 and "cannot be checkpointed" in result.stderr
    assert container.status == status
    container.delete()


@spec("runc-checkpoint.8", CHECKPOINT)
def test_a_dump_that_fails(bundle: Bundle, cycle: Cycle) -> None:
    """An open file of the host's can't be saved. The log says so, and the container goes on."""
    container = cycle.container
    bundle.sh("while :; do echo tick; sleep 0.05; done")
    container.run_detached()
    container.wait_output("tick")
    result = cycle.checkpoint(check=False)
    assert result.status != 0
    assert "criu failed" in result.stderr
    assert "Error" in pathlib.Path(cycle.images, "dump.log").read_text()
    assert container.status == "running"
    ticks = container.stdout.count("tick")
    until(lambda: container.stdout.count("tick") > ticks + 2, "more ticks")


@spec("runc-restore.8", RESTORE)
@pytest.mark.parametrize("lost", ["inventory.img", "core-1.img", "descriptors.json"])
def test_a_restore_that_fails(bundle: Bundle, cycle: Cycle, lost: str) -> None:
    """Nothing is left: no state, no process, no cgroup, no mount."""
    cycle.run()
    cycle.checkpoint()
    os.unlink(f"{cycle.images}/{lost}")
    before = [m.line for m in mounts()]
    assert cycle.restore(check=False).status != 0
    assert [m.line for m in mounts()] == before
    assert not cycle.container.exists()
    assert not cycle.container.runtime.cgroups.having(cycle.container.id)


@spec("runc-restore.8", RESTORE)
@pyrunc_promise
def test_a_restore_that_is_killed(bundle: Bundle, cycle: Cycle) -> None:
    """At any moment: ``delete --force`` takes away what there is by then, and another restore succeeds."""
    bundle.sh(COUNT)
    cycle.run()
    cycle.lines.wait("3\n")
    began = time.monotonic()
    cycle.checkpoint("--leave-running")
    pace = time.monotonic() - began  # a restore takes about as long
    cycle.container.delete("--force")
    for part in range(1, 9):
        started = cycle.restore_in_background()
        time.sleep(pace * part / 8)
        started.signal(signal.SIGKILL)
        started.wait()
        cycle.container.delete("--force")
        assert not cycle.container.runtime.cgroups.having(cycle.container.id)
    cycle.restore()
    cycle.container.wait_status("running")


@spec("runc-restore.8", RESTORE)
def test_nothing_is_mounted_on_the_host(bundle: Bundle, cycle: Cycle) -> None:
    cycle.run()
    cycle.checkpoint()
    before = [m.line for m in mounts()]
    cycle.restore()
    assert [m.line for m in mounts()] == before
    assert os.listdir(f"{cycle.container.runtime.root}/{cycle.container.id}")


@spec("runc-restore.8", RESTORE)
def test_root_by_a_link(bundle: Bundle, cycle: Cycle) -> None:
    """--root and the bundle may be named by symbolic links."""
    for path in (cycle.container.runtime.root, bundle.path):
        os.rename(path, f"{path}.real")
        os.symlink(f"{path}.real", path)
    bundle.sh(COUNT)
    cycle.run()
    cycle.lines.wait("3\n")
    cycle.checkpoint()
    cycle.restore()
    cycle.counts_on()


@spec("runc-restore.8", RESTORE)
def test_taken_id(bundle: Bundle, cycle: Cycle, new_container: Any) -> None:
    cycle.run()
    cycle.checkpoint("--leave-running")
    assert cycle.restore(check=False).status != 0
    assert cycle.container.status == "running"


@spec("runc-checkpoint.8", "Set path for previous criu image files, in pre-dump.")
@pytest.mark.parametrize("path", ["/tmp", "../not-there"])
def test_bad_parent_path(bundle: Bundle, cycle: Cycle, path: str) -> None:
    cycle.run()
    result = cycle.checkpoint("--parent-path", path, check=False)
    assert result.status != 0 and "--parent-path" in result.stderr
    assert cycle.container.status == "running"


@spec("runc-checkpoint.8", "Start a page server at the specified IP-address and port.")
@pytest.mark.parametrize(
    "flags",
    [
        ["--page-server", "nonsense"],
        ["--page-server", "127.0.0.1:x"],
        ["--manage-cgroups-mode", "most"],
        ["--empty-ns", "ipc"],
    ],
)
def test_bad_flags(bundle: Bundle, cycle: Cycle, flags: list[str]) -> None:
    cycle.run()
    assert cycle.checkpoint(*flags, check=False).status != 0
    assert cycle.container.status == "running"


@spec("features.md#annotations", "MAY contain arbitrary metadata")
def test_features(runtime: Runtime) -> None:
    """org.opencontainers.runc.checkpoint.enabled tells engines whether the commands are there."""
    annotations = runtime.features().get("annotations", {})
    if runtime.name == "crun":
        not_applicable("the annotation is runc's")
    assert annotations["org.opencontainers.runc.checkpoint.enabled"] == "true"
