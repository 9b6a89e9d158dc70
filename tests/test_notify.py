"""The relay between a container's notify socket and the service manager's, without a container."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrunc import notify
from pyrunc.notify import Relay


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as host:
        host.bind(str(tmp_path / "host"))
        host.settimeout(10)
        yield host


class Place:
    """A state directory with a relay, and what it has warned of."""

    def __init__(self, directory: Path) -> None:
        (directory / "notify").mkdir()
        self.warnings: list[str] = []
        self.path = str(directory / "notify" / "notify.sock")
        self.relay = Relay(str(directory), str(directory / "host"), self.warnings.append)

    def say(self, message: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.sendto(message, self.path)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.relay.close()


@pytest.mark.parametrize("message", [b"READY=1", b"READY=1\n", b"STATUS=up\nREADY=1\nMAINPID=1"])
def test_ready_goes_out_with_a_process_id_of_ours(place: Place, manager: socket.socket, message: bytes) -> None:
    """Not with the container's: its process IDs are another namespace's."""
    place.say(message)
    place.relay.serve(42)
    assert manager.recv(4096) == b"READY=1\nMAINPID=42"
    assert place.relay.ready and not place.warnings


@pytest.mark.parametrize("message", [b"", b"STATUS=READY=1", b"READY=0", b"MAINPID=1", b"STOPPING=1", b"\0" * 9999])
def test_nothing_else_goes_out(place: Place, manager: socket.socket, message: bytes) -> None:
    place.say(message)
    place.relay.serve(42)
    manager.settimeout(0)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)
    assert not place.relay.ready


def test_anybody_in_the_container_may_speak(place: Place) -> None:
    assert os.stat(place.path).st_mode & 0o777 == 0o777


def test_a_manager_that_is_gone_is_a_warning(place: Place) -> None:
    place.say(b"READY=1")
    place.relay.serve(42)
    assert place.relay.ready
    assert len(place.warnings) == 1 and "NOTIFY_SOCKET" in place.warnings[0]


def test_it_waits_until_the_manager_has_heard(place: Place, manager: socket.socket) -> None:
    """The descriptor that comes with BARRIER=1 is open as long as the manager has not come to it."""
    waiter = threading.Thread(target=place.relay.wait, args=(os.getpid(),))
    waiter.start()
    place.say(b"READY=1")
    assert manager.recv(4096).startswith(b"READY=1")
    message, (fd,), _, _ = socket.recv_fds(manager, 4096, 1)
    assert message == b"BARRIER=1"
    assert waiter.is_alive()
    os.close(fd)
    waiter.join(10)
    assert not waiter.is_alive() and not place.warnings


def test_a_manager_that_knows_no_barrier(place: Place, manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "BARRIER_TIMEOUT", 1)
    place.say(b"READY=1")
    place.relay.wait(os.getpid())
    assert len(place.warnings) == 1 and "not done within" in place.warnings[0]


def test_it_waits_for_nobody_who_has_ended(place: Place) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    place.relay.wait(pid)  # a zombie
    os.waitpid(pid, 0)
    place.relay.wait(pid)  # nobody
    assert not place.relay.ready


def test_a_socket_that_is_left_is_replaced(place: Place, tmp_path: Path, manager: socket.socket) -> None:
    again = Relay(str(tmp_path), str(tmp_path / "host"), place.warnings.append)
    place.say(b"READY=1")
    again.serve(1)
    again.close()
    assert manager.recv(4096).startswith(b"READY=1")


def test_a_container_without_a_socket(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Relay(str(tmp_path), str(tmp_path / "host"), print)
