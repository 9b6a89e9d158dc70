"""CRIU's RPC on the wire, and what CRIU is told of a container; no CRIU runs here."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from pyrunc import checkpoint, criu
from pyrunc.cgroups.v1 import V1
from pyrunc.cli.checkpoint import _page_server
from pyrunc.errors import Error
from pyrunc.plan import Options
from pyrunc.plan import checkpoint as planner
from pyrunc.steps import Step
from pyrunc.steps.cgroup import MakeCgroup
from pyrunc.steps.criu import (
    FIRST_FD,
    Dump,
    LoopbackUp,
    MakeMountPoint,
    OwnMounts,
    PutRoot,
    Restore,
    StartCriu,
    TakeDown,
    TellExternal,
    quoted,
)
from pyrunc.steps.hooks import RunHook
from pyrunc.steps.mounts import BindMount, FilesystemMount
from pyrunc.steps.record import WritePidFile

CONFIG: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/data", "source": "volume", "options": ["rbind"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
    ],
    "hooks": {"createRuntime": [{"path": "/bin/true"}], "createContainer": [{"path": "/bin/true"}]},
    "linux": {
        "namespaces": [
            {"type": "mount"},
            {"type": "pid"},
            {"type": "network", "path": "/run/netns/x"},
            {"type": "ipc", "path": "/proc/7/ns/ipc"},
        ],
        "maskedPaths": ["/proc/kcore"],
    },
}
IMAGES = planner.Images("/images", "", {"file_locks": True})


# --- the wire


def test_a_request_as_protobuf_has_it() -> None:
    """Checked against the encoding's documentation (protobuf.dev): 150 is 96 01, "testing" is 07 74 65 …"""
    opts = {"images_dir_fd": 150, "log_file": "testing", "shell_job": True, "parent_img": None}
    assert criu.encode(criu.OPTIONS, opts).hex() == "089601520774657374696e673801"
    assert criu.encode(criu.REQUEST, {"type": criu.DUMP, "opts": {"pid": 1}}).hex() == "080112021001"


def test_repeated_and_negative() -> None:
    assert criu.encode(criu.OPTIONS, {"external": ["a", "bc"], "ext_mnt": []}).hex() == "aa020161aa02026263"
    assert criu.encode(criu.OPTIONS, {"pid": -1}).hex() == "10" + "ff" * 9 + "01"
    pair = {"inherit_fd": [{"key": "pipe:[7]", "fd": 1}]}
    assert criu.encode(criu.OPTIONS, pair).hex() == "da010c" + "0a08" + b"pipe:[7]".hex() + "1001"


def test_an_answer() -> None:
    notify = criu.encode(criu.RESPONSE, {"type": 6, "success": True, "notify": {"script": "post-restore", "pid": 300}})
    # fields of a later CRIU: a varint, eight bytes, a text, four bytes
    unknown = bytes.fromhex("f8010af101" + "00" * 8 + "fa0103616263fd01" + "00" * 4)
    assert criu.decode(criu.RESPONSE, unknown + notify) == {
        "type": 6,
        "success": True,
        "notify": {"script": "post-restore", "pid": 300},
    }
    assert criu.decode(criu.RESPONSE, bytes.fromhex("38" + "ff" * 9 + "01")) == {"cr_errno": -1}


class Peer:
    """CRIU's end of a connection, with answers that are there before they are asked for."""

    def __init__(self) -> None:
        ours, theirs = criu.sockets()
        self.connection = criu.Connection(ours)
        self.socket = socket.socket(fileno=theirs)

    def answer(self, **values: Any) -> None:
        self.socket.send(criu.encode(criu.RESPONSE, values))

    def request(self) -> dict[str, Any]:
        return criu.decode(criu.REQUEST, self.socket.recv(65536))


