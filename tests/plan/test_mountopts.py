"""MountOptions: the words of the specification's table, sorted by who understands them."""

from __future__ import annotations

import pytest

from pyrunc.linux import mount as m
from pyrunc.plan.mountopts import ATTRIBUTES, KINDS, NO_EFFECT, PROPAGATION, RECURSIVE, SUPERBLOCK, MountOptions

#: config.md, Linux mount options: every word of the table.
SPECIFIED = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "rnoatime",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
    "idmap",
    "ridmap",
]


@pytest.mark.parametrize("word", SPECIFIED)
def test_every_word_of_the_specification_is_known(word: str) -> None:
    tables = (ATTRIBUTES, RECURSIVE, PROPAGATION, SUPERBLOCK, NO_EFFECT, KINDS)
    assert any(word in table for table in tables)
    # and none but the superblock's own goes to the filesystem
    assert MountOptions([word]).filesystem == ([(word, None)] if word in SUPERBLOCK else [])


@pytest.mark.parametrize("words", [None, [], ["defaults"], ["silent", "loud"]])
def test_nothing(words: list[str] | None) -> None:
    o = MountOptions(words)
    assert (o.set, o.clear, o.rec_set, o.rec_clear, o.propagation, o.filesystem) == (0, 0, 0, 0, [], [])
    assert not (o.bind or o.rbind or o.remount or o.copy_up or o.read_only)


@pytest.mark.parametrize(
    ("words", "set_", "clear"),
    [
        ("ro", m.MOUNT_ATTR_RDONLY, 0),
        ("rw", 0, m.MOUNT_ATTR_RDONLY),
        ("ro rw", 0, m.MOUNT_ATTR_RDONLY),
        ("rw ro", m.MOUNT_ATTR_RDONLY, 0),
        ("nosuid nodev noexec", m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC, 0),
        ("nosuid suid", 0, m.MOUNT_ATTR_NOSUID),
        ("noatime", m.MOUNT_ATTR_NOATIME, 0),
        ("noatime atime", 0, 0),
        ("noatime strictatime", m.MOUNT_ATTR_STRICTATIME, 0),
        ("strictatime noatime", m.MOUNT_ATTR_NOATIME, 0),
        ("strictatime atime", m.MOUNT_ATTR_STRICTATIME, 0),
        ("strictatime nostrictatime", 0, 0),
        ("noatime nostrictatime", m.MOUNT_ATTR_NOATIME, 0),
        ("noatime relatime", 0, 0),
        ("noatime norelatime", m.MOUNT_ATTR_NOATIME, 0),
        ("nodiratime noatime", m.MOUNT_ATTR_NODIRATIME | m.MOUNT_ATTR_NOATIME, 0),
        ("nodiratime diratime", 0, m.MOUNT_ATTR_NODIRATIME),
    ],
)
def test_attributes_of_the_mount(words: str, set_: int, clear: int) -> None:
    o = MountOptions(words.split())
    assert (o.set, o.clear) == (set_, clear)
    assert (o.rec_set, o.rec_clear) == (0, 0)


@pytest.mark.parametrize(
    ("words", "set_", "clear"),
    [
        ("rro", m.MOUNT_ATTR_RDONLY, 0),
        ("rro rrw", 0, m.MOUNT_ATTR_RDONLY),
        ("rnosuid rro", m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_RDONLY, 0),
        ("rnoatime", m.MOUNT_ATTR_NOATIME, 0),
        ("rnoatime rstrictatime", m.MOUNT_ATTR_STRICTATIME, 0),
        ("rrelatime", 0, m.MOUNT_ATTR__ATIME),
        ("ratime", 0, m.MOUNT_ATTR_NOATIME),
        ("rnosymfollow", m.MOUNT_ATTR_NOSYMFOLLOW, 0),
    ],
)
def test_recursive_attributes(words: str, set_: int, clear: int) -> None:
    o = MountOptions(words.split())
    assert (o.rec_set, o.rec_clear) == (set_, clear)
    assert (o.set, o.clear) == (0, 0)


def test_propagation_keeps_its_order() -> None:
    assert MountOptions(["rslave", "shared"]).propagation == [(m.MS_SLAVE, True), (m.MS_SHARED, False)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["size=64k", "mode=755"], [("size", "64k"), ("mode", "755")]),
        (["mode=711,size=1m"], [("mode", "711"), ("size", "1m")]),
        (["newinstance"], [("newinstance", None)]),
        (["key="], [("key", "")]),
        (["lowerdir=/a:/b", "x=y=z"], [("lowerdir", "/a:/b"), ("x", "y=z")]),
        (["", ",,"], []),
        (["ro", "sync"], [("ro", None), ("sync", None)]),
        (["nosuid", "rbind", "rro", "private"], []),
    ],
)
def test_what_the_filesystem_gets(words: list[str], expected: list[tuple[str, str | None]]) -> None:
    assert MountOptions(words).filesystem == expected


def test_read_only_can_be_put_off() -> None:
    o = MountOptions(["ro", "nosuid", "size=1m"])
    o.defer_read_only()
    assert o.read_only
    assert o.set == m.MOUNT_ATTR_NOSUID
    assert o.filesystem == [("size", "1m")]


def test_text_is_as_given() -> None:
    assert MountOptions(["rbind", "ro", "size=9q"]).text == "rbind,ro,size=9q"
