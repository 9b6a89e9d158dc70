"""--pidfd-socket: the engine gets a descriptor of the container's process, or of one that joins."""

from __future__ import annotations

import os
import pathlib
import socket
from collections.abc import Iterator

import pytest

from conformance.harness import Bundle, Container, not_applicable, requires, spec


class Listener:
    """A listening stream socket that takes descriptors."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(path)
        self._socket.listen(8)
        self._socket.settimeout(10)

    def receive(self) -> tuple[str, int]:
        """The message that came first, and the process ID of the pidfd that came with it."""
        connection, _ = self._socket.accept()
        connection.settimeout(10)
        with connection:
            message, (fd,), _, _ = socket.recv_fds(connection, 4096, 1)
        text = pathlib.Path(f"/proc/self/fdinfo/{fd}").read_text()
        os.close(fd)
        return message.decode(), int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pid:")))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(container: Container) -> Iterator[Listener]:
    listener = Listener(container.runtime.scratch("pidfd.sock"))
    yield listener
    listener.close()


@spec("runc-create.8")
@requires("flag:create --pidfd-socket")
@pytest.mark.parametrize("command", ["create", "run"])
def test_of_init(container: Container, listener: Listener, command: str) -> None:
    call = container.create if command == "create" else container.run_detached
    call("--pidfd-socket", listener.path)
    message, pid = listener.receive()
    assert (message, pid) == ("standard", container.pid)


@spec("runc-run.8")
@requires("flag:create --pidfd-socket")
def test_of_init_in_the_foreground(bundle: Bundle, container: Container, listener: Listener) -> None:
    bundle.sh("until [ -e /end ]; do usleep 20000; done")
    run = container.run_background("--pidfd-socket", listener.path)
    _, pid = listener.receive()
    container.wait_status("running")
    assert pid == container.state()["pid"]
    bundle.file("/end")
    assert run.wait().status == 0


@spec("runc-exec.8")
@requires("flag:exec --pidfd-socket")
def test_of_a_process_that_joins(container: Container, listener: Listener) -> None:
    container.run_detached()
    pid_file = container.runtime.scratch("pid")
    container.exec("sleep", "100", flags=["-d", "--pid-file", pid_file, "--pidfd-socket", listener.path], check=True)
    message, pid = listener.receive()
    assert (message, pid) == ("setns", int(pathlib.Path(pid_file).read_text()))


@spec("runc-create.8")
@requires("flag:create --pidfd-socket")
def test_nobody_listens(container: Container) -> None:
    """No container without somebody who watches it."""
    if container.runtime.name == "runc":
        not_applicable("runc leaves its state behind")
    result = container.create("--pidfd-socket", container.runtime.scratch("nobody"), check=False)
    assert result.status != 0
    assert not container.exists()
