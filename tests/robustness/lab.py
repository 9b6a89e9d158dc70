"""Where the robustness tests happen: a process with one thread that makes containers and looks for leftovers.

Each test runs in such a process of its own (`in_lab`), because pytest's may have threads. It is the subreaper of all
that it makes, so that no process can get out of its sight.
"""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import importlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))

import pyrunc.steps  # noqa: E402
from pyrunc import Error  # noqa: E402
from pyrunc.container import Container  # noqa: E402
from pyrunc.steps import Step  # noqa: E402
from pyrunc.steps.runtime import StartInit  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36
PROGRAM = f"import sys; sys.path.insert(0, {str(TOP)!r}); from pyrunc.__main__ import main; main()"
NAMESPACES = ["pid", "mount", "ipc", "uts", "network", "cgroup"]


class Lab:
    """A directory with bundles and a state root.

    Attributes:
        faults: what went wrong so far, in words.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / "state"
        self.rootfs = path / "rootfs"
        self.faults: list[str] = []
        self.cgroup = f"pyrunc-lab-{os.getpid()}"
        self.poststop = path / "poststop"
        (self.rootfs / "bin").mkdir(parents=True)
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, self.rootfs / "bin" / "busybox")
        for name in ("sh", "sleep", "true", "cat", "ls", "kill"):
            (self.rootfs / "bin" / name).symlink_to("busybox")
        (self.rootfs / "bin" / "masked").touch()
        for path in (self.path, self.rootfs):
            path.chmod(0o755)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.root.mkdir()
        self.before = self.host()

    # -- what there is

    def host(self) -> dict[str, set[str]]:
        """What containers could leave on the host, this directory's state aside."""
        return {
            "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
            "cgroups": {str(p) for top in ("", "*/") for p in Path("/sys/fs/cgroup").glob(f"{top}{self.cgroup}*/**")},
            "descriptors": descriptors(),
            "children": {f"{pid} {_comm(pid)}" for pid in children()},
            "files": {str(p) for p in self.path.rglob("*") if self.rootfs not in p.parents and p.suffix != ".keep"},
        }

    def leftovers(self) -> list[str]:
        """What there is more than before."""
        now = self.host()
        found = []
        for kind, things in now.items():
            for thing in sorted(things - self.before[kind]):
                found.append(f"{kind[:-1]} left: {thing}")
        return [line for line in found if "/state/.~seccomp" not in line]  # a cache, meant to stay

    def expect_clean(self, what: str, *, orphans: bool = False) -> None:
        """Note all leftovers as faults of `what`, and take processes away so that the next one starts anew.

        Args:
            orphans: other processes may have left children to this one; none of them must stay alive.
        """
        deadline = time.monotonic() + 3
        while True:
            if orphans:
                reap()
            left = self.leftovers()
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.002)
        self.faults += [f"{what}: {line}" for line in left]
        if left:
            for pid in children():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            self.before = self.host()

    def fault(self, what: str) -> None:
        self.faults.append(what)

    # -- bundles

    def bundle(self, name: str, **changes: Any) -> Path:
        """A bundle with this name; the configuration has `changes` made to it, keys being JSON pointers."""
        directory = self.path / f"{name}.keep"
        directory.mkdir(exist_ok=True)
        config = self.config(name)
        for pointer, value in changes.items():
            at = config
            *way, last = pointer.split("/")
            for key in way:
                at = at.setdefault(key, {})
            at[last] = value
        (directory / "config.json").write_text(json.dumps(config))
        self.before = self.host()
        return directory

    def config(self, name: str) -> dict[str, Any]:
        """A plain configuration."""
        return {
            "ociVersion": "1.2.0",
            "root": {"path": str(self.rootfs)},
            "process": {"args": ["/bin/sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"]},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": f"/{self.cgroup}-{name}",
                "namespaces": [{"type": kind} for kind in NAMESPACES],
            },
        }

    def full(self, kind: str) -> Path:
        """A bundle that has a step of nearly every sort.

        Args:
            kind: "full"; "user" with a user namespace; "joined" with an intermediate process that joins a namespace;
                "threads" as "full", with a thread in this program; "host" with the host's PID namespace.
        """
        changes = self.rich()
        if kind == "user":
            maps = [{"containerID": 0, "hostID": 0, "size": 65536}]
            changes["linux/uidMappings"] = changes["linux/gidMappings"] = maps
            changes["linux/namespaces"] = [{"type": k} for k in [*NAMESPACES, "user"]]
            del changes["linux/sysctl"]
        elif kind == "joined":
            spaces = [{"type": k} for k in NAMESPACES if k != "uts"]
            changes["linux/namespaces"] = [*spaces, {"type": "time"}, {"type": "uts", "path": "/proc/self/ns/uts"}]
            del changes["hostname"]
        elif kind == "threads":  # the library takes the same detour in a program with threads
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        elif kind == "host":
            changes["linux/namespaces"] = [{"type": k} for k in NAMESPACES if k != "pid"]
        return self.bundle(kind, **changes)

    def rich(self) -> dict[str, Any]:
        true = {"path": "/bin/true"}
        return {
            "hostname": "lab",
            "process": {
                "args": ["/bin/sleep", "1000"],
                "cwd": "/tmp",
                "env": ["PATH=/bin"],
                "user": {"uid": 1000, "gid": 1000, "additionalGids": [5]},
                "oomScoreAdj": 100,
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}],
                "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]},
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/share", "type": "bind", "source": "/tmp", "options": ["rbind", "rshared"]},
            ],
            "hooks": {
                **{kind: [true] for kind in ("prestart", "createRuntime", "createContainer", "startContainer")},
                "poststart": [true],
                "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo >>{self.poststop}"]}],
            },
            "linux/sysctl": {"net.ipv4.ip_forward": "1"},
            "linux/maskedPaths": ["/proc/kcore", "/bin/masked"],
            "linux/readonlyPaths": ["/proc/sys"],
            "linux/resources": {"pids": {"limit": 100}, "memory": {"limit": 1 << 28}, "cpu": {"shares": 512}},
            "linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        }

    # -- containers

    def create(self, bundle: Path, container_id: str = "c", **more: Any) -> Container:
        return Container.create(container_id, str(bundle), root=str(self.root), stdio=self.quiet(), **more)

    def load(self, container_id: str = "c") -> Container:
        return Container.load(container_id, root=str(self.root))

    def quiet(self) -> tuple[int, int, int]:
        """Stdio that nobody reads."""
        return (self._null, self._null, self._null)

    def poststops(self) -> int:
        """How often poststop hooks ran since the last time this was asked."""
        try:
            return len(self.poststop.read_text())
        except FileNotFoundError:
            return 0
        finally:
            self.poststop.unlink(missing_ok=True)

    def cli(self, *argv: str, timeout: float = 30) -> tuple[int, str]:
        """Exit status and output (both streams) of the command line."""
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", PROGRAM, "--root", str(self.root), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        return done.returncode, done.stdout

    def forked(self, function: Callable[[], object]) -> int:
        """Do something in a child, as a run of the command line would; the child's process ID.

        It ends with status 0, or 1 and a line in the file "said" for an Error; anything else is status 2.
        """
        pid = os.fork()
        if pid:
            return pid
        status = 2
        try:
            os.setpgid(0, 0)
            function()
            status = 0
        except Error as e:
            (self.path / "said.keep").write_text(f"{e}")
            status = 1
        except BaseException as e:  # noqa: BLE001  told to the parent
            (self.path / "said.keep").write_text(f"{type(e).__name__}: {e}")
        finally:
            os._exit(status)

    def said(self) -> str:
        """The last line that a forked child left."""
        file = self.path / "said.keep"
        text = file.read_text() if file.exists() else ""
        file.unlink(missing_ok=True)
        return text

    def close(self) -> None:
        if self.root.exists():
            for name in os.listdir(self.root):
                self.cli("delete", "--force", name)


