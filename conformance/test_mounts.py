"""mounts: every option of the specification's table, sources and destinations, types, errors, hostile images."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from conformance import harness
from conformance.harness import (
    Bundle,
    Container,
    Json,
    Mount,
    Test,
    not_applicable,
    parse_mounts,
    pyrunc_promise,
    requires,
    spec,
    xfail_on,
)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REMOUNT = 1, 2, 4, 8, 0x1000, 0x20
MS_NOATIME, MS_NODIRATIME = 0x400, 0x800
MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 18, 1 << 19, 1 << 20

MOUNTS = "config.md#mounts"
OPTIONS = "config.md#linux-mount-options"
POSIX = "config.md#posix-platform-mounts"


class HostTree:
    """Directories and mounts of the host's that a test makes, and that go at its end."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, "host")
        os.mkdir(self.path, 0o755)
        self._mounted: list[str] = []

    def directory(self, name: str, files: dict[str, str] | None = None) -> str:
        """A directory with files, by name and content."""
        path = os.path.join(self.path, name)
        os.makedirs(path, exist_ok=True)
        for file, content in (files or {}).items():
            pathlib.Path(path, file).write_text(content)
        return path

    def file(self, name: str, content: str = "") -> str:
        path = os.path.join(self.path, name)
        pathlib.Path(path).write_text(content)
        return path

    def tmpfs(self, name: str, flags: int = 0, propagation: int = 0, data: str = "mode=755") -> str:
        """A tmpfs of its own."""
        path = self.directory(name)
        harness.mount("host", path, "tmpfs", flags & ~MS_RDONLY, data)
        self._mounted.append(path)
        if propagation:
            harness.mount("none", path, "", propagation)
        return path

    def read_only(self, path: str, flags: int = 0) -> None:
        harness.mount("none", path, "", MS_REMOUNT | MS_BIND | MS_RDONLY | flags)

    def close(self) -> None:
        for path in reversed(self._mounted):
            harness.umount(path)


@pytest.fixture
def host(test: Test) -> Iterator[HostTree]:
    tree = HostTree(test.directory)
    yield tree
    tree.close()


def add(bundle: Bundle, destination: str, type: str | None, source: str | None, *options: str) -> Json:
    """Add a mount to the config."""
    entry: Json = {"destination": destination}
    if type is not None:
        entry["type"] = type
    if source is not None:
        entry["source"] = source
    if options:
        entry["options"] = list(options)
    bundle.config["mounts"].append(entry)
    return entry


def mount_index(bundle: Bundle) -> int:
    """The index of the mount that was added last."""
    return len(bundle.config["mounts"]) - 1


def table(container: Container) -> list[Mount]:
    """The container's mounts, as it sees them."""
    return parse_mounts(container.output("cat", "/proc/self/mountinfo"))


def at(mounts: list[Mount], target: str) -> Mount:
    """The mount on top at a path."""
    found = [m for m in mounts if m.target == target]
    assert found, f"nothing is mounted on {target}: {mounts}"
    return found[-1]


def refused(container: Container, *flags: str) -> str:
    """Creation must fail; what the runtime said."""
    result = container.create(*flags, check=False)
    assert result.status != 0, f"should have failed: {result!r}"
    assert result.stderr
    return result.stderr


# ------------------------------------------------------------------------------------ the options of a mount


#: options -> what the mount has among its options, and what it has not
FLAGS: dict[tuple[str, ...], tuple[set[str], set[str]]] = {
    ("ro",): ({"ro"}, {"rw"}),
    ("rw",): ({"rw"}, {"ro"}),
    ("nosuid",): ({"nosuid"}, set()),
    ("suid",): (set(), {"nosuid"}),
    ("nodev",): ({"nodev"}, set()),
    ("dev",): (set(), {"nodev"}),
    ("noexec",): ({"noexec"}, set()),
    ("exec",): (set(), {"noexec"}),
    ("ro", "nosuid", "nodev", "noexec"): ({"ro", "nosuid", "nodev", "noexec"}, set()),
    ("noatime",): ({"noatime"}, {"relatime"}),
    ("relatime",): ({"relatime"}, {"noatime"}),
    ("strictatime",): (set(), {"relatime", "noatime"}),
    ("nodiratime",): ({"nodiratime"}, set()),
    ("diratime",): (set(), {"nodiratime"}),
    ("atime",): (set(), {"noatime"}),
    ("norelatime",): (set(), {"noatime"}),
    ("nostrictatime",): ({"relatime"}, set()),
    ("defaults",): ({"rw"}, {"ro", "nosuid", "nodev", "noexec"}),
    ("silent",): ({"rw"}, set()),
    ("loud",): ({"rw"}, set()),
}


#: the same, where the second word is the first one's opposite
OPPOSITES: dict[tuple[str, ...], tuple[set[str], set[str]]] = {
    ("nosuid", "suid"): (set(), {"nosuid"}),
    ("suid", "nosuid"): ({"nosuid"}, set()),
    ("nodev", "dev"): (set(), {"nodev"}),
    ("noexec", "exec"): (set(), {"noexec"}),
    ("ro", "rw"): ({"rw"}, {"ro"}),
    ("rw", "ro"): ({"ro"}, {"rw"}),
    ("nodiratime", "diratime"): (set(), {"nodiratime"}),
    ("noatime", "atime"): (set(), {"noatime"}),
    ("strictatime", "nostrictatime"): ({"relatime"}, set()),
}

#: options -> (runtime, how it is known to disagree)
KNOWN = {
    ("defaults",): ("runc", "runc 1.1 hands it to the filesystem; corrected since"),
    ("silent",): ("crun", "crun 1.8 hands it to the filesystem"),
    ("loud",): ("crun", "crun 1.8 hands it to the filesystem"),
    ("iversion",): ("crun", "crun 1.8 hands it to the filesystem"),
    ("noiversion",): ("crun", "crun 1.8 hands it to the filesystem"),
    ("sync", "async"): ("crun", "crun 1.8 only adds flags"),
    ("rnoatime",): ("crun", "crun 1.8 does not clear the other access time modes"),
    ("rstrictatime",): ("crun", "crun 1.8 does not clear the other access time modes"),
    ("rnodiratime",): ("crun", "crun 1.8 does not clear the other access time modes"),
    ("rdiratime",): ("crun", "crun 1.8 does not clear the other access time modes"),
    ("shared",): ("crun", "crun 1.8 applies it recursively"),
    ("unbindable",): ("crun", "crun 1.8 applies it recursively"),
}


KNOWN |= {options: ("crun", "crun 1.8 only adds flags") for options in OPPOSITES if options[-1] not in ("nosuid", "ro")}


def params(table: Iterable[tuple[str, ...]]) -> list[Any]:
    """Parameters, those of `KNOWN` marked."""
    return [
        pytest.param(options, id=",".join(options), marks=[xfail_on(*KNOWN[options])] if options in KNOWN else [])
        for options in table
    ]


def ids(value: Any) -> str | None:
    return ",".join(value) if isinstance(value, tuple) and all(isinstance(v, str) for v in value) else None


@spec(OPTIONS, "Runtimes MUST/SHOULD/MAY implement the following option strings for Linux")
@pytest.mark.parametrize("options", params(FLAGS))
def test_option_of_a_new_filesystem(bundle: Bundle, container: Container, options: tuple[str, ...]) -> None:
    add(bundle, "/data", "tmpfs", "tmpfs", *options)
    found = at(table(container), "/data")
    present, absent = FLAGS[options]
    assert present <= set(found.options)
    assert not absent & set(found.options)


