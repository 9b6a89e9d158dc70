"""linux.netDevices: network devices moved into the container. The host's is a network namespace of the test's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from conformance.harness import Bundle, Container, Result, namespace, not_applicable, requires, spec, until, xfail_on

MOVED = "netDevices (object, OPTIONAL) - A set of network devices that MUST be made available in the container."


class Host:
    """A network namespace with a pair of devices, "moved0" and "peer0", in which the runtime runs."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.holders: list[subprocess.Popen[bytes]] = []
        self.path = self.namespace()
        self.ip("link add moved0 type veth peer name peer0")

    def namespace(self) -> str:
        """Make one, that the test's end removes; its path."""
        holder = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
        self.holders.append(holder)
        until(lambda: namespace(holder.pid, "net") != namespace("thread-self", "net"), "the network namespace")
        return f"/proc/{holder.pid}/ns/net"

    def ip(self, line: str, path: str = "") -> str:
        """ip(8) in one of the namespaces."""
        argv = ["nsenter", f"--net={path or self.path}", "ip", *line.split()]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def devices(self, path: str = "") -> set[str]:
        return {line.split()[1].rstrip(":").partition("@")[0] for line in self.ip("-o link", path).splitlines()}

    def run(self, *args: str) -> Result:
        """Run the container, in the foreground, with a runtime that is in the namespace."""
        bundle = self.container.bundle
        if args:
            bundle.args(*args)
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        os_setns(fd)
        try:
            return self.container.run()
        finally:
            os_setns(own)
            os.close(fd)
            os.close(own)

    def close(self) -> None:
        for holder in self.holders:
            holder.kill()
            holder.wait()


