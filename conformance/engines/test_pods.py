"""examples/pod, three ways: what its README says of a pod is asked of the running pod."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from conformance.engines.box import Box, Result, gone, retry
from conformance.engines.podman import Podman
from conformance.harness import Cgroups, spec

pytestmark = spec(
    "config-linux.md#namespaces",
    "The runtime MUST place the container process in the namespace associated with that path.",
)

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "pod"
PORT = "8080"
MIB = 1024 * 1024
POD, WEB, LOGS = 64 * MIB, 48 * MIB, 40 * MIB
WAYS = ("by hand", "podman pod", "podman kube play")
MEMORY = ("memory/memory.limit_in_bytes", "memory.max")


class Pod:
    """A pod that runs: "infra", "web" and "logs".

    Attributes:
        box: the machine it is on.
        call: a function (container, command) that runs a command in a container.
        find: a function (container) for the ID of its first process, as the box knows it.
        visit: a function (address) for what the web server says to somebody outside of the pod.
        shipped: a function for all that the log shipper has printed.
    """

    def __init__(
        self,
        box: Box,
        call: Callable[..., Result],
        find: Callable[[str], int],
        visit: Callable[[str], str],
        shipped: Callable[[], str],
    ) -> None:
        self.box = box
        self.call = call
        self.find = find
        self.visit = visit
        self.shipped = shipped

    def __call__(self, name: str, *command: str, status: int = 0) -> str:
        """Run a command in a container; it must end with `status`. Returns its output."""
        done = self.call(name, *command)
        assert done.status == status, repr(done)
        return done.out.strip()

    def namespace(self, name: str, kind: str) -> str:
        return os.readlink(self.box.path(f"/proc/{self.find(name)}/ns/{kind}"))

    def parents(self, name: str) -> dict[str, str]:
        """The directory above a container's cgroup, in each hierarchy."""
        found = Cgroups().of(self.find(name), self.box.path("/proc"))
        return {controller: os.path.dirname(directory) for controller, directory in found.items()}

    def limit(self, name: str) -> int:
        """A container's own limit on memory."""
        return int(self.box.cgroup_file(self.find(name), *MEMORY))

    def limit_of_all(self) -> pathlib.Path:
        """The file with the parent's limit on memory."""
        v1 = Cgroups().mode != "v2"
        parent = self.parents("web")["memory" if v1 else ""]
        return pathlib.Path(parent, "memory.limit_in_bytes" if v1 else "memory.max")


@contextlib.contextmanager
def by_hand(podman: Podman, *, share_pid: bool) -> Iterator[Pod]:
    """pod.py, while it runs a command that ends with its input."""
    box, runtime = podman.box, podman.runtime
    options = ["--share-pid"] if share_pid else []
    process = box.start(str(EXAMPLE / "pod.py"), "--runtime", runtime, *options, "sh", "-c", "env; echo ready; cat")
    assert process.stdin and process.stdout and process.stderr
    told = []
    while line := process.stdout.readline().decode().strip():
        if line == "ready":
            break
        told.append(line)
    else:
        raise AssertionError(f"pod.py: {process.stderr.read().decode()}")
    words = dict(line.split("=", 1) for line in told if line.startswith("POD"))

    def call(name: str, *command: str) -> Result:
        return box.run(*words["POD_RUNTIME"].split(), "exec", f"{words['POD']}-{name}", *command)

    def find(name: str) -> int:
        state = box.run(*words["POD_RUNTIME"].split(), "state", f"{words['POD']}-{name}")
        return int(json.loads(state.out)["pid"])

    yield Pod(
        box,
        call,
        find,
        lambda address: call("outside", "wget", "-q", "-O", "-", f"http://{address}:{PORT}/").out,
        lambda: pathlib.Path(words["POD_DIRECTORY"], "logs.out").read_text(),
    )
    try:
        _, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, err.decode()
    assert not os.path.exists(words["POD_DIRECTORY"])
    assert not Cgroups().having(f"/{words['POD']}")