@spec(OPTIONS, "Runtimes MUST/SHOULD/MAY implement the following option strings for Linux")
@pytest.mark.parametrize("options", params(FLAGS))
def test_option_of_a_bind_mount(bundle: Bundle, container: Container, host: HostTree, options: tuple[str, ...]) -> None:
    add(bundle, "/data", None, host.directory("source"), "bind", *options)
    found = at(table(container), "/data")
    present, absent = FLAGS[options]
    assert present <= set(found.options)
    if options != ("strictatime",):
        assert not absent & set(found.options)


@spec(OPTIONS, "Corresponds to mount(8) (filesystem-independent)")
@pytest.mark.parametrize("bind", [False, True], ids=["tmpfs", "bind"])
@pytest.mark.parametrize("options", params(OPPOSITES))
def test_the_last_of_opposite_options_counts(
    bundle: Bundle, container: Container, host: HostTree, options: tuple[str, ...], bind: bool
) -> None:
    if bind:
        add(bundle, "/data", None, host.directory("source"), "bind", *options)
    else:
        add(bundle, "/data", "tmpfs", "tmpfs", *options)
    found = at(table(container), "/data")
    present, absent = OPPOSITES[options]
    assert present <= set(found.options)
    assert not absent & set(found.options)


@spec(OPTIONS, "nosymfollow")
@pytest.mark.parametrize("options", [("nosymfollow",), ("nosymfollow", "symfollow"), ("symfollow",)], ids=ids)
def test_nosymfollow(bundle: Bundle, container: Container, options: tuple[str, ...]) -> None:
    if container.runtime.name != "pyrunc" and "nosymfollow" not in _known_options(container):
        not_applicable("the runtime does not know nosymfollow (the specification: SHOULD)")
    add(bundle, "/data", "tmpfs", "tmpfs", *options)
    bundle.sh("cd /data; echo text > file; ln -s file link; cat link")
    assert container.run_output() == ((1, "") if options == ("nosymfollow",) else (0, "text\n"))


def _known_options(container: Container) -> list[str]:
    result = container.runtime.run("features")
    if result.status:
        not_applicable("the runtime does not say what options it knows")
    import json

    return list(json.loads(result.stdout).get("mountOptions", ()))


#: words that go to the superblock -> what mountinfo has in its last field
SUPERBLOCK = {
    ("sync",): ({"sync"}, set[str]()),
    ("sync", "async"): (set[str](), {"sync"}),
    ("dirsync",): ({"dirsync"}, set[str]()),
    ("async",): (set[str](), {"sync"}),
    ("lazytime",): ({"lazytime"}, set[str]()),
    ("nolazytime",): (set[str](), {"lazytime"}),
    ("iversion",): (set[str](), set[str]()),
    ("noiversion",): (set[str](), set[str]()),
    ("nomand",): (set[str](), {"mand"}),
}


@spec(OPTIONS, "Runtimes MUST/SHOULD/MAY implement the following option strings for Linux")
@pytest.mark.parametrize("options", params(SUPERBLOCK))
def test_option_of_the_superblock(bundle: Bundle, container: Container, options: tuple[str, ...]) -> None:
    if "lazytime" in options[0] and container.runtime.name == "runc":
        not_applicable("runc 1.1 hands lazytime to the filesystem, where tmpfs has never heard of it")
    add(bundle, "/data", "tmpfs", "tmpfs", *options)
    found = at(table(container), "/data")
    present, absent = SUPERBLOCK[options]
    assert present <= set(found.super_options)
    assert not absent & set(found.super_options)


@spec(OPTIONS, "rbind | MUST | Recursive bind mount")
@pytest.mark.parametrize("recursive", [False, True])
def test_bind_shows_what_is_mounted_below_only_if_recursive(
    bundle: Bundle, container: Container, host: HostTree, recursive: bool
) -> None:
    top = host.tmpfs("top")
    host.tmpfs("top/below")
    add(bundle, "/data", None, top, "rbind" if recursive else "bind")
    targets = [m.target for m in table(container)]
    assert "/data" in targets
    assert ("/data/below" in targets) == recursive


#: recursive word -> what both mounts have, or with "no" before it have not
RECURSIVE: dict[tuple[str, ...], tuple[set[str], set[str]]] = {
    ("rro",): ({"ro"}, set()),
    ("rrw",): ({"rw"}, set()),
    ("rnosuid",): ({"nosuid"}, set()),
    ("rsuid",): (set(), {"nosuid"}),
    ("rnodev",): ({"nodev"}, set()),
    ("rdev",): (set(), {"nodev"}),
    ("rnoexec",): ({"noexec"}, set()),
    ("rexec",): (set(), {"noexec"}),
    ("rnoatime",): ({"noatime"}, set()),
    ("rrelatime",): ({"relatime"}, {"noatime"}),
    ("rstrictatime",): (set(), {"relatime", "noatime"}),
    ("rnodiratime",): ({"nodiratime"}, set()),
    ("rdiratime",): (set(), {"nodiratime"}),
    ("rro", "rnosuid", "rnoexec"): ({"ro", "nosuid", "noexec"}, set()),
    ("ro", "rnosuid"): ({"nosuid"}, set()),
}


@spec(OPTIONS, "AT_RECURSIVE … options need kernel 5.12 or later")
@pytest.mark.parametrize("options", params(RECURSIVE))
def test_recursive_options(bundle: Bundle, container: Container, host: HostTree, options: tuple[str, ...]) -> None:
    top = host.tmpfs("top")
    host.tmpfs("top/below")
    add(bundle, "/data", None, top, "rbind", *options)
    mounts = table(container)
    present, absent = RECURSIVE[options]
    for target in ("/data", "/data/below"):
        assert present <= set(at(mounts, target).options)
        assert not absent & set(at(mounts, target).options)


@spec(OPTIONS, "rrw | SHOULD | Recursive … rw")
@pytest.mark.parametrize(
    ("option", "flag", "word"),
    [
        ("rrw", MS_RDONLY, "ro"),
        ("rsuid", MS_NOSUID, "nosuid"),
        ("rdev", MS_NODEV, "nodev"),
        ("rexec", MS_NOEXEC, "noexec"),
    ],
)
def test_recursive_options_take_away(
    bundle: Bundle, container: Container, host: HostTree, option: str, flag: int, word: str
) -> None:
    top = host.tmpfs("top", flag)
    below = host.tmpfs("top/below", flag)
    if flag == MS_RDONLY:
        host.read_only(below)
        host.read_only(top)
    add(bundle, "/data", None, top, "rbind", option)
    mounts = table(container)
    assert word not in at(mounts, "/data").options
    assert word not in at(mounts, "/data/below").options


@spec(OPTIONS, "ro | MUST")
def test_ro_of_a_recursive_bind_is_for_the_top_only(bundle: Bundle, container: Container, host: HostTree) -> None:
    top = host.tmpfs("top")
    host.tmpfs("top/below")
    add(bundle, "/data", None, top, "rbind", "ro")
    mounts = table(container)
    assert "ro" in at(mounts, "/data").options
    assert "rw" in at(mounts, "/data/below").options


