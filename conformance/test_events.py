"""events: statistics in the shape that engines read, notices of want of memory, and the end."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time

import pytest

from conformance.harness import (
    Background,
    Bundle,
    Container,
    Json,
    not_applicable,
    pyrunc_promise,
    requires,
    spec,
    until,
)

pytestmark = requires("subcommand:events")

ONCE = "Show the container's stats once then exit."
GOES_ON = "it works continuously, displaying stats every 5 seconds, and container events as they occur"

MIB = 1 << 20


def once(container: Container) -> Json:
    """The data of ``events --stats``."""
    result = container.runtime.run("events", "--stats", container.id, check=True)
    assert result.stdout.endswith("\n") and result.stdout.count("\n") == 1
    assert result.stdout.startswith(f'{{"type":"stats","id":"{container.id}","data":{{')
    data: Json = json.loads(result.stdout)["data"]
    return data


def lines(events: Background) -> list[Json]:
    """What was told so far, in whole lines."""
    return [json.loads(line) for line in events.stdout.split("\n")[:-1]]


@spec("runc-events.8", ONCE)
@requires("controller:memory")
def test_once(bundle: Bundle, container: Container) -> None:
    bundle.linux["resources"] |= {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}, "pids": {"limit": 30}}
    bundle.sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000 & echo done; sleep 1000")
    container.run_detached()
    container.wait_output("done")
    data = once(container)
    assert set(data) >= {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"}
    assert data["pids"]["current"] in (2, 3) and data["pids"]["limit"] == 30
    usage = data["cpu"]["usage"]
    assert usage["total"] > 1_000_000 and {"kernel", "user"} <= set(usage)
    memory = data["memory"]
    assert memory["usage"]["limit"] == 64 * MIB
    assert 0 < memory["usage"]["usage"] <= memory["usage"].get("max", 64 * MIB) <= 64 * MIB
    assert memory["usage"]["failcnt"] == 0
    assert memory["swap"]["limit"] in (0, 64 * MIB, 96 * MIB), "memory and swap, where the kernel counts swap"
    assert all(isinstance(value, int) for value in memory["raw"].values())
    if container.runtime.cgroups.mode == "v2":
        assert {"anon", "file", "kernel_stack"} <= set(memory["raw"])
    else:
        assert {"cache", "rss", "total_rss"} <= set(memory["raw"])
        assert len(usage["percpu"]) == len(usage["percpu_kernel"]) == len(usage["percpu_user"])
        assert data["cpuset"]["cpus"] and data["cpuset"]["mems"]


@spec("runc-events.8", ONCE)
def test_it_grows(bundle: Bundle, container: Container) -> None:
    bundle.sh("while :; do :; done")
    container.run_detached()
    before = once(container)["cpu"]["usage"]["total"]
    time.sleep(0.2)
    assert once(container)["cpu"]["usage"]["total"] - before > 50_000_000


@spec("runc-events.8", ONCE)
def test_throttling(bundle: Bundle, container: Container) -> None:
    bundle.linux["resources"]["cpu"] = {"quota": 2000, "period": 10000}
    bundle.sh("while :; do :; done")
    container.run_detached()
    until(lambda: once(container)["cpu"]["throttling"].get("throttledPeriods", 0) > 2, "throttled periods")
    throttling = once(container)["cpu"]["throttling"]
    assert throttling["periods"] >= throttling["throttledPeriods"] and throttling["throttledTime"] > 0


@spec("runc-events.8", ONCE)
@requires("cgroup v2")
def test_pressure(bundle: Bundle, container: Container) -> None:
    """Pressure stall information (the kernel's accounting/psi.rst)."""
    if not os.path.exists("/proc/pressure/cpu"):
        not_applicable("the kernel does not measure pressure")
    bundle.linux["resources"]["cpu"] = {"quota": 2000, "period": 10000}
    bundle.sh("while :; do :; done")
    container.run_detached()
    first = once(container)
    if "psi" not in first["cpu"]:
        assert container.runtime.name != "pyrunc"
        not_applicable("older runtimes do not tell it")
    until(lambda: once(container)["cpu"]["psi"]["some"]["total"] > 0, "pressure")
    for resource in ("cpu", "memory", "blkio"):
        psi = first[resource]["psi"]
        assert set(psi) == {"some", "full"}
        assert all(set(kind) == {"avg10", "avg60", "avg300", "total"} for kind in psi.values())


@spec("runc-events.8", GOES_ON)
@requires("flag:events --interval")
@pytest.mark.parametrize("interval", ["100ms", "0.2s", "0m0.15s"])
def test_at_intervals(container: Container, interval: str) -> None:
    container.run_detached()
    events = container.runtime.start("events", "--interval", interval, container.id)
    until(lambda: len(lines(events)) >= 3, "three events")
    assert {(event["type"], event["id"]) for event in lines(events)} == {("stats", container.id)}
    container.delete("--force")
    assert events.wait().status == 0
    assert events.stdout.endswith("\n")


@spec("runc-events.8", GOES_ON)
@requires("flag:events --interval")
@pyrunc_promise
@requires("controller:memory")
def test_its_end_with_the_container(bundle: Bundle, container: Container) -> None:
    """When the process ends, though nobody has deleted the container yet."""
    bundle.sh("while [ ! -e /tmp/go ]; do sleep 0.05; done")
    container.run_detached()
    events = container.runtime.start("events", "--interval", "100ms", container.id)
    until(lambda: lines(events), "an event")
    pathlib.Path(bundle.host("/tmp/go")).touch()
    assert events.wait(10).status == 0
    assert events.stderr == "" and container.status == "stopped"


@spec("runc-events.8", GOES_ON)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@requires("controller:memory")
def test_signals_end_it(container: Container, number: int) -> None:
    container.run_detached()
    events = container.runtime.start("events", "--interval", "100ms", container.id)
    until(lambda: lines(events), "an event")
    events.signal(number)
    result = events.wait()
    assert result.status == 128 + number and result.stderr == ""
    assert container.status == "running"


@spec("runc-events.8", GOES_ON)
@requires("controller:memory")
def test_want_of_memory(bundle: Bundle, container: Container) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 24 * MIB, "swap": 24 * MIB}
    container.run_detached()
    events = container.runtime.start("events", "--interval", "100ms", container.id)
    until(lambda: lines(events), "an event")
    # a variable of the shell's grows until the kernel kills it
    container.exec("sh", "-c", "test=$(dd if=/dev/urandom ibs=5120k)", timeout=60)
    until(lambda: {"type": "oom", "id": container.id} in lines(events), "a notice")
    assert f'{{"type":"oom","id":"{container.id}"}}\n' in events.stdout
    container.delete("--force")
    assert events.wait().status == 0


