"""The commands on real containers: what they print and with what status they end. Needs root and a static busybox."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
PROGRAM = f"import sys; sys.path.insert(0, {str(TOP)!r}); from pyrunc.__main__ import main; main()"
BUSYBOX = shutil.which("busybox")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="not root"),
    pytest.mark.skipif(BUSYBOX is None, reason="no busybox (Debian package busybox-static)"),
]


class Box:
    """A bundle, a state root and a way to call pyrunc on them.

    Its cgroup is the test's own, so that containers of the same ID elsewhere do not meet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / "state"
        programs = path / "rootfs" / "bin"
        programs.mkdir(parents=True)
        assert BUSYBOX is not None
        shutil.copy(BUSYBOX, programs / "busybox")
        for name in ("sh", "sleep", "true", "id", "env"):
            (programs / name).symlink_to("busybox")
        self("spec", "--bundle", str(path))
        self.configure(["sleep", "1000"])

    def configure(self, args: list[str], cgroup: str = "c") -> None:
        """Have the container run these arguments, without a terminal, in a cgroup of this name."""
        file = self.path / "config.json"
        config: dict[str, Any] = json.loads(file.read_text())
        config["process"]["args"] = args
        config["process"]["terminal"] = False
        config["linux"]["cgroupsPath"] = f"/pyrunc-test-cli-{os.getpid()}/{self.path.name}-{cgroup}"
        file.write_text(json.dumps(config))

    def __call__(self, *argv: str, stdio: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", PROGRAM, "--root", str(self.root), *argv],
            stdin=subprocess.DEVNULL,
            stdout=stdio,
            stderr=subprocess.STDOUT if stdio == subprocess.PIPE else stdio,
            text=True,
            timeout=60,
            check=False,
        )

    def out(self, *argv: str) -> str:
        """The output of a command that has to succeed."""
        done = self(*argv)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def created(self, container_id: str = "c") -> None:
        """Create a container. What it would print goes nowhere: a pipe would stay open as long as it lives."""
        done = self(
            "--log", str(self.path / "log"), "create", "-b", str(self.path), container_id, stdio=subprocess.DEVNULL
        )
        assert done.returncode == 0, (self.path / "log").read_text()

    def running(self, container_id: str = "c") -> None:
        """Create and start a container."""
        self.created(container_id)
        self.out("start", container_id)

    def status(self, container_id: str = "c") -> str:
        """Its status."""
        return str(json.loads(self.out("state", container_id))["status"])

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for something that a signal sets off."""
        for _ in range(200):
            if condition():
                return
            time.sleep(0.05)
        raise AssertionError("it did not happen")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    try:
        yield box
    finally:
        left = json.loads(box.out("list", "-f", "json")) if box.root.exists() else None
        for entry in left or ():
            box.out("delete", "--force", entry["id"])
        top = Path("/sys/fs/cgroup")
        parent = f"pyrunc-test-cli-{os.getpid()}"
        for name in (*top.glob(parent), *top.glob(f"*/{parent}")):
            name.rmdir()


def test_state_is_runcs(box: Box) -> None:
    box.created()
    text = box.out("state", "c")
    state = json.loads(text)
    assert list(state) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert text == json.dumps(state, indent=2) + "\n"
    assert state["status"] == "created"
    assert state["bundle"] == str(box.path)
    assert state["rootfs"] == str(box.path / "rootfs")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", state["created"])


def test_list(box: Box) -> None:
    assert not box.root.exists()
    assert box.out("list") == "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    assert box.out("list", "--format", "json") == "null\n"
    assert box.out("list", "-q") == ""
    for name in ("one", "two"):
        box.configure(["sleep", "1000"], cgroup=name)
        box.created(name)
    assert box.out("list", "-q") == "one\ntwo\n"
    lines = box.out("list").splitlines()
    assert [line.split()[::2] for line in lines[1:]] == [
        [name, "created", created]
        for name, created in ((s["id"], s["created"]) for s in json.loads(box.out("list", "-f", "json")))
    ]
    assert lines[1].endswith("   root")
    compact = box.out("list", "-f", "json")
    assert compact.count("\n") == 1
    assert compact.startswith('[{"ociVersion":"1.3.0","id":"one","pid":')


def test_a_life(box: Box) -> None:
    box.created()
    assert box("start", "c").returncode == 0
    assert box.status() == "running"
    assert box("start", "c").stdout == "pyrunc: start c: cannot start an already running container\n"
    assert box("delete", "c").returncode == 1
    box.out("pause", "c")
    assert box.status() == "paused"
    done = box("exec", "c", "true")
    assert done.returncode == 255
    assert done.stdout.startswith("pyrunc: exec c: cannot exec in a paused container")
    box.out("resume", "c")
    assert box.status() == "running"
    box.out("kill", "c", "sigkill")
    box.wait(lambda: box.status() == "stopped")
    assert box("kill", "c", "0").stdout == "pyrunc: kill c: container not running\n"
    assert box("kill", "c", "0").returncode == 1
    assert box.out("kill", "--all", "c", "KILL") == ""
    assert json.loads(box.out("state", "c"))["pid"] == 0
    assert box.out("ps", "--format", "json", "c") == "null\n"
    assert box.out("ps", "c").count("\n") == 1, "the title alone"
    box.out("delete", "c")
    assert box("state", "c").stdout == "pyrunc: state c: container does not exist\n"
    assert box("delete", "c").returncode == 1
    assert box.out("delete", "--force", "c") == ""


def test_the_default_signal_is_sigterm(box: Box) -> None:
    box.configure(["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"])
    box.running()
    box.wait(lambda: "SIGTERM" not in _ignored_by(json.loads(box.out("state", "c"))["pid"]))
    box.out("kill", "c")
    box.wait(lambda: box.status() == "stopped")


def _ignored_by(pid: int) -> set[str]:
    """SIGTERM if init of a PID namespace has no handler for it: then it is not delivered."""
    caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert caught is not None
    return set() if int(caught[1], 16) & 1 << 14 else {"SIGTERM"}


def test_ps(box: Box) -> None:
    box.running()
    pid = json.loads(box.out("state", "c"))["pid"]
    assert box.out("ps", "--format", "json", "c") == f"[{pid}]\n"
    title, line = box.out("ps", "c").splitlines()
    assert title.split()[:3] == ["UID", "PID", "PPID"]
    assert line.split()[1] == str(pid)
    assert box.out("ps", "c", "-o", "pid,args").splitlines()[1].split() == [str(pid), "sleep", "1000"]
    assert box("ps", "c", "--no-such-option").returncode == 1


def test_run_ends_with_the_status_of_its_process(box: Box) -> None:
    for args, status in ((["sh", "-c", "exit 7"], 7), (["sh", "-c", "kill -9 $$"], 0), (["true"], 0)):
        box.configure(args)
        assert box("run", "--bundle", str(box.path), "c").returncode == status, "init ignores its own SIGKILL"
        assert box.out("list", "-q") == ""
    box.configure(["true"])
    assert box("run", "--keep", "-b", str(box.path), "c").returncode == 0
    assert box.status() == "stopped"


def test_exec(box: Box) -> None:
    box.running()
    assert box("exec", "c", "sh", "-c", "exit 9").returncode == 9
    assert box("exec", "c", "sh", "-c", "kill -15 $$").returncode == 143
    assert box.out("exec", "-e", "A=1", "-e", "B=2", "c", "sh", "-c", "echo $A$B") == "12\n"
    done = box("exec", "c", "no-such-program")
    assert done.returncode == 255
    assert "executable file not found in $PATH" in done.stdout
    assert box("exec", "c").stdout == "pyrunc: exec c: exec args cannot be empty\n"
    process = box.path / "process.json"
    process.write_text(json.dumps({"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/sh", "-c", "exit 4"]}))
    assert box("exec", "--process", str(process), "c").returncode == 4
    process.write_text('{"cwd": 1}')
    done = box("exec", "--process", str(process), "c")
    assert done.returncode == 255
    assert done.stdout.count("\n") == 1
    pid_file = box.path / "pid"
    done = box("exec", "-d", "--pid-file", str(pid_file), "c", "sleep", "500", stdio=subprocess.DEVNULL)
    assert done.returncode == 0
    assert Path(f"/proc/{pid_file.read_text()}/cmdline").read_bytes() == b"sleep\x00500\x00"


def test_debug_tells_the_steps(box: Box) -> None:
    box.configure(["true"])
    log = box.path / "log"
    done = box("--debug", "--log", str(log), "--log-format", "json", "run", "-b", str(box.path), "c")
    assert (done.returncode, done.stdout) == (0, "")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert {entry["level"] for entry in entries} == {"debug"}
    told = "\n".join(entry["msg"] for entry in entries)
    assert "/mounts/0: mount proc on /proc" in told


def test_an_error_names_command_container_and_place(box: Box) -> None:
    config = json.loads((box.path / "config.json").read_text())
    config["mounts"][1]["options"] = ["size=9q"]
    (box.path / "config.json").write_text(json.dumps(config))
    log = box.path / "log"
    done = box("--log", str(log), "--log-format", "json", "run", "-b", str(box.path), "web")
    assert done.returncode == 1
    opening = "pyrunc run failed: unable to start container process: error during container init"
    assert re.fullmatch(rf"{opening}: error mounting tmpfs on /dev \(size=9q\): web /mounts/1: .+\n", done.stdout)
    assert f"{json.loads(log.read_text())['msg']}\n" == done.stdout


def test_plan_makes_nothing(box: Box) -> None:
    text = box.out("plan", str(box.path))
    assert text.startswith("runtime:\n    ")
    assert "\ninit:\n" in text
    assert "    mount proc on /proc  (/mounts/0)\n" in text
    steps = json.loads(box.out("plan", "-b", str(box.path), "--format", "json"))
    assert {"process": "init", "action": "mount proc on /proc", "origin": "/mounts/0"} in steps
    assert not box.root.exists()
