"""Reading: files that are no files, JSON that is no JSON, and what the hot path may import for it."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from config_samples import CONTAINERD, ENGINES, EVERYTHING, PLAIN, PODMAN, changed, make_bundle

from pyrunc import config as configs
from pyrunc.config import files
from pyrunc.errors import Error

TOP = Path(__file__).resolve().parents[2]


def line(bundle: str | Path) -> str:
    """The error of a bundle that can't be loaded."""
    with pytest.raises(Error) as caught:
        configs.load(str(bundle))
    text = str(caught.value)
    assert "\n" not in text
    # podman takes these words for the command's (pyrunc/errors.py)
    for words in ("no such file or directory", "permission denied", "operation not permitted", "executable file"):
        assert words not in text.lower()
    return text


@pytest.mark.parametrize("name", ENGINES)
def test_loads(name: str, tmp_path: Path) -> None:
    loaded = configs.load(make_bundle(tmp_path, ENGINES[name]))
    assert loaded["process"]["args"] == ["sh"]


def test_nothing_that_is_loaded_is_null(tmp_path: Path) -> None:
    loaded = configs.load(make_bundle(tmp_path, CONTAINERD))
    assert "null" not in json.dumps(loaded)
    assert "seccomp" not in loaded["linux"]
    assert loaded["linux"]["resources"]["memory"] == {}


def test_a_list_may_hold_no_null(tmp_path: Path) -> None:
    assert line(make_bundle(tmp_path, changed(PLAIN, process__args=[None]))) == "/process/args/0: null is not a string"


def test_a_required_value_may_not_be_null(tmp_path: Path) -> None:
    assert line(make_bundle(tmp_path, changed(PLAIN, process__cwd=None))) == "/process/cwd: is required"


def test_missing(tmp_path: Path) -> None:
    assert line(tmp_path) == f"JSON specification file config.json not found in {tmp_path}"
    assert line(tmp_path / "nowhere") == f"JSON specification file config.json not found in {tmp_path}/nowhere"
    (tmp_path / "file").touch()
    assert line(tmp_path / "file") == f"JSON specification file config.json not found in {tmp_path}/file"


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    assert line(tmp_path) == f"{tmp_path}/config.json is a directory, not a regular file"


def test_a_fifo_in_its_place_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert line(tmp_path) == f"{tmp_path}/config.json is a FIFO, not a regular file"


def test_a_device_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("/dev/zero")
    assert line(tmp_path) == f"{tmp_path}/config.json is a device, not a regular file"


def test_a_socket_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's address has 108 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("config.json")
        assert line(tmp_path) == f"open {tmp_path}/config.json: No such device or address"


def test_a_symlink_to_a_file_is_followed(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, PLAIN)
    (tmp_path / "config.json").rename(tmp_path / "real.json")
    (tmp_path / "config.json").symlink_to("real.json")
    assert configs.load(bundle) == PLAIN


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_file_that_may_not_be_read(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))  # root, whom tests may run as, may read any file

    monkeypatch.setattr(os, "open", refuse)
    words = {errno.EACCES: "access refused (EACCES)", errno.EIO: "Input/output error"}[number]
    assert line(tmp_path) == f"open {tmp_path}/config.json: {words}"