def podmans(podman: Podman) -> Pod:
    """The pod that podman runs under the name "shop"."""

    def name_of(name: str) -> str:
        return podman("pod", "inspect", "-f", "{{.InfraContainerID}}", "shop") if name == "infra" else f"shop-{name}"

    return Pod(
        podman.box,
        lambda name, *command: podman.result("exec", name_of(name), *command, status=None),
        lambda name: podman.pid(name_of(name)),
        lambda address: podman.box.run("busybox", "wget", "-q", "-O", "-", f"http://{address}:{PORT}/").out,
        lambda: podman("logs", "shop-logs"),
    )


@contextlib.contextmanager
def podman_pod(podman: Podman, *, share_pid: bool) -> Iterator[Pod]:
    options = [f"--cgroup-parent={podman.box.parent}", "--network=bridge"]
    options += ["--share=net,ipc,uts,pid"] if share_pid else []
    done = podman.box.run(str(EXAMPLE / "podman-pod"), podman.runtime, *options)
    assert done.status == 0, repr(done)
    yield podmans(podman)
    podman.remove_pod("shop")
    podman("volume", "rm", "web-logs")


@contextlib.contextmanager
def podman_kube_play(podman: Podman, *, share_pid: bool) -> Iterator[Pod]:
    """The pod's cgroup is where podman likes it: play has no option for that."""
    text = (EXAMPLE / "pod.yaml").read_text()
    if share_pid:
        text = text.replace("shareProcessNamespace: false", "shareProcessNamespace: true")
    podman("kube", "play", "-", stdin=text)
    pod = podmans(podman)
    limit = pod.limit_of_all()
    # The kubelet's part: podman gives no limit to the cgroup of a pod from YAML.
    limit.write_text(str(POD))
    for swap, value in (("memory.memsw.limit_in_bytes", POD), ("memory.swap.max", 0)):
        if limit.with_name(swap).exists():
            limit.with_name(swap).write_text(str(value))
    parents = set(pod.parents("web").values())
    yield pod
    podman("kube", "down", "-", stdin=text)
    assert podman("volume", "ls", "-q") == ""
    # podman forgets a pod's directory in some hierarchies, and its own always
    for directory in sorted({*parents, *map(os.path.dirname, parents)}, key=len, reverse=True):
        for below in (os.path.join(directory, "conmon"), directory):
            if os.path.isdir(below) and not any(entry.is_dir() for entry in os.scandir(below)):
                retry(lambda path=below: gone(path), f"{below} cannot be removed")  # type: ignore[misc]


@contextlib.contextmanager
def running(way: str, podman: Podman, *, share_pid: bool) -> Iterator[Pod]:
    """The pod, made the given way; afterwards nothing of it may be left."""
    if way != "by hand" and podman.result("image", "exists", "localhost/pod", status=None).status:
        done = podman.box.run(str(EXAMPLE / "image"))
        assert done.status == 0, repr(done)
    make = {"by hand": by_hand, "podman pod": podman_pod, "podman kube play": podman_kube_play}[way]
    try:
        with make(podman, share_pid=share_pid) as pod:
            yield pod
    finally:
        podman.clean()


@pytest.fixture(scope="module", params=WAYS)
def pod(request: pytest.FixtureRequest, podman_in_box: Podman) -> Iterator[Pod]:
    way, _, rest = request.param.partition(", ")
    with running(way, podman_in_box, share_pid=bool(rest)) as made:
        yield made


def test_the_containers_share_an_address(pod: Pod) -> None:
    assert pod.namespace("web", "net") == pod.namespace("logs", "net") == pod.namespace("infra", "net")
    addresses = {pod(name, "ip", "-4", "-o", "address", "show", "eth0") for name in ("web", "logs")}
    assert len(addresses) == 1
    address = addresses.pop().split()[3].partition("/")[0]
    answer = f"hello from {pod('web', 'hostname')}\n"
    assert pod.visit(address) == answer
    assert pod("logs", "wget", "-q", "-O", "-", f"http://127.0.0.1:{PORT}/") == answer.strip()


