"""NOTIFY_SOCKET: a container's program tells the service manager of whoever runs it that it is ready (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from conformance.harness import Bundle, Container, alive, mounts, spec, until

SECTION = "runc.8"


class Manager:
    """A service manager's socket, and what was said there."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)

    def hear(self, *, timeout: float = 10.0) -> bool:
        """Take the next message; a descriptor that comes along is closed, as sd_notify_barrier(3) wants it."""
        self._socket.settimeout(timeout)
        try:
            message, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 1)
        except TimeoutError:
            return False
        self.lines += message.decode().split("\n")
        for fd in descriptors:
            os.close(fd)
        return True

    def hear_until(self, word: str) -> None:
        while not any(line.startswith(word) for line in self.lines):
            assert self.hear(), f"{word} did not come, but {self.lines}"

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(container: Container) -> Iterator[Manager]:
    manager = Manager(container.runtime.scratch("host.sock"))
    yield manager
    manager.close()


def told(container: Container, manager: Manager) -> dict[str, str]:
    return {**container.runtime.env, "NOTIFY_SOCKET": manager.path}


def inside(container: Container, manager: Manager) -> str:
    """The socket's path in the container."""
    return f"{manager.path}/notify" if container.runtime.name == "crun" else "/run/notify/notify.sock"


def say(container: Container, manager: Manager, message: str) -> None:
    """Say something to the socket in the container, as its program would."""
    path = f"/proc/{container.state()['pid']}/root{inside(container, manager)}"
    until(lambda: os.path.exists(path), "a socket in the container")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.sendto(message.encode(), path)


def barrier(container: Container, manager: Manager) -> None:
    """Let a runtime that waits until all was heard go on: sd_notify_barrier(3). runc 1.1 doesn't wait."""
    if not container.runtime.version.startswith("1.1."):
        manager.hear_until("BARRIER=1")


@spec(SECTION)
@pytest.mark.parametrize("user", [False, True], ids=["root", "user namespace"])
def test_what_the_container_gets(bundle: Bundle, container: Container, manager: Manager, user: bool) -> None:
    if user:
        bundle.namespaces(add=[{"type": "user"}])
        run = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        bundle.linux.update(uidMappings=run, gidMappings=run)
        os.chown(bundle.rootfs, 100000, 100000)
        os.makedirs(bundle.host("/run/notify"), exist_ok=True)  # the container's root can't make it
    bundle.sh("env; exec sleep 1000")
    container.create(env=told(container, manager))
    path = inside(container, manager)
    (mount,) = [mount for mount in mounts(container.pid) if mount.target == os.path.dirname(path)]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mount.options) or container.runtime.name == "crun"
    start = container.runtime.start("start", container.id, env=told(container, manager))
    say(container, manager, "READY=1")
    manager.hear_until("READY=1")
    barrier(container, manager)
    assert start.wait().status == 0
    assert f"NOTIFY_SOCKET={path}\n" in container.wait_output(path)


@spec(SECTION)
def test_start_returns_when_the_program_is_ready(container: Container, manager: Manager) -> None:
    container.create(env=told(container, manager))
    start = container.runtime.start("start", container.id, env=told(container, manager))
    container.wait_status("running")
    say(container, manager, "STATUS=thinking")
    assert not manager.hear(timeout=0.5) and alive(start.pid)
    say(container, manager, "READY=1")
    manager.hear_until("READY=1")
    barrier(container, manager)
    if container.runtime.name != "crun":  # which leaves it to the service manager whom to watch
        manager.hear_until(f"MAINPID={container.pid}")
    assert start.wait().status == 0
    assert not any(line.startswith("STATUS") for line in manager.lines)
    container.delete("--force")


@spec(SECTION)
def test_start_returns_when_the_program_has_ended(bundle: Bundle, container: Container, manager: Manager) -> None:
    bundle.args("true")
    container.create(env=told(container, manager))
    start = container.runtime.start("start", container.id, env=told(container, manager))
    assert container.wait() == 0  # runc waits until the zombie is gone, too
    assert start.wait().status == 0
    assert not manager.hear(timeout=0.2)


@spec(SECTION)
def test_a_detached_run_returns_when_the_program_is_ready(container: Container, manager: Manager) -> None:
    run = container.run_background("-d", env=told(container, manager))
    container.wait_status("running")
    say(container, manager, "READY=1")
    manager.hear_until("READY=1")
    barrier(container, manager)
    assert run.wait().status == 0
    container.delete("--force")


@spec(SECTION)
def test_a_run_in_the_foreground(bundle: Bundle, container: Container, manager: Manager) -> None:
    """The service manager watches the runtime, which is the service."""
    bundle.sh("until [ -e /end ]; do usleep 20000; done; exit 7")
    run = container.run_background(env=told(container, manager))
    container.wait_status("running")
    say(container, manager, "READY=1\nSTATUS=here")
    manager.hear_until("READY=1")
    if container.runtime.name != "crun":
        manager.hear_until(f"MAINPID={run.pid}")
    if container.runtime.name != "pyrunc":  # the others wait for this even where they stay
        barrier(container, manager)
    bundle.file("/end")
    assert run.wait().status == 7


@spec(SECTION)
def test_nobody_asks(bundle: Bundle, container: Container) -> None:
    """Without the variable there is no mount, and no variable in the container."""
    bundle.sh("env; grep -c notify /proc/self/mountinfo")
    status, out = container.run_output()
    assert (status, out.splitlines()[-1]) == (1, "0")
    assert "NOTIFY" not in out


@spec(SECTION)
def test_exec_is_not_told(container: Container, manager: Manager) -> None:
    """The variable is for the program that the service is: config.json's own variables are exec's."""
    container.create(env=told(container, manager))
    start = container.runtime.start("start", container.id, env=told(container, manager))
    say(container, manager, "READY=1")
    manager.hear_until("READY=1")
    barrier(container, manager)
    assert start.wait().status == 0
    assert "NOTIFY_SOCKET" not in container.exec("env", check=True).stdout
