"""Terminals: the console socket, the process's side of it, and the foreground through the caller's terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import termios
from collections.abc import Iterator

import pytest

from conformance.harness import (
    Background,
    Bundle,
    ConsoleSocket,
    Container,
    Terminal,
    not_applicable,
    requires,
    spec,
    until,
    xfail_on,
)

TERMINAL = "terminal (bool, OPTIONAL) specifies whether a terminal is attached to the process, defaults to false."
SOCKET = (
    "Path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the"
    " console's pseudoterminal."
)


@pytest.fixture
def tty(bundle: Bundle) -> Bundle:
    bundle.process["terminal"] = True
    return bundle


@spec("runc-create.8", SOCKET)
@pytest.mark.parametrize("command", ["create", "run"])
def test_console_socket(tty: Bundle, container: Container, console: ConsoleSocket, command: str) -> None:
    tty.sh("echo hello; read line; echo got $line; read line")
    if command == "create":
        container.create("--console-socket", console.path)
        terminal = console.receive()
        container.start()
    else:
        container.run_detached("--console-socket", console.path)
        terminal = console.receive()
    assert os.isatty(terminal.fd)
    assert terminal.read_until("hello") == "hello\r\n"
    terminal.write("word\n")
    assert "got word" in terminal.read_until("got word")
    terminal.write("\n")
    terminal.read_all()
    assert container.wait() == 0


@spec("config.md#process", TERMINAL)
def test_stdio_is_the_terminal(tty: Bundle, container: Container, console: ConsoleSocket) -> None:
    tty.sh("for fd in 0 1 2; do [ -t $fd ] && echo $fd; done; tty; readlink /proc/self/fd/1; echo end")
    container.run_detached("--console-socket", console.path)
    lines = console.receive().read_until("end").splitlines()
    assert lines[:3] == ["0", "1", "2"]
    assert lines[3].startswith("/dev/")
    assert lines[4].startswith("/dev/")


@spec("config.md#process", TERMINAL)
def test_no_terminal(bundle: Bundle, container: Container) -> None:
    del bundle.process["terminal"]
    status, text = container.run_output(
        "sh",
        "-c",
        "[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none; test -e /dev/console && stat -c %F /dev/console; true",
    )
    assert status == 0
    assert text.splitlines()[0] == "none"


@spec("config.md#process", "consoleSize (object, OPTIONAL) specifies the console size in characters of the terminal.")
def test_console_size(tty: Bundle, container: Container, console: ConsoleSocket) -> None:
    tty.process["consoleSize"] = {"height": 33, "width": 77}
    tty.sh("stty size; echo end; read line")
    container.create("--console-socket", console.path)
    terminal = console.receive()
    assert terminal.size == (33, 77)
    container.start()
    assert "33 77" in terminal.read_until("end")
    terminal.size = (44, 88)
    tty.sh("")
    assert container.exec("sh", "-c", "stty size <&0 </dev/console").stdout == "44 88\n"


@spec("config.md#process", "Runtimes MUST ignore consoleSize if terminal is false or unset.")
def test_console_size_without_a_terminal(bundle: Bundle, container: Container) -> None:
    bundle.process["consoleSize"] = {"height": 33, "width": 77}
    assert container.run_output("echo", "fine") == (0, "fine\n")


@spec(
    "config-linux.md#default-devices",
    "/dev/console is set up if terminal is enabled in the config by bind mounting the pseudoterminal pty to"
    " /dev/console.",
)
def test_dev_console(tty: Bundle, container: Container, console: ConsoleSocket) -> None:
    tty.sh(
        "stat -c %F /dev/console; echo through >/dev/console; "
        '[ "$(stat -c %t-%T /dev/console)" = "$(stat -L -c %t-%T /proc/self/fd/0)" ] && echo same; echo end'
    )
    container.run_detached("--console-socket", console.path)
    text = console.receive().read_until("end")
    assert "character special file" in text
    assert "through" in text
    assert "same" in text


@spec("config-linux.md#default-devices", "/dev/ptmx")
def test_the_terminal_is_of_the_container_s_devpts(tty: Bundle, container: Container, console: ConsoleSocket) -> None:
    """Allocated inside: the container can open its own terminal by name."""
    tty.sh("ls /dev/pts; tty; echo by-name >$(tty); echo end")
    container.run_detached("--console-socket", console.path)
    text = console.receive().read_until("end")
    assert "/dev/pts/0" in text
    assert "by-name" in text


@spec("config.md#process", TERMINAL)
def test_controlling_terminal(tty: Bundle, container: Container, console: ConsoleSocket) -> None:
    """Ctrl-C reaches the process, and /dev/tty opens."""
    tty.sh("trap 'echo interrupted; exit 5' INT; echo via-tty >/dev/tty; echo ready; while :; do sleep 0.05; done")
    container.run_detached("--console-socket", console.path)
    terminal = console.receive()
    assert "via-tty" in terminal.read_until("ready")
    terminal.write("\x03")
    terminal.read_until("interrupted")
    assert container.wait() == 5


@spec("config.md#process", TERMINAL)
def test_hang_up(tty: Bundle, container: Container, console: ConsoleSocket) -> None:
    """When the master closes, the session gets SIGHUP."""
    tty.sh("trap 'exit 6' HUP; echo ready; while :; do sleep 0.05; done")
    container.run_detached("--console-socket", console.path)
    terminal = console.receive()
    terminal.read_until("ready")
    terminal.close()
    assert container.wait() == 6


@spec("config.md#process", TERMINAL)
def test_user_owns_the_terminal(tty: Bundle, container: Container, console: ConsoleSocket) -> None:
    """A process that isn't root can open its terminal anew, as programs do that ask for passwords."""
    tty.process["user"] = {"uid": 1000, "gid": 1000}
    tty.sh("stat -c %u /proc/self/fd/0 -L; echo mine >/proc/self/fd/1; echo end")
    container.run_detached("--console-socket", console.path)
    lines = console.receive().read_until("end").splitlines()
    assert lines[:2] == ["1000", "mine"]


