"""namespaces: made, joined, inherited; what is set in a new one; pods; kernel parameters."""

from __future__ import annotations

import ctypes
import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from conformance import harness
from conformance.harness import (
    Bundle,
    Container,
    Test,
    namespace,
    not_applicable,
    requires,
    spec,
    until,
    xfail_on,
)

NAMESPACES = "config-linux.md#namespaces"
INHERITED = "If a namespace type is not specified in the namespaces array, the container MUST inherit …"
SYSCTL = "config-linux.md#sysctl"
TIME = "config-linux.md#offset-for-time-namespace"

#: type -> (name in /proc/PID/ns, CLONE_NEW* flag)
KINDS = {
    "pid": ("pid", 0x20000000),
    "network": ("net", 0x40000000),
    "mount": ("mnt", 0x00020000),
    "ipc": ("ipc", 0x08000000),
    "uts": ("uts", 0x04000000),
    "cgroup": ("cgroup", 0x02000000),
    "time": ("time", 0x00000080),
}

_libc = ctypes.CDLL(None, use_errno=True)


def needs(container: Container, kind: str) -> None:
    if kind == "time" and container.runtime.name == "runc" and container.runtime.version.startswith(("1.0", "1.1")):
        not_applicable("runc knows time namespaces from 1.2 on")
    if kind == "time" and container.runtime.name == "crun" and container.runtime.version.startswith("1.8"):
        not_applicable("crun 1.8 ends without a word in a time namespace")
    if not os.path.exists(f"/proc/self/ns/{KINDS[kind][0]}"):
        not_applicable(f"this kernel has no {kind} namespaces")


def without(bundle: Bundle, kind: str) -> None:
    """Leave a namespace type out, and what can't be without it."""
    bundle.namespaces(drop=[kind])
    if kind == "uts":
        del bundle.config["hostname"]
    if kind == "network":
        bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "sysfs"]
        bundle.linux["maskedPaths"] = [p for p in bundle.linux["maskedPaths"] if not p.startswith("/sys")]


class Holders:
    """Processes that keep namespaces for others to join."""

    def __init__(self) -> None:
        self._pids: list[int] = []

    def hold(self, *kinds: str) -> int:
        """A process in new namespaces; its process ID."""
        flags = sum(KINDS[kind][1] for kind in kinds)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            if _libc.unshare(flags):
                os._exit(1)
            os.write(writer, b"x")
            signal.pause()
            os._exit(0)
        os.close(writer)
        self._pids.append(pid)
        assert os.read(reader, 1) == b"x", f"can't make {kinds} namespaces"
        os.close(reader)
        return pid

    def close(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture
def holders(test: Test) -> Iterator[Holders]:
    made = Holders()
    yield made
    made.close()


def refused(container: Container) -> str:
    """Creation must fail; what the runtime said."""
    result = container.create(check=False)
    assert result.status != 0, f"should have failed: {result!r}"
    assert result.stderr
    return result.stderr


# ------------------------------------------------------------------------------------- new, inherited, joined


@spec(NAMESPACES, "If path is not specified, the runtime MUST create a new container namespace of type type.")
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_namespace(bundle: Bundle, container: Container, kind: str) -> None:
    needs(container, kind)
    bundle.namespaces(drop=[kind], add=[{"type": kind}])
    container.run_detached()
    name = KINDS[kind][0]
    assert namespace(container.pid, name) != namespace("self", name)
    assert container.exec("readlink", f"/proc/self/ns/{name}").stdout.strip() == namespace(container.pid, name)


@spec(
    NAMESPACES,
    INHERITED,
)
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "mount"])
def test_an_inherited_namespace(bundle: Bundle, container: Container, kind: str) -> None:
    without(bundle, kind)
    container.run_detached()
    name = KINDS[kind][0]
    assert namespace(container.pid, name) == namespace("self", name)
    assert container.exec("readlink", f"/proc/self/ns/{name}").stdout.strip() == namespace("self", name)