def wait_for(pid: int, seconds: float = 20) -> int | None:
    """A child's exit status as `os.waitstatus_to_exitcode` gives it; None, and it is killed, if it does not end."""
    deadline = time.monotonic() + seconds
    pidfd = os.pidfd_open(pid)
    try:
        import select

        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def children() -> list[int]:
    """Process IDs of this process's children; what their parents leave behind is among them."""
    me = os.getpid()
    return [int(word) for word in Path(f"/proc/{me}/task/{me}/children").read_text().split()]


def reap() -> None:
    """Collect children that have ended."""
    while children():
        if os.waitpid(-1, os.WNOHANG)[0] == 0:
            return


def descriptors() -> set[str]:
    """What this process has open: number and path."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:
            pass  # the one that listed them
    return found


def _comm(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat[stat.index("(") : stat.rindex(")") + 3]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


class Instead(Step):
    """A step of a plan with something done before or after it."""

    __slots__ = ("after", "before", "step")

    def __init__(
        self, step: Step, before: Callable[[Any], None] | None = None, after: Callable[[Any], None] | None = None
    ) -> None:
        super().__init__(step.origin)
        self.step = step
        self.before = before
        self.after = after

    def describe(self) -> str:
        return self.step.describe()

    def run(self, ctx: Any) -> None:
        if self.before is not None:
            self.before(ctx)
        self.step.run(ctx)
        if self.after is not None:
            self.after(ctx)

    def undo(self, ctx: Any) -> None:
        self.step.undo(ctx)


def lists(steps: list[Step]) -> dict[str, list[Step]]:
    """The lists of a plan: the runtime's, the intermediate process's, init's."""
    start = next(step for step in steps if isinstance(step, StartInit))
    return {"runtime": steps, "stage": start.stage, "init": start.init}