@spec(OPTIONS, "bind | MUST | Bind mount")
def test_a_bind_mount_without_flags_keeps_those_of_its_source(
    bundle: Bundle, container: Container, host: HostTree
) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun clears them; the specification leaves it open")
    source = host.tmpfs("source", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    host.read_only(source, MS_NOSUID | MS_NODEV | MS_NOEXEC)
    add(bundle, "/data", None, source, "bind")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(at(table(container), "/data").options)


@spec(OPTIONS, "noatime | MUST")
@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [
        ("noatime", (), {"noatime"}),
        ("noatime", ("norelatime",), {"noatime"}),
        ("noatime", ("atime",), {"noatime"}),
        ("noatime", ("relatime",), {"relatime"}),
        ("noatime", ("strictatime",), set()),
        ("noatime", ("nodiratime",), {"nodiratime", "relatime"}),
        ("noatime", ("nodiratime", "strictatime"), {"nodiratime"}),
        ("nodiratime", ("ro",), {"nodiratime", "relatime"}),
        ("nodiratime", ("strictatime",), set()),
        ("nodiratime", ("noatime",), {"noatime"}),
    ],
)
def test_access_times_of_a_bind_mount(
    bundle: Bundle, container: Container, host: HostTree, source: str, options: tuple[str, ...], expected: set[str]
) -> None:
    """As mount(2): naming no way keeps the source's, naming one settles all of it."""
    if container.runtime.name == "crun":
        not_applicable("crun only adds flags; the specification leaves it open")
    if container.runtime.version.startswith("1.1."):
        not_applicable("runc 1.1 leaves access times as they are; the specification leaves it open")
    path = host.tmpfs("source", {"noatime": MS_NOATIME, "nodiratime": MS_NODIRATIME}[source])
    add(bundle, "/data", None, path, "bind", *options)
    found = set(at(table(container), "/data").options)
    assert found & {"noatime", "nodiratime", "relatime"} == expected


def in_user_namespace(bundle: Bundle) -> None:
    """Give the container a user namespace, and its root file system to the root of that."""
    bundle.namespaces(add=[{"type": "user"}])
    for name in ("uidMappings", "gidMappings"):
        bundle.linux[name] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    for directory, _, _ in os.walk(bundle.rootfs):
        os.chown(directory, 100000, 100000)


#: (what the source has, options, what the bind mount has then; None where the kernel refuses)
LOCKED: list[tuple[int, tuple[str, ...], set[str] | None]] = [
    (MS_NOSUID | MS_NODEV | MS_NOEXEC, ("ro",), {"ro", "nosuid", "nodev", "noexec", "relatime"}),
    (MS_NODEV, ("rw",), {"rw", "nodev", "relatime"}),
    (MS_RDONLY, ("nosuid",), {"ro", "nosuid", "relatime"}),
    (MS_RDONLY, ("rw", "nosuid"), None),
    (MS_NODEV | MS_NOSUID, ("dev", "suid"), None),
    (MS_NOATIME, (), {"rw", "noatime"}),
    (MS_NOATIME, ("atime",), {"rw", "noatime"}),
    (MS_NOATIME, ("norelatime",), {"rw", "noatime"}),
    (MS_NODIRATIME, ("diratime",), {"rw", "nodiratime", "relatime"}),
    (MS_NOATIME, ("relatime",), None),
    (MS_NOATIME, ("strictatime",), None),
    (MS_NODIRATIME, ("noatime",), None),
    (0, ("nodiratime",), None),
    (0, ("relatime", "nosuid"), {"rw", "nosuid", "relatime"}),
]


@spec(OPTIONS, "bind | MUST | Bind mount")
@pytest.mark.parametrize(("flags", "options", "expected"), LOCKED)
def test_attributes_are_locked_in_a_user_namespace(
    bundle: Bundle,
    container: Container,
    host: HostTree,
    flags: int,
    options: tuple[str, ...],
    expected: set[str] | None,
) -> None:
    """mount_namespaces(7): a less privileged namespace keeps what restricts a mount. What the options did not ask to
    change is kept then, and what they did is refused."""
    if container.runtime.name == "crun" or container.runtime.version.startswith("1.1."):
        not_applicable("it only adds flags; the specification leaves it open")
    source = host.tmpfs("source", flags)
    if flags & MS_RDONLY:
        host.read_only(source, flags)
    in_user_namespace(bundle)
    add(bundle, "/data", None, source, "bind", *options)
    if expected is None:
        refused(container)
    else:
        found = set(at(table(container), "/data").options)
        assert found & {"ro", "rw", "nosuid", "nodev", "noexec", "noatime", "relatime", "nodiratime"} == expected


@spec(OPTIONS, "bind | MUST | Bind mount")
def test_the_source_of_a_read_only_bind_stays_writable(bundle: Bundle, container: Container, host: HostTree) -> None:
    source = host.directory("source")
    add(bundle, "/data", None, source, "bind", "ro")
    bundle.sh("echo text > /data/file && echo written || echo refused")
    assert container.output() == "refused\n"
    pathlib.Path(source, "file").write_text("host")
    assert os.listdir(source) == ["file"]


PROPAGATION: dict[tuple[str, ...], tuple[str, str]] = {
    ("private",): ("", "keep"),
    ("rprivate",): ("", ""),
    ("shared",): ("shared", "keep"),
    ("rshared",): ("shared", "shared"),
    ("unbindable",): ("unbindable", "keep"),
    ("slave",): ("", "keep"),
    ("rslave",): ("", ""),
}


def kind(mount: Mount) -> str:
    """shared, master, unbindable, or "" for private."""
    return "+".join(sorted(field.partition(":")[0] for field in mount.propagation))


@spec(OPTIONS, "rshared | MUST | Bind mount propagation")
@pytest.mark.parametrize("options", params(PROPAGATION))
def test_propagation_of_a_private_source(
    bundle: Bundle, container: Container, host: HostTree, options: tuple[str, ...]
) -> None:
    top = host.tmpfs("top", propagation=MS_PRIVATE)
    host.tmpfs("top/below", propagation=MS_PRIVATE)
    bundle.linux["rootfsPropagation"] = "private"
    add(bundle, "/data", None, top, "rbind", *options)
    mounts = table(container)
    above, below = PROPAGATION[options]
    assert kind(at(mounts, "/data")) == above
    assert kind(at(mounts, "/data/below")) == ("" if below == "keep" else below)


@spec(OPTIONS, "runbindable | MUST | Bind mount propagation")
@xfail_on("crun", "crun 1.8 forgets it")
def test_runbindable(bundle: Bundle, container: Container, host: HostTree) -> None:
    top = host.tmpfs("top", propagation=MS_PRIVATE)
    host.tmpfs("top/below", propagation=MS_PRIVATE)
    add(bundle, "/data", None, top, "rbind", "runbindable")
    mounts = table(container)
    assert kind(at(mounts, "/data")) == "unbindable"
    assert kind(at(mounts, "/data/below")) == "unbindable"


@spec(OPTIONS, "rslave | MUST | Bind mount propagation")
@pytest.mark.parametrize("option", ["slave", "rslave", None])
def test_a_slave_sees_what_the_host_mounts(
    bundle: Bundle, container: Container, host: HostTree, option: str | None
) -> None:
    source = host.tmpfs("source", propagation=MS_SHARED)
    os.mkdir(f"{source}/later")
    bundle.linux["rootfsPropagation"] = "rslave"
    add(bundle, "/data", None, source, "rbind", *([option] if option else []))
    container.run_detached()
    host.tmpfs("source/later")
    pathlib.Path(source, "later/file").write_text("")
    assert container.exec("ls", "/data/later").stdout == "file\n"
    found = at(parse_mounts(container.exec("cat", "/proc/self/mountinfo").stdout), "/data")
    assert kind(found) == "master"


