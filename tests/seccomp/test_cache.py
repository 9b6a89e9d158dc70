"""The cache of filters: quick when it can be trusted, ignored when not."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pyrunc import seccomp
from pyrunc.linux import libseccomp

root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
ROOT = str(Path(__file__).resolve().parents[2])

PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [{"names": ["read", "write", "exit_group"], "action": "SCMP_ACT_ALLOW"}],
}
RIGHT = seccomp.compile(PROFILE).program
#: What an attacker would like to see loaded: allow everything.
EVIL = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with one entry."""
    path = tmp_path / "cache"
    assert get(path) == RIGHT
    assert len(list(path.iterdir())) == 1
    return path


@pytest.fixture
def evil(cache: Path) -> Path:
    """The entry of a cache, well-formed in all, with another program in it."""
    entry = only(cache)
    content = entry.read_bytes()
    length = f" {len(RIGHT)}\n".encode()
    assert content.count(length) == 1 and content.endswith(RIGHT)
    entry.write_bytes(content.replace(length, f" {len(EVIL)}\n".encode()).removesuffix(RIGHT) + EVIL)
    assert get(cache) == EVIL  # nothing but its owner and mode speaks against it
    return entry


def get(cache: Path, profile: dict[str, Any] = PROFILE) -> bytes:
    return seccomp.compile(profile, cache_dir=str(cache)).program


def only(cache: Path) -> Path:
    (entry,) = cache.iterdir()
    return entry


def test_a_hit_needs_no_libseccomp(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(pointer: str) -> None:
        raise AssertionError("libseccomp was loaded for a cached filter")

    monkeypatch.setattr(seccomp, "_load_libseccomp", unwanted)
    assert get(cache) == RIGHT


def test_a_hit_imports_nothing_heavy(cache: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {ROOT!r})
from pyrunc import seccomp
made = seccomp.compile({PROFILE!r}, cache_dir={str(cache)!r})
sys.stdout.buffer.write(made.program)
print(*sorted(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, check=True)
    assert done.stdout == RIGHT
    loaded = set(done.stderr.decode().split())
    assert not loaded & {"pyrunc.linux.libseccomp", "hashlib", "re", "json", "enum", "typing", "collections"}
    assert "pyrunc.seccomp" in loaded


def test_modes(cache: Path) -> None:
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(only(cache).stat().st_mode) == 0o600


def test_what_does_not_change_the_program_is_not_in_the_key(cache: Path) -> None:
    assert get(cache, {**PROFILE, "listenerPath": "/run/agent", "flags": []}) == RIGHT
    assert len(list(cache.iterdir())) == 1


def test_flags_and_listener_come_with_a_hit(tmp_path: Path) -> None:
    calls = [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": calls}
    for _ in range(2):
        made = seccomp.compile(profile, cache_dir=str(tmp_path / "cache"))
        assert (made.flags, made.notify) == (2 | 8, True)


# Who could have written it.


@root
def test_entry_of_another_user(evil: Path) -> None:
    os.chown(evil, 65534, 65534)
    assert get(evil.parent) == RIGHT
    assert evil.stat().st_uid == 0  # made anew, over the other
    assert get(evil.parent) == RIGHT


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_entry_that_others_can_write(evil: Path, mode: int) -> None:
    evil.chmod(mode)
    assert get(evil.parent) == RIGHT
    assert stat.S_IMODE(evil.stat().st_mode) == 0o600


def test_entry_that_is_a_symlink(evil: Path, tmp_path: Path) -> None:
    evil.rename(tmp_path / "elsewhere")
    evil.symlink_to(tmp_path / "elsewhere")
    assert get(evil.parent) == RIGHT
    assert not evil.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes().endswith(EVIL)  # it was not written through


def test_entry_that_is_a_fifo(cache: Path) -> None:
    entry = only(cache)
    entry.unlink()
    os.mkfifo(entry)
    assert get(cache) == RIGHT


def test_entry_that_is_a_directory(cache: Path) -> None:
    entry = only(cache)
    entry.unlink()
    entry.mkdir()
    assert get(cache) == RIGHT
    assert only(cache) == entry  # what was half-made is gone


@root
def test_directory_of_another_user(evil: Path) -> None:
    os.chown(evil.parent, 65534, 65534)
    assert get(evil.parent) == RIGHT
    assert evil.read_bytes().endswith(EVIL)  # nothing is written there either


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o1777])
def test_directory_that_others_can_write(evil: Path, mode: int) -> None:
    evil.parent.chmod(mode)
    assert get(evil.parent) == RIGHT
    assert evil.read_bytes().endswith(EVIL)


def test_directory_that_is_a_symlink(evil: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(evil.parent)
    assert get(link) == RIGHT
    assert evil.read_bytes().endswith(EVIL)


def test_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert get(tmp_path / "file") == RIGHT
    assert (tmp_path / "file").read_text() == ""


def test_directory_whose_parent_is_missing(tmp_path: Path) -> None:
    assert get(tmp_path / "no" / "cache") == RIGHT
    assert list(tmp_path.iterdir()) == []


# What is in it.


def test_truncated_at_every_length(cache: Path) -> None:
    entry = only(cache)
    content = entry.read_bytes()
    for length in range(len(content)):
        entry.write_bytes(content[:length])
        assert get(cache) == RIGHT
        assert entry.read_bytes() == content


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"\0" * 4096,
        b"\n\n\n",
        os.urandom(500),
        b"pyrunc seccomp 1 8\n\0 0\n" + EVIL,
        b"\n" + b"/\0\0\n" + EVIL,
    ],
)
def test_garbage(cache: Path, garbage: bytes) -> None:
    entry = only(cache)
    content = entry.read_bytes()
    for wrong in (garbage, garbage + content, content + garbage):
        entry.write_bytes(wrong)
        assert get(cache) == RIGHT
        assert entry.read_bytes() == content