def test_the_containers_share_a_port_space(pod: Pod) -> None:
    second = pod.call("logs", "httpd", "-f", "-p", PORT)
    assert second.status != 0 and "Address already in use" in second.out + second.err
    pod("logs", "timeout", "1", "httpd", "-f", "-p", "8081", status=143)  # it served until its time was over


def test_the_containers_share_ipc_and_the_host_name(pod: Pod) -> None:
    for kind in ("ipc", "uts"):
        assert pod.namespace("web", kind) == pod.namespace("logs", kind) == pod.namespace("infra", kind), kind
    assert pod("web", "hostname") == pod("logs", "hostname")


def test_the_containers_share_a_volume(pod: Pod) -> None:
    pod("web", "sh", "-c", "echo written by web >/var/log/web/note")
    assert pod("logs", "cat", "/var/log/web/note") == "written by web"
    assert "Read-only file system" in pod.call("logs", "touch", "/var/log/web/other").err
    pod("web", "wget", "-q", "-O", "-", f"http://127.0.0.1:{PORT}/shipped?", status=1)  # there is no such page
    host = pod("logs", "hostname")
    retry(lambda: "response:404" in pod.shipped(), "the request does not come through the log shipper")
    assert all(line.startswith(f"{host}: ") for line in pod.shipped().splitlines())


def test_each_container_has_its_own_root(pod: Pod) -> None:
    assert pod.namespace("web", "mnt") != pod.namespace("logs", "mnt")
    assert pod("web", "cat", "/www/index.html").startswith("hello from ")
    pod("logs", "ls", "/www", status=1)
    pod("logs", "touch", "/tmp/mine")
    pod("web", "ls", "/tmp/mine", status=1)


def test_each_container_has_its_own_processes(pod: Pod) -> None:
    assert len({pod.namespace(name, "pid") for name in ("infra", "web", "logs")}) == 3
    assert "tail" not in programs(pod, "web", "httpd")
    assert "httpd" not in programs(pod, "logs", "tail")


def programs(pod: Pod, name: str, *awaited: str) -> str:
    """What ps(1) shows in a container, once all that is awaited is there: programs take a moment to start."""
    shown: list[str] = []

    def there() -> bool:
        shown.append(pod(name, "ps", "-o", "args"))
        return all(program in shown[-1] for program in awaited)

    retry(there, f"{awaited} are not all seen in {name}")
    return shown[-1]


@pytest.mark.parametrize("pod", [f"{way}, shared processes" for way in WAYS], indirect=True)
def test_the_containers_share_processes_on_request(pod: Pod) -> None:
    assert pod.namespace("web", "pid") == pod.namespace("logs", "pid") == pod.namespace("infra", "pid")
    for name in ("web", "logs"):
        programs(pod, name, "httpd", "tail")
    pod("logs", "sh", "-c", "kill -0 $(pidof httpd)")


def fill(amount: int) -> list[str]:
    """A command that takes as much memory for a moment."""
    return ["dd", "if=/dev/zero", "of=/dev/null", f"bs={amount}", "count=1"]


def test_each_container_has_its_own_limits(pod: Pod) -> None:
    assert (pod.limit("web"), pod.limit("logs")) == (WEB, LOGS)
    between = LOGS + 2 * MIB
    pod("web", *fill(between))
    pod("logs", *fill(between), status=137)  # the kernel ended it


def test_one_parent_cgroup_limits_the_sum(pod: Pod) -> None:
    assert pod.parents("web") == pod.parents("logs") == pod.parents("infra")
    assert int(pod.limit_of_all().read_text()) == POD < WEB + LOGS
    most_of_logs, most_of_web = 32 * MIB, 36  # each fits, and not both
    pod("logs", *fill(most_of_logs))
    pod("web", "dd", "if=/dev/zero", "of=/dev/hold", "bs=1M", f"count={most_of_web}")  # /dev is a tmpfs: memory
    try:
        pod("logs", *fill(most_of_logs), status=137)
    finally:
        pod("web", "rm", "/dev/hold")
    pod("logs", *fill(most_of_logs))
