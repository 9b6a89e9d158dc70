"""`pyrunc.Container` in somebody else's program: its threads, signals, descriptors and children are left in peace."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
BUSYBOX = shutil.which("busybox")

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="not root"),
    pytest.mark.skipif(BUSYBOX is None, reason="no busybox (Debian package busybox-static)"),
]


class Program:
    """A program that uses the library: each piece of code runs as one, with names for what it needs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        programs = path / "rootfs" / "bin"
        programs.mkdir(parents=True)
        assert BUSYBOX is not None
        shutil.copy(BUSYBOX, programs / "busybox")
        for name in ("sh", "sleep", "true", "cat", "ls", "echo"):
            (programs / name).symlink_to("busybox")
        (programs / "broken").write_text("#!/nowhere\n")
        (programs / "broken").chmod(0o755)

    def __call__(self, code: str, *args: str, **changes: Any) -> str:
        """Run code with a bundle whose program has these arguments; what it printed."""
        config: dict[str, Any] = {
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"args": list(args or ("true",)), "cwd": "/", "env": ["PATH=/bin"]},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": f"/pyrunc-test-library-{os.getpid()}",
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")],
            },
        }
        config |= changes
        (self.path / "config.json").write_text(json.dumps(config))
        (self.path / "program.py").write_text(_BEFORE + code)
        done = subprocess.run(
            [sys.executable, str(self.path / "program.py")],
            cwd=self.path,
            env=os.environ | {"PYTHONPATH": str(TOP)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


_BEFORE = """
import os, signal, sys, threading, time
from pathlib import Path
from pyrunc import Container, Error, containers

where = {"root": os.path.abspath("state")}
process = {"args": ["true"], "cwd": "/", "env": ["PATH=/bin"]}

def descriptors():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass
    return found

def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    tmp_path.chmod(0o755)
    yield Program(tmp_path)
    assert not [p.name for p in tmp_path.glob("state/*") if not p.name.startswith(".~")]


def test_importing_is_cheap() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(TOP)!r})\n"
        "bare = set(sys.modules); import pyrunc; print(*set(sys.modules) - bare)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) < 5, done.stdout


class TestContainer:
    pytestmark = needs_root

    def test_a_whole_life(self, program: Program) -> None:
        out = program(
            """
container = Container.create("c", ".", **where)
print(container.state()["status"])
container.start()
print(container.state()["status"], len(container.pids()), Container.load("c", **where).id)
print(container.exec(process), container.exec(process | {"args": ["sh", "-c", "exit 7"]}))
print([entry["id"] for entry in containers(where["root"])])
container.kill(signal.SIGKILL)
print(container.wait(), container.state()["status"])
container.delete()
print(containers(where["root"]), children())
""",
            "sleep",
            "100",
        )
        assert out.split("\n") == ["created", "running 1 c", "0 7", "['c']", "137 stopped", "[] []", ""]

    def test_output_by_pipes(self, program: Program) -> None:
        out = program(
            """
null = os.open("/dev/null", os.O_RDWR)
for run in (lambda fds: Container.run("c", ".", stdio=fds, **where),):
    out, out_w = os.pipe()
    err, err_w = os.pipe()
    print(run((null, out_w, err_w)))
    os.close(out_w), os.close(err_w)
    print(os.read(out, 99), os.read(err, 99), os.read(out, 99))
""",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 3",
        )
        assert out == "3\nb'out\\n' b'err\\n' b''\n"

    def test_input_and_crossed_descriptors(self, program: Program) -> None:
        """stdio may name the program's own 0, 1 and 2, in another order."""
        out = program(
            """
reader, writer = os.pipe()
os.write(writer, b"hello")
os.close(writer)
out, out_w = os.pipe()
print(Container.run("c", ".", stdio=(reader, 2, 1), **where), flush=True)
""",
            "sh",
            "-c",
            "cat; echo to one; echo to two >&2",
        )
        assert sorted(out.split("\n")) == ["", "0", "helloto one", "to two"]

    def test_a_program_with_threads(self, program: Program) -> None:
        """With threads about, and one that forks, allocates and prints all the while."""
        out = program(
            """
def busy():
    while not done:
        [str(n) for n in range(1000)]
        os.environ["X"] = "1"
done = False
threads = [threading.Thread(target=busy) for _ in range(3)]
for thread in threads: thread.start()
statuses = [Container.run("c", ".", **where) for _ in range(20)]
done = True
for thread in threads: thread.join()
print(set(statuses), children())
""",
            "sh",
            "-c",
            "exit 5",
        )
        assert out == "{5} []\n"

    def test_containers_from_several_threads(self, program: Program) -> None:
        out = program(
            """
import json, shutil
def life(n):
    shutil.copytree("rootfs", f"b{n}/rootfs", symlinks=True)
    config = json.load(open("config.json"))
    config["linux"]["cgroupsPath"] += f"-{n}"
    json.dump(config, open(f"b{n}/config.json", "w"))
    results.append([Container.run(f"c{n}", f"b{n}", **where) for _ in range(5)])
results = []
threads = [threading.Thread(target=life, args=(n,)) for n in range(4)]
before = descriptors()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(results == [[4] * 5] * 4 or results, children(), descriptors().keys() == before.keys())
""",
            "sh",
            "-c",
            "exit 4",
        )
        assert out == "True [] True\n"

    def test_a_program_with_signal_handlers(self, program: Program) -> None:
        """They do not run in the container's init, and are still the program's afterwards."""
        out = program(
            """
def handler(number, frame):
    print("handled by", "me" if os.getpid() == me else "another process", flush=True)
me = os.getpid()
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
    signal.signal(number, handler if number != signal.SIGCHLD else lambda *_: None)
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
container = Container.create("c", ".", **where)
for number in (signal.SIGUSR1, signal.SIGTERM):
    os.kill(container.state()["pid"], number)
print(container.wait())
container.delete()
assert signal.getsignal(signal.SIGTERM) is handler and signal.set_wakeup_fd(-1) == writer
os.kill(me, signal.SIGUSR1)
""",
            "sleep",
            "100",
        )
        # as PID 1 of its namespace init does not hear SIGUSR1, and handles SIGTERM itself
        assert out == "143\nhandled by me\n"

    @pytest.mark.parametrize("threads", [False, True])
    def test_descriptors_stay_out(self, program: Program, threads: bool) -> None:
        """Neither hooks nor program get any but 0, 1 and 2, whatever the caller has open and inheritable."""
        (program.path / "rootfs" / "tmp").mkdir()
        # these hooks' program is the host's, whose root is still in sight
        file = f"{program.path}/rootfs/tmp/listing"
        listing = {"path": "/bin/sh", "args": ["sh", "-c", f"ls -l /proc/self/fd 2>&1 >>{file}; true"]}
        inside = {"path": "/bin/sh", "args": ["sh", "-c", "ls -l /proc/self/fd >>/tmp/listing"]}
        program(
            f"""
if {threads}: threading.Thread(target=time.sleep, args=(2,), daemon=True).start()
for _ in range(5): os.set_inheritable(os.open("/", os.O_RDONLY), True)
assert Container.run("c", ".", **where) == 0
container = Container.create("c", ".", **where)
container.exec(process | {{"args": ["sh", "-c", "ls -l /proc/self/fd >>/tmp/listing"]}})
container.start()
assert container.wait() == 0
container.delete()
""",
            "sh",
            "-c",
            "ls -l /proc/self/fd >>/tmp/listing",
            hooks={"createContainer": [listing], "startContainer": [inside], "createRuntime": [listing]},
        )
        lines = (program.path / "rootfs" / "tmp" / "listing").read_text().splitlines()
        # "total 0", then 0, 1 (the listing itself), 2 and the directory that ls reads
        assert len([line for line in lines if line.startswith("total")]) >= 8
        open_ones = [line.split()[-3] for line in lines if " -> " in line]
        assert set(open_ones) <= {"0", "1", "2", "3"}
        others = [line for line in lines if " -> " in line and line.split()[-3] == "3"]
        assert all("/fd" in line.split()[-1] for line in others), others

    def test_preserved_descriptors_go_in(self, program: Program) -> None:
        out = program(
            """
for fd in range(3, 10):
    os.dup2(os.open("/etc/hostname", os.O_RDONLY), fd)
print(Container.run("c", ".", preserve_fds=2, **where), flush=True)
""",
            "sh",
            "-c",
            "for fd in 3 4 5 6; do test -e /proc/self/fd/$fd && echo $fd; done; true",
        )
        assert out == "3\n4\n0\n"

    def test_nothing_adds_up(self, program: Program) -> None:
        """No zombie and no descriptor stays in the program, whether runs succeed or fail."""
        out = program(
            """
before = descriptors()
for n in range(50):
    assert Container.run("c", ".", **where) == 0
for n in range(10):
    container = Container.create("c", ".", **where)
    container.start()
    container.delete(force=True)
    try:
        Container.run("c", ".", pid_file="/nowhere/pid", **where)
    except Error:
        pass
    container = Container.create("c", ".", **where)
    try:
        container.exec(process | {"args": ["missing"]})
    except Error:
        pass
    try:
        container.exec(process | {"args": ["broken"]})
    except Error:
        pass
    container.delete()
print(descriptors() == before or descriptors(), children())
"""
        )
        assert out == "True []\n"

    def test_closed_standard_descriptors(self, program: Program) -> None:
        """What is opened next would be taken for them, and with it a way to the host."""
        program(
            """
os.close(0), os.close(1), os.close(2)
status = Container.run("c", ".", **where)
Path("status").write_text(str(status))
""",
            "sh",
            "-c",
            "ls -l /proc/self/fd >/listing",
        )
        assert (program.path / "status").read_text() == "0"
        lines = (program.path / "rootfs" / "listing").read_text().splitlines()
        targets = {line.split()[-3]: line.split()[-1] for line in lines if " -> " in line}
        assert targets["0"] == targets["2"] == "/dev/null"
        assert {"0", "1", "2"} <= set(targets) <= {"0", "1", "2", "3"}  # 3 is the directory that ls reads

    def test_errors_tell_place_and_number(self, program: Program) -> None:
        out = program(
            """
try:
    Container.run("c", ".", **where)
except Error as e:
    print(e.pointer, e.errno, e.reason, sep="|")
try:
    Container.load("c", **where)
except Error as e:
    print(type(e).__name__, e)
""",
            mounts=[{"destination": "/x", "type": "nosuchfs", "source": "x"}],
        )
        first, second = out.strip().split("\n")
        assert first.startswith(f"/mounts/0|{errno.ENODEV}|")
        assert second == "NoSuchContainer container does not exist"

    def test_an_interrupted_run_leaves_nothing(self, program: Program) -> None:
        out = program(
            """
threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    Container.run("c", ".", **where)
except KeyboardInterrupt:
    print("interrupted", containers(where["root"]), children())
""",
            "sleep",
            "100",
        )
        assert out == "interrupted [] []\n"
