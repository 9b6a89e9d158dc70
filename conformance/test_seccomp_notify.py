"""linux.seccomp with SCMP_ACT_NOTIFY: an agent gets the listener and the container process state, and decides."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import pathlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from conformance.harness import (
    ROOT,
    Bundle,
    Container,
    Json,
    Runtime,
    mapping,
    not_applicable,
    requires,
    spec,
    until,
    xfail_on,
)
from conformance.test_seccomp import MKDIR, call, x86_64
from conformance.test_user import Ordinary, ordinary

__all__ = ["ordinary"]  # a fixture

STATE = (
    "The container runtime MUST send the container process state over the UNIX socket as regular payload serialized in"
    " JSON and file descriptors MUST be sent using SCM_RIGHTS."
)
LISTENER = (
    "listenerPath (string, OPTIONAL) - specifies the path of UNIX domain socket over which the runtime will send the"
    " container process state data structure when the SCMP_ACT_NOTIFY action is used."
)

# <linux/seccomp.h>
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1

MKDIRAT = 258


class Connection:
    """What came by one connection.

    Attributes:
        state: the container process state.
        fds: the descriptors that came along.
        ended: the runtime has closed it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.ended = False
        data, ancillary, _, _ = sock.recvmsg(65536, socket.CMSG_SPACE(4 * 16), socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for level, kind, content in ancillary:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds.frombytes(content)
        self.fds = list(fds)
        self.state: Json = json.loads(data)


class Agent:
    """A seccomp agent: takes connections and answers every notification by `decide`.

    Attributes:
        decide: gives for a system call's number what it returns: an errno, or None for "let it run".
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.decide: Callable[[int], int | None] = lambda number: None
        self.connections: list[Connection] = []
        self.calls: list[tuple[int, int]] = []  # (process, number)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(path)
        self._listening.listen()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listening, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            for fd, events in poll.poll():
                if fd == self._stop:
                    return
                if fd == self._listening.fileno():
                    connection = Connection(self._listening.accept()[0])
                    self.connections.append(connection)
                    for one in (connection.sock.fileno(), *connection.fds):
                        poll.register(one, select.POLLIN)
                elif fd in (streams := {c.sock.fileno(): c for c in self.connections}):
                    assert not streams[fd].sock.recv(1), "the runtime sent more than one state"
                    streams[fd].ended = True
                    poll.unregister(fd)
                elif events & select.POLLIN:
                    self._answer(fd)
                else:  # POLLHUP: nobody is under the filter any more
                    poll.unregister(fd)

    def _answer(self, listener: int) -> None:
        try:
            notification = fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, bytes(80))
        except OSError as e:
            assert e.errno == errno.ENOENT, e  # the caller was killed meanwhile
            return
        ident, pid, _, number = struct.unpack_from("=QIIi", notification)
        self.calls.append((pid, number))
        answer = self.decide(number)
        flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE if answer is None else 0
        try:
            fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, struct.pack("=QqiI", ident, 0, -(answer or 0), flags))
        except OSError as e:
            assert e.errno == errno.ENOENT, e

    def close(self) -> None:
        """Let go of everything: the kernel answers ENOSYS from now on."""
        if self._thread.is_alive():
            os.eventfd_write(self._stop, 1)
            self._thread.join()
            os.close(self._stop)
            self._listening.close()
            for connection in self.connections:
                connection.sock.close()
                for fd in connection.fds:
                    os.close(fd)


def seccomp_notify(runtime: Runtime) -> str | None:
    return None if "SCMP_ACT_NOTIFY" in json.dumps(runtime.features()) else f"{runtime.name} has no SCMP_ACT_NOTIFY"


@pytest.fixture
def agent(bundle: Bundle) -> Iterator[Agent]:
    made = Agent(os.path.join(bundle.path, "agent.sock"))
    yield made
    made.close()


def notify(bundle: Bundle, agent: Agent, *names: str, **more: object) -> None:
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": agent.path,
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}],
        **more,
    }


@spec("config-linux.md#seccomp", LISTENER)
@requires(x86_64)
@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("how", ["run", "create", "exec"])
def test_the_agent_decides(
    bundle: Bundle, container: Container, agent: Agent, how: str, uid: int, no_new_privileges: bool
) -> None:
    bundle.process.update(noNewPrivileges=no_new_privileges, user={"uid": uid, "gid": uid})
    agent.decide = lambda number: 99 if number == MKDIR else None
    notify(bundle, agent, "mkdir")
    program = call(bundle, MKDIR, 0, 0)
    if how == "run":
        assert container.run().status == 99
    elif how == "create":
        container.create()
        container.start()
        assert container.wait() == 99
    else:
        bundle.args("sleep", "1000")
        container.run_detached()
        assert container.exec(program).status == 99
    assert MKDIR in [number for _, number in agent.calls]


@spec("config-linux.md#containerprocessstate", STATE)
@xfail_on("crun", "crun 1.8 complies with version 0.2.0")
def test_state_of_create(bundle: Bundle, container: Container, agent: Agent) -> None:
    notify(bundle, agent, "mkdir", listenerMetadata="some words")
    bundle.config["annotations"] = {"org.example": "a"}
    bundle.args("sleep", "1000")
    container.run_detached()
    until(lambda: agent.connections, "the connection")
    (connection,) = agent.connections
    got = connection.state
    assert got["fds"] == ["seccompFd"] and len(connection.fds) == 1
    assert os.readlink(f"/proc/self/fd/{connection.fds[0]}") == "anon_inode:seccomp notify"
    assert got["ociVersion"].startswith("1.")
    assert got["metadata"] == "some words"
    assert got["pid"] == container.pid
    state = got["state"]
    assert (state["id"], state["pid"], state["status"]) == (container.id, container.pid, "creating")
    assert state["bundle"] == bundle.path
    assert state["annotations"]["org.example"] == "a"
    assert state["ociVersion"].startswith("1.")


@spec("config-linux.md#seccomp", "it MUST be closed after sending a seccomp state")
@xfail_on("runc", "runc 1.1 keeps it open until the container ends")
@xfail_on("crun", "crun 1.8 keeps it open until the container ends")
def test_the_connection_is_closed(bundle: Bundle, container: Container, agent: Agent) -> None:
    notify(bundle, agent, "mkdir")
    bundle.args("sleep", "1000")
    container.run_background()
    until(lambda: agent.connections, "the connection")
    until(lambda: agent.connections[0].ended, "the connection's end", 3)


@spec(
    "config-linux.md#containerprocessstate", "pid (int, REQUIRED) is the container process ID, as seen by the runtime."
)
@xfail_on("crun", "crun 1.8 tells the container's process ID")
def test_state_of_exec(bundle: Bundle, container: Container, agent: Agent) -> None:
    """The process is the one executed, the state the container's."""
    notify(bundle, agent, "mkdir")
    bundle.args("sleep", "1000")
    container.run_detached()
    pid_file = os.path.join(bundle.path, "exec.pid")
    container.runtime.run("exec", "-d", "--pid-file", pid_file, container.id, "sleep", "1000", check=True)
    until(lambda: len(agent.connections) == 2, "the second connection")
    got = agent.connections[1].state
    assert got["pid"] == int(pathlib.Path(pid_file).read_text()) != container.pid
    assert (got["state"]["pid"], got["state"]["status"]) == (container.pid, "running")
    assert not got.get("metadata")
    assert got["fds"] == ["seccompFd"]


@spec("config-linux.md#seccomp", LISTENER)
@requires(x86_64)
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_what_the_runtime_itself_may_need(
    bundle: Bundle, container: Container, agent: Agent, no_new_privileges: bool
) -> None:
    """The agent allows all; nobody waits for anybody."""
    bundle.process["noNewPrivileges"] = no_new_privileges
    names = ["execve", "openat", "open", "read", "close", "fcntl", "futex", "rt_sigaction", "sendmsg", "recvmsg"]
    notify(bundle, agent, *names, "fstat", "newfstatat", "ioctl", "mmap", "munmap", "close_range", "chdir")
    container.create()
    container.start()
    bundle.args("true")
    assert container.exec("true").status == 0


@spec("config-linux.md#seccomp", "If sending to this socket fails, the runtime MUST generate an error.")
@pytest.mark.parametrize("how", ["nobody listens", "no such socket", "no such abstract socket", "a file"])
@pytest.mark.parametrize("command", ["create", "run"])
def test_no_agent(bundle: Bundle, container: Container, agent: Agent, how: str, command: str) -> None:
    agent.close()
    notify(bundle, agent, "mkdir")
    if how == "no such socket":
        bundle.linux["seccomp"]["listenerPath"] = "/no/such.sock"
    elif how == "no such abstract socket":
        bundle.linux["seccomp"]["listenerPath"] = "@no-such-socket"
    elif how == "a file":
        bundle.file("/file")
        bundle.linux["seccomp"]["listenerPath"] = bundle.host("/file")
    result = container.create(check=False) if command == "create" else container.run()
    assert result.status != 0 and not container.exists()
    if container.runtime.name != "crun":
        assert "failed to connect with seccomp agent" in result.stderr, result


@spec("config-linux.md#seccomp", LISTENER)
@requires(lambda runtime: "crun takes a path for a path" if runtime.name == "crun" else None)
def test_abstract_socket(bundle: Bundle, container: Container) -> None:
    """As runc has it: a path that begins with "@"."""
    agent = Agent(f"\0{container.id}")
    try:
        agent.path = f"@{container.id}"
        notify(bundle, agent, "mkdir", "mkdirat")
        agent.decide = lambda number: errno.EXDEV
        bundle.args("mkdir", "/x")
        assert "ross-device" in container.run().stderr
    finally:
        agent.close()


@spec("config-linux.md#seccomp", "If the SCMP_ACT_NOTIFY action is not used this value is ignored.")
@xfail_on("crun", "crun 1.8 connects all the same")
def test_listener_that_nobody_needs(bundle: Bundle, container: Container, agent: Agent) -> None:
    notify(bundle, agent)
    bundle.linux["seccomp"] |= {"syscalls": [], "listenerMetadata": "x"}
    assert container.output("echo", "hello") == "hello\n"
    assert not agent.connections


WRONG: dict[str, Json] = {
    "metadata alone": {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"},
    "no path": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    },
}


@spec("config-linux.md#seccomp", "This field MUST NOT be set if listenerPath is not set.")
@pytest.mark.parametrize("which", WRONG)
@xfail_on("runc", "runc ignores it", only=["metadata alone"])
@xfail_on("crun", "crun ignores the one and leaves the other to the kernel")
def test_wrong(bundle: Bundle, container: Container, which: str) -> None:
    bundle.linux["seccomp"] = WRONG[which]
    bundle.args("true")
    assert container.run(timeout=15).status != 0


@spec("config-linux.md#seccomp", LISTENER)
@requires(lambda runtime: "crun may wait for ever" if runtime.name == "crun" else None)
@pytest.mark.parametrize("which", ["write", "default"])
def test_what_the_agent_can_t_be_asked(bundle: Bundle, container: Container, agent: Agent, which: str) -> None:
    """Neither runtime nor agent would ever hear of the listener, and all would wait: an error, in runc's words."""
    notify(bundle, agent, "mkdir", "write")
    bundle.args("true")
    words = "SCMP_ACT_NOTIFY cannot be used for the write syscall"
    if which == "default":
        bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": agent.path}
        words = "SCMP_ACT_NOTIFY cannot be used as default action"
    result = container.run(timeout=15)
    assert result.status != 0 and words in result.stderr, result
    assert not agent.connections


@spec("config-linux.md#seccomp", LISTENER)
def test_the_agent_ends(bundle: Bundle, container: Container, agent: Agent) -> None:
    """No copy of the listener is left with runtime or container: seccomp_unotify(2) gives ENOSYS then."""
    notify(bundle, agent, "mkdir", "mkdirat")
    os.mkfifo(bundle.host("/fifo"))
    bundle.sh("read line </fifo; mkdir /x")
    running = container.run_background()
    until(lambda: agent.connections, "the connection")
    agent.close()
    pathlib.Path(bundle.host("/fifo")).write_text("go\n")
    result = running.wait()
    assert "not implemented" in result.stderr, result


@spec("config-linux.md#seccomp", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")
@pytest.mark.parametrize("with_agent", [True, False])
@requires(lambda runtime: f"{runtime.name} does not know it" if runtime.name != "pyrunc" else None)
def test_wait_killable(bundle: Bundle, container: Container, agent: Agent, with_agent: bool) -> None:
    """Without a listener the kernel refuses it."""
    notify(bundle, agent, *["mkdir", "mkdirat"] if with_agent else [], flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])
    if not with_agent:
        bundle.linux["seccomp"]["syscalls"] = []
    agent.decide = lambda number: errno.EXDEV
    bundle.args("mkdir", "/x")
    result = container.run()
    if with_agent:
        assert "ross-device" in result.stderr
    else:
        assert result.status != 0 and "/linux/seccomp/flags/0" in result.stderr


@spec("config.md#startcontainer-hooks", "The startContainer hooks' path MUST resolve in the container namespace.")
def test_start_container_hooks_have_no_descriptor_of_it(bundle: Bundle, container: Container, agent: Agent) -> None:
    notify(bundle, agent, "mkdir", "mkdirat")
    script = "ls -l /proc/self/fd >/fds"
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    bundle.sh("ls -l /proc/self/fd")
    text = container.run_output()[1] + pathlib.Path(bundle.host("/fds")).read_text()
    assert "seccomp" not in text


@spec("config-linux.md#seccomp", LISTENER)
@requires(x86_64)
@requires("command:newuidmap")
@xfail_on("runc", "runc can't take the listener out of a process of another user", only=["itself-5"])
@pytest.mark.parametrize("uid", [0, 5])
@pytest.mark.parametrize("how", ["itself", "root of a namespace"])
def test_an_ordinary_user(
    bundle: Bundle, container: Container, agent: Agent, ordinary: Ordinary, uid: int, how: str
) -> None:
    """Who may look into no other process, but for those in a user namespace of its own."""
    os.chmod(agent.path, 0o777)
    within: tuple[str, ...] = ()
    if how == "itself":
        for key in ("uidMappings", "gidMappings"):
            bundle.linux[key] = [mapping(0, Ordinary.UID, 1), mapping(1, ROOT, 65536)]
    elif uid:
        not_applicable("root is the only user there")
    else:
        bundle.namespaces(drop=["user"])
        within = ("unshare", "--user", "--map-root-user", "--mount")
    bundle.process["user"] = {"uid": uid, "gid": uid}
    agent.decide = lambda number: 99 if number == MKDIR else None
    notify(bundle, agent, "mkdir")
    call(bundle, MKDIR, 0, 0)
    bundle.write()
    done = ordinary.run("run", "--bundle", bundle.path, container.id, within=within)
    assert done.returncode == 99, done.stderr