@spec(OPTIONS, "rprivate | MUST | Bind mount propagation")
@pytest.mark.parametrize("option", ["private", "rprivate"])
def test_a_private_mount_sees_nothing_of_the_host(
    bundle: Bundle, container: Container, host: HostTree, option: str
) -> None:
    source = host.tmpfs("source", propagation=MS_SHARED)
    os.mkdir(f"{source}/later")
    add(bundle, "/data", None, source, "rbind", option)
    container.run_detached()
    host.tmpfs("source/later")
    pathlib.Path(source, "later/file").write_text("")
    assert container.exec("ls", "/data/later").stdout == ""


@spec(OPTIONS, "rshared | MUST | Bind mount propagation")
def test_a_shared_volume_carries_mounts_both_ways(bundle: Bundle, container: Container, host: HostTree) -> None:
    """As Kubernetes' mountPropagation: Bidirectional and `podman run -v …:rshared` have it."""
    source = host.tmpfs("source", propagation=MS_SHARED)
    os.mkdir(f"{source}/inside")
    os.mkdir(f"{source}/outside")
    bundle.linux["rootfsPropagation"] = "shared"
    capabilities = bundle.process["capabilities"]
    for name in capabilities:
        capabilities[name] = [*capabilities[name], "CAP_SYS_ADMIN"]
    add(bundle, "/data", None, source, "rbind", "rshared")
    container.run_detached()
    container.exec("mount", "-t", "tmpfs", "inside", "/data/inside", check=True)
    container.exec("touch", "/data/inside/file", check=True)
    assert os.listdir(f"{source}/inside") == ["file"]
    host.tmpfs("source/outside")
    pathlib.Path(source, "outside/file").write_text("")
    assert container.exec("ls", "/data/outside").stdout == "file\n"
    harness.umount(f"{source}/inside")


@spec(OPTIONS, "remount | MUST")
def test_remount_of_a_bind_mount(bundle: Bundle, container: Container, host: HostTree) -> None:
    source = host.directory("source")
    add(bundle, "/data", None, source, "bind")
    add(bundle, "/data", None, source, "bind", "remount", "ro", "nosuid")
    found = [m for m in table(container) if m.target == "/data"]
    assert {"ro", "nosuid"} <= set(found[-1].options)


@spec(OPTIONS, "remount | MUST")
def test_remount_of_a_filesystem_changes_its_size(bundle: Bundle, container: Container) -> None:
    """mount(8): remount changes an already mounted filesystem, its own options too."""
    add(bundle, "/data", "tmpfs", "tmpfs", "size=64k")
    add(bundle, "/data", "tmpfs", "tmpfs", "remount", "size=128k")
    found = [m for m in table(container) if m.target == "/data"]
    assert len(found) == 1
    assert "size=128k" in found[0].super_options


# ---------------------------------------------------------------------------------------- options of filesystems


@spec(OPTIONS, "Runtimes SHOULD treat unknown options as filesystem-specific ones")
def test_options_of_tmpfs(bundle: Bundle, container: Container) -> None:
    add(bundle, "/data", "tmpfs", "tmpfs", "mode=1735", "size=68k", "nr_inodes=77", "uid=12", "gid=34")
    found = at(table(container), "/data")
    assert {"size=68k", "nr_inodes=77", "mode=1735", "uid=12", "gid=34"} <= set(found.super_options)


@spec(OPTIONS, "Runtimes SHOULD treat unknown options as filesystem-specific ones")
@xfail_on("runc", "runc 1.1 prefers the mode of the directory below; corrected since")
def test_the_mode_of_a_tmpfs_on_a_directory(bundle: Bundle, container: Container) -> None:
    os.mkdir(bundle.host("/data"), 0o700)
    add(bundle, "/data", "tmpfs", "tmpfs", "mode=1735", "uid=12", "gid=34")
    assert container.output("stat", "-c", "%a %u %g", "/data") == "1735 12 34\n"


@spec(OPTIONS, "Runtimes SHOULD treat unknown options as filesystem-specific ones")
def test_size_counts(bundle: Bundle, container: Container) -> None:
    add(bundle, "/data", "tmpfs", "tmpfs", "size=64k")
    bundle.sh("dd if=/dev/zero of=/data/file bs=1024 count=128 2>/dev/null; stat -c %s /data/file")
    assert container.output() == "65536\n"


@spec(OPTIONS, "Runtimes SHOULD treat unknown options as filesystem-specific ones")
def test_several_options_in_one_word(bundle: Bundle, container: Container) -> None:
    add(bundle, "/data", "tmpfs", "tmpfs", "mode=711,size=68k")
    assert {"size=68k", "mode=711"} <= set(at(table(container), "/data").super_options)


@spec(OPTIONS, "Runtimes SHOULD treat unknown options as filesystem-specific ones")
@pytest.mark.parametrize("option", ["size=9q", "no-such-option", "no-such-key=1", "mode=9"])
def test_a_wrong_option_is_an_error(bundle: Bundle, container: Container, option: str) -> None:
    add(bundle, "/data", "tmpfs", "tmpfs", option)
    said = refused(container)
    assert len(said.strip().splitlines()) == 1 or container.runtime.name != "pyrunc"


@spec(OPTIONS)
@pyrunc_promise
@pytest.mark.parametrize("option", ["size=9q", "no-such-option"])
def test_a_wrong_option_is_named(bundle: Bundle, container: Container, option: str) -> None:
    add(bundle, "/data", "tmpfs", "tmpfs", option)
    said = refused(container)
    assert f"/mounts/{mount_index(bundle)}" in said
    assert "/data" in said
    assert option in said


@spec(MOUNTS)
@pytest.mark.parametrize("type", ["no-such-filesystem", "", None])
def test_a_filesystem_that_does_not_exist(bundle: Bundle, container: Container, type: str | None) -> None:
    if type == "" and container.runtime.name == "crun":
        not_applicable("crun takes an empty type for one left out")
    add(bundle, "/data", type, "tmpfs")
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert f"/mounts/{mount_index(bundle)}" in said


@spec(OPTIONS)
def test_a_tmpfs_has_the_mode_of_the_directory_it_covers(bundle: Bundle, container: Container) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun leaves a tmpfs its own default mode; the specification leaves it open")
    os.mkdir(bundle.host("/data"))
    os.chmod(bundle.host("/data"), 0o1751)
    add(bundle, "/data", "tmpfs", "tmpfs")
    assert container.output("stat", "-c", "%a", "/data") == "1751\n"


@spec(OPTIONS)
def test_a_tmpfs_on_a_directory_that_has_to_be_made(bundle: Bundle, container: Container) -> None:
    if container.runtime.version.startswith("1.1."):
        not_applicable("runc 1.1 gives it the mode of the directory that it makes; the specification leaves it open")
    add(bundle, "/new/data", "tmpfs", "tmpfs")
    assert container.output("stat", "-c", "%a", "/new/data") == "1777\n"


@pytest.fixture
def contents(bundle: Bundle) -> Bundle:
    """A rootfs with all kinds of things in /data."""
    bundle.file("/data/file", "text", 0o640)
    bundle.file("/data/directory/deep/file", "deep", 0o4755)
    bundle.file("/data/large", "x" * (3 << 20), 0o600)
    os.symlink("file", bundle.host("/data/link"))
    os.symlink("/no/such/place", bundle.host("/data/dangling"))
    os.mkfifo(bundle.host("/data/fifo"))
    os.chown(bundle.host("/data/file"), 1000, 1001)
    os.chown(bundle.host("/data/link"), 1002, 1003, follow_symlinks=False)
    os.chown(bundle.host("/data/directory"), 7, 8)
    os.chmod(bundle.host("/data/directory"), 0o1770)
    os.chmod(bundle.host("/data"), 0o750)
    for names in bundle.process["capabilities"].values():
        names.append("CAP_DAC_OVERRIDE")
    return bundle


