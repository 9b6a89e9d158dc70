"""open_proc, with a /proc as a hostile image may have it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from pyrunc.errors import Error
from pyrunc.linux import mount as m
from pyrunc.linux import process as p
from pyrunc.linux import procfs

from .test_witnesses import in_child

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes mount namespaces"),
]


def own_name(path: str = "thread-self/comm") -> str:
    """What the kernel calls this thread, by open_proc."""
    fd = procfs.open_proc(path, os.O_RDONLY)
    try:
        return os.read(fd, 100).decode().strip()
    finally:
        os.close(fd)


def descriptors() -> list[int]:
    """The open descriptors of this process, asked without /proc."""
    found = []
    for fd in range(200):
        try:
            os.fstat(fd)
        except OSError:
            continue
        found.append(fd)
    return found


def bind(source: str, target: str) -> None:
    tree, place = m.open_tree(m.AT_FDCWD, source), os.open(target, os.O_PATH)
    m.move_mount(tree, place)
    os.close(tree)
    os.close(place)


def fake_proc(top: str) -> None:
    """A directory on /proc with what is looked for in it."""
    os.makedirs(f"{top}/fake/thread-self")
    with open(f"{top}/fake/thread-self/comm", "w") as f:
        f.write("fake")
    bind(f"{top}/fake", "/proc")


def other_file(top: str) -> None:
    """A file of procfs, which has the right magic, on the one that is looked for."""
    bind("/proc/version", f"/proc/{os.getpid()}/task/{os.getpid()}/comm")


def other_directory(top: str) -> None:
    """A directory of procfs, which has the right magic, on /proc."""
    bind("/proc/1", "/proc")


HOSTILE = [fake_proc, other_file, other_directory]


def in_mount_namespace(act: Callable[[], None]) -> None:
    def inside() -> None:
        p.unshare(p.CLONE_NEWNS)
        root = os.open("/", os.O_PATH)
        m.mount_setattr(root, propagation=m.MS_PRIVATE, recursive=True)
        os.close(root)
        act()

    in_child(inside)


def no_new_procfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user namespace whose /proc has something hidden answers to fsmount(2)."""

    def fsmount(fs_fd: int, attributes: int = 0) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(m, "fsmount", fsmount)


@pytest.mark.parametrize("dress", HOSTILE)
def test_a_procfs_of_its_own_is_not_dressed_up(dress: Callable[[str], None], tmp_path: object) -> None:
    def act() -> None:
        expected = own_name()
        dress(str(tmp_path))
        assert own_name() == expected != "fake"

    in_mount_namespace(act)


def test_the_one_on_proc_serves_where_no_other_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/proc/thread-self/comm") as f:
        expected = f.read().strip()
    no_new_procfs(monkeypatch)
    assert own_name() == expected


@pytest.mark.parametrize("dress", HOSTILE)
def test_the_one_on_proc_is_refused_where_it_is_dressed_up(
    dress: Callable[[str], None], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_new_procfs(monkeypatch)

    def act() -> None:
        dress(str(tmp_path))
        before = descriptors()
        with pytest.raises((Error, OSError)) as caught:
            own_name()
        if isinstance(caught.value, OSError):
            assert (dress, caught.value.errno) == (other_file, errno.EXDEV)
        else:
            assert str(caught.value) == "what is mounted on /proc is no procfs"
        assert descriptors() == before

    in_mount_namespace(act)


def test_no_magic_link_is_followed() -> None:
    with pytest.raises(OSError) as caught:
        procfs.open_proc("thread-self/exe", os.O_RDONLY)
    assert caught.value.errno == errno.ELOOP


def test_no_descriptor_is_left() -> None:
    before = descriptors()
    own_name()
    with pytest.raises(FileNotFoundError):
        own_name("no/such/file")
    assert descriptors() == before