@pytest.mark.parametrize(("major", "minor", "old"), [(3, 15, True), (3, 16, False), (4, 1, False)])
def test_version(major: int, minor: int, old: bool) -> None:
    peer = Peer()
    peer.answer(type=criu.VERSION, success=True, version={"major_number": major, "minor_number": minor})
    if old:
        with pytest.raises(Error, match=r"criu 3\.15 is too old: it takes 3\.16"):
            peer.connection.check_version()
    else:
        peer.connection.check_version()
    assert peer.request() == {"type": criu.VERSION, "keep_open": True}


def test_features() -> None:
    peer = Peer()
    peer.answer(type=criu.FEATURE_CHECK, success=True, features={"mem_track": False})
    with pytest.raises(Error, match="criu is missing features: mem_track"):
        peer.connection.check_features(mem_track=True)
    assert peer.request()["features"] == {"mem_track": True}


def test_failure_and_end() -> None:
    peer = Peer()
    peer.answer(type=criu.RESTORE, success=False, cr_errno=17)
    with pytest.raises(Error, match="criu failed: type RESTORE errno 17"):
        peer.connection.receive()
    peer.socket.close()
    with pytest.raises(Error, match="ended without an answer"):
        peer.connection.receive()
    with pytest.raises(Error, match="ask criu"):
        peer.connection.send(type=criu.DUMP)


def test_descriptors_come_along() -> None:
    peer = Peer()
    reader, writer = os.pipe()
    message = criu.encode(criu.RESPONSE, {"type": criu.NOTIFY, "success": True})
    socket.send_fds(peer.socket, [message], [writer])
    os.close(writer)
    _, descriptors = peer.connection.receive()
    os.write(descriptors[0], b"x")
    assert os.read(reader, 1) == b"x" and not os.get_inheritable(descriptors[0])
    os.close(descriptors[0])
    os.close(reader)


def test_log_lines(tmp_path: Any) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {i}\n" for i in range(20)) + "Error one\nline\nError two\nlast\n")
    lines = quoted(str(log))
    assert lines[0] == f"{log}:16: line 15" and lines[-1] == f"{log}:23: Error two" and len(lines) == 8
    assert quoted(f"{log}.not") == [f"criu left no log: No such file or directory: {log}.not"]


# --- the plan


def of(kind: type[Step], steps: list[Step]) -> Any:
    return next(step for step in steps if isinstance(step, kind))


def restore(config: dict[str, Any] = CONFIG, **kw: Any) -> list[Step]:
    manager = V1({"pids": "/sys/fs/cgroup/pids/c"}, None, False)
    arguments: dict[str, Any] = {
        "images": IMAGES,
        "at": "/state/c",
        "descriptors": ["/dev/null", "pipe:[1]", "socket:[2]"],
        "record": WritePidFile("/pid"),
    }
    return planner.restore(config, "/b", manager, Options(), **arguments | kw)


def test_dump() -> None:
    start, dump = planner.dump(CONFIG, "/b", Options(), IMAGES, criu.DUMP, {"pid": 7}, -1)
    assert isinstance(start, StartCriu) and isinstance(dump, Dump)
    assert not start.restores and start.inherit == [("/images", "")]
    assert dump.mounts == [("/data", "/b/volume")] and dump.masked == ["/proc/kcore"]
    assert dump.external == [("net", "extRootNetNS")]
    assert dump.options["file_locks"] and dump.options["pid"] == 7 and dump.options["images_dir_fd"] == FIRST_FD
    assert dump.log == "/images/dump.log" and dump.options["config_file"] == "/etc/criu/runc.conf"


@pytest.mark.parametrize(("annotation", "file"), [("", None), ("/x.conf", "/x.conf")])
def test_configuration_file(annotation: str, file: str | None) -> None:
    config = CONFIG | {"annotations": {"org.criu.config": annotation}}
    assert IMAGES.options(config, "log")["config_file"] == file