def os_setns(fd: int) -> None:
    """setns(2), which Python has from 3.12."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")


@pytest.fixture
def host(container: Container) -> Iterator[Host]:
    runtime = container.runtime
    if not (runtime.features()["linux"].get("netDevices") or {}).get("enabled"):
        not_applicable(f"{runtime.name} {runtime.version} moves no network devices")
    made = Host(container)
    yield made
    made.close()


def joined(bundle: Bundle, host: Host) -> str:
    """Have the container join a network namespace of its own; its path."""
    path = host.namespace()
    bundle.namespaces(drop=["network"], add=[{"type": "network", "path": path}])
    return path


def users_namespace(bundle: Bundle) -> None:
    bundle.namespaces(add=[{"type": "user"}])
    for key in ("uidMappings", "gidMappings"):
        bundle.linux[key] = [{"containerID": 0, "hostID": 0, "size": 65536}]


needs_ip = requires("command:ip")


@spec("config-linux.md#network-devices", MOVED)
@needs_ip
@pytest.mark.parametrize("user", [False, True])
def test_moved(bundle: Bundle, host: Host, user: bool) -> None:
    if user:
        users_namespace(bundle)
    bundle.linux["netDevices"] = {"moved0": {}}
    assert host.run("ls", "/sys/class/net").stdout.split() == ["lo", "moved0"]
    assert "moved0" not in host.devices()


@spec(
    "config-linux.md#network-devices",
    "name (string, OPTIONAL) - the name of the network device inside the container namespace.",
)
@needs_ip
def test_renamed(bundle: Bundle, host: Host) -> None:
    """Two of them, which exchange their names."""
    bundle.linux["netDevices"] = {"moved0": {"name": "peer0"}, "peer0": {"name": "moved0"}}
    host.ip("link set moved0 address 02:00:00:00:00:01")
    out = host.run("sh", "-c", "cat /sys/class/net/peer0/address; ls /sys/class/net").stdout
    assert out.split() == ["02:00:00:00:00:01", "lo", "moved0", "peer0"]


@spec(
    "config-linux.md#network-devices",
    "The runtime MUST preserve existing network interface attributes, including all permanent IP addresses"
    " (IFA_F_PERMANENT flag) of any family with global scope",
)
@needs_ip
@pytest.mark.parametrize("state", ["down", "up"])
def test_attributes(bundle: Bundle, host: Host, state: str) -> None:
    host.ip("link set moved0 address 02:00:00:00:00:02 mtu 1789")
    host.ip(f"link set moved0 {state}")
    for address in ("169.254.169.77/32", "10.1.2.3/24", "127.0.0.33/32"):
        host.ip(f"addr add {address} dev moved0")
    host.ip("addr add 10.9.9.9/24 dev moved0 valid_lft 100 preferred_lft 100")
    bundle.linux["netDevices"] = {"moved0": {"name": "eth7"}}
    out = host.run("sh", "-c", "ip address show dev eth7").stdout
    assert "02:00:00:00:00:02" in out and "mtu 1789" in out
    assert "inet 169.254.169.77/32" in out and "inet 10.1.2.3/24" in out
    assert "127.0.0.33" not in out, "scope host"
    assert "10.9.9.9" not in out, "not permanent"


@spec("config-linux.md#network-devices", "all permanent IP addresses (IFA_F_PERMANENT flag) of any family")
@needs_ip
@xfail_on("runc", "runc takes the device down first, which makes the kernel forget its IPv6 addresses")
def test_ipv6_address(bundle: Bundle, host: Host) -> None:
    host.ip("link set moved0 up")
    host.ip("addr add fd00::77/64 dev moved0 nodad")
    bundle.linux["netDevices"] = {"moved0": {}}
    out = host.run("sh", "-c", "ip address show dev moved0").stdout
    assert "inet6 fd00::77/64" in out


@spec(
    "config-linux.md#network-devices",
    'The runtime MUST set the network device state to "up" after moving it to the network namespace',
)
@needs_ip
def test_up(bundle: Bundle, host: Host) -> None:
    bundle.linux["netDevices"] = {"moved0": {}}
    out = host.run("ip", "link", "show", "dev", "moved0").stdout
    assert "UP" in out.split("<")[1].split(">")[0].split(","), out


@spec("config-linux.md#network-devices", "The runtime MUST NOT attempt to move the interface out of the namespace")
@needs_ip
def test_it_stays_in_a_joined_namespace(bundle: Bundle, host: Host) -> None:
    pod = joined(bundle, host)
    host.ip("addr add 10.1.2.3/24 dev moved0")
    bundle.linux["netDevices"] = {"moved0": {"name": "eth0"}}
    assert host.run("true").status == 0
    assert host.devices(pod) == {"lo", "eth0"}
    assert "10.1.2.3/24" in host.ip("addr show dev eth0", pod)


@spec(
    "config-linux.md#network-devices",
    "If a network device with the specified name already exists in the container namespace, the runtime MUST generate"
    " an error",
)
@needs_ip
@pytest.mark.parametrize("new", ["taken", ""])
def test_a_name_that_is_taken(bundle: Bundle, host: Host, new: str) -> None:
    pod = joined(bundle, host)
    host.ip(f"link add {new or 'moved0'} type veth peer name other", pod)
    bundle.linux["netDevices"] = {"moved0": {"name": new} if new else {}}
    result = host.run("true")
    assert result.status != 0 and not host.container.exists()
    if host.container.runtime.name == "pyrunc":
        assert "/linux/netDevices/moved0" in result.stderr and "already" in result.stderr
        assert "moved0" in host.devices(), "it is not to be lost"


@spec(
    "config-linux.md#network-devices",
    "unless the user has provided a template by appending %d to the new name. In that case, the runtime MUST allow the"
    " move, and the kernel will generate a unique name for the interface within the container's network namespace.",
)
@needs_ip
@xfail_on("runc", "runc looks for a device that is called eth%d")
def test_template(bundle: Bundle, host: Host) -> None:
    pod = joined(bundle, host)
    host.ip("link add eth0 type veth peer name other", pod)
    host.ip("addr add 10.1.2.3/24 dev moved0")
    bundle.linux["netDevices"] = {"moved0": {"name": "eth%d"}}
    assert host.run("true").status == 0
    assert host.devices(pod) == {"lo", "eth0", "other", "eth1"}
    assert "10.1.2.3/24" in host.ip("addr show dev eth1", pod)


@spec("config-linux.md#network-devices", "The runtime MUST check if moving the network interface")
@needs_ip
@pytest.mark.parametrize("which", ["missing", "lo", "no namespace", "slash", "long", "colon", "space", "dot"])
def test_refused(bundle: Bundle, host: Host, which: str) -> None:
    names = {"slash": "a/b", "long": "a" * 20, "colon": "a:b", "space": "a b", "dot": "..", "lo": "lo"}
    new = names.get(which, "")
    bundle.linux["netDevices"] = {
        "missing": {"missing": {}},
        "lo": {"lo": {"name": "lo1"}},
        "no namespace": {"moved0": {}},
    }.get(which, {"moved0": {"name": new}})
    if which == "no namespace":
        bundle.namespaces(drop=["network"])
        bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "sysfs"]
    result = host.run("true")
    assert result.status != 0 and not host.container.exists()
    assert "moved0" in host.devices()
    if host.container.runtime.name == "pyrunc":
        assert "/linux/netDevices" in result.stderr and "Traceback" not in result.stderr, result


@spec("config-linux.md#network-devices", MOVED)
@needs_ip
def test_before_the_hooks_and_the_sysctls(bundle: Bundle, host: Host) -> None:
    """Both may be about the device."""
    bundle.linux["netDevices"] = {"moved0": {"name": "eth0"}}
    bundle.linux["sysctl"] = {"net.ipv4.conf.eth0.forwarding": "1"}
    log = os.path.join(bundle.path, "log")
    script = f"pid=$(cat | tr ',' '\\n' | sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p'); cat /proc/$pid/net/dev >{log}"
    bundle.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]
    }
    assert host.run("cat", "/proc/sys/net/ipv4/conf/eth0/forwarding").stdout == "1\n"
    with open(log) as text:
        assert "eth0:" in text.read()


@spec("config-linux.md#network-devices", "from the host network namespace into the container network namespace")
@needs_ip
@xfail_on("runc", "runc takes it down and fails then")
def test_the_runtime_s_own_namespace(bundle: Bundle, host: Host) -> None:
    """By a path that leads to it: an error before anything is done."""
    bundle.namespaces(drop=["network"], add=[{"type": "network", "path": host.path}])
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "sysfs"]
    host.ip("link set moved0 up")
    bundle.linux["netDevices"] = {"moved0": {"name": "new"}}
    assert host.run("true").status != 0
    assert "UP" in host.ip("link show moved0").split("<")[1].split(">")[0].split(",")