@spec("runc-events.8", GOES_ON)
@requires("controller:memory")
@pyrunc_promise
def test_want_of_memory_of_the_first_process(bundle: Bundle, container: Container) -> None:
    """The notice is not lost with the container that ends."""
    bundle.linux["resources"]["memory"] = {"limit": 24 * MIB, "swap": 24 * MIB}
    bundle.sh("while [ ! -e /tmp/go ]; do sleep 0.05; done; exec tail -c 500m /dev/zero")
    container.run_detached()
    events = container.runtime.start("events", "--interval", "100ms", container.id)
    until(lambda: lines(events), "an event")
    pathlib.Path(bundle.host("/tmp/go")).touch()
    assert events.wait(30).status == 0
    assert {"type": "oom", "id": container.id} in lines(events)


@spec("runc-events.8", GOES_ON)
def test_stopped(bundle: Bundle, container: Container) -> None:
    bundle.args("true")
    container.run_detached()
    container.wait()
    for flags in ([], ["--stats"]):
        result = container.runtime.run("events", *flags, container.id)
        assert result.status != 0 and "not running" in result.stderr and result.stdout == ""


@spec("runc-events.8", GOES_ON)
def test_no_such_container(container: Container) -> None:
    result = container.runtime.run("events", container.id)
    assert result.status != 0 and "does not exist" in result.stderr


@spec("runc-events.8", "--interval")
@requires("flag:events --interval")
@pytest.mark.parametrize("interval", ["0", "-1s", "5", "soon"])
def test_intervals_that_are_none(container: Container, interval: str) -> None:
    container.run_detached()
    result = container.runtime.run("events", "--interval", interval, container.id, timeout=10)
    assert result.status != 0 and "interval" in result.stderr + result.stdout
    assert container.status == "running"


@spec("runc-events.8", ONCE)
@requires("controller:freezer")
def test_created_and_paused(container: Container) -> None:
    container.create()
    assert once(container)["pids"]["current"] >= 1
    container.start()
    container.pause()
    assert once(container)["pids"]["current"] >= 1
    container.resume()


@spec("runc-events.8", ONCE)
def test_nobody_reads(container: Container) -> None:
    """The next event is the last; no traceback."""
    container.run_detached()
    reader, writer = os.pipe()
    events = container.runtime.start("events", "--interval", "50ms", container.id, stdout=writer)
    os.close(writer)
    os.close(reader)
    if container.runtime.name == "pyrunc":
        result = events.wait(10)
        assert result.status != 0 and "Traceback" not in result.stderr
    else:
        events.kill()
