"""Real cgroups for tests that have root: named after the test process, and gone after the test."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from pyrunc.cgroups import Layout, detect, manager
from pyrunc.cgroups.base import Manager, read, write

Spawn = Callable[[], int]


@pytest.fixture
def layout() -> Layout:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return detect(read("/proc/self/mountinfo"))


@pytest.fixture
def name() -> str:
    return f"pyrunc-test-{os.getpid()}"


@pytest.fixture
def v1(layout: Layout, name: str) -> Iterator[Manager]:
    """A manager on this machine's v1 or hybrid hierarchies, whose cgroups are not made yet."""
    if layout.mode not in ("v1", "hybrid"):
        pytest.skip("needs cgroup v1")
    yield from _lent(manager(f"/{name}/web", name, layout, read("/proc/self/cgroup")))


@pytest.fixture
def v2(layout: Layout, name: str) -> Iterator[Manager]:
    """A manager on the v2 hierarchy; on a hybrid machine that has few controllers, but the cgroup core whole."""
    if layout.unified is None:
        pytest.skip("needs cgroup v2")
    alone = Layout()
    alone.mode, alone.unified, alone.roots = "v2", layout.unified, {layout.unified: "/"}
    found = manager(f"/{name}/web", name, alone, "0::/\n")
    yield from _lent(found)


def _lent(found: Manager) -> Iterator[Manager]:
    """The manager; then everything is as before, on a hybrid machine also what v2's root hands down."""
    control = found.unified + "/cgroup.subtree_control" if found.unified else ""
    before = read(control).split() if control else []
    yield found
    _clear(found)
    for controller in read(control).split() if control else ():
        if controller not in before:
            write(control, "-" + controller)


def _clear(found: Manager) -> None:
    found.kill(signal.SIGKILL)
    found.remove()
    for directory in found.dirs:
        parent = os.path.dirname(directory)
        if os.path.isdir(parent):
            os.rmdir(parent)
    assert not found.exists()


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Make a process that sleeps; all end with the test."""
    pids: list[int] = []

    def one() -> int:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(60)
            os._exit(0)
        pids.append(pid)
        return pid

    yield one
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue
