"""systemd's part in cgroups, without systemd: names, properties, annotations, and a conversation with a fake one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jeepney import HeaderFields, Message, Parser, new_error, new_method_return, new_signal
from jeepney.wrappers import DBusAddress

from pyrunc.cgroups import systemd, systemd_bus
from pyrunc.cgroups.devices import build
from pyrunc.cgroups.gvariant import parse
from pyrunc.cgroups.systemd import Unit, expand_slice
from pyrunc.cgroups.systemd_bus import Bus, Refused, label, parse_version
from pyrunc.cgroups.systemd_properties import (
    INFINITY,
    Property,
    agreed,
    annotated,
    basic,
    device_rules,
    limits,
    pointer_of,
    to_bits,
)
from pyrunc.errors import Error

AT = "/linux/resources"


# -- names


@pytest.mark.parametrize(
    ("path", "slice", "unit"),
    [
        ("machine.slice:libpod:1234", "machine.slice", "libpod-1234.scope"),
        (":cri:x", "", "cri-x.scope"),
        ("::x", "", "-x.scope"),
        ("-.slice:a:b", "-.slice", "a-b.scope"),
        ("-:a:b", "-.slice", "a-b.scope"),
        ("a.slice:ignored:pod-b.slice", "a.slice", "pod-b.slice"),
    ],
)
def test_path(path: str, slice: str, unit: str) -> None:
    assert systemd.parse(path) == (slice, unit)


@pytest.mark.parametrize(
    "path",
    [
        "x",
        "/x/y",
        "a.slice:b",
        "a.slice:b:c:d",
        "a:b:c",
        "a.slice:b:",
        "a/b.slice:c:d",
        "a.slice:../b:c",
        "a.slice:b:c/d",
        "a.slice:b:c d",
        "a.slice:b:ä",
        "::-.slice",
        "::a--b.slice",
        "a.slice:b:" + 250 * "c",
    ],
)
def test_path_that_is_none(path: str) -> None:
    with pytest.raises(Error) as e:
        systemd.parse(path)
    assert e.value.pointer == "/linux/cgroupsPath"


@pytest.mark.parametrize(
    ("slice", "cgroup"),
    [
        ("-.slice", "/"),
        ("a.slice", "/a.slice"),
        ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
        ("user-1000.slice", "/user.slice/user-1000.slice"),
    ],
)
def test_slice(slice: str, cgroup: str) -> None:
    assert expand_slice(slice) == cgroup


@pytest.mark.parametrize(
    "slice", ["", "a", ".slice", "-a.slice", "a-.slice", "a--b.slice", "a/b.slice", "--.slice", "-"]
)
def test_slice_that_is_none(slice: str) -> None:
    with pytest.raises(Error):
        expand_slice(slice)


def test_label_and_version() -> None:
    assert label("cf-1.scope") == "cf_2d1_2escope"
    assert label("1a_b.slice") == "_31a_5fb_2eslice"
    assert [parse_version(text) for text in ("257.13-1~deb13u1", "v239", '"v245-rc1"', "")] == [257, 239, 245, 0]


# -- properties


def told(properties: list[Property]) -> dict[str, Any]:
    return {one.name: one.value for one in properties}


def v2(resources: dict[str, Any], version: int = 257) -> dict[str, Any]:
    return told(limits(resources, AT, v2=True, devices=False, version=version))


def v1(resources: dict[str, Any], version: int = 245) -> dict[str, Any]:
    return told(limits(resources, AT, v2=False, devices=False, version=version))


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ({}, {}),
        (
            {"memory": {"limit": 4096, "swap": 8192, "reservation": 2048}},
            {"MemoryMax": 4096, "MemorySwapMax": 4096, "MemoryLow": 2048},
        ),
        ({"memory": {"limit": -1}}, {"MemoryMax": INFINITY, "MemorySwapMax": INFINITY}),
        ({"memory": {"limit": 4096, "swap": -1}}, {"MemoryMax": 4096, "MemorySwapMax": INFINITY}),
        ({"cpu": {"shares": 1024}}, {"CPUWeight": 100}),
        ({"cpu": {"idle": 1, "shares": 1024}}, {"CPUWeight": 0}),
        ({"cpu": {"idle": 0}}, {}),
        ({"cpu": {"quota": 50000}}, {"CPUQuotaPeriodUSec": 100000, "CPUQuotaPerSecUSec": 500000}),
        ({"cpu": {"quota": 12345, "period": 10000}}, {"CPUQuotaPeriodUSec": 10000, "CPUQuotaPerSecUSec": 1240000}),
        ({"cpu": {"quota": -1, "period": 10000}}, {"CPUQuotaPeriodUSec": 10000, "CPUQuotaPerSecUSec": INFINITY}),
        ({"cpu": {"period": 10000}}, {"CPUQuotaPeriodUSec": 10000, "CPUQuotaPerSecUSec": INFINITY}),
        ({"cpu": {"cpus": "0-2,8", "mems": "0"}}, {"AllowedCPUs": b"\x07\x01", "AllowedMemoryNodes": b"\x01"}),
        ({"pids": {"limit": 5}}, {"TasksMax": 5}),
        ({"pids": {"limit": 0}}, {"TasksMax": 1}),
        ({"pids": {"limit": -1}}, {"TasksMax": INFINITY}),
        ({"blockIO": {"weight": 1000}}, {"IOWeight": 10000}),
        (
            {"unified": {"memory.high": "max", "memory.min": " 4096\n", "memory.swap.max": "0", "pids.max": "7"}},
            {"MemoryHigh": INFINITY, "MemoryMin": 4096, "MemorySwapMax": 0, "TasksMax": 7},
        ),
        ({"unified": {"memory.max": "1G"}}, {}),  # the file takes it
        ({"unified": {"cpu.weight": "5", "cpu.idle": "1"}}, {"CPUWeight": 0}),
        ({"unified": {"cpu.weight": "5", "cpu.idle": "0"}}, {"CPUWeight": 5}),
        ({"unified": {"cpu.max": "max"}}, {"CPUQuotaPeriodUSec": 100000, "CPUQuotaPerSecUSec": INFINITY}),
        ({"unified": {"cpu.max": "5000 50000"}}, {"CPUQuotaPeriodUSec": 50000, "CPUQuotaPerSecUSec": 100000}),
        ({"unified": {"cpuset.cpus": "1", "cpuset.mems": ""}}, {"AllowedCPUs": b"\x02"}),
        ({"unified": {"hugetlb.2MB.max": "0", "memory.oom.group": "1"}}, {}),
    ],
)
def test_limits_v2(resources: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert v2(resources) == wanted


def test_what_an_old_systemd_lacks_is_left_to_the_file() -> None:
    cpu = {"quota": 50000, "cpus": "0", "idle": 1, "shares": 1024}
    assert v2({"cpu": cpu}, 241) == {"CPUWeight": 100, "CPUQuotaPerSecUSec": 500000}
    assert v2({"cpu": cpu}, 243).keys() == {"CPUWeight", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec"}


def test_limits_v1() -> None:
    resources = {
        "memory": {"limit": 4096, "swap": 8192, "reservation": 2048},
        "cpu": {"shares": 512, "quota": 1000, "cpus": "0"},
        "blockIO": {"weight": 300},
        "pids": {"limit": 9},
    }
    assert v1(resources) == {
        "MemoryLimit": 4096,
        "CPUShares": 512,
        "CPUQuotaPeriodUSec": 100000,
        "CPUQuotaPerSecUSec": 10000,
        "BlockIOWeight": 300,
        "TasksMax": 9,
        "AllowedCPUs": b"\x01",
    }


def test_basic() -> None:
    scope = told(basic("d", "s.slice", 7, scope=True, v2=True))
    assert (scope["Slice"], scope["PIDs"], scope["Delegate"], scope["IOAccounting"]) == ("s.slice", [7], True, True)
    slice = told(basic("d", "s.slice", 7, scope=False, v2=False))
    assert slice["Wants"] == ["s.slice"]
    assert "BlockIOAccounting" in slice
    assert slice.keys().isdisjoint({"PIDs", "Delegate", "Slice"})


@pytest.mark.parametrize("text", ["1-", "2-1", "a", "1-2-3", "-1", "1000000", "0x1"])
def test_sets_that_are_none(text: str) -> None:
    with pytest.raises(Error) as e:
        to_bits(text, "/p")
    assert e.value.pointer == "/p"


@pytest.mark.parametrize(
    ("key", "value"), [("cpu.max", ""), ("cpu.max", "1 0"), ("cpu.max", "a"), ("memory.max", "-1"), ("pids.max", "x")]
)
def test_unified_that_is_wrong(key: str, value: str) -> None:
    with pytest.raises(Error) as e:
        v2({"unified": {key: value}})
    assert e.value.pointer == f"{AT}/unified/{key}"


def test_quota_is_rounded_up_in_files_too() -> None:
    assert agreed({"cpu": {"quota": 12345, "shares": 5}}, AT) == {"cpu": {"quota": 13000, "shares": 5}}
    assert agreed({"cpu": {"quota": 13000}}, AT) == {"cpu": {"quota": 13000}}
    assert agreed({"cpu": {"quota": -1, "period": 5}}, AT) == {"cpu": {"quota": -1, "period": 5}}
    assert agreed({"unified": {"cpu.max": "12345", "a.b": "c"}}, AT)["unified"] == {
        "cpu.max": "13000 100000",
        "a.b": "c",
    }
    assert agreed({"unified": {"cpu.max": "max 5000"}}, AT)["unified"] == {"cpu.max": "max 5000"}


def test_the_error_is_about_the_property_that_it_names() -> None:
    known = [Property("Slice", "s", "a"), Property("TasksMax", "t", 1, "/linux/resources/pids/limit")]
    assert pointer_of("Value specified in TasksMax is out of range", known) == "/linux/resources/pids/limit"
    assert pointer_of("Slice is bad", known) == ""


@pytest.mark.parametrize(("names", "pointer"), [((), ""), (("A",), "/annotations/A"), (("A", "B"), "/annotations")])
def test_a_property_of_the_wrong_type_is_an_annotation(names: tuple[str, ...], pointer: str) -> None:
    """systemd does not name it."""
    known = [Property("TasksMax", "t", 5, "/linux/resources/pids/limit")]
    known += [Property(name, "s", "a", f"/annotations/{name}") for name in names]
    assert pointer_of("Failed to set unit properties: Unexpected message contents", known) == pointer


# -- device rules


def rules(config: list[dict[str, Any]], *, v2: bool = True, version: int = 257) -> tuple[str, list[tuple[str, str]]]:
    found = device_rules(build(config, "/d"), "/d", superset=v2, version=version)
    assert (found[0].name, found[0].value) == ("DeviceAllow", [])
    assert found[1].name == "DevicePolicy"
    return found[1].value, (found[2].value if len(found) > 2 else [])


def test_devices() -> None:
    policy, listed = rules([{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}])
    assert policy == "strict"
    assert {("/dev/char/10:229", "rw"), ("/dev/char/1:3", "rwm"), ("char-136", "rwm"), ("char-*", "m")} <= set(listed)
    assert ("char-136", "rwm") not in rules([], version=239, v2=False)[1]


def test_all_devices() -> None:
    assert rules([{"allow": True, "access": "rwm"}]) == ("auto", [])
    assert rules([{"allow": True, "access": "rwm"}], v2=False) == ("auto", [])


def test_devices_that_systemd_can_not_name() -> None:
    """Beside our own program more is allowed; on v1, where there is only one list, less."""
    but_one = [
        {"allow": True, "access": "rwm"},
        {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
    ]
    assert rules(but_one) == ("auto", [])
    assert rules(but_one, v2=False) == ("strict", [])
    minor = [{"allow": True, "type": "b", "minor": 3, "access": "r"}]
    assert ("block-*", "r") in rules(minor)[1]
    assert not [entry for entry in rules(minor, v2=False)[1] if entry[1] == "r"]


# -- annotations


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("'a'", ("s", "a")),
        ('"a\\n\\"\\u00e4"', ("s", 'a\n"ä')),
        ("true", ("b", True)),
        ("5", ("i", 5)),
        ("-5", ("i", -5)),
        ("0x10", ("i", 16)),
        ("010", ("i", 8)),
        ("1.5", ("d", 1.5)),
        ("1e3", ("d", 1000.0)),
        ("uint64 123456789", ("t", 123456789)),
        ("uint64 18446744073709551615", ("t", INFINITY)),
        ("byte 0xff", ("y", 255)),
        ("double 3", ("d", 3.0)),
        ("objectpath '/a/b'", ("o", "/a/b")),
        ("signature 'a{sv}'", ("g", "a{sv}")),
        ("['a', 'b']", ("as", ["a", "b"])),
        ("[1, 2.5]", ("ad", [1.0, 2.5])),
        ("[1, int64 2]", ("ax", [1, 2])),
        ("@as []", ("as", [])),
        ("@t 5", ("t", 5)),
        ("@a(ss) [('/dev/null', 'rw')]", ("a(ss)", [("/dev/null", "rw")])),
        ("[('a', uint64 1), ('b', 2)]", ("a(st)", [("a", 1), ("b", 2)])),
        ("('a', <uint32 1>)", ("(sv)", ("a", ("u", 1)))),
        ("{'a': <'b'>, 'c': <1>}", ("a{sv}", {"a": ("s", "b"), "c": ("i", 1)})),
        ("@a{us} {}", ("a{us}", {})),
        ("b'ab'", ("ay", b"ab\0")),
        ("@ay [1, 2]", ("ay", [1, 2])),
        (" [ [1] , [2] ] ", ("aai", [[1], [2]])),
    ],
)
def test_gvariant(text: str, wanted: tuple[str, Any]) -> None:
    assert parse(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "'a",
        "'a' 'b'",
        "[",
        "[1",
        "[1 2]",
        "['a', 1]",
        "[]",
        "[[], []]",
        "uint64",
        "uint64 -1",
        "uint64 'a'",
        "byte 256",
        "2147483648",
        "1x",
        "0x",
        "@",
        "@z 1",
        "@a 1",
        "@ss 'a'",
        "@(s) 'a'",
        "('a',",
        "()",
        "{1}",
        "{[1]: 2}",
        "<1",
        "nothing",
        "just 1",
        "handle 1",
        "'a\0'",
        "objectpath 'a'",
        "objectpath '/a/'",
        "'\\uzzzz'",
    ],
)
def test_gvariant_that_is_none(text: str) -> None:
    with pytest.raises(Error):
        parse(text)


def test_annotations() -> None:
    found = annotated(
        {
            "org.systemd.property.TimeoutStopUSec": "uint64 5",
            "org.systemd.property.RuntimeMaxSec": "1.5",
            "org.systemd.property.MemoryHigh": "uint64 4096",
            "some.thing.else": "no GVariant",
        }
    )
    assert [(one.name, one.signature, one.value) for one in found] == [
        ("TimeoutStopUSec", "t", 5),
        ("RuntimeMaxUSec", "t", 1500000),
        ("MemoryHigh", "t", 4096),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "1"),
        ("Ab", "1"),
        ("A-bc", "1"),
        ("Abc1", "1"),
        ("Abcä", "1"),
        ("StopSec", "'a'"),
        ("StopSec", "-1"),
        ("Abc", "x"),
    ],
)
def test_annotations_that_are_wrong(name: str, value: str) -> None:
    with pytest.raises(Error) as e:
        annotated({f"org.systemd.property.{name}": value})
    assert e.value.pointer == f"/annotations/org.systemd.property.{name}"


# -- the conversation


class Systemd:
    """A manager as it is behind its private socket: no bus, signals to everybody.

    Attributes:
        calls: method and body of each call so far.
        answers: by method, what to do in place of returning nothing: the result, an error's name and message, or a
            function of the body.
        job_results: by method, how its job ends; None for never.
    """

    def __init__(self, path: Path, *, bus: bool = False) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.answers: dict[str, Any] = {}
        self.job_results: dict[str, str | None] = {}
        self.jobs = 0
        self.bus = bus
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.threads = [threading.Thread(target=self._listen, daemon=True)]
        self.threads[0].start()

    def close(self) -> None:
        """No thread goes on after it: tests that follow fork."""
        self.listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake who accepts
        self.listener.close()
        for thread in self.threads:
            thread.join(10)

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self.threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        said = b""
        while not said.endswith(b"BEGIN\r\n"):
            said += connection.recv(1000)
        assert said == b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"
        connection.sendall(b"DATA\r\nOK 0123\r\n")
        parser = Parser()
        serial = 100
        while data := connection.recv(65536):
            parser.add_data(data)
            while (message := parser.get_next_message()) is not None:
                for answer in self._answer(message):
                    serial += 1
                    connection.sendall(answer.serialise(serial=serial))
        connection.close()

    def _answer(self, call: Message) -> Iterator[Message]:
        method = call.header.fields[HeaderFields.member]
        self.calls.append((method, call.body))
        answer = self.answers.get(method)
        if callable(answer):
            answer = answer(call.body)
        if isinstance(answer, tuple) and len(answer) == 3:
            yield new_error(call, answer[0], "s", (answer[1],))
        elif method in ("StartTransientUnit", "StopUnit"):
            self.jobs += 1
            job, result = f"/org/freedesktop/systemd1/job/{self.jobs}", self.job_results.get(method, "done")
            emitter = DBusAddress("/org/freedesktop/systemd1", interface="org.freedesktop.systemd1.Manager")
            removed = new_signal(emitter, "JobRemoved", "uoss", (self.jobs, job, "a.scope", result))
            other = new_signal(
                emitter, "JobRemoved", "uoss", (9, "/org/freedesktop/systemd1/job/99", "b.scope", "failed")
            )
            yield other
            if result == "early":  # before the answer: nothing forbids it
                yield new_signal(emitter, "JobRemoved", "uoss", (self.jobs, job, "a.scope", "done"))
            yield new_method_return(call, "o", (job,))
            if result not in (None, "early"):
                yield removed
        elif method == "Get":
            yield new_method_return(call, "v", (answer,))
        elif method == "Hello":
            yield new_method_return(call, "s", (":1.1",))
        else:
            yield new_method_return(call)

    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]


def refusal(name: str, message: str) -> tuple[str, str, None]:
    return (name, message, None)


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    """A fake systemd at the private socket, and no bus."""
    found = Systemd(tmp_path / "private")
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    monkeypatch.setattr(systemd_bus, "SYSTEM_BUS", f"unix:path={tmp_path}/no-bus")
    monkeypatch.setattr(systemd_bus, "SYSTEM_PRIVATE", f"unix:path={tmp_path}/private")
    monkeypatch.setattr(os.path, "isdir", lambda path: True)
    yield found
    found.close()


def test_start(private: Systemd) -> None:
    with Bus() as bus:
        bus.start("a.scope", [Property("PIDs", "au", [7])])
    assert private.calls == [("StartTransientUnit", ("a.scope", "replace", [("PIDs", ("au", [7]))], []))]


def test_a_job_that_ends_before_it_is_named(private: Systemd) -> None:
    private.job_results["StartTransientUnit"] = "early"
    with Bus() as bus:
        bus.start("a.scope", [])


def test_a_bus_is_greeted(tmp_path: Path, private: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/private")
    with Bus() as bus:
        bus.start("a.scope", [])
    assert private.methods() == ["Hello", "AddMatch", "Subscribe", "StartTransientUnit"]


def test_start_after_a_failure_of_long_ago(private: Systemd) -> None:
    left = [refusal("org.freedesktop.systemd1.UnitExists", "Unit a.scope already exists.")]
    private.answers["StartTransientUnit"] = lambda body: left.pop() if left else None
    with Bus() as bus:
        bus.start("a.scope", [])
    assert private.methods() == ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]


def test_an_active_unit_is_not_touched(private: Systemd) -> None:
    private.answers["StartTransientUnit"] = refusal(
        "org.freedesktop.systemd1.UnitExists", "Unit a.scope already exists."
    )
    private.answers["Get"] = ("s", "257")
    with pytest.raises(Error, match="already") as e:
        Unit("a.scope", "b.slice", False, "/b.slice/a.scope", True).start(0)
    assert e.value.pointer == "/linux/cgroupsPath"
    assert "StopUnit" not in private.methods()


@pytest.fixture
def child() -> Iterator[int]:
    """A process that waits to be killed."""
    pid = os.fork()
    if pid == 0:
        while True:
            os.read(os.pipe()[0], 1)
    yield pid
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_a_job_that_fails_leaves_nothing(private: Systemd, child: int) -> None:
    private.job_results["StartTransientUnit"] = "failed"
    private.answers["Get"] = ("s", "257")
    with pytest.raises(Error, match="'failed'"):
        Unit("a.scope", "b.slice", False, "/b.slice/a.scope", True).start(child)
    assert private.methods()[-2:] == ["StopUnit", "ResetFailedUnit"]


def test_a_job_without_end(private: Systemd, child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd_bus, "TIMEOUT", 0.3)
    private.job_results["StartTransientUnit"] = None
    private.answers["Get"] = ("s", "257")
    with pytest.raises(Error, match="has not done it within"):
        Unit("a.scope", "b.slice", False, "/b.slice/a.scope", True).start(child)
    assert private.methods()[-2:] == ["StopUnit", "ResetFailedUnit"]


def test_another_cgroup_than_expected(private: Systemd, child: int) -> None:
    private.answers["Get"] = lambda body: ("s", "257" if body[1] == "Version" else "/elsewhere")
    with pytest.raises(Error, match="/elsewhere"):
        Unit("a.scope", "b.slice", False, "/b.slice/a.scope", True).start(child)
    assert "StopUnit" in private.methods()


def test_a_refused_property(private: Systemd) -> None:
    private.answers["StartTransientUnit"] = refusal(
        "org.freedesktop.DBus.Error.InvalidArgs", "Value specified in TasksMax is out of range."
    )
    private.answers["Get"] = ("s", "257")
    unit = Unit("a.scope", "b.slice", False, "/b.slice/a.scope", True)
    unit.resources = {"pids": {"limit": 5}}
    with pytest.raises(Refused, match="out of range") as e:
        unit.start(7)
    assert e.value.pointer == "/linux/resources/pids/limit"
    assert "org.freedesktop.DBus.Error.InvalidArgs" in str(e.value)
    assert len(str(e.value).splitlines()) == 1


def test_stop_is_fine_without_a_unit(private: Systemd) -> None:
    gone = refusal("org.freedesktop.systemd1.NoSuchUnit", "Unit a.scope not loaded.")
    private.answers |= {"StopUnit": gone, "ResetFailedUnit": gone}
    Unit("a.scope", "b.slice", False, "/b.slice/a.scope", True).stop()


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/no")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(Error, match="connect to the user's systemd"):
        Bus(user=True)
    for wrong in ("tcp:host=localhost", "nonsense", ""):
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", wrong)
        with pytest.raises(Error, match="connect to the user's systemd"):
            Bus(user=True)


def test_a_user_without_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(Error, match="XDG_RUNTIME_DIR"):
        Bus(user=True)


def test_a_users_private_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "systemd").mkdir()
    fake = Systemd(tmp_path / "systemd" / "private")
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    fake.answers["Get"] = ("s", "/user.slice/user-1.slice/user@1.service")
    with Bus(user=True) as bus:
        assert bus.own_cgroup() == "/user.slice/user-1.slice/user@1.service"
    fake.close()


def test_machine_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    with pytest.raises(Error, match="/run/systemd/system"):
        systemd.unit("", "web", {}, rootless=False, v2=True)


def test_without_jeepney(private: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyrunc.cgroups.systemd_bus", None)
    with pytest.raises(Error, match="jeepney"):
        systemd.connect(False)


# -- the unit


def test_default_place(private: Systemd) -> None:
    found = systemd.unit("", "web", {"linux": {"resources": {"memory": {"limit": 4096}}}}, rootless=False, v2=True)
    if os.geteuid() == 0:
        assert (found.name, found.slice, found.cgroup) == (
            "pyrunc-web.scope",
            "system.slice",
            "/system.slice/pyrunc-web.scope",
        )
        assert found.describe().startswith("have systemd start the scope pyrunc-web.scope in system.slice with ")
        assert "MemoryMax=4096" in found.describe()
        assert private.calls == []


def test_a_slice(private: Systemd) -> None:
    found = systemd.unit("::a-b.slice", "web", {}, rootless=False, v2=True)
    assert (found.name, found.slice) == ("a-b.slice", "a.slice")
    assert found.cgroup.endswith("/a.slice/a-b.slice")
    assert not found.is_scope()


def test_bad_values_are_told_before_anything_is_made(private: Systemd) -> None:
    for config in (
        {"annotations": {"org.systemd.property.Abc": "?"}},
        {"linux": {"resources": {"cpu": {"cpus": "x"}}}},
    ):
        with pytest.raises(Error) as e:
            systemd.unit("", "web", config, rootless=False, v2=True)
        assert e.value.pointer
    assert "StartTransientUnit" not in private.methods()


def test_saved_and_restored() -> None:
    unit = Unit("a.scope", "b.slice", True, "/b.slice/a.scope", True)
    again = Unit.restore(unit.save())
    assert again.save() == unit.save()
    assert again.is_scope()