@spec(
    NAMESPACES,
    INHERITED,
)
def test_only_a_mount_namespace(bundle: Bundle, container: Container) -> None:
    for kind in ("pid", "network", "ipc", "uts"):
        without(bundle, kind)
    container.run_detached()
    for kind, (name, _) in KINDS.items():
        assert (namespace(container.pid, name) == namespace("self", name)) == (kind != "mount")


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "cgroup"])
def test_a_joined_namespace(bundle: Bundle, container: Container, holders: Holders, kind: str) -> None:
    pid = holders.hold(kind)
    name = KINDS[kind][0]
    bundle.namespaces(drop=[kind], add=[{"type": kind, "path": f"/proc/{pid}/ns/{name}"}])
    container.run_detached()
    assert namespace(container.pid, name) == namespace(pid, name)
    assert container.exec("readlink", f"/proc/self/ns/{name}").stdout.strip() == namespace(pid, name)


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
def test_a_joined_pid_namespace(
    bundle: Bundle, container: Container, new_bundle: Callable[[], Bundle], new_container: Callable[..., Container]
) -> None:
    container.run_detached()
    other = new_bundle()
    other.namespaces(drop=["pid"], add=[{"type": "pid", "path": f"/proc/{container.pid}/ns/pid"}])
    second = new_container(other)
    second.run_detached()
    assert namespace(second.pid, "pid") == namespace(container.pid, "pid")
    assert second.exec("cat", "/proc/1/comm").stdout == "sleep\n"
    second.kill()
    second.wait()
    second.delete()
    assert container.status == "running"


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
def test_a_joined_time_namespace(bundle: Bundle, container: Container, test: Test) -> None:
    needs(container, "time")
    holder = subprocess.Popen(["unshare", "--time", "--fork", "--kill-child", "--boottime", "1000000", "sleep", "1000"])
    try:
        children = until(lambda: harness.children(holder.pid), "the holder's child")
        bundle.namespaces(add=[{"type": "time", "path": f"/proc/{children[0]}/ns/time"}])
        inside = float(container.output("cat", "/proc/uptime").split()[0])
        assert inside - float(pathlib.Path("/proc/uptime").read_text().split()[0]) > 990000
    finally:
        holder.kill()
        holder.wait()


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
def test_a_bind_mounted_namespace(bundle: Bundle, container: Container, holders: Holders, test: Test) -> None:
    """As `ip netns add` keeps them."""
    pid = holders.hold("network")
    path = os.path.join(test.directory, "netns")
    pathlib.Path(path).write_text("")
    harness.mount(f"/proc/{pid}/ns/net", path, "", 0x1000)
    expected = namespace(pid, "net")
    bundle.namespaces(drop=["network"], add=[{"type": "network", "path": path}])
    try:
        assert container.output("readlink", "/proc/self/ns/net").strip() == expected
    finally:
        harness.umount(path)


@spec(NAMESPACES, "The runtime MUST generate an error if path is not associated with a namespace of type type.")
@pytest.mark.parametrize(
    ("kind", "other"), [("network", "uts"), ("uts", "net"), ("ipc", "mnt"), ("pid", "ipc"), ("cgroup", "net")]
)
def test_a_namespace_of_the_wrong_type(
    bundle: Bundle, container: Container, holders: Holders, kind: str, other: str
) -> None:
    pid = holders.hold("uts", "network", "ipc", "mount")
    bundle.namespaces(drop=[kind], add=[{"type": kind, "path": f"/proc/{pid}/ns/{other}"}])
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert f"/linux/namespaces/{len(bundle.linux['namespaces']) - 1}/path" in said


@spec(NAMESPACES, "The runtime MUST generate an error if path is not associated with a namespace of type type.")
@pytest.mark.parametrize("what", ["missing", "file", "directory", "device"])
def test_a_path_that_is_no_namespace(bundle: Bundle, container: Container, test: Test, what: str) -> None:
    path = os.path.join(test.directory, what)
    if what == "file":
        pathlib.Path(path).write_text("")
    elif what == "directory":
        os.mkdir(path)
    elif what == "device":
        path = "/dev/null"
    bundle.namespaces(drop=["network"], add=[{"type": "network", "path": path}])
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert f"/linux/namespaces/{len(bundle.linux['namespaces']) - 1}/path" in said
        assert path in said


