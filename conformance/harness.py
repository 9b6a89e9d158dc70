"""What a conformance test works with: a runtime, bundles, containers, and the look for what was left behind.

Nothing here knows how a runtime is built. It is given a binary with runc's command line, runs it with
time-outs and with all output captured, and looks at the kernel's view (/proc, cgroup hierarchies, mounts).
"""

from __future__ import annotations

import array
import copy
import ctypes
import errno
import fcntl
import itertools
import json
import os
import pathlib
import re
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, cast

import pytest

#: Seconds are multiplied by this: software-emulated machines are some twenty times slower.
SCALE = float(os.environ.get("CONFORMANCE_TIMEOUT_SCALE", "1"))
TIMEOUT = 30.0

#: A JSON object; configs are edited freely, also into wrong shapes, so nothing narrower is honest.
Json = dict[str, Any]

CLONE_NEWNS = 0x00020000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


# --------------------------------------------------------------------------------------------- markers


def spec(section: str, sentence: str = "") -> pytest.MarkDecorator:
    """Name the text that a test holds.

    Args:
        section: ``runtime.md#state``: a file of the runtime specification and an anchor in it; or a man page
        of runc,
            ``runc-kill.8``, for command-line behaviour that the specification leaves open; or
            ``CVE-2024-21626``.
        sentence: the sentence itself, word for word (blanks and Markdown's marks do not count). ``…`` stands
        for
            words left out. Must be given where a runtime is known to disagree (see `xfail_on`).
    """
    return pytest.mark.spec(section, sentence)


def requires(what: str | Callable[[Runtime], str | None]) -> pytest.MarkDecorator:
    """Say what a test needs; where it is missing the test is *not applicable*, with the reason.

    Args:
        what: a name in `REQUIREMENTS`, ``controller:memory``, ``command:ip``, ``flag:exec --cap``
            (the runtime's ``exec --help`` mentions ``--cap``), ``subcommand:features``; or a function of the
            runtime that returns why it can't be, or None.
    """
    return pytest.mark.requires.with_args(what)  # called with a function, a mark would decorate that


def xfail_on(runtime: str, reason: str, *, only: Iterable[str] = ()) -> pytest.MarkDecorator:
    """A runtime is known to break the sentence quoted in the test's `spec`. Counts as failed in the table.

    Args:
        only: ids of parameters, where not all of a parametrized test's cases are meant.
    """
    return pytest.mark.xfail_on(runtime, reason, tuple(only))


def not_applicable(reason: str) -> None:
    """Stop here: the test says nothing about this runtime on this host."""
    pytest.skip(reason)


#: Holds for pyrunc's own promises (a JSON pointer in the error, …): not applicable to other runtimes.
pyrunc_promise = pytest.mark.pyrunc_promise


# ------------------------------------------------------------------------------------- the host's view


class Mount:
    """A line of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

    def __init__(self, line: str) -> None:
        left, right = line.split(" - ", 1)
        fields = left.split(" ")
        self.line = line
        self.id, self.parent = int(fields[0]), int(fields[1])
        self.root, self.target = _unescape(fields[3]), _unescape(fields[4])
        self.options = fields[5].split(",")
        self.propagation = fields[6:]
        self.fstype, self.source, superblock = right.split(" ", 2)
        self.super_options = superblock.split(",")

    def __repr__(self) -> str:
        return self.line


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def mounts(pid: int | str = "thread-self") -> list[Mount]:
    """The mounts that a process sees."""
    return [Mount(line) for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]


def parse_mounts(text: str) -> list[Mount]:
    """The mounts in the text of a mountinfo file, e.g. as printed from inside a container."""
    return [Mount(line) for line in text.splitlines()]


class Cgroups:
    """Where the cgroup hierarchies are.

    Attributes:
        mode: ``v1``, ``hybrid`` (v1 and a v2 hierarchy beside it) or ``v2``.
        controllers: controller name -> mount point of its hierarchy.
        mountpoints: every hierarchy, once.
    """

    def __init__(self) -> None:
        self.controllers: dict[str, str] = {}
        self.mountpoints: list[str] = []
        self.unified = ""
        v1 = False
        for m in mounts():
            if m.fstype == "cgroup2" and not self.unified:
                self.unified = m.target
                self.mountpoints.append(m.target)
                for name in _words(os.path.join(m.target, "cgroup.controllers")):
                    self.controllers[name] = m.target
            elif m.fstype == "cgroup":
                v1 = True
                self.mountpoints.append(m.target)
                for option in m.super_options:
                    if option not in ("rw", "ro", "xattr", "clone_children", "noprefix"):
                        self.controllers[option] = m.target
        self.mode = ("hybrid" if self.unified else "v1") if v1 else "v2"

    def has(self, controller: str) -> bool:
        if controller == "freezer" and self.mode == "v2":
            return True
        return controller in self.controllers

    def of(self, pid: int, proc: str = "/proc") -> dict[str, str]:
        """The cgroup directories of a process: controller -> directory, ``""`` for v2.

        Args:
            proc: the procfs that knows it by this ID.
        """
        found: dict[str, str] = {}
        for line in pathlib.Path(f"{proc}/{pid}/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            for name in names.split(","):
                top = self.unified if not name else self.controllers.get(name, "")
                if top:
                    found[name] = os.path.normpath(top + path)
        return found

    def file(self, pid: int, v1: tuple[str, str], v2: str, proc: str = "/proc") -> str:
        """The content of a control file of a process's cgroup, stripped.

        Args:
            v1: controller and file name on v1, e.g. ``("pids", "pids.max")``.
            v2: file name on v2.
            proc: the procfs that knows the process by this ID.
        """
        dirs = self.of(pid, proc)
        path = os.path.join(dirs[v1[0]], v1[1]) if v1[0] in dirs else os.path.join(dirs[""], v2)
        return pathlib.Path(path).read_text().strip()

    def having(self, token: str) -> list[str]:
        """Every cgroup directory with the token in its path."""
        found: list[str] = []
        for top in self.mountpoints:
            for directory, names, _ in os.walk(top):
                found.extend(os.path.join(directory, name) for name in names if token in os.path.join(directory, name))
        return found


def _words(path: str) -> list[str]:
    try:
        return pathlib.Path(path).read_text().split()
    except OSError:
        return []


def proc_status(pid: int) -> dict[str, str]:
    """/proc/PID/status as a table."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict((part.strip() for part in line.split(":", 1)) for line in lines if ":" in line)  # type: ignore[misc]


