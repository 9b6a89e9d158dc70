"""open_in_root and make_in_root in trees that a hostile image might bring."""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import stat
import threading

import pytest

from pyrunc.linux.path import MAX_LINKS, fd_path, make_in_root, open_in_root

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_EXCHANGE = 2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Tree:
    """A root directory, and a victim beside it that nothing may get into."""

    def __init__(self, top: pathlib.Path) -> None:
        self.root = top / "root"
        self.victim = top / "victim"
        self.root.mkdir()
        self.victim.mkdir()
        (self.victim / "file").write_text("secret")
        self.fd = os.open(self.root, os.O_PATH | os.O_DIRECTORY)

    def link(self, path: str, target: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).symlink_to(target)

    def make(self, path: str, *, directory: bool = True) -> str:
        """What make_in_root gives, as a path below the root."""
        fd = make_in_root(self.fd, path, directory=directory)
        try:
            found = os.readlink(fd_path(fd))
        finally:
            os.close(fd)
        assert found == str(self.root) or found.startswith(f"{self.root}/")
        return found[len(str(self.root)) :] or "/"

    def untouched(self) -> bool:
        return os.listdir(self.victim) == ["file"] and (self.victim / "file").read_text() == "secret"


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b/c", "/a/b/c"),
        ("a/b", "/a/b"),
        ("/", "/"),
        (".", "/"),
        ("//a///b/", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../../b", "/b"),
        ("/a/b/../../../../c", "/c"),
        ("/new/..", "/"),
    ],
)
def test_missing_directories_are_made(tree: Tree, path: str, expected: str) -> None:
    assert tree.make(path) == expected
    assert (tree.root / expected.lstrip("/")).is_dir()


def test_a_missing_file_is_made(tree: Tree) -> None:
    assert tree.make("/a/b/file", directory=False) == "/a/b/file"
    assert (tree.root / "a/b/file").is_file()
    assert stat.S_IMODE((tree.root / "a/b").stat().st_mode) == 0o755


def test_what_is_there_is_taken(tree: Tree) -> None:
    (tree.root / "a").mkdir(mode=0o700)
    (tree.root / "a/file").write_text("text")
    assert tree.make("/a/file", directory=True) == "/a/file"
    assert (tree.root / "a/file").read_text() == "text"
    assert stat.S_IMODE((tree.root / "a").stat().st_mode) == 0o700


def test_a_file_on_the_way_is_an_error(tree: Tree) -> None:
    (tree.root / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        tree.make("/file/below")


def hostile(tree: Tree) -> dict[str, str]:
    """Link targets that a process with the host's root would follow to the victim."""
    absolute = str(tree.victim)
    return {
        "absolute": absolute,
        "relative": "../victim",
        "climbing": "../" * 40 + absolute.lstrip("/"),
        "climbing from below": "a/../../victim",
        "doubled slashes": "//" + absolute,
        "with dots": "./.././../victim/.",
    }


@pytest.mark.parametrize(
    "how", ["absolute", "relative", "climbing", "climbing from below", "doubled slashes", "with dots"]
)
@pytest.mark.parametrize("below", ["", "/new", "/file", "/new/deep/er"])
@pytest.mark.parametrize("directory", [True, False])
def test_links_out_of_the_root_stay_in_it(tree: Tree, how: str, below: str, directory: bool) -> None:
    tree.link("link", hostile(tree)[how])
    tree.make("/link" + below, directory=directory)
    assert tree.untouched()


@pytest.mark.parametrize(
    "how", ["absolute", "relative", "climbing", "climbing from below", "doubled slashes", "with dots"]
)
def test_opening_a_link_out_of_the_root_finds_nothing(tree: Tree, how: str) -> None:
    tree.link("link", hostile(tree)[how])
    for path in ("link", "link/file", "/link/../victim/file"):
        with pytest.raises(FileNotFoundError):
            open_in_root(tree.fd, path)


def test_chains_of_links(tree: Tree) -> None:
    tree.link("a/one", "../two")
    tree.link("two", "/b/three")
    tree.link("b/three", "../../../real/deep")
    assert tree.make("/a/one/x") == "/real/deep/x"


def test_dots_after_a_link_are_those_of_its_target(tree: Tree) -> None:
    """As the kernel resolves them: the parent of where the link led, not of the link."""
    (tree.root / "real/deep").mkdir(parents=True)
    tree.link("link", "/real/deep")
    assert tree.make("/link/../new") == "/real/new"
    tree.link("dangling", "/other/deep")
    assert tree.make("/dangling/../new") == "/other/new"


@pytest.mark.parametrize("target", ["link", "/link", "./link/x", "other"])
def test_loops_end(tree: Tree, target: str) -> None:
    tree.link("link", target)
    if target == "other":
        tree.link("other", "link")
    with pytest.raises(OSError, match="symbolic links") as e:
        tree.make("/link/x")
    assert e.value.errno == errno.ELOOP


def test_a_long_chain_into_nothing_ends(tree: Tree) -> None:
    for i in range(MAX_LINKS + 5):
        tree.link(f"l{i}", f"l{i + 1}")
    with pytest.raises(OSError, match="symbolic links"):
        tree.make("/l0")
    assert tree.make("/l10") == f"/l{MAX_LINKS + 5}"


@pytest.mark.parametrize("name", ["root", "cwd", "fd/0", "exe"])
def test_magic_links_are_not_followed(tree: Tree, name: str) -> None:
    """What /proc/self/root is to the process that mounts must not count."""
    fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as e:
            open_in_root(fd, name + "/x" if name == "root" else name)
        assert e.value.errno in (errno.EXDEV, errno.ELOOP)
    finally:
        os.close(fd)


def test_no_descriptor_is_left(tree: Tree) -> None:
    tree.link("dangling", "a/b/c/../d")
    (tree.root / "file").write_text("")
    before = len(os.listdir("/proc/self/fd"))
    tree.make("/dangling/e/../f")
    tree.make("/x/y/z", directory=False)
    tree.link("loop", "loop")
    for path in ("/new/../loop", "/file/x", "/new/../file/x/y"):
        with pytest.raises(OSError):
            tree.make(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_that_is_exchanged_for_a_link_meanwhile(tree: Tree) -> None:
    """Another container that shares the volume swaps a directory and a link to the victim as fast as it can."""
    (tree.root / "swap").mkdir()
    tree.link("evil", str(tree.victim))
    end = threading.Event()

    def attack() -> None:
        one, other = os.fsencode(tree.root / "swap"), os.fsencode(tree.root / "evil")
        while not end.is_set():
            assert libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) == 0

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        for i in range(2000):
            try:
                tree.make(f"/swap/new{i % 7}/x{i}")
            except OSError as e:
                assert e.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)
    finally:
        end.set()
        attacker.join()
    assert tree.untouched()
