"""A box: a machine of its own for an engine, so that nothing it does reaches the host and nothing it leaves can hide.

Engines write all over a machine: ``/run``, ``/dev/shm/libpod_lock``, bridges, nftables rules, ``ip_forward``. A box is
a process in new mount, network, PID and IPC namespaces with empty directories in those places and an overlay on
``/etc``. Engines are started inside it by nsenter(1). What is left in it after a test (a process, a mount, an
interface) was left by that test, and ending its PID 1 ends everything. Cgroups have no such wall, so every engine
gets a parent cgroup with a name of the box's own.

A box with systemd has the machine's: /run/systemd and D-Bus's socket are in it, and, since systemd knows processes by
the IDs that it sees, it has no PID namespace. Its parent cgroup is a slice, and ending that ends everything.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

from conformance.harness import SCALE, Cgroups

HERE = os.path.dirname(os.path.abspath(__file__))
CGROUPS = "/sys/fs/cgroup"


class Result:
    """How a command ended.

    Attributes:
        status: its exit status (negative: the signal that ended it).
        out, err: what it wrote; on a terminal everything is in `out`, with ``\\r\\n`` made ``\\n``.
    """

    def __init__(self, argv: list[str], status: int, out: str, err: str) -> None:
        self.argv = argv
        self.status = status
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"{' '.join(self.argv)}\nstatus {self.status}\nstdout: {self.out}\nstderr: {self.err}"


class Box:
    """See the module's text. Needs root.

    Args:
        hide: mount points that are unmounted in the box, and only there.
        environment: variables for every command in the box, besides PATH and HOME.
        systemd: the machine's systemd can be asked from the box.

    Attributes:
        name: the box's own.
        parent: the parent cgroup for whatever is started in the box: a path, or with systemd a slice's name.
        init: process ID of what keeps the box.
    """

    def __init__(self, hide: list[str], environment: dict[str, str], *, systemd: bool = False) -> None:
        # a dash in a slice's name is a level of its own (systemd.slice(5))
        self.name = f"box{'' if systemd else '-'}{os.getpid()}x{time.monotonic_ns() // 1000 % 1_000_000}"
        self.systemd = systemd
        self.parent = f"{self.name}.slice" if systemd else f"/{self.name}"
        self._cgroups = Cgroups()
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
        }
        self.environment.update(environment)
        own_processes = [] if systemd else ["--pid", "--mount-proc"]
        shown = ["--show=/run/systemd", "--show=/run/dbus"] if systemd else []
        self._unshare = subprocess.Popen(
            ["unshare", "--mount", "--net", "--ipc", *own_processes, "--fork", "--kill-child"]
            + ["/usr/bin/python3", "-IS", f"{HERE}/box_init.py", *shown, *hide],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            preexec_fn=end_with_parent,
        )
        assert self._unshare.stdout and self._unshare.stderr
        if self._unshare.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the box did not start: {self._unshare.stderr.read().decode()}")
        with open(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children") as f:
            self.init = int(f.read())

    def close(self) -> None:
        """End everything in the box, and remove its cgroups."""
        if self.systemd:
            subprocess.run(["systemctl", "stop", self.parent], check=False, capture_output=True)  # there, or never made
        os.kill(self.init, signal.SIGKILL)
        self._unshare.communicate()
        for directory in sorted(self.cgroups(), key=len, reverse=True):
            retry(lambda d=directory: gone(d), f"cgroup {directory} cannot be removed")  # type: ignore[misc]

    # -- commands

    def argv(self, command: tuple[str, ...]) -> list[str]:
        return ["nsenter", "-t", str(self.init), "-m", "-n", "-i", *([] if self.systemd else ["-p"]), "--", *command]

    def run(self, *command: str, stdin: str = "", timeout: float = 60) -> Result:
        """Run a command in the box.

        Args:
            stdin: what it reads.
            timeout: seconds, after which the test fails.
        """
        done = subprocess.run(
            self.argv(command),
            input=stdin.encode(),
            capture_output=True,
            timeout=timeout * SCALE,
            env=self.environment,
        )
        return Result(
            list(command),
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in the box; who starts it waits for it."""
        return subprocess.Popen(
            self.argv(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )

    def terminal(self, *command: str, say: list[tuple[str, str]], timeout: float = 30) -> Result:
        """Run a command in the box on a terminal of its own, 100 columns by 40 rows.

        Args:
            say: pairs (wait for this text, then type that).
        """
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 100))

        def own_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(
            self.argv(command),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**self.environment, "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=own_terminal,
        )
        os.close(slave)
        seen = ""
        heard = 0
        todo = list(say)
        end = time.monotonic() + timeout * SCALE
        while True:
            if time.monotonic() > end:
                process.kill()
                process.wait()
                os.close(master)
                raise AssertionError(f"{' '.join(command)}: no end after {timeout} s; on the terminal: {seen!r}")
            if select.select([master], [], [], 0.1)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:  # EIO: the last one closed the other side
                    break
                seen += data.decode(errors="replace").replace("\r\n", "\n")
            if todo and todo[0][0] in seen[heard:]:
                heard += seen[heard:].index(todo[0][0]) + len(todo[0][0])
                os.write(master, todo.pop(0)[1].encode())
        os.close(master)
        return Result(list(command), process.wait(), seen, "(all on the terminal)")

    # -- what is there

    def path(self, path: str) -> str:
        """The host's way to an absolute path in the box."""
        return f"/proc/{self.init}/root{path}"

    def read(self, path: str) -> str:
        with open(self.path(path)) as f:
            return f.read()

    def processes(self) -> list[str]:
        """ "PID COMMAND" of each process in the box but its init; with systemd none is told from the machine's."""
        found: list[str] = []
        if self.systemd:
            return found
        for name in os.listdir(self.path("/proc")):
            if not name.isdigit() or name == "1":
                continue
            try:
                command = self.read(f"/proc/{name}/cmdline").replace("\0", " ").strip()
                command = command or self.read(f"/proc/{name}/comm").strip()
            except OSError:
                continue  # ended in between
            found.append(f"{name} {command}")
        return found

    def mounts(self) -> list[str]:
        """Mount points in the box."""
        return [line.split()[4] for line in self._of_init("mountinfo").splitlines()]

    def interfaces(self) -> list[str]:
        return sorted(line.split(":")[0].strip() for line in self._of_init("net/dev").splitlines()[2:])

    def _of_init(self, file: str) -> str:
        """A file of /proc about the process that keeps the box."""
        with open(f"/proc/{self.init}/{file}") as f:
            return f.read()

    def cgroups(self) -> list[str]:
        """Directories of cgroups that carry the box's name, on every hierarchy."""
        found = []
        for top in self._cgroups.mountpoints:
            for directory, _, _ in os.walk(os.path.join(top, self.parent.lstrip("/"))):
                found.append(directory)
        return found

    def unit(self, name: str, *properties: str) -> list[str]:
        """Properties of a unit of systemd's, as systemctl(1) prints them."""
        shown = self.run("systemctl", "show", name, *(f"--property={p}" for p in properties)).out
        found = dict(line.split("=", 1) for line in shown.splitlines())
        return [found[p] for p in properties]

    def cgroup_file(self, pid: int, v1: str, v2: str) -> str:
        """What a file says in the cgroup of a process in the box.

        Args:
            v1: controller/file, e.g. ``memory/memory.limit_in_bytes``.
            v2: file, e.g. ``memory.max``.
        """
        controller, file = v1.split("/")
        return self._cgroups.file(pid, (controller, file), v2, self.path("/proc"))