@spec("runc-create.8", SOCKET)
@pytest.mark.parametrize("command", ["create", "run"])
def test_terminal_without_console_socket(tty: Bundle, container: Container, command: str) -> None:
    """Detached, nobody could ever read the terminal: an error."""
    if container.runtime.name == "crun":
        not_applicable("crun makes a terminal and lets go of its master")
    result = container.create(check=False) if command == "create" else container.run_detached(check=False)
    assert result.status != 0
    assert "console" in result.stderr or "terminal" in result.stderr or "tty" in result.stderr
    assert "Traceback" not in result.stderr
    assert not container.exists()


@spec("runc-create.8", SOCKET)
@pytest.mark.parametrize("what", ["missing", "a file", "nobody listens"])
def test_console_socket_that_is_none(tty: Bundle, container: Container, what: str) -> None:
    path = container.runtime.scratch("socket")
    if what == "a file":
        open(path, "w").close()
    elif what == "nobody listens":
        import socket

        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
    result = container.create("--console-socket", path, check=False, timeout=10)
    assert result.status != 0
    assert "Traceback" not in result.stderr
    assert not container.exists()


# ----------------------------------------------------------------------------------------------- the foreground


#: The size may come to a process that runs already.
UNTIL_SIZED = (
    "n=0; while [ $n -lt 100 ] && [ \"$(stty size 2>/dev/null)\" != '50 120' ]; do n=$((n+1)); sleep 0.02;"
    " done; stty size"
)