class Tamper:
    """Put something before or after step `index` of one list of the next plan that is run.

    Args:
        keep: descriptors that this something needs in init.
    """

    def __init__(
        self,
        process: str,
        index: int,
        *,
        before: Callable[[Any], None] | None = None,
        after: Callable[[Any], None] | None = None,
        keep: Iterable[int] = (),
    ) -> None:
        self.where = (process, index)
        self.keep = keep
        self.before = before
        self.after = after

    def __enter__(self) -> None:
        self.original = original = pyrunc.steps.run

        def run(steps: Iterable[Step], ctx: Any) -> None:
            steps = list(steps)
            if any(isinstance(step, StartInit) for step in steps):  # else it is not a plan: hooks, or a list of init's
                process, index = self.where
                chosen = steps if process == "runtime" else lists(steps)[process]
                chosen[index] = Instead(chosen[index], self.before, self.after)
                ctx.keep.update(self.keep)
            original(steps, ctx)

        pyrunc.steps.run = run

    def __exit__(self, *_: object) -> None:
        pyrunc.steps.run = self.original


class _Planned(Exception):
    """A plan was wanted, and not that it is run."""


def plan_of(operation: Callable[[], object]) -> dict[str, list[Step]]:
    """The lists of the plan that an operation would run, without running it."""
    original = pyrunc.steps.run
    found: list[dict[str, list[Step]]] = []

    def run(steps: Iterable[Step], ctx: Any) -> None:
        found.append(lists(list(steps)))
        raise _Planned

    pyrunc.steps.run = run
    try:
        operation()
    except _Planned:
        pass
    finally:
        pyrunc.steps.run = original
    return found[0]


def in_lab(function: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a process of its own; its first argument is the `Lab`. What it notes as faults fails the test."""

    @functools.wraps(function)
    def test(tmp_path: Path, **arguments: Any) -> None:
        module = sys.modules[function.__module__].__file__
        assert module is not None
        tmp_path.chmod(0o755)
        done = subprocess.run(
            [sys.executable, __file__, module, function.__name__, json.dumps(arguments), str(tmp_path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    parameters = list(inspect.signature(function).parameters.values())
    path = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    test.__signature__ = inspect.Signature([path, *parameters[1:]])  # type: ignore[attr-defined]
    return test


def main(module: str, function: str, arguments: str, path: str) -> int:
    """The process of one test."""
    name = ".".join(Path(module).resolve().relative_to(TOP / "tests").with_suffix("").parts)
    scenario = getattr(importlib.import_module(name), function).__wrapped__
    faulthandler.register(signal.SIGALRM)  # should the scenario hang; no watchdog thread: that changes how init is made
    signal.alarm(90)
    lab = Lab(Path(path))
    try:
        scenario(lab, **json.loads(arguments))
    finally:
        lab.close()
    print("\n".join(lab.faults))
    return 1 if lab.faults else 0


if __name__ == "__main__":
    sys.path.insert(0, str(TOP / "tests"))
    from robustness import lab  # the module that the tests know; this one is __main__

    sys.exit(lab.main(*sys.argv[1:]))