LISTING = "cd /data && find . | sort | xargs stat -c '%n %a %u %g %F' && cat file directory/deep/file"
LISTING += " && readlink link && readlink dangling"


def _has_copyup(container: Container) -> None:
    if container.runtime.name not in ("runc", "crun", "pyrunc"):
        not_applicable("tmpcopyup is optional")


@spec(OPTIONS, "tmpcopyup | MAY | copy up the contents to a tmpfs")
def test_tmpcopyup(contents: Bundle, new_container: Callable[..., Container]) -> None:
    """What is below is there, with owners, modes and links; the image is not written to."""
    fifo = os.path.join(contents.rootfs, "data/fifo")
    first = new_container()
    _has_copyup(first)
    if first.runtime.name != "pyrunc":
        os.unlink(fifo)  # crun stops at what is neither file, directory nor link, runc at links to nothing
        os.unlink(contents.host("/data/dangling"))
        os.symlink("x", contents.host("/data/dangling"))
    contents.sh(LISTING)
    plain = first.output()
    add(contents, "/data", "tmpfs", "tmpfs", "tmpcopyup")
    contents.sh(LISTING + "; echo more > /data/new; stat -c %s /data/large >&2")
    second = new_container()
    result = second.run(check=True)
    copied = result.stdout
    # crun keeps neither owners nor modes, runc has its umask in directories'; only pyrunc keeps links' owners
    if first.runtime.name == "pyrunc":
        assert copied == plain
    else:
        assert [line.split()[0] for line in copied.splitlines()] == [line.split()[0] for line in plain.splitlines()]
    assert result.stderr == f"{3 << 20}\n"
    assert not os.path.exists(contents.host("/data/new"))


@spec(OPTIONS, "tmpcopyup | MAY | copy up the contents to a tmpfs")
def test_tmpcopyup_read_only(contents: Bundle, container: Container) -> None:
    _has_copyup(container)
    if container.runtime.name != "pyrunc":
        os.unlink(contents.host("/data/fifo"))
    add(contents, "/data", "tmpfs", "tmpfs", "tmpcopyup", "ro")
    contents.sh("cat /data/file; echo text > /data/new && echo written || echo refused")
    assert container.output() == "textrefused\n"