@spec(NAMESPACES, "This value MUST be an absolute path in the runtime mount namespace.")
def test_a_relative_path(bundle: Bundle, container: Container) -> None:
    bundle.namespaces(drop=["network"], add=[{"type": "network", "path": "proc/self/ns/net"}])
    refused(container)


@spec(
    NAMESPACES,
    "If a namespaces field contains duplicated namespaces with same type, the runtime MUST generate an error.",
)
@xfail_on("crun", "crun 1.8 ignores it")
@pytest.mark.parametrize("kind", ["pid", "network", "uts"])
def test_duplicates(bundle: Bundle, container: Container, kind: str) -> None:
    bundle.namespaces(add=[{"type": kind}])
    refused(container)


@spec(NAMESPACES)
@pytest.mark.parametrize("kind", ["net", "PID", "", "nonsense"])
def test_an_unknown_type(bundle: Bundle, container: Container, kind: str) -> None:
    bundle.namespaces(add=[{"type": kind}])
    refused(container)


@spec(NAMESPACES)
def test_a_type_that_is_missing(bundle: Bundle, container: Container) -> None:
    bundle.namespaces(add=[{"path": "/proc/self/ns/net"}])
    refused(container)


# ------------------------------------------------------------------------------------------------- what is in one


@spec(NAMESPACES, "the container will have its own network stack")
def test_the_loopback_interface_is_up(bundle: Bundle, container: Container) -> None:
    bundle.sh("ip link; ping -c1 -W2 127.0.0.1 > /dev/null 2>&1; ip addr show lo")
    bundle.process["capabilities"]["bounding"] += ["CAP_NET_RAW"]
    said = container.output()
    assert re.findall(r"^\d+: (\S+?)[:@]", said, re.M)[0] == "lo"
    assert "LOOPBACK,UP" in said
    assert "inet 127.0.0.1/8" in said


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
def test_the_loopback_interface_of_a_joined_namespace_is_left(
    bundle: Bundle, container: Container, holders: Holders
) -> None:
    pid = holders.hold("network")
    bundle.namespaces(drop=["network"], add=[{"type": "network", "path": f"/proc/{pid}/ns/net"}])
    assert "UP" not in container.output("ip", "link", "show", "lo").split("\n")[0].split(">")[0]


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
@requires("command:ip")
def test_interfaces_of_a_joined_namespace(bundle: Bundle, container: Container, holders: Holders, test: Test) -> None:
    pid = holders.hold("network")
    script = "ip link add cfa type veth peer name cfb; ip addr add 192.0.2.7/24 dev cfa; ip link set cfa up"
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-ec", script], check=True)
    bundle.namespaces(drop=["network"], add=[{"type": "network", "path": f"/proc/{pid}/ns/net"}])
    assert "192.0.2.7/24" in container.output("ip", "addr", "show", "cfa")


@spec("config.md#hostname", "hostname (string, OPTIONAL) specifies the container's hostname")
def test_hostname(bundle: Bundle, container: Container) -> None:
    host = os.uname().nodename
    bundle.config["hostname"] = "x" * 64
    bundle.sh("hostname; cat /proc/sys/kernel/hostname")
    assert container.output() == f"{'x' * 64}\n" * 2
    assert os.uname().nodename == host


@spec("config.md#hostname")
def test_no_hostname(bundle: Bundle, container: Container) -> None:
    del bundle.config["hostname"]
    assert container.output("hostname").strip() == os.uname().nodename


@spec("config.md#hostname", "specifies the container's hostname as seen by processes running inside the container")
def test_hostname_without_uts_namespace(bundle: Bundle, container: Container) -> None:
    bundle.namespaces(drop=["uts"])
    refused(container)
    assert os.uname().nodename != "conformance"


@spec("config.md#hostname", "specifies the container's hostname as seen by processes running inside the container")
def test_hostname_in_a_joined_uts_namespace(bundle: Bundle, container: Container, holders: Holders) -> None:
    pid = holders.hold("uts")
    bundle.namespaces(drop=["uts"], add=[{"type": "uts", "path": f"/proc/{pid}/ns/uts"}])
    assert container.output("hostname") == "conformance\n"