class Foreground:
    """`run` or `exec` in the foreground, on a terminal of the test's."""

    def __init__(self) -> None:
        master, self.slave = pty.openpty()
        self.terminal = Terminal(master)
        self.terminal.size = (50, 120)
        self.before = termios.tcgetattr(self.slave)

    def start(self, container: Container, *args: str) -> Background:
        def control() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        slave = self.slave
        return container.runtime.start(
            *args, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=control
        )

    def close(self) -> None:
        self.terminal.close()
        os.close(self.slave)


@pytest.fixture
def foreground() -> Iterator[Foreground]:
    made = Foreground()
    yield made
    made.close()


@spec("config.md#process", TERMINAL)
def test_foreground(tty: Bundle, container: Container, foreground: Foreground) -> None:
    tty.sh("tty; echo ready; read line; echo got $line; exit 7")
    tty.write(f"/{container.id}")
    running = foreground.start(container, "run", "--bundle", tty.path, container.id)
    foreground.terminal.read_until("ready")
    foreground.terminal.write("word\n")
    assert "got word" in foreground.terminal.read_until("got word")
    assert running.wait().status == 7
    assert termios.tcgetattr(foreground.slave) == foreground.before, "the caller's terminal was left in another mode"


@spec("config.md#process", TERMINAL)
def test_foreground_ctrl_c(tty: Bundle, container: Container, foreground: Foreground) -> None:
    """A raw terminal: ctrl-C is the container's, not the runtime's."""
    tty.sh("trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.05; done")
    tty.write(f"/{container.id}")
    running = foreground.start(container, "run", "--bundle", tty.path, container.id)
    foreground.terminal.read_until("ready")
    foreground.terminal.write("\x03")
    foreground.terminal.read_until("interrupted")
    assert running.wait().status == 5


@spec("config.md#process", "consoleSize (object, OPTIONAL) specifies the console size in characters of the terminal.")
@xfail_on("crun", "crun 1.8 leaves the size of the terminal 0 by 0 and follows no change of it")
def test_foreground_resize(tty: Bundle, container: Container, foreground: Foreground) -> None:
    tty.sh(f"trap 'stty size; exit 3' WINCH; {UNTIL_SIZED}; echo ready; while :; do sleep 0.05; done")
    tty.write(f"/{container.id}")
    running = foreground.start(container, "run", "--bundle", tty.path, container.id)
    assert "50 120" in foreground.terminal.read_until("ready")
    foreground.terminal.size = (25, 81)
    running.signal(signal.SIGWINCH)
    foreground.terminal.read_until("25 81")
    assert running.wait().status == 3


@spec("config.md#process", TERMINAL)
def test_foreground_output_is_whole(tty: Bundle, container: Container, foreground: Foreground) -> None:
    tty.sh("seq 1 20000")
    tty.write(f"/{container.id}")
    running = foreground.start(container, "run", "--bundle", tty.path, container.id)
    text = foreground.terminal.read_until("20000\r\n")
    assert text.split() == [str(n) for n in range(1, 20001)]
    assert running.wait().status == 0


@spec("runc-exec.8", "Allocate a pseudo-TTY.")
def test_foreground_exec(container: Container, foreground: Foreground) -> None:
    container.run_detached()
    running = foreground.start(
        container, "exec", "-t", container.id, "sh", "-c", f"tty; {UNTIL_SIZED}; read line; exit 4"
    )
    assert "/dev/pts/" in foreground.terminal.read_until("50 120")
    foreground.terminal.write("\n")
    assert running.wait().status == 4
    assert termios.tcgetattr(foreground.slave) == foreground.before
    until(lambda: container.status == "running", "the container runs on")


@spec("config.md#process", TERMINAL)
@requires(lambda runtime: "runc wants a controlling terminal" if runtime.name == "runc" else None)
@xfail_on("crun", "crun 1.8 passes carriage returns on")
def test_foreground_output_to_a_file(tty: Bundle, container: Container) -> None:
    """What goes to a file or a pipe is what the program wrote, as under runc: a newline gets no carriage return."""
    tty.sh("echo one; echo two")
    assert container.run().stdout == "one\ntwo\n"