@spec(OPTIONS, "tmpcopyup | MAY | copy up the contents to a tmpfs")
@pyrunc_promise
def test_tmpcopyup_keeps_the_owners_of_links_and_devices(contents: Bundle, container: Container) -> None:
    os.mknod(contents.host("/data/null"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    add(contents, "/data", "tmpfs", "tmpfs", "tmpcopyup")
    contents.sh("cd /data; stat -c '%u %g' link; stat -c '%F %t:%T' null fifo")
    assert container.output() == "1002 1003\ncharacter special file 1:3\nfifo 0:0\n"


@spec(OPTIONS, "tmpcopyup | MAY | copy up the contents to a tmpfs")
def test_tmpcopyup_over_nothing(bundle: Bundle, container: Container) -> None:
    _has_copyup(container)
    add(bundle, "/nothing", "tmpfs", "tmpfs", "tmpcopyup", "mode=1777")
    bundle.sh("stat -c %a /nothing; ls -a /nothing")
    assert container.output() == "1777\n.\n..\n"


@spec(OPTIONS, "tmpcopyup | MAY | copy up the contents to a tmpfs")
def test_tmpcopyup_follows_no_link_of_the_image(bundle: Bundle, container: Container, host: HostTree) -> None:
    _has_copyup(container)
    secret = host.directory("secret", {"file": "secret"})
    os.mkdir(bundle.host("/data"))
    os.symlink(secret, bundle.host("/data/link"))
    os.symlink(f"{secret}/file", bundle.host("/data/file"))
    add(bundle, "/data", "tmpfs", "tmpfs", "tmpcopyup")
    bundle.sh("readlink /data/link; cat /data/link/file /data/file 2>/dev/null; ls -R /data | grep -c secret")
    assert container.run_output() == (1, f"{secret}\n0\n")


# ---------------------------------------------------------------------------------------- sources and destinations


@spec(MOUNTS, "A mount is a bind mount if it has either bind or rbind in the options.")
@pytest.mark.parametrize("type", [None, "none", "bind", "tmpfs", "ext4"])
@pytest.mark.parametrize("option", ["bind", "rbind"])
def test_the_type_of_a_bind_mount_is_a_dummy(
    bundle: Bundle, container: Container, host: HostTree, type: str | None, option: str
) -> None:
    add(bundle, "/data", type, host.directory("source", {"file": "text"}), option)
    assert container.output("cat", "/data/file") == "text"


@spec(MOUNTS, "can also be a file or directory name for bind mounts")
def test_a_file_over_a_file(bundle: Bundle, container: Container, host: HostTree) -> None:
    bundle.file("/etc/name", "image")
    add(bundle, "/etc/name", None, host.file("name", "host"), "bind")
    assert container.output("cat", "/etc/name") == "host"
    assert pathlib.Path(bundle.host("/etc/name")).read_text() == "image"


@spec(MOUNTS, "can also be a file or directory name for bind mounts")
def test_missing_targets_are_made(bundle: Bundle, container: Container, host: HostTree) -> None:
    add(bundle, "/new/deep/file", None, host.file("name", "host"), "bind")
    add(bundle, "/new/other/directory", None, host.directory("source", {"file": "in it"}), "bind")
    add(bundle, "/new/tmp", "tmpfs", "tmpfs")
    bundle.sh("cat /new/deep/file /new/other/directory/file; stat -c %a /new /new/deep; grep -c /new /proc/mounts")
    assert container.output() == "hostin it755\n755\n3\n"


@spec(MOUNTS, "can also be a file or directory name for bind mounts")
@pytest.mark.parametrize("special", ["fifo", "socket", "device"])
def test_special_files_as_sources(bundle: Bundle, container: Container, host: HostTree, special: str) -> None:
    path = os.path.join(host.path, special)
    if special == "fifo":
        os.mkfifo(path)
    elif special == "device":
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    else:
        import socket

        socket.socket(socket.AF_UNIX).bind(path)
    add(bundle, "/run/special", None, path, "bind")
    words = {"fifo": "fifo", "socket": "socket", "device": "character special file"}
    assert container.output("stat", "-c", "%F", "/run/special") == words[special] + "\n"


@spec(MOUNTS, "Path values for bind mounts are either absolute or relative to the bundle.")
@pytest.mark.parametrize("source", ["volume", "./volume", "volume/../volume/."])
def test_a_relative_source_starts_at_the_bundle(bundle: Bundle, container: Container, source: str) -> None:
    os.mkdir(os.path.join(bundle.path, "volume"))
    pathlib.Path(bundle.path, "volume/file").write_text("text")
    add(bundle, "/data", None, source, "bind")
    assert container.output("cat", "/data/file", cwd="/") == "text"


@spec(MOUNTS, "The runtime MUST mount entries in the listed order.")
def test_a_source_in_the_root_filesystem_has_the_mounts_before(bundle: Bundle, container: Container) -> None:
    """What a source shows is what is there when its turn comes, by the host's path of the root filesystem, too."""
    rootfs = os.path.join(bundle.path, "rootfs")
    os.mkdir(os.path.join(bundle.path, "volume"))
    pathlib.Path(bundle.path, "volume/file").write_text("text")
    os.mkdir(os.path.join(rootfs, "data"))
    add(bundle, "/data", None, os.path.join(bundle.path, "volume"), "bind")
    add(bundle, "/again", None, os.path.join(rootfs, "data"), "bind")
    add(bundle, "/file", None, os.path.join(rootfs, "data/file"), "bind")
    assert container.output("cat", "/again/file", "/file") == "texttext"


@spec(MOUNTS, "can also be a file or directory name for bind mounts")
def test_a_source_may_be_a_link_of_the_host_s(bundle: Bundle, container: Container, host: HostTree) -> None:
    real = host.directory("real", {"file": "text"})
    os.symlink(real, os.path.join(host.path, "link"))
    add(bundle, "/data", None, os.path.join(host.path, "link"), "bind")
    assert container.output("cat", "/data/file") == "text"


@spec(MOUNTS, 'it MAY be a relative path, in which case it MUST be interpreted as relative to "/".')
@pytest.mark.parametrize("destination", ["data", "./data", "new/data"])
def test_a_relative_destination(bundle: Bundle, container: Container, destination: str) -> None:
    add(bundle, destination, "tmpfs", "tmpfs")
    bundle.process["cwd"] = "/etc"
    assert at(table(container), os.path.normpath("/" + destination)).fstype == "tmpfs"


@spec(MOUNTS, "Destination of mount point: path inside container.")
@pytest.mark.parametrize("destination", ["/data/", "//data", "/./data", "/etc/../data", "/../../data"])
def test_unclean_destinations(bundle: Bundle, container: Container, destination: str) -> None:
    add(bundle, destination, "tmpfs", "tmpfs")
    assert at(table(container), "/data").fstype == "tmpfs"


@spec(MOUNTS, "Destination of mount point: path inside container.")
def test_a_destination_may_be_the_place_on_the_host(bundle: Bundle, container: Container, host: HostTree) -> None:
    """runc takes the path of the root file system away from a destination that starts with it."""
    if container.runtime.name == "crun":
        not_applicable("crun does not; the specification leaves it open")
    os.mkdir(bundle.host("/data"))  # runc 1.1 makes it in another place than it mounts on
    add(bundle, bundle.host("/data"), None, host.directory("source", {"file": ""}), "bind")
    assert container.output("ls", "/data") == "file\n"


@spec(MOUNTS, "Destination of mount point: path inside container.")
def test_a_destination_with_blanks_and_newline(bundle: Bundle, container: Container, host: HostTree) -> None:
    add(bundle, "/a b\tc\nd\\e ü", None, host.directory("s p\nü", {"file": "text"}), "bind")
    assert container.output("cat", "/a b\tc\nd\\e ü/file") == "text"


@spec(MOUNTS, "The runtime MUST mount entries in the listed order.")
def test_the_order_of_mounts(bundle: Bundle, container: Container, host: HostTree) -> None:
    first = host.directory("first", {"file": "first"})
    second = host.directory("second", {"file": "second"})
    add(bundle, "/data", None, first, "bind")
    add(bundle, "/data", None, second, "bind")
    assert container.output("cat", "/data/file") == "second"


@spec(MOUNTS, "The runtime MUST mount entries in the listed order.")
def test_a_mount_can_lie_in_an_earlier_one(bundle: Bundle, container: Container, host: HostTree) -> None:
    add(bundle, "/data", "tmpfs", "tmpfs")
    add(bundle, "/data/below", None, host.directory("below", {"file": "text"}), "bind")
    assert container.output("cat", "/data/below/file") == "text"
    assert not os.path.exists(bundle.host("/data/below"))


@spec(MOUNTS, "The runtime MUST mount entries in the listed order.")
def test_a_mount_can_lie_in_a_read_only_tmpfs(bundle: Bundle, container: Container, host: HostTree) -> None:
    """Its mount point is made before the tmpfs becomes read-only."""
    add(bundle, "/data", "tmpfs", "tmpfs", "ro")
    add(bundle, "/data/below", None, host.directory("below", {"file": "text"}), "bind")
    bundle.sh("cat /data/below/file; touch /data/new && echo written || echo refused")
    assert container.output() == "textrefused\n"


@spec(MOUNTS, "The runtime MUST mount entries in the listed order.")
def test_a_later_mount_hides_an_earlier_one(bundle: Bundle, container: Container, host: HostTree) -> None:
    add(bundle, "/data/below", None, host.directory("below", {"file": "text"}), "bind")
    add(bundle, "/data", "tmpfs", "tmpfs")
    assert container.output("ls", "/data") == ""


@spec(MOUNTS, "can also be a file or directory name for bind mounts")
@pytest.mark.parametrize("case", ["source is missing", "file on directory", "directory on file", "empty source"])
def test_impossible_binds(bundle: Bundle, container: Container, host: HostTree, case: str) -> None:
    bundle.file("/data/file")
    source, destination = {
        "source is missing": (os.path.join(host.path, "nothing"), "/data"),
        "file on directory": (host.file("name"), "/data"),
        "directory on file": (host.directory("source"), "/data/file"),
        "empty source": ("", "/data/file"),
    }[case]
    add(bundle, destination, None, source, "bind")
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert f"/mounts/{mount_index(bundle)}" in said
        assert len(said.strip().splitlines()) == 1


@spec(MOUNTS, "Destination of mount point: path inside container.")
def test_a_destination_below_a_file_is_an_error(bundle: Bundle, container: Container) -> None:
    add(bundle, "/etc/passwd/below", "tmpfs", "tmpfs")
    refused(container)


@spec(MOUNTS, "additional mounts beyond root")
@pytest.mark.parametrize("destination", ["/", "/.", "/etc/.."])
def test_a_mount_on_the_root_itself(bundle: Bundle, container: Container, destination: str) -> None:
    """It would be out of sight: refused."""
    add(bundle, destination, "tmpfs", "tmpfs", "ro")
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert f"/mounts/{mount_index(bundle)}" in said


@spec(MOUNTS, "additional mounts beyond root")
def test_nothing_is_mounted_on_the_host(bundle: Bundle, container: Container, host: HostTree) -> None:
    """… while the container lives; after it the harness looks."""
    before = {m.line for m in harness.mounts()}
    add(bundle, "/data", None, host.directory("source"), "rbind", "rshared")
    container.run_detached()
    assert {m.line for m in harness.mounts()} == before


@spec(MOUNTS)
@pytest.mark.parametrize("value", [[], None])
def test_no_mounts_at_all(bundle: Bundle, container: Container, value: list[Any] | None) -> None:
    if value is None:
        if container.runtime.name == "crun":
            not_applicable("crun wants mounts, although they are optional")
        del bundle.config["mounts"]
    else:
        bundle.config["mounts"] = value
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    if container.runtime.name == "runc":
        not_applicable("runc can't do without /proc")
    assert container.output("ls", "/proc") == ""


# ------------------------------------------------------------------------------------------------------- types


@spec(POSIX, "The type of the filesystem to be mounted.")
def test_default_filesystems(container: Container) -> None:
    mounts = table(container)
    found = {
        target: at(mounts, target).fstype for target in ("/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
    }
    assert found == {
        "/proc": "proc",
        "/sys": "sysfs",
        "/dev": "tmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/dev/mqueue": "mqueue",
    }
    assert "ro" in at(mounts, "/sys").options
    assert {"nosuid", "noexec"} <= set(at(mounts, "/dev/pts").options)
    assert {"mode=620", "ptmxmode=666", "gid=5"} <= set(at(mounts, "/dev/pts").super_options)


@spec(POSIX, "The type of the filesystem to be mounted.")
def test_sources_are_shown(container: Container) -> None:
    mounts = table(container)
    assert [at(mounts, target).source for target in ("/proc", "/sys", "/dev/shm")] == ["proc", "sysfs", "shm"]


@spec(POSIX, "The type of the filesystem to be mounted.")
def test_devpts_is_a_new_instance(bundle: Bundle, container: Container) -> None:
    assert container.output("ls", "/dev/pts") == "ptmx\n"


@spec(POSIX, "The type of the filesystem to be mounted.")
def test_mqueue_is_the_ipc_namespace_s(bundle: Bundle, container: Container) -> None:
    assert container.output("ls", "/dev/mqueue") == ""


@spec(POSIX, "The type of the filesystem to be mounted.")
def test_ramfs(bundle: Bundle, container: Container) -> None:
    """Any filesystem of the kernel's."""
    add(bundle, "/data", "ramfs", "ram", "mode=711")
    bundle.sh("stat -c %a /data; grep ' /data ' /proc/mounts | cut -d' ' -f1,3")
    assert container.output() == "711\nram ramfs\n"


@spec(POSIX, "The type of the filesystem to be mounted.")
def test_overlay(bundle: Bundle, container: Container, host: HostTree) -> None:
    base = host.tmpfs("overlay")  # an overlay on an overlay would depend on the machine
    for name in ("lower", "lower2", "upper", "work"):
        os.mkdir(f"{base}/{name}")
    pathlib.Path(base, "lower/file").write_text("lower")
    pathlib.Path(base, "lower2/second").write_text("second")
    options = [f"lowerdir={base}/lower:{base}/lower2", f"upperdir={base}/upper", f"workdir={base}/work"]
    add(bundle, "/data", "overlay", "overlay", *options)
    bundle.sh("cat /data/file /data/second; echo new > /data/file")
    assert container.output() == "lowersecond"
    assert pathlib.Path(base, "upper/file").read_text() == "new\n"


@spec("CVE-2019-16884")
@pytest.mark.parametrize("type", ["proc", "sysfs"])
def test_proc_and_sys_are_not_mounted_through_a_link(bundle: Bundle, container: Container, type: str) -> None:
    destination = {"proc": "/proc", "sysfs": "/sys"}[type]
    os.rmdir(bundle.host(destination))
    os.mkdir(bundle.host("/elsewhere"))
    os.symlink("elsewhere", bundle.host(destination))
    refused(container)


@spec("CVE-2023-27561")
def test_proc_below_a_link(bundle: Bundle, container: Container, host: HostTree) -> None:
    """/a/proc where /a is a link to / of the host: the mount lands inside."""
    os.symlink("/", bundle.host("/a"))
    bundle.config["mounts"][0]["destination"] = "/a/proc"
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    before = {m.line for m in harness.mounts()}
    container.run("--detach")  # runc refuses, others mount it on the container's own /proc
    assert {m.line for m in harness.mounts()} == before


@spec("CVE-2019-16884")
def test_a_volume_must_not_hide_proc(bundle: Bundle, container: Container, host: HostTree) -> None:
    """An image's VOLUME /proc would give the container a false /proc, with false attributes to write to."""
    if container.runtime.name == "crun":
        not_applicable("crun allows it")
    add(bundle, "/proc", None, host.directory("fake"), "bind")
    refused(container)


@spec("CVE-2019-16884")
@pytest.mark.parametrize("destination", ["/proc/self/attr", "/proc/sys", "/link/fs"])
def test_a_volume_must_not_hide_a_part_of_proc(
    bundle: Bundle, container: Container, host: HostTree, destination: str
) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun allows it")
    os.symlink("/proc", bundle.host("/link"))
    add(bundle, destination, None, host.directory("fake"), "bind")
    refused(container)


@spec("CVE-2019-16884")
@pytest.mark.parametrize("type", ["tmpfs", "sysfs", "ramfs"])
def test_only_proc_is_mounted_on_proc(bundle: Bundle, container: Container, type: str) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun allows it")
    add(bundle, "/proc", type, type)
    refused(container)


@spec(MOUNTS)
@pytest.mark.parametrize("name", ["meminfo", "cpuinfo", "uptime", "stat", "loadavg", "swaps", "diskstats"])
def test_files_of_lxcfs_may_be_mounted_in_proc(bundle: Bundle, container: Container, host: HostTree, name: str) -> None:
    add(bundle, f"/proc/{name}", None, host.file(name, "of the host's lxcfs\n"), "bind")
    assert container.output("cat", f"/proc/{name}") == "of the host's lxcfs\n"


@spec(MOUNTS)
def test_the_host_s_proc_may_be_bound(bundle: Bundle, container: Container) -> None:
    """As rootless podman has it where a new procfs may not be mounted."""
    bundle.config["mounts"][0] = {"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}
    bundle.namespaces(drop=["pid"])
    assert container.output("cat", "/proc/1/comm") == pathlib.Path("/proc/1/comm").read_text()


# ------------------------------------------------------------------------------------------------------ cgroup


CGROUP = ("nosuid", "noexec", "nodev", "relatime", "ro")


@spec(POSIX, "The type of the filesystem to be mounted.")
@requires("cgroup v1")
@pytest.mark.parametrize("namespace", [False, True], ids=["no cgroup namespace", "cgroup namespace"])
def test_cgroup_v1(bundle: Bundle, container: Container, namespace: bool) -> None:
    """A tmpfs with one directory for each hierarchy, each showing the container's own cgroup at its root."""
    if namespace:
        bundle.namespaces(add=[{"type": "cgroup"}])
    add(bundle, "/sys/fs/cgroup", "cgroup", "cgroup", *CGROUP)
    container.run_detached()
    mounts = parse_mounts(container.exec("cat", "/proc/self/mountinfo").stdout)
    assert at(mounts, "/sys/fs/cgroup").fstype == "tmpfs"
    for controller in ("memory", "pids", "freezer"):
        found = at(mounts, f"/sys/fs/cgroup/{controller}")
        assert found.fstype == "cgroup"
        assert controller in found.super_options
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(found.options)
    pids = container.exec("cat", "/sys/fs/cgroup/pids/cgroup.procs").stdout.split()
    assert "1" in pids
    assert len(pids) <= 2  # sleep, and cat


@spec(POSIX, "The type of the filesystem to be mounted.")
@requires("cgroup v1")
@pytest.mark.parametrize("namespace", [False, True], ids=["no cgroup namespace", "cgroup namespace"])
def test_a_writable_cgroup_v1(bundle: Bundle, container: Container, namespace: bool) -> None:
    """As systemd in a container wants it."""
    if namespace:
        bundle.namespaces(add=[{"type": "cgroup"}])
    add(bundle, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "rw")
    bundle.sh(
        "mkdir /sys/fs/cgroup/freezer/below && test -e /sys/fs/cgroup/freezer/below/cgroup.procs"
        " && rmdir /sys/fs/cgroup/freezer/below && echo made"
    )
    assert container.output() == "made\n"


@spec(POSIX, "The type of the filesystem to be mounted.")
@requires("cgroup v1")
def test_the_read_only_tree_of_cgroup_v1(bundle: Bundle, container: Container) -> None:
    add(bundle, "/sys/fs/cgroup", "cgroup", "cgroup", *CGROUP)
    bundle.sh("mkdir /sys/fs/cgroup/pids/below && echo made; cat /sys/fs/cgroup/pids/pids.max")
    bundle.linux["resources"]["pids"] = {"limit": 33}
    assert container.output() == "33\n"


@spec(POSIX, "The type of the filesystem to be mounted.")
@requires("cgroup v2")
@pytest.mark.parametrize("namespace", [False, True], ids=["no cgroup namespace", "cgroup namespace"])
def test_cgroup_v2(bundle: Bundle, container: Container, namespace: bool) -> None:
    if namespace:
        bundle.namespaces(add=[{"type": "cgroup"}])
    add(bundle, "/sys/fs/cgroup", "cgroup", "cgroup", *CGROUP)
    container.run_detached()
    mounts = parse_mounts(container.exec("cat", "/proc/self/mountinfo").stdout)
    found = at(mounts, "/sys/fs/cgroup")
    assert found.fstype == "cgroup2"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(found.options)
    if namespace:
        assert "1" in container.exec("cat", "/sys/fs/cgroup/cgroup.procs").stdout.split()


# ----------------------------------------------------------------------------------------------- hostile images


@pytest.fixture
def outside(host: HostTree) -> Iterator[str]:
    """A directory of the host's; nothing may appear or change in it."""
    path = host.directory("outside", {"file": "of the host"})
    yield path
    assert sorted(os.listdir(path)) == ["file"]
    assert pathlib.Path(path, "file").read_text() == "of the host"


HOSTILE = ["absolute", "climbing", "through another link", "parent is a link", "loop of two"]


def plant(bundle: Bundle, outside: str, how: str) -> str:
    """Put links into the image; returns a destination that goes through them."""
    up = "../" * 30
    if how == "absolute":
        os.symlink(outside, bundle.host("/data"))
    elif how == "climbing":
        os.symlink(up + outside.lstrip("/"), bundle.host("/data"))
    elif how == "through another link":
        os.symlink(up, bundle.host("/top"))
        os.symlink("top" + outside, bundle.host("/data"))
    elif how == "parent is a link":
        os.symlink(up + outside.lstrip("/"), bundle.host("/parent"))
        return "/parent/new"
    elif how == "loop of two":
        os.symlink("/etc/../" + up + outside.lstrip("/") + "/../" + os.path.basename(outside), bundle.host("/data"))
    return "/data"


@spec(MOUNTS, "Destination of mount point: path inside container.")
@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("what", ["tmpfs", "directory", "file", "remount"])
def test_a_destination_that_is_a_link_to_the_host(
    bundle: Bundle, container: Container, host: HostTree, outside: str, how: str, what: str
) -> None:
    """The link is resolved within the container: what it names is made there and mounted on."""
    destination = plant(bundle, outside, how)
    if what == "tmpfs":
        add(bundle, destination, "tmpfs", "tmpfs")
    elif what == "directory":
        add(bundle, destination, None, host.directory("source"), "bind")
    elif what == "file":
        add(bundle, destination, None, host.file("source", "volume"), "bind")
    else:
        add(bundle, destination, None, host.directory("source"), "bind", "remount", "ro")
    mounts = {m.line for m in harness.mounts()}
    container.run("--detach", check=False)  # runtimes may refuse; the host must stay as it is
    assert {m.line for m in harness.mounts()} == mounts


@spec(MOUNTS, "Destination of mount point: path inside container.")
@pytest.mark.parametrize("how", HOSTILE)
def test_a_link_is_resolved_within_the_container(
    bundle: Bundle, container: Container, host: HostTree, outside: str, how: str
) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun refuses a destination whose links lead to nothing")
    destination = plant(bundle, outside, how)
    add(bundle, destination, None, host.directory("source", {"inside": "text"}), "bind")
    assert container.output("cat", destination + "/inside") == "text"


@spec(MOUNTS, "Destination of mount point: path inside container.")
@pytest.mark.parametrize("target", ["/dangling/far/away", "dangling", "../../dangling", "/run/../dangling/x"])
def test_dangling_links(bundle: Bundle, container: Container, target: str) -> None:
    """What a link points to is made within the container."""
    if container.runtime.name == "crun":
        not_applicable("crun refuses a destination whose links lead to nothing")
    os.symlink(target, bundle.host("/etc/data"))
    add(bundle, "/etc/data", "tmpfs", "tmpfs", "size=68k")
    bundle.sh("touch /etc/data/file; readlink -f /etc/data; grep -c size=68k /proc/mounts")
    where = os.path.normpath(os.path.join("/etc", target))
    assert container.output() == f"{where}\n1\n"


@spec(MOUNTS, "Destination of mount point: path inside container.")
def test_a_link_to_itself_is_an_error(bundle: Bundle, container: Container) -> None:
    os.symlink("data", bundle.host("/data"))
    add(bundle, "/data", "tmpfs", "tmpfs")
    refused(container)


@spec("CVE-2021-30465")
def test_a_volume_with_links_into_the_host(bundle: Bundle, container: Container, host: HostTree, outside: str) -> None:
    """A later mount goes through a link that an earlier mount's content has."""
    volume = host.directory("volume")
    os.symlink(outside, f"{volume}/link")
    os.symlink("../" * 30 + outside.lstrip("/"), f"{volume}/climbing")
    add(bundle, "/volume", None, volume, "bind")
    add(bundle, "/volume/link", "tmpfs", "tmpfs")
    add(bundle, "/volume/climbing", "tmpfs", "tmpfs")
    mounts = {m.line for m in harness.mounts()}
    container.run("--detach", check=False)
    assert {m.line for m in harness.mounts()} == mounts


@spec("CVE-2019-5736")
@pytest.mark.parametrize("target", ["/proc/self/root", "/proc/1/root", "/proc/self/cwd", "/proc/self/fd/7"])
def test_magic_links_of_proc_lead_nowhere(bundle: Bundle, container: Container, host: HostTree, target: str) -> None:
    """/proc's links are not ways out: the process that mounts has the host's root and descriptors."""
    os.symlink(target, bundle.host("/data"))
    name = f"escaped-{container.id}"
    add(bundle, f"/data/{name}", "tmpfs", "tmpfs")
    mounts = {m.line for m in harness.mounts()}
    container.run("--detach", check=False)
    assert {m.line for m in harness.mounts()} == mounts
    assert not os.path.lexists(f"/{name}")
    assert not os.path.lexists(f"{host.path}/{name}")


@spec("CVE-2024-45310")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_no_empty_file_is_made_on_the_host(
    bundle: Bundle, container: Container, host: HostTree, outside: str, what: str
) -> None:
    os.symlink(outside, bundle.host("/data"))
    source = host.file("source") if what == "file" else host.directory("source")
    add(bundle, "/data/new/deep", None, source, "bind")
    container.run("--detach", check=False)  # `outside` looks


@spec(MOUNTS, "Destination of mount point: path inside container.")
def test_dev_is_a_link(bundle: Bundle, container: Container, host: HostTree) -> None:
    if container.runtime.name == "runc":
        not_applicable("runc 1.1.5 makes the devices' links on the host here; corrected since")
    outside = host.directory("outside")
    os.rmdir(bundle.host("/dev"))
    os.symlink(outside, bundle.host("/dev"))
    mounts = {m.line for m in harness.mounts()}
    container.run("--detach", check=False)
    assert {m.line for m in harness.mounts()} == mounts
    assert os.listdir(outside) == []