def test_a_file_of_another_format(evil: Path) -> None:
    evil.write_bytes(evil.read_bytes().replace(b"pyrunc seccomp 1 ", b"pyrunc seccomp 0 "))
    assert get(evil.parent) == RIGHT


def test_a_huge_file(cache: Path) -> None:
    os.truncate(only(cache), 1 << 40)
    assert get(cache) == RIGHT


def test_the_entry_of_another_profile(evil: Path) -> None:
    other = {**PROFILE, "defaultErrnoRet": 5}
    right = seccomp.compile(other).program
    assert right != RIGHT
    assert len(seccomp._cache_key(other)) == len(seccomp._cache_key(PROFILE))
    evil.rename(evil.parent / seccomp._cache_name(seccomp._cache_key(other)))
    assert get(evil.parent, other) == right


def test_two_profiles_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_cache_name", lambda key: "same")
    other = {**PROFILE, "defaultErrnoRet": 5}
    right = seccomp.compile(other).program
    for _ in range(3):
        assert get(tmp_path / "cache") == RIGHT
        assert get(tmp_path / "cache", other) == right
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_no_key_begins_another() -> None:
    values: list[Any] = [None, 0, 1, -1, True, False, 1.0, "", "a", "ab", "é", [], [None], [[]], {}, {"a": 1}]
    values += [{"a": [1, 2]}, {"a": [[1], 2]}, {"ab": 1}, [1, 2], ["a", "b"], ["ab"], 1 << 31, 1 << 63, "1"]
    keys = [
        seccomp._cache_key({**PROFILE, place: value})
        for place in ("defaultErrnoRet", "syscalls", "architectures")
        for value in values
    ]
    assert len(set(keys)) == len(keys)
    assert not [(a, b) for a in keys for b in keys if a is not b and b.startswith(a)]


def test_the_same_profile_parsed_twice_has_one_key() -> None:
    shared: list[Any] = [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]
    once = {"defaultAction": "SCMP_ACT_KILL", "syscalls": shared + shared}
    twice = {"defaultAction": "SCMP_ACT" + "_KILL"[:], "syscalls": [dict(shared[0]), dict(shared[0])]}
    assert seccomp._cache_key(once) == seccomp._cache_key(twice)


