"""podman: networks, and pods that share namespaces."""

from __future__ import annotations

import os

from conformance.engines.box import retry
from conformance.engines.podman import IMAGE, Podman
from conformance.harness import spec

pytestmark = spec("podman-network.1")


def namespace(podman: Podman, container: str, kind: str) -> str:
    return os.readlink(podman.box.path(f"/proc/{podman.pid(container)}/ns/{kind}"))


def test_network_none_has_a_loopback_that_is_up(podman: Podman) -> None:
    assert podman.image_run("--", "ls", "/sys/class/net") == "lo"
    podman.image_run("--", "ping", "-c", "1", "-W", "2", "127.0.0.1")


def test_network_host(podman: Podman) -> None:
    podman("run", "-d", "--name", "open", "--network=host", IMAGE, "sleep", "1000")
    assert namespace(podman, "open", "net") == os.readlink(podman.box.path("/proc/1/ns/net"))


def test_network_bridge(podman: Podman) -> None:
    podman("run", "-d", "--name", "server", "--network=bridge", IMAGE, "sh", "-c", "echo answer | nc -l -p 7777")
    address = podman.inspect("server")["NetworkSettings"]["IPAddress"]
    assert address
    assert address in podman("exec", "server", "ip", "-4", "addr", "show", "eth0")

    def ask() -> bool:
        return (
            podman.result("run", "--rm", "--network=bridge", IMAGE, "nc", "-w", "3", address, "7777", status=None).out
            == "answer\n"
        )

    retry(ask, "the two do not talk")
    assert podman("wait", "server") == "0"


def test_published_port(podman: Podman) -> None:
    podman(
        "run",
        "-d",
        "--name",
        "server",
        "--network=bridge",
        "-p",
        "8888:7777",
        IMAGE,
        "sh",
        "-c",
        "while :; do echo answer | nc -l -p 7777; done",
    )
    address = podman.inspect("server")["NetworkSettings"]["Gateway"]
    retry(
        lambda: podman.box.run("busybox", "nc", "-w", "2", address, "8888").out == "answer\n",
        "no answer through the port",
    )


def test_hosts_file_and_resolver(podman: Podman) -> None:
    seen = podman(
        "run",
        "--rm",
        "--network=bridge",
        "--hostname=h",
        "--add-host=far:10.1.2.3",
        "--dns=10.9.9.9",
        IMAGE,
        "cat",
        "/etc/hosts",
        "/etc/resolv.conf",
    )
    assert "10.1.2.3" in seen and "10.9.9.9" in seen


def test_network_of_another_container(podman: Podman) -> None:
    podman("run", "-d", "--name", "first", "--network=bridge", IMAGE, "sleep", "1000")
    podman("run", "-d", "--name", "second", "--network=container:first", IMAGE, "sleep", "1000")
    assert namespace(podman, "first", "net") == namespace(podman, "second", "net")
    assert namespace(podman, "first", "mnt") != namespace(podman, "second", "mnt")


def test_a_pod_shares_net_ipc_and_uts(podman: Podman) -> None:
    podman("pod", "create", "--name", "crew", "--hostname=ship", "--network=bridge")
    podman("run", "-d", "--pod=crew", "--name", "a", IMAGE, "sh", "-c", "echo aye | nc -l -p 7777; sleep 1000")
    podman("run", "-d", "--pod=crew", "--name", "b", IMAGE, "sleep", "1000")
    for kind in ("net", "ipc", "uts"):
        assert namespace(podman, "a", kind) == namespace(podman, "b", kind), kind
    for kind in ("mnt", "pid"):
        assert namespace(podman, "a", kind) != namespace(podman, "b", kind), kind
    assert podman("exec", "b", "hostname") == "ship"
    assert podman("exec", "b", "nc", "-w", "3", "127.0.0.1", "7777") == "aye"
    podman("pod", "stop", "--time=0", "crew")
    podman.remove_pod("crew")
    podman.nothing_left()


def test_namespaces_shared_by_option(podman: Podman) -> None:
    podman("run", "-d", "--name", "owner", "--ipc=shareable", "--network=none", IMAGE, "sleep", "1000")
    podman(
        "run",
        "-d",
        "--name",
        "guest",
        "--ipc=container:owner",
        "--pid=container:owner",
        "--network=none",
        IMAGE,
        "sleep",
        "2000",
    )
    for kind in ("ipc", "pid"):
        assert namespace(podman, "owner", kind) == namespace(podman, "guest", kind), kind
    assert "sleep 1000" in podman("exec", "guest", "ps", "-o", "args")


def test_pid_and_uts_of_the_host(podman: Podman) -> None:
    podman(
        "run",
        "-d",
        "--name",
        "open",
        "--pid=host",
        "--uts=host",
        "--ipc=host",
        "--network=none",
        IMAGE,
        "sleep",
        "1000",
    )
    for kind in ("pid", "uts", "ipc"):
        assert namespace(podman, "open", kind) == os.readlink(podman.box.path(f"/proc/1/ns/{kind}")), kind