@spec(
    "config.md#domainname",
    "specifies the container's domainname as seen by processes running inside the container",
)
@xfail_on("runc", "runc knows it from 1.2 on")
def test_domainname(bundle: Bundle, container: Container) -> None:
    bundle.config["domainname"] = "example.org"
    assert container.output("cat", "/proc/sys/kernel/domainname") == "example.org\n"


@spec(NAMESPACES, "processes inside the container will only be able to see other processes inside the same container")
def test_a_new_pid_namespace_shows_its_own(bundle: Bundle, container: Container) -> None:
    bundle.sh("echo $$; ls -d /proc/[0-9]* | wc -l")
    first, count = container.output().split()
    assert first == "1"
    assert int(count) <= 4


@spec(
    NAMESPACES,
    "will only be able to communicate to other processes inside the same container via system level IPC",
)
def test_a_new_ipc_namespace_is_empty(bundle: Bundle, container: Container) -> None:
    bundle.sh("tail -n +2 /proc/sysvipc/shm | wc -l; tail -n +2 /proc/sysvipc/sem | wc -l")
    assert container.output() == "0\n0\n"


@spec(NAMESPACES, "the container will have an isolated view of the cgroup hierarchy")
def test_a_new_cgroup_namespace(bundle: Bundle, container: Container) -> None:
    bundle.namespaces(add=[{"type": "cgroup"}])
    lines = container.output("cat", "/proc/self/cgroup").splitlines()
    joined = {line.split(":", 2)[2] for line in lines}
    assert "/" in joined
    assert not [path for path in joined if container.id in path]


@spec(
    NAMESPACES,
    INHERITED,
)
def test_no_cgroup_namespace(bundle: Bundle, container: Container) -> None:
    assert container.id in container.output("cat", "/proc/self/cgroup")


@spec(TIME, "is the offset of clock (in seconds) in the container")
@pytest.mark.parametrize(
    ("offsets", "monotonic", "boottime"),
    [
        ({"boottime": {"secs": 2000000}}, 0, 2000000),
        ({"monotonic": {"secs": 7000, "nanosecs": 500}, "boottime": {"secs": 1000, "nanosecs": 999999999}}, 7000, 1000),
        ({"monotonic": {"secs": -1}, "boottime": {"nanosecs": 1}}, -1, 0),
        ({}, 0, 0),
        (None, 0, 0),
    ],
    ids=["boottime", "both", "backwards", "empty", "none"],
)
def test_time_offsets(
    bundle: Bundle, container: Container, offsets: dict[str, dict[str, int]] | None, monotonic: int, boottime: int
) -> None:
    needs(container, "time")
    bundle.namespaces(add=[{"type": "time"}])
    if offsets is not None:
        bundle.linux["timeOffsets"] = offsets
    bundle.sh("cat /proc/self/timens_offsets /proc/uptime")
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    lines = container.output().splitlines()
    seen = {line.split()[0]: line.split()[1] for line in lines[:2]}
    assert seen == {"monotonic": str(monotonic), "boottime": str(boottime)}
    assert boottime - 1 <= float(lines[2].split()[0]) - before < boottime + 20 * harness.SCALE


@spec(TIME, "The name of the clock is the entry key.")
@pytest.mark.parametrize("clock", ["realtime", ""])
def test_an_unknown_clock(bundle: Bundle, container: Container, clock: str) -> None:
    needs(container, "time")
    bundle.namespaces(add=[{"type": "time"}])
    bundle.linux["timeOffsets"] = {clock: {"secs": 5}}
    refused(container)