def namespace(pid: int | str, kind: str) -> str:
    """The identity of a process's namespace, e.g. ``pid:[4026531836]``. `kind` is a name in /proc/PID/ns."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie doesn't)."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def direct_children() -> list[int]:
    """This process's own children, zombies too."""
    return [int(pid) for task in os.listdir("/proc/self/task") for pid in _words(f"/proc/self/task/{task}/children")]


def children(pid: int) -> list[int]:
    """Living descendants of a process."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        for child in map(int, _words(f"/proc/{pid}/task/{task}/children")):
            if alive(child):
                found.append(child)
            found += children(child)
    return found


def describe_process(pid: int) -> str:
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        words = "?"
    return f"{pid} ({words.strip()[:200]})"


def processes_having(token: str) -> list[int]:
    """Processes that carry a test's token: in argv, environment, cgroup, or among the mounts of their
    namespace."""
    found = []
    mark = token.encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid() or not alive(int(name)):
            continue
        for file in ("cmdline", "environ", "cgroup", "mountinfo"):
            try:
                if mark in pathlib.Path(f"/proc/{name}/{file}").read_bytes():
                    # every process of this test run's namespace sees the test's own mounts
                    if file == "mountinfo" and namespace(int(name), "mnt") == namespace("thread-self", "mnt"):
                        continue
                    found.append(int(name))
                    break
            except OSError:
                break
    return found


def until(true: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
    """Wait until a function returns something true, and return that.

    Raises:
        pytest's failure, naming `what`, after `timeout` seconds.
    """
    end = time.monotonic() + timeout * SCALE
    pause = 0.002
    while True:
        value = true()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout} s: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def settle_session() -> None:
    """Give this process a mount namespace of its own, and make it the one that orphans come to.

    Mounts that a runtime leaves behind are then ours alone (nobody else's come and go in the namespace), and
    the first process of a detached container becomes our child, as it would be an engine's: `Container.wait`
    gets its status.
    """
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")
    if _libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2), in the test run's own mount namespace."""
    args = (source.encode(), target.encode(), fstype.encode() or None, flags, data.encode() or None)
    if _libc.mount(args[0], args[1], args[2], ctypes.c_ulong(flags), args[4]):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    if _libc.umount2(target.encode(), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


# ----------------------------------------------------------------------------------------- the runtime


class Result:
    """What a call of the runtime came to.

    Attributes:
        status: exit status; 128 + n where a signal n ended the runtime itself.
        seconds: how long it took.
    """

    def __init__(self, argv: list[str], status: int, out: str, err: str, seconds: float) -> None:
        self.argv = argv
        self.status = status
        self.seconds = seconds
        self._out, self._err = out, err

    @property
    def stdout(self) -> str:
        """All that was written so far: also by a container that `create` started and that still runs."""
        return _read(self._out)

    @property
    def stderr(self) -> str:
        return _read(self._err)

    @property
    def bytes(self) -> bytes:
        return pathlib.Path(self._out).read_bytes()

    def __repr__(self) -> str:
        said = f"stdout {self.stdout!r}\n  stderr {self.stderr!r}"
        return f"{' '.join(self.argv)}\n  status {self.status}\n  {said}"


def _read(path: str) -> str:
    return pathlib.Path(path).read_text(errors="replace")


class RuntimeFailed(AssertionError):
    """A call of the runtime that should have succeeded did not."""


class Runtime:
    """The runtime under test, within one test: it has its own ``--root``.

    Attributes:
        name: the first word of ``--version``: runc, crun, pyrunc, …
        path: the binary.
        version: the rest of that line.
        root: the directory given as ``--root``.
    """

    def __init__(self, base: RuntimeUnderTest, directory: str, token: str) -> None:
        self.name, self.path, self.version = base.name, base.path, base.version
        self.base = base
        self.cgroups: Cgroups = base.cgroups
        self.token = token
        self.directory = directory
        self.root = os.path.join(directory, "root")
        os.mkdir(self.root, 0o700)
        self.global_args: list[str] = list(base.args)
        self.env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "CONFORMANCE_TOKEN": token,
        }
        self._counter = itertools.count()
        self._background: list[Background] = []

    def argv(self, *args: str) -> list[str]:
        return [self.path, *self.global_args, "--root", self.root, *args]

    def run(
        self,
        *args: str,
        check: bool = False,
        timeout: float = TIMEOUT,
        input: str | bytes | None = None,
        **popen: Any,
    ) -> Result:
        """Run the runtime to its end.

        Args:
            args: what comes after the global options: ``"state", id``. Further global options may come first.
            check: fail the test where the status is not 0.
            timeout: seconds; then everything that was started is killed and the test fails.
            input: for its stdin; otherwise stdin is /dev/null (or as `popen` says).
            popen: more arguments for `subprocess.Popen`: env, cwd, pass_fds, stdin, preexec_fn, …

        Output goes to files, not pipes: a container that keeps them open makes nobody wait.
        """
        background = self.start(*args, input=input, **popen)
        result = background.wait(timeout)
        if check and result.status != 0:
            raise RuntimeFailed(f"should have succeeded:\n{result!r}")
        return result

    def start(self, *args: str, input: str | bytes | None = None, **popen: Any) -> Background:
        """Start the runtime and return at once. The test's end kills what still runs."""
        started = Background(self, self.argv(*args), input, popen)
        self._background.append(started)
        return started

    def help(self, *command: str) -> str:
        """``runtime COMMAND --help``, both streams."""
        return self.base.help(*command)

    def features(self) -> Json:
        """The features document; the test is not applicable where the runtime has none."""
        result = self.run("features")
        if result.status:
            not_applicable(f"{self.name} {self.version} has no `features`")
        return cast(Json, json.loads(result.stdout))

    def scratch(self, name: str = "file") -> str:
        """A path for a new file of this test."""
        return os.path.join(self.directory, f"{name}.{next(self._counter)}")

    def end_background(self) -> None:
        for started in self._background:
            started.kill()


class Background:
    """A call of the runtime that is under way."""

    def __init__(self, runtime: Runtime, argv: list[str], input: str | bytes | None, popen: dict[str, Any]) -> None:
        self.argv = argv
        self.out, self.err = runtime.scratch("stdout"), runtime.scratch("stderr")
        popen.setdefault("env", runtime.env)
        popen.setdefault("cwd", runtime.directory)
        close: list[BinaryIO] = []
        if input is not None:
            path = runtime.scratch("stdin")
            pathlib.Path(path).write_bytes(input.encode() if isinstance(input, str) else input)
            popen["stdin"] = open(path, "rb")
            close.append(popen["stdin"])
        popen.setdefault("stdin", subprocess.DEVNULL)
        for name, path in (("stdout", self.out), ("stderr", self.err)):
            stream: BinaryIO = open(path, "wb")
            close.append(stream)
            popen.setdefault(name, stream)
        self.began = time.monotonic()
        try:
            self.process = subprocess.Popen(argv, **popen)
        finally:
            for stream in close:
                stream.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return _read(self.out)

    @property
    def stderr(self) -> str:
        return _read(self.err)

    def wait(self, timeout: float = TIMEOUT, *, reaping_but: Iterable[int] | None = None) -> Result:
        """Wait for its end.

        Args:
            timeout: seconds; then everything that was started is killed and the test fails.
            reaping_but: meanwhile collect orphans, as an engine would, all but these. The last process of a pid
                namespace does not go before the ones that were put into it (`exec --detach`) are collected.
        """
        end = time.monotonic() + timeout * SCALE
        while reaping_but is not None and self.process.poll() is None and time.monotonic() < end:
            reap(self.pid, *reaping_but)
            time.sleep(0.005)
        try:
            self.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            family = [describe_process(pid) for pid in [self.pid, *children(self.pid)]]
            self.kill()
            said = f"{self.stdout}{self.stderr}"
            pytest.fail(f"not done within {timeout} s: {' '.join(self.argv)}\nran: {family}\n{said}")
        status = self.process.returncode
        return Result(
            self.argv,
            128 - status if status < 0 else status,
            self.out,
            self.err,
            time.monotonic() - self.began,
        )

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it and its descendants, whatever they do."""
        if self.process.poll() is None:
            for pid in [self.pid, *children(self.pid)]:
                _kill(pid)
            self.process.wait()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class RuntimeUnderTest:
    """The runtime that the command line named, for the whole session."""

    def __init__(self, path: str, args: Iterable[str], notes: list[str]) -> None:
        self.path = path
        self.args = list(args)
        self.notes = notes
        self._help: dict[tuple[str, ...], str] = {}
        out = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=TIMEOUT * SCALE, check=False)
        words = out.stdout.split("\n", 1)[0].split()
        if out.returncode or not words:
            raise pytest.UsageError(f"{path} --version: status {out.returncode} {out.stdout}{out.stderr}")
        self.name, self.version = words[0], words[-1]
        self.cgroups: Cgroups = Cgroups()
        if self.name == "crun" and self.cgroups.mode == "hybrid":
            # crun refuses the layout; in the session's own mount namespace the v2 hierarchy can be out of
            # sight
            umount(self.cgroups.unified)
            self.cgroups = Cgroups()
            notes.append("crun refuses the hybrid cgroup layout: it runs without the unified hierarchy's mount")

    def help(self, *command: str) -> str:
        if command not in self._help:
            out = subprocess.run(
                [self.path, *command, "--help"],
                capture_output=True,
                text=True,
                timeout=TIMEOUT * SCALE,
                check=False,
            )
            self._help[command] = out.stdout + out.stderr
        return self._help[command]


def find_runtime(name: str, directory: str) -> str:
    """The binary that ``--runtime`` names: a path, a name on PATH, or for ``pyrunc`` the checkout this file
    is in."""
    if "/" in name:
        return os.path.abspath(name)
    found = shutil.which(name)
    if found:
        return found
    checkout = pathlib.Path(__file__).resolve().parent.parent
    if name != "pyrunc" or not (checkout / "pyrunc" / "__main__.py").exists():
        raise pytest.UsageError(f"no {name} on PATH")
    launcher = pathlib.Path(directory) / "pyrunc"
    launcher.write_text(
        f"#!{sys.executable} -I\n"
        f"import sys\nsys.path.insert(0, {str(checkout)!r})\n"
        "from pyrunc.__main__ import main\nsys.exit(main())\n"
    )
    launcher.chmod(0o755)
    return str(launcher)


# --------------------------------------------------------------------------------------------- bundles

#: Programs in every rootfs, all of them busybox.
# fmt: off
APPLETS = (
    "[", "ash", "awk", "base64", "basename", "cat", "chgrp", "chmod", "chown", "cmp", "cp", "cut",
    "date", "dd", "df", "dirname", "dmesg", "du", "echo", "egrep", "env", "expr", "false", "fgrep",
    "find", "free", "getopt", "grep", "groups", "head", "hexdump", "hostname", "id", "ifconfig",
    "install", "ip", "ipcs", "kill", "killall", "less", "ln", "logger", "ls", "md5sum", "mesg", "mkdir",
    "mkfifo", "mknod", "mktemp", "more", "mount", "mountpoint", "mv", "nc", "netstat", "nice", "nohup",
    "nproc", "od", "pgrep", "pidof", "ping", "pivot_root", "printenv", "printf", "ps", "pwd",
    "readlink", "realpath", "renice", "reset", "rm", "rmdir", "route", "sed", "seq", "setsid", "sh",
    "sha256sum", "sleep", "sort", "stat", "stty", "sync", "tail", "tar", "tee", "test", "time",
    "timeout", "top", "touch", "tr", "true", "truncate", "tty", "umount", "uname", "uniq", "unshare",
    "uptime", "usleep", "vi", "watch", "wc", "wget", "which", "who", "whoami", "xargs", "yes",
)
# fmt: on

PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nuser:x:1000:1000::/home/user:/bin/sh\n"
GROUP = "root:x:0:\ndaemon:x:1:\nwheel:x:10:user\nuser:x:1000:\n"


class Template:
    """A busybox rootfs, made once; bundles get it by hard links of the one binary and copies of the rest."""

    def __init__(self, directory: str) -> None:
        busybox = shutil.which("busybox")
        if not busybox:
            raise pytest.UsageError("busybox is needed (Debian: busybox-static)")
        self.busybox = os.path.join(directory, "busybox")
        shutil.copy(busybox, self.busybox)
        os.chmod(self.busybox, 0o755)
        with open(self.busybox, "rb") as f:
            head = f.read(1 << 14)
        if b"/ld-linux" in head or b"/ld-musl" in head:
            raise pytest.UsageError("busybox must be a static binary (Debian: busybox-static)")

    def make(self, rootfs: str) -> None:
        for name in (
            "bin",
            "dev",
            "etc",
            "home/user",
            "proc",
            "root",
            "run",
            "sbin",
            "sys",
            "tmp",
            "usr/bin",
            "var",
        ):
            os.makedirs(os.path.join(rootfs, name), exist_ok=True)
        os.chmod(os.path.join(rootfs, "tmp"), 0o1777)
        os.link(self.busybox, os.path.join(rootfs, "bin/busybox"))
        for name in APPLETS:
            os.symlink("busybox", os.path.join(rootfs, "bin", name))
        pathlib.Path(rootfs, "etc/passwd").write_text(PASSWD)
        pathlib.Path(rootfs, "etc/group").write_text(GROUP)
        os.chown(os.path.join(rootfs, "home/user"), 1000, 1000)


CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def default_config() -> Json:
    """An ordinary config.json, written by hand from the specification; no runtime's ``spec`` is asked."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["sleep", "1000"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "conformance",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
            {
                "destination": "/dev/mqueue",
                "type": "mqueue",
                "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/kcore", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


#: The host's ID of root of a container with `Bundle.user_namespace`.
ROOT = 100000


def mapping(container: int, host: int, size: int) -> Json:
    """An entry of uidMappings or gidMappings."""
    return {"containerID": container, "hostID": host, "size": size}


class Bundle:
    """A directory with config.json and a rootfs.

    Attributes:
        path: the directory.
        rootfs: its root filesystem, with busybox.
        config: what `write` will write; edit it. `Container.create` and `run` write it.
        write_config: set to False where the test writes config.json (or leaves it out) itself.
    """

    def __init__(self, path: str, template: Template) -> None:
        self.path = path
        self.rootfs = os.path.join(path, "rootfs")
        self.config = default_config()
        self.write_config = True
        os.mkdir(path, 0o755)
        os.mkdir(self.rootfs, 0o755)
        template.make(self.rootfs)

    @property
    def process(self) -> Json:
        return cast(Json, self.config["process"])

    @property
    def linux(self) -> Json:
        return cast(Json, self.config["linux"])

    def args(self, *args: str) -> Bundle:
        """Set process.args."""
        self.process["args"] = list(args)
        return self

    def sh(self, script: str) -> Bundle:
        """Let the container's process be a shell script."""
        return self.args("sh", "-c", script)

    def namespaces(self, *, drop: Iterable[str] = (), add: Iterable[Json] = ()) -> Bundle:
        """Leave namespace types out, then add entries."""
        dropped = set(drop)
        kept = [n for n in self.linux["namespaces"] if n["type"] not in dropped]
        self.linux["namespaces"] = kept + list(add)
        return self

    def user_namespace(self) -> Bundle:
        """Add a user namespace of 65536 IDs, root of the container being the host's ID `ROOT`, who owns the rootfs."""
        self.namespaces(add=[{"type": "user"}])
        self.linux["uidMappings"] = self.linux["gidMappings"] = [mapping(0, ROOT, 65536)]
        return self.own(ROOT, ROOT)

    def own(self, uid: int, gid: int) -> Bundle:
        """Give the rootfs to a user; busybox, which all tests' bundles share, stays root's."""
        for directory, names, files in os.walk(self.rootfs):
            for name in (".", *names, *files):
                if name != "busybox":
                    os.chown(os.path.join(directory, name), uid, gid, follow_symlinks=False)
        return self

    def file(self, path: str, content: str | bytes = "", mode: int = 0o644) -> str:
        """Make a file in the rootfs (`path` is the container's) and return the host's path."""
        host = os.path.join(self.rootfs, path.lstrip("/"))
        os.makedirs(os.path.dirname(host), exist_ok=True)
        pathlib.Path(host).write_bytes(content.encode() if isinstance(content, str) else content)
        os.chmod(host, mode)
        return host

    def host(self, path: str) -> str:
        """The host's path of a container's path (below the rootfs, symbolic links not followed)."""
        return os.path.join(self.rootfs, path.lstrip("/"))

    def write(self, cgroups_path: str = "") -> None:
        """Write config.json; a config with no cgroupsPath of its own gets the one given."""
        config = self.config
        linux = config.get("linux")
        if cgroups_path and isinstance(linux, dict) and "cgroupsPath" not in linux:
            config = copy.deepcopy(config)
            config["linux"]["cgroupsPath"] = cgroups_path
        elif isinstance(linux, dict) and linux.get("cgroupsPath", "") is None:
            config = copy.deepcopy(config)
            del config["linux"]["cgroupsPath"]  # None: the test wants it absent
        pathlib.Path(self.path, "config.json").write_text(json.dumps(config, indent=1))


# ------------------------------------------------------------------------------------------ containers


class Container:
    """A container by its id. Methods call the runtime; `check` is on unless said otherwise."""

    def __init__(self, runtime: Runtime, bundle: Bundle, id: str) -> None:
        self.runtime = runtime
        self.bundle = bundle
        self.id = id
        self.pid_file = runtime.scratch("pid")
        self.created: Result | None = None

    def _write(self) -> None:
        if self.bundle.write_config:
            self.bundle.write(f"/{self.id}")

    def create(self, *flags: str, check: bool = True, **kw: Any) -> Result:
        """``create``, with `pid_file` as ``--pid-file``."""
        self._write()
        argv = ["--bundle", self.bundle.path, "--pid-file", self.pid_file, *flags, self.id]
        self.created = self.runtime.run("create", *argv, check=check, **kw)
        return self.created

    def start(self, *, check: bool = True, **kw: Any) -> Result:
        return self.runtime.run("start", self.id, check=check, **kw)

    def run(self, *flags: str, check: bool = False, **kw: Any) -> Result:
        """``run`` in the foreground, unless flags say ``--detach``. The status is the container's: not
        checked."""
        self._write()
        return self.runtime.run("run", "--bundle", self.bundle.path, *flags, self.id, check=check, **kw)

    def run_background(self, *flags: str, **kw: Any) -> Background:
        """``run`` in the foreground, as a process beside the test."""
        self._write()
        return self.runtime.start("run", "--bundle", self.bundle.path, *flags, self.id, **kw)

    def run_detached(self, *flags: str, **kw: Any) -> Result:
        """``run --detach``, with `pid_file` as ``--pid-file``."""
        self._write()
        kw.setdefault("check", True)
        argv = ["--bundle", self.bundle.path, "--detach", "--pid-file", self.pid_file, *flags, self.id]
        self.created = self.runtime.run("run", *argv, **kw)
        return self.created

    def run_output(self, *args: str, **kw: Any) -> tuple[int, str]:
        """Run a command (or what the bundle says) in the foreground; status and stdout."""
        if args:
            self.bundle.args(*args)
        result = self.run(**kw)
        return result.status, result.stdout

    def output(self, *args: str, **kw: Any) -> str:
        """Like `run_output`, and the status must be 0."""
        if args:
            self.bundle.args(*args)
        kw.setdefault("check", True)
        return self.run(**kw).stdout

    def exec(self, *args: str, flags: Iterable[str] = (), check: bool = False, **kw: Any) -> Result:
        return self.runtime.run("exec", *flags, self.id, *args, check=check, **kw)

    def kill(self, sig: str = "KILL", *flags: str, check: bool = True, **kw: Any) -> Result:
        return self.runtime.run("kill", *flags, self.id, sig, check=check, **kw)

    def delete(self, *flags: str, check: bool = True, **kw: Any) -> Result:
        return self.runtime.run("delete", *flags, self.id, check=check, **kw)

    def pause(self, *, check: bool = True) -> Result:
        return self.runtime.run("pause", self.id, check=check)

    def resume(self, *, check: bool = True) -> Result:
        return self.runtime.run("resume", self.id, check=check)

    def state(self) -> Json:
        """The parsed output of ``state``; the container must exist."""
        return cast(Json, json.loads(self.runtime.run("state", self.id, check=True).stdout))

    @property
    def status(self) -> str:
        """The state's ``status``, or ``""`` for a container that does not exist."""
        result = self.runtime.run("state", self.id)
        return cast(str, json.loads(result.stdout)["status"]) if result.status == 0 else ""

    @property
    def pid(self) -> int:
        """The host's pid of the container's process: `create` and `run_detached` let it be written to
        `pid_file`."""
        return int(pathlib.Path(self.pid_file).read_text())

    @property
    def stdout(self) -> str:
        """What a created or detached container has written so far."""
        assert self.created is not None
        return self.created.stdout

    @property
    def stderr(self) -> str:
        assert self.created is not None
        return self.created.stderr

    def wait_status(self, status: str, timeout: float = 10.0) -> None:
        """Wait until ``state`` says so."""
        until(lambda: self.status == status, f"status {status} of {self.id}", timeout)

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for a detached container's process to end, reap it, and return its status (128 + n for a
        signal)."""
        pid = self.pid

        def ended() -> tuple[int, int] | None:
            try:
                got, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pytest.fail(f"{pid} is not this process's child: the runtime left a process between")
            return (got, status) if got else None

        _, status = until(ended, f"end of {describe_process(pid)}", timeout)
        return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def wait_output(self, text: str, timeout: float = 10.0) -> str:
        """Wait until a created or detached container has written `text`."""
        until(lambda: text in self.stdout, f"{text!r} in the container's output", timeout)
        return self.stdout

    def exists(self) -> bool:
        return self.runtime.run("state", self.id).status == 0


class Test:
    """All that one test has: its directory, runtime and containers; and the look for leftovers at its end."""

    __test__ = False

    def __init__(self, base: RuntimeUnderTest, template: Template, directory: str) -> None:
        self.token = f"cf{secrets.token_hex(5)}"
        self.directory = os.path.join(directory, self.token)
        os.mkdir(self.directory, 0o711)
        self.template = template
        self.runtime = Runtime(base, self.directory, self.token)
        self.containers: list[Container] = []
        self.mounts_before = {m.line for m in mounts()}
        self.children_before = set(direct_children())  # of longer life than a test: an engine's, a fixture's
        self._bundles = itertools.count()

    def bundle(self) -> Bundle:
        return Bundle(os.path.join(self.directory, f"bundle{next(self._bundles)}"), self.template)

    def container(self, bundle: Bundle, id: str | None = None) -> Container:
        """A container that does not exist yet. Ids get the test's token unless `id` is given."""
        made = Container(self.runtime, bundle, f"{self.token}-{len(self.containers)}" if id is None else id)
        self.containers.append(made)
        return made

    def finish(self) -> list[str]:
        """Delete what the test left, then look for what is still there.

        Only containers that the runtime still knows are deleted, with ``delete --force``: what a plain
        ``delete`` or a failed ``create`` left behind stays, and is found.
        """
        trouble = []
        self.runtime.end_background()
        for container in self.containers:
            if not container.id or "/" in container.id or len(container.id) > 200:
                continue
            if self.runtime.run("state", container.id).status == 0:
                deleted = self.runtime.start("delete", "--force", container.id).wait(reaping_but=self.children_before)
                if deleted.status:
                    trouble.append(f"delete --force failed: {deleted!r}")
        end = time.monotonic() + 2 * SCALE
        while True:
            left = self.leftovers()
            if not left or time.monotonic() > end:
                break
            time.sleep(0.02)
        trouble += left
        if left:
            self.scrub()
        return trouble

    def leftovers(self) -> list[str]:
        """What exists of this test's containers: processes, mounts, cgroups, state, shared memory."""
        reap(*self.children_before)
        left = [f"process {describe_process(pid)}" for pid in self._processes()]
        left += [f"mount {m.line}" for m in mounts() if m.line not in self.mounts_before]
        left += [f"cgroup {path}" for path in self.runtime.cgroups.having(self.token)]
        # names with a dot are a runtime's own caches and locks, which belong to no container
        left += [f"state {name} in --root" for name in os.listdir(self.runtime.root) if not name.startswith(".")]
        for directory in ("/dev/shm", "/run", f"/run/{self.runtime.name}", "/dev/mqueue", "/tmp"):
            if os.path.isdir(directory):
                left += [f"file {directory}/{name}" for name in os.listdir(directory) if self.token in name]
        return left

    def _processes(self) -> set[int]:
        mine = [pid for pid in direct_children() if pid not in self.children_before]
        family = {pid for child in mine for pid in [child, *children(child)] if alive(pid)}
        return family | set(processes_having(self.token))

    def scrub(self) -> None:
        """Clean up for a runtime that did not, so that the next test and the machine don't suffer from it."""
        for pid in self._processes():
            _kill(pid)
        end = time.monotonic() + 2 * SCALE
        while self._processes() and time.monotonic() < end:
            reap(*self.children_before)
            for path in self.runtime.cgroups.having(self.token):
                _write_if_there(os.path.join(path, "freezer.state"), "THAWED")
                _write_if_there(os.path.join(path, "cgroup.freeze"), "0")
            time.sleep(0.02)
        for m in reversed(mounts()):
            if m.line not in self.mounts_before:
                umount(m.target)
        for path in sorted(self.runtime.cgroups.having(self.token), key=len, reverse=True):
            _rmdir(path)


def _write_if_there(path: str, text: str) -> None:
    if os.path.exists(path):
        pathlib.Path(path).write_text(text)


def _rmdir(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.EBUSY):
            raise


def reap(*but: int) -> None:
    """Collect orphans that have ended.

    Args:
        but: children that are not orphans: a `Background` that runs, a fixture's. Who started them collects them.
    """
    for pid in direct_children():
        if pid not in but:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # somebody else collected it since the list was read
                continue


# ------------------------------------------------------------------------------------------- terminals


class Terminal:
    """The master side of a pseudo-terminal."""

    def __init__(self, fd: int, name: str = "") -> None:
        self.fd = fd
        self.name = name
        self.seen = b""

    def write(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def read_until(self, text: str, timeout: float = 10.0) -> str:
        """Everything read so far, once it contains `text`."""
        end = time.monotonic() + timeout * SCALE
        while text.encode() not in self.seen:
            if not self._read(end):
                pytest.fail(f"no {text!r} from the terminal: {self.seen!r}")
        return self.seen.decode(errors="replace")

    def read_all(self, timeout: float = 10.0) -> str:
        """Everything until the other side is closed."""
        end = time.monotonic() + timeout * SCALE
        while self._read(end):
            pass
        return self.seen.decode(errors="replace")

    def _read(self, end: float) -> bool:
        ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            pytest.fail(f"the terminal says nothing more: {self.seen!r}")
        try:
            data = os.read(self.fd, 65536)
        except OSError as e:
            if e.errno != errno.EIO:  # EIO is how a pty master says that the slave is closed
                raise
            return False
        self.seen += data
        return bool(data)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(self.fd, termios.TIOCGWINSZ, b"\0" * 8))
        return rows, columns

    @size.setter
    def size(self, value: tuple[int, int]) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", value[0], value[1], 0, 0))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class ConsoleSocket:
    """The socket for ``--console-socket``: receives a terminal's master by SCM_RIGHTS."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(path)
        self._socket.listen(1)
        self._terminals: list[Terminal] = []

    def receive(self, timeout: float = 10.0) -> Terminal:
        self._socket.settimeout(timeout * SCALE)
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(timeout * SCALE)
            data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(16))
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        assert len(fds) == 1, f"one descriptor was expected: {list(fds)}"
        terminal = Terminal(fds[0], data.decode(errors="replace"))
        self._terminals.append(terminal)
        return terminal

    def close(self) -> None:
        self._socket.close()
        for terminal in self._terminals:
            terminal.close()


# ---------------------------------------------------------------------------------------- requirements

#: name -> why it is missing, or None
REQUIREMENTS: dict[str, Callable[[Runtime], str | None]] = {
    "cgroup v1": lambda r: None if r.cgroups.mode != "v2" else "the host has cgroup v2 only",
    "cgroup v2": lambda r: None if r.cgroups.mode == "v2" else f"the host's cgroup layout is {r.cgroups.mode}",
    "systemd": lambda r: (
        None
        if os.path.isdir("/run/systemd/system") and shutil.which("systemctl")
        else "systemd is not this machine's init"
    ),
    "CAP_SYS_RESOURCE": lambda r: (
        None if int(proc_status(os.getpid())["CapEff"], 16) >> 24 & 1 else "the tests run without CAP_SYS_RESOURCE"
    ),
}


def missing(what: str | Callable[[Runtime], str | None], runtime: Runtime) -> str | None:
    """Why a requirement (see `requires`) is not met, or None."""
    if not isinstance(what, str):
        return what(runtime)
    if what in REQUIREMENTS:
        return REQUIREMENTS[what](runtime)
    kind, _, name = what.partition(":")
    if kind == "controller":
        return None if runtime.cgroups.has(name) else f"the host has no {name} controller"
    if kind == "command":
        return None if shutil.which(name) else f"the host has no {name}"
    if kind == "namespace":
        return None if os.path.exists(f"/proc/self/ns/{name}") else f"the kernel has no {name} namespaces"
    if kind == "flag":
        command, flag = name.split()
        return None if flag in runtime.help(command) else f"{runtime.name} {runtime.version} has no `{command} {flag}`"
    if kind == "subcommand":
        known = runtime.run(name, "--help")
        listed = f"\n{name}" in runtime.help().replace(" ", "") or f" {name} " in runtime.help()
        return None if known.status == 0 and listed else f"{runtime.name} {runtime.version} has no `{name}`"
    raise pytest.UsageError(f"unknown requirement {what!r}")


def plain(text: str) -> str:
    """A text without Markdown's marks and line breaks, to compare quotations."""
    text = re.sub(r"\]\([^)]*\)|\]\[[^]]*\]", "", text)  # the targets of links
    for mark in "*_`[]\\":
        text = text.replace(mark, "")
    return " ".join(text.split()).lower()


def check_quotation(section: str, sentence: str, texts: Mapping[str, str]) -> str | None:
    """What is wrong with a `spec` marker, given the documents' texts by file name; None where all is well."""
    file, _, anchor = section.partition("#")
    if file.startswith("CVE-"):
        return None
    text = texts.get(file) or texts.get(f"{file}.md")
    if text is None:
        return f"no document {file}"
    if anchor and anchor not in set(anchors(text)):
        return f"no section {section}"
    content, at = plain(text), 0
    for part in sentence.split("…"):
        at = content.find(plain(part), at)
        if at < 0:
            return f"{file} does not say {part!r}"
    return None


def anchors(text: str) -> Iterator[str]:
    """The anchors of a Markdown text, in small letters: ``<a name="x" />``, and GitHub's for headings."""
    for line in text.splitlines():
        yield from (name.lower() for name in re.findall(r'<a name="([^"]+)"', line))
        if line.startswith("#"):
            heading = re.sub(r"<[^>]*>", "", line).lstrip("#").strip().lower()
            yield re.sub(r"[^\w -]", "", heading).replace(" ", "-")