def end_with_parent() -> None:
    """A test run that is killed takes its boxes along (unshare takes its child: --kill-child)."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def gone(directory: str) -> bool:
    """Remove a directory; whether it is gone."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def retry(check: Callable[[], bool], otherwise: str, seconds: float = 10) -> None:
    """Wait until `check` is true, or fail with the text."""
    end = time.monotonic() + seconds * SCALE
    while not check():
        if time.monotonic() > end:
            raise AssertionError(otherwise)
        time.sleep(0.02)


def needs_hiding(runtime: str) -> list[str]:
    """Mounts that stop a runtime from working here at all: crun takes cgroup v1 or v2, not both at once."""
    version = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=True).stdout
    unified = f"{CGROUPS}/unified"
    return [unified] if re.match("crun version", version) and os.path.isdir(unified) else []


def need_systemd() -> str:
    """Why the machine's systemd can't be asked, "" if it can."""
    with open("/proc/1/comm") as f:
        return "" if f.read() == "systemd\n" else "systemd is not process 1 here"


def need(*programs: str) -> str:
    """Why tests cannot run here, "" if they can."""
    if os.geteuid():
        return "needs root"
    missing = [p for p in (*programs, "nsenter", "unshare", "busybox") if not shutil.which(p)]
    return f"not installed: {', '.join(missing)}" if missing else ""


def lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if line.strip())


if sys.platform != "linux":
    raise ImportError("containers of this kind are Linux's")