# --------------------------------------------------------------------------------------------------------- pods


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
def test_a_pod(
    bundle: Bundle, container: Container, new_bundle: Callable[[], Bundle], new_container: Callable[..., Container]
) -> None:
    """One container lends its namespaces to another, as a pod's infra container does."""
    bundle.config["hostname"] = "pod"
    container.run_detached()
    shared = {"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"}
    member = new_bundle()
    del member.config["hostname"]
    entries = [{"type": kind, "path": f"/proc/{container.pid}/ns/{name}"} for kind, name in shared.items()]
    member.namespaces(drop=shared, add=entries)
    second = new_container(member)
    second.create()
    second.start()
    for name in shared.values():
        assert namespace(second.pid, name) == namespace(container.pid, name)
    assert namespace(second.pid, "mnt") != namespace(container.pid, "mnt")
    assert second.exec("hostname").stdout == "pod\n"
    assert "sleep" in container.exec("ps").stdout
    second.kill()
    second.wait()
    second.delete()
    assert container.exec("echo", "alive").stdout == "alive\n"


# ------------------------------------------------------------------------------------------------------- sysctl


@spec(SYSCTL, "allows kernel parameters to be modified at runtime for the container")
@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("net.ipv4.ip_forward", "1", "network"),
        ("net.ipv4.ping_group_range", "0\t0", "network"),
        ("net.core.somaxconn", "256", "network"),
        ("net.ipv4.conf.lo.forwarding", "1", "network"),
        ("net/ipv4/conf/lo/arp_ignore", "1", "network"),
        ("kernel.shm_rmid_forced", "1", "ipc"),
        ("kernel.shmmax", "65536", "ipc"),
        ("kernel.msgmax", "4096", "ipc"),
        ("kernel.sem", "32001\t1024000001\t501\t32001", "ipc"),
        ("fs.mqueue.msg_max", "12", "ipc"),
    ],
)
def test_sysctl(bundle: Bundle, container: Container, key: str, value: str, kind: str) -> None:
    if "/" in key and container.runtime.name == "crun":
        not_applicable("crun 1.8 knows dots only")
    path = "/proc/sys/" + key.replace(".", "/")
    before = pathlib.Path(path).read_text()
    bundle.linux["sysctl"] = {key: value}
    assert container.output("cat", path) == value + "\n"
    assert pathlib.Path(path).read_text() == before


@spec(SYSCTL, "allows kernel parameters to be modified at runtime for the container")
def test_sysctl_with_a_dot_in_a_name(bundle: Bundle, container: Container, holders: Holders) -> None:
    """sysctl(8): the separator that comes first counts; an interface's name may have the other one in it."""
    if container.runtime.name != "pyrunc":
        not_applicable("crun 1.8 knows dots only, runc 1.1 no slash in a name")
    pid = holders.hold("network")
    argv = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link", "add", "cf.7", "type", "veth", "peer", "name", "cfp"]
    subprocess.run(argv, check=True)
    bundle.namespaces(drop=["network"], add=[{"type": "network", "path": f"/proc/{pid}/ns/net"}])
    bundle.linux["sysctl"] = {"net.ipv4.conf.cf/7.arp_ignore": "2", "net/ipv4/conf/cf.7/arp_announce": "1"}
    base = "/proc/sys/net/ipv4/conf/cf.7"
    assert container.output("cat", f"{base}/arp_ignore", f"{base}/arp_announce") == "2\n1\n"


@spec(SYSCTL)
@pytest.mark.parametrize(
    "key",
    [
        "net.no.such.parameter",
        "kernel.panic",
        "vm.swappiness",
        "fs.file-max",
        "kernel.hostname",
        "net.../../kernel.panic",
    ],
)
def test_a_sysctl_that_may_not_be_set(bundle: Bundle, container: Container, key: str) -> None:
    """Not of a namespace of the container's: it would be the host's."""
    bundle.linux["sysctl"] = {key: "1"}
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert "/linux/sysctl" in said


@spec(SYSCTL)
@pytest.mark.parametrize(("key", "kind"), [("net.ipv4.ip_forward", "network"), ("kernel.shmmax", "ipc")])
def test_a_sysctl_of_the_host_s_namespace(bundle: Bundle, container: Container, key: str, kind: str) -> None:
    without(bundle, kind)
    path = pathlib.Path("/proc/sys", key.replace(".", "/"))
    before = path.read_text()
    bundle.linux["sysctl"] = {key: before.strip()}
    refused(container)


@spec(SYSCTL)
def test_a_value_that_the_kernel_refuses(bundle: Bundle, container: Container) -> None:
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "no number"}
    refused(container)