# What it was made by.


def test_another_libseccomp(evil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libseccomp.so.2"
    library.write_text("2.5.4")
    monkeypatch.setattr(libseccomp, "path", lambda: str(library))
    evil.unlink()
    get(evil.parent)
    before = evil.read_bytes()
    assert str(library).encode() in before
    library.write_text("2.5.4-1")  # upgraded in place
    assert get(evil.parent) == RIGHT
    assert evil.read_bytes() != before
    evil.write_bytes(evil.read_bytes().replace(RIGHT, b"\0" * len(RIGHT)))
    library.unlink()
    assert get(evil.parent) == RIGHT


def test_another_kernel(evil: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.uname()
    newer = os.uname_result((real.sysname, real.nodename, "99.1", real.version, real.machine))
    monkeypatch.setattr(os, "uname", lambda: newer)
    assert get(evil.parent) == RIGHT


# Its size, a full disk, many at once.


def test_it_is_bounded_and_the_oldest_goes(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    get(cache)
    first = only(cache)
    os.utime(first, (1, 1))
    (cache / ".left.by.a.killed.process").write_text("half")
    os.utime(cache / ".left.by.a.killed.process", (2, 2))
    for n in range(70):
        get(cache, {**PROFILE, "defaultErrnoRet": n + 100})
        assert len(list(cache.iterdir())) <= 64
    assert len(list(cache.iterdir())) == 64
    assert not first.exists()
    assert not (cache / ".left.by.a.killed.process").exists()
    newest = {**PROFILE, "defaultErrnoRet": 169}
    assert (cache / seccomp._cache_name(seccomp._cache_key(newest))).exists()


def test_a_full_disk_only_means_no_cache(tmp_path: Path) -> None:
    # A limit on the size of files stands in for the disk: a short write, then an error.
    script = f"""
import resource, sys
sys.path.insert(0, {ROOT!r})
from pyrunc import seccomp
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
from pyrunc.linux import libseccomp  # its scratch file is in memory, but the limit would count there too
libseccomp.export_bpf = lambda ctx: {RIGHT!r}
seccomp._enosys_stub = lambda *rest: b""
sys.stdout.buffer.write(seccomp.compile({PROFILE!r}, cache_dir={str(tmp_path / "cache")!r}).program)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.stderr == b""
    assert done.stdout == RIGHT
    assert list((tmp_path / "cache").iterdir()) == []


def test_many_at_once(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {ROOT!r})
from pyrunc import seccomp
for n in range(30):
    profile = dict({PROFILE!r}, defaultErrnoRet=n % 5 + 1)
    made = seccomp.compile(profile, cache_dir={str(tmp_path / "cache")!r}).program
    assert made == seccomp.compile(profile).program
"""
    processes = [subprocess.Popen([sys.executable, "-I", "-S", "-c", script], stderr=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        assert process.communicate()[1] == b""
        assert process.returncode == 0
    assert len(list((tmp_path / "cache").iterdir())) == 5


def test_no_descriptor_is_left_open(cache: Path) -> None:
    assert threading.active_count() == 1
    before = sorted(os.listdir("/proc/self/fd"))
    get(cache)
    only(cache).unlink()
    get(cache)
    cache.chmod(0o777)
    get(cache)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_hit_is_much_quicker_than_a_miss(cache: Path) -> None:
    names = [f"no_such_call_{n}" for n in range(200)] + [
        "read",
        "write",
        "mkdir",
        "socket",
        "openat",
        "close",
    ]
    arguments = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]
    calls = [{"names": names, "action": "SCMP_ACT_ALLOW"}] + [
        {"names": ["ioctl", "fcntl"], "action": "SCMP_ACT_ALLOW", "args": [dict(arguments[0], value=n)]}
        for n in range(50)
    ]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": calls}

    def best(cache_dir: str | None) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            seccomp.compile(profile, cache_dir=cache_dir)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(str(cache)) < best(None) / 3