def test_restore() -> None:
    steps = restore(images=planner.Images("/images", "/work", {}))
    kinds = [type(step) for step in steps]
    assert kinds.index(MakeCgroup) < kinds.index(StartCriu) < kinds.index(WritePidFile) < kinds.index(Restore)
    start, work = of(StartCriu, steps), of(Restore, steps)
    assert [type(step) for step in start.prepare] == [
        OwnMounts,
        PutRoot,
        FilesystemMount,
        BindMount,
        MakeMountPoint,
        TellExternal,
        TakeDown,
        PutRoot,
    ]
    assert start.inherit == [("/images", ""), ("/work", ""), ("/run/netns/x", "/linux/namespaces/2/path")]
    assert work.log == "/work/restore.log"
    assert work.external == [("/data", "/b/volume"), ("/dev/null", "/dev/null")]
    assert [step.describe() for step in work.spaces] == ["createRuntime hook /bin/true"]
    opts = work.options
    assert opts["root"] == "/state/c" and opts["work_dir_fd"] == FIRST_FD + 1
    assert opts["inherit_fd"] == [{"key": "pipe:[1]", "fd": 1}, {"key": "extRootNetNS", "fd": FIRST_FD + 2}]
    assert [type(step) for step in work.born] == [WritePidFile]
    assert opts["join_ns"] == [{"ns": "ipc", "ns_file": "/proc/7/ns/ipc"}]
    assert all(step.describe() for step in [*steps, *start.prepare])


def test_devices_of_a_user_namespace_are_the_host_s() -> None:
    config = CONFIG | {"linux": {"namespaces": [{"type": "user"}, {"type": "mount"}]}}
    assert ("/dev/zero", "/dev/zero") in of(Restore, restore(config)).external


def test_a_network_namespace_of_its_own_has_lo() -> None:
    assert not [step for step in of(Restore, restore()).spaces if isinstance(step, LoopbackUp)]
    config = CONFIG | {"linux": {"namespaces": [{"type": "network"}, {"type": "mount"}]}}
    assert [type(step) for step in of(Restore, restore(config)).spaces] == [LoopbackUp, RunHook]


def test_a_cgroup_namespace_can_t_be_joined() -> None:
    config = CONFIG | {"linux": {"namespaces": [{"type": "mount"}, {"type": "cgroup", "path": "/x"}]}}
    with pytest.raises(Error) as e:
        restore(config)
    assert e.value.pointer == "/linux/namespaces/1/path"


# --- the command line and the library


@pytest.mark.parametrize(
    ("text", "server"),
    [("", None), ("1.2.3.4:27", ("1.2.3.4", 27)), ("[::1]:65535", ("::1", 65535)), ("host:1", ("host", 1))],
)
def test_page_server(text: str, server: tuple[str, int] | None) -> None:
    assert _page_server(text) == server


@pytest.mark.parametrize("text", ["27", ":27", "1.2.3.4:", "::1:27", "1.2.3.4:x", "1.2.3.4:0", "1.2.3.4:65536"])
def test_bad_page_server(text: str) -> None:
    with pytest.raises(Error, match=r"ADDRESS:PORT|Invalid port"):
        _page_server(text)


def test_bad_images(tmp_path: Any) -> None:
    for parent, words in (("/tmp", "must be relative"), ("../no", "invalid --parent-path")):
        with pytest.raises(Error, match=words):
            checkpoint.images(str(tmp_path / "i"), None, "", {}, new=True, parent=parent)
    with pytest.raises(Error, match="manage-cgroups-mode"):
        checkpoint.images(str(tmp_path), None, "most", {}, new=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(Error, match="make"):
        checkpoint.images(str(tmp_path / "file/below"), None, "", {}, new=True)
    (tmp_path / "parent").mkdir()
    found = checkpoint.images(str(tmp_path / "i"), "", "ignore", {"lazy_pages": True}, new=True, parent="../parent")
    assert found.switches == {
        "lazy_pages": True,
        "manage_cgroups_mode": 0,
        "parent_img": "../parent",
        "track_mem": True,
    }