def test_too_long(tmp_path: Path) -> None:
    assert line(make_bundle(tmp_path, b" " * (files.LIMIT + 1))).endswith("config.json has more than 16 MiB")
    long = changed(PLAIN, annotations={"a": "x" * (files.LIMIT // 2)})
    assert configs.load(make_bundle(tmp_path, long)) == long


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", " is empty"),
    "blank": (b" \n", " is empty"),
    "text": (b"hello", " is not JSON: Expecting value (line 1, column 1)"),
    "cut off": (b'{"ociVersion": "1.0.0",', " is not JSON: "),
    "more after it": (b"{} {}", " is not JSON: Extra data (line 1, column 4)"),
    "comment": (b"{} // x", " is not JSON: Extra data"),
    "NaN": (b'{"a": NaN}', " is not JSON: NaN is not JSON"),
    "control character": (b'{"a": "\n"}', " is not JSON: "),
    "not UTF-8": (b'{"a": "\xff"}', " is not UTF-8 (byte 7)"),
    "UTF-16": ("{}".encode("utf-16"), " is not UTF-8 (byte 0)"),
    "nested": (b'{"a":' * 100000, " is not JSON: "),
    "nested lists": (b"[" * 100000 + b"]" * 100000, " is not JSON: "),
    "a million digits": (b'{"a": ' + b"9" * 1000000 + b"}", " is not JSON: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_not_json(name: str, tmp_path: Path) -> None:
    data, words = BROKEN[name]
    assert f"{tmp_path}/config.json{words}" in line(make_bundle(tmp_path, data))


@pytest.mark.parametrize("data", [b"null", b"[]", b'"x"', b"5", b"true"])
def test_not_an_object(data: bytes, tmp_path: Path) -> None:
    assert line(make_bundle(tmp_path, data)) == f"{data.decode()} is not an object"


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert configs.load(make_bundle(tmp_path, b"\xef\xbb\xbf" + json.dumps(PLAIN).encode())) == PLAIN


def test_the_last_of_two_equal_keys_counts(tmp_path: Path) -> None:
    text = json.dumps(PLAIN)
    twice = '{"hostname": 5, ' + text[1:]
    assert configs.load(make_bundle(tmp_path, twice.encode())) == PLAIN


@pytest.mark.parametrize(
    ("place", "value", "pointer"),
    [
        ("process__args", ["sh", "a\0b"], "/process/args/1"),
        ("process__env", ["A=\0"], "/process/env/0"),
        ("hostname", "\0", "/hostname"),
        ("root__path", "root\0fs", "/root/path"),
        ("linux__sysctl", {"net.\0": "1"}, "/linux/sysctl/net.\\u0000"),
    ],
)
def test_a_nul_is_refused_where_system_calls_see_it(place: str, value: Any, pointer: str, tmp_path: Path) -> None:
    assert line(make_bundle(tmp_path, changed(PLAIN, **{place: value}))) == f"{pointer}: contains a NUL character"


def test_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, changed(PLAIN, process__args=["a\ud800"]))
    assert line(bundle) == "/process/args/0: contains half of a surrogate pair"


def test_annotations_may_hold_any_text(tmp_path: Path) -> None:
    odd = changed(PLAIN, annotations={"a\0": "b\0", "c": "\ud800"}, hostname="\U0001f4e6")
    assert configs.load(make_bundle(tmp_path, odd)) == odd


def test_unknown_properties_are_ignored_and_noted(tmp_path: Path) -> None:
    config = changed(PLAIN, future={"a": None}, linux__resources__gpu=[1])
    loaded = configs.load(make_bundle(tmp_path, config))
    assert configs.notes(loaded) == ["/future", "/linux/resources/gpu"]
    assert configs.check(config, str(tmp_path)) == ["/future", "/linux/resources/gpu"]


def test_load_holds_to_the_rules_and_the_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, changed(PLAIN, ociVersion="2.0.0"))
    assert line(bundle).startswith("/ociVersion: ")
    make_bundle(tmp_path, changed(PLAIN, root__path="other"))
    assert line(bundle) == "/root/path: other: does not exist"


def test_process(tmp_path: Path) -> None:
    file = tmp_path / "process.json"
    file.write_text(json.dumps(PLAIN["process"] | {"scheduler": None}))
    assert configs.load_process(str(file)) == PLAIN["process"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cwd": "tmp"}, '/cwd: "tmp" is not an absolute path'),
        ({"args": []}, "/args: needs at least 1 item"),
        ({"args": None}, "/args: is required"),
        ({"user": {"uid": "0", "gid": 0}}, '/user/uid: "0" is not an integer'),
        ({"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}, "/rlimits/0/soft: soft limit 2 is above"),
        ({"execCPUAffinity": {"final": "x"}}, "/execCPUAffinity/final: not a list of CPUs"),
    ],
)
def test_process_refuses(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    file = tmp_path / "process.json"
    file.write_text(json.dumps(PLAIN["process"] | change))
    with pytest.raises(Error) as caught:
        configs.load_process(str(file))
    assert str(caught.value).startswith(words)


def test_process_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Error, match=f"JSON specification file p.json not found in {tmp_path}"):
        configs.load_process(f"{tmp_path}/p.json")
    with pytest.raises(Error, match="no file can be named"):
        configs.load_process("a\0b")


def test_resources(tmp_path: Path) -> None:
    resources = EVERYTHING["linux"]["resources"]
    file = tmp_path / "resources.json"
    file.write_text(json.dumps(resources))
    assert configs.load_resources(str(file)) == resources
    file.write_text('{"pids": {"limit": "5"}}')
    with pytest.raises(Error) as caught:
        configs.load_resources(str(file))
    assert str(caught.value) == '/pids/limit: "5" is not an integer'


def test_process_from_a_shells_process_substitution(tmp_path: Path) -> None:
    """runc exec -p <(echo '{…}'): a FIFO whose writer may be late."""
    os.mkfifo(tmp_path / "fifo")
    text = json.dumps(PLAIN["process"])
    thread = threading.Timer(0.1, lambda: (tmp_path / "fifo").write_text(text))
    thread.start()
    assert configs.load_process(f"{tmp_path}/fifo") == PLAIN["process"]
    thread.join()


def test_resources_from_a_pipe_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    saved = os.dup(0)
    os.dup2(reader, 0)
    os.close(reader)
    try:
        # more than a pipe holds, so it comes in pieces
        text = json.dumps({"unified": {"x": "y" * 200000}, "pids": None}).encode()
        thread = threading.Thread(target=write_and_close, args=(writer, text))
        thread.start()
        assert configs.load_resources("-") == {"unified": {"x": "y" * 200000}}
        thread.join()
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def write_and_close(fd: int, data: bytes) -> None:
    with open(fd, "wb") as f:
        f.write(data)


def test_loading_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    configs.load(make_bundle(tmp_path, PLAIN))
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("config.json", "zero", "rootfs", "nothing"):
        with pytest.raises(Error):
            configs.load_process(f"{tmp_path}/{name}")
    assert os.listdir("/proc/self/fd") == before


#: What a bare interpreter has, what os and our JSON need, and our own. Nothing with `re` in it.
ALLOWED = {"_json", "errno", "posix", "stat", "_stat", "os", "os.path", "posixpath", "genericpath", "__future__"}


def test_an_ordinary_config_costs_no_heavy_import(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, PODMAN)
    code = (
        "import sys; bare = set(sys.modules); sys.path.insert(0, sys.argv[1]);"
        "import pyrunc.config; pyrunc.config.load(sys.argv[2]); print(*(set(sys.modules) - bare))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(TOP), bundle]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.split(".")[0] == "pyrunc"}
    assert set(loaded) - ours <= ALLOWED | {"abc", "_abc", "_collections_abc"}
    assert not any(name.endswith("explain") for name in ours)


def test_a_wrong_config_is_explained_without_site_packages_on_the_path(tmp_path: Path) -> None:
    """As the launcher runs it: -I -S."""
    bundle = make_bundle(tmp_path, changed(PLAIN, process__cwd="tmp"))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import pyrunc.config, pyrunc.errors\n"
        "try: pyrunc.config.load(sys.argv[2])\n"
        "except pyrunc.errors.Error as e: print(e)"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(TOP), bundle]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ('/process/cwd: "tmp" is not an absolute path\n', "")


def test_without_jsonschema_the_verdict_still_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    assert "install jsonschema" in line(make_bundle(tmp_path, changed(PLAIN, process__cwd="tmp")))
