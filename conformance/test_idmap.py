"""Id-mapped mounts: mappings of a mount's own or of the container's user namespace, for one mount or all below it."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Iterator

import pytest

from conformance import harness
from conformance.harness import (
    ROOT,
    Bundle,
    Container,
    Json,
    Runtime,
    Test,
    mapping,
    pyrunc_promise,
    requires,
    spec,
    xfail_on,
)
from conformance.test_user import refused

MOUNTS = "config.md#posix-platform-mounts"
OPTIONS = "config.md#linux-mount-options"

MS_BIND = 0x1000

#: What stat(1) tells of an owner who is not mapped.
NOBODY = "65534:65534"


def idmap(runtime: Runtime) -> str | None:
    """runc has id-mapped mounts since 1.2."""
    if runtime.name == "runc" and runtime.version.startswith(("1.0", "1.1.")):
        return "runc has no id-mapped mounts before 1.2"
    return None


def make_volume(directory: str, name: str) -> tuple[str, list[str]]:
    """A directory of the host with files of several owners, and what was mounted for that."""
    path = os.path.join(directory, name)
    os.mkdir(path)
    mounted = []
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 3):
        # a tmpfs can be id-mapped then, whatever the tests' directory is on
        harness.mount("host", path, "tmpfs", 0, "mode=755")
        mounted.append(path)
    for file, uid, gid in (("root", 0, 0), ("some", 100, 211), ("far", 5000, 6000)):
        pathlib.Path(path, file).write_text("")
        os.chown(os.path.join(path, file), uid, gid)
    return path, mounted


@pytest.fixture
def volume(test: Test) -> Iterator[str]:
    """A directory of the host with files of several owners."""
    path, mounted = make_volume(test.directory, "volume")
    yield path
    for place in mounted:
        harness.umount(place)


@pytest.fixture
def nested(test: Test, volume: str) -> Iterator[str]:
    """The same, where "below" is such a directory too and a mount of its own."""
    other, mounted = make_volume(test.directory, "other")
    below = os.path.join(volume, "below")
    os.mkdir(below)
    harness.mount(other, below, "", MS_BIND)
    yield volume
    for place in (below, *mounted):
        harness.umount(place)


def add(
    bundle: Bundle, source: str, *options: str, uids: list[Json] | None = None, gids: list[Json] | None = None
) -> Json:
    """Add a bind mount on /data to the config."""
    entry: Json = {"destination": "/data", "source": source, "options": list(options)}
    if uids is not None:
        entry["uidMappings"] = uids
    if gids is not None:
        entry["gidMappings"] = gids
    bundle.config["mounts"].append(entry)
    return entry


def owners(container: Container, *names: str) -> list[str]:
    """The owners of files of /data, as the container sees them."""
    return container.output("stat", "-c", "%u:%g", *(f"/data/{name}" for name in names)).split()


@spec(MOUNTS, "The mapping to convert UIDs from the source file system to the destination mount point.")
@requires(idmap)
@pytest.mark.parametrize("options", [("bind", "idmap"), ("rbind", "idmap"), ("rbind", "ridmap")], ids=",".join)
def test_owners_are_mapped(bundle: Bundle, container: Container, volume: str, options: tuple[str, ...]) -> None:
    add(bundle, volume, *options, uids=[mapping(0, 1000, 200)], gids=[mapping(0, 3000, 300)])
    assert owners(container, "root", "some", "far") == ["1000:3000", "1100:3211", NOBODY]
    assert os.stat(os.path.join(volume, "some")).st_uid == 100


@spec(MOUNTS, "If specified, the options field of the mounts structure SHOULD contain either idmap or ridmap")
@requires(idmap)
def test_mappings_alone_are_enough(bundle: Bundle, container: Container, volume: str) -> None:
    add(bundle, volume, "bind", uids=[mapping(0, 1000, 200)], gids=[mapping(0, 3000, 300)])
    assert owners(container, "root", "some") == ["1000:3000", "1100:3211"]


@spec(MOUNTS, "The format is the same as user namespace mappings.")
@requires(idmap)
def test_several_runs_of_ids(bundle: Bundle, container: Container, volume: str) -> None:
    uids = [mapping(100, 1000, 1), mapping(0, 2000, 10), mapping(5000, 7, 1)]
    gids = [mapping(200, 4000, 20), mapping(0, 5000, 1), mapping(5999, 6, 2)]
    add(bundle, volume, "bind", "idmap", uids=uids, gids=gids)
    assert owners(container, "root", "some", "far") == ["2000:5000", "1000:4011", "7:7"]


@spec(MOUNTS, "The mapping to convert UIDs from the source file system to the destination mount point.")
@requires(idmap)
def test_what_the_container_writes_is_mapped_back(bundle: Bundle, container: Container, volume: str) -> None:
    os.chown(volume, 500, 600)
    add(bundle, volume, "bind", "idmap", uids=[mapping(500, 0, 10)], gids=[mapping(600, 0, 10)])
    assert container.output("sh", "-c", "touch /data/new && stat -c %u:%g /data/new") == "0:0\n"
    found = os.stat(os.path.join(volume, "new"))
    assert (found.st_uid, found.st_gid) == (500, 600)


@spec(MOUNTS, "The mapping to convert UIDs from the source file system to the destination mount point.")
@requires(idmap)
def test_who_is_not_mapped_can_not_write(bundle: Bundle, container: Container, volume: str) -> None:
    add(bundle, volume, "bind", "idmap", uids=[mapping(0, 1000, 10)], gids=[mapping(0, 1000, 10)])
    assert container.run_output("sh", "-c", "touch /data/new; ls /data") == (0, "far\nroot\nsome\n")
    assert not os.path.exists(os.path.join(volume, "new"))


@spec(
    OPTIONS,
    "ridmap | SHOULD | Indicates that the mount MUST have an idmapping applied, and the mapping is applied recursively",
)
@requires(idmap)
@xfail_on("crun", "crun 1.8 shows nothing that is mounted below an id-mapped mount")
@pytest.mark.parametrize(("option", "expected"), [("idmap", "100:211"), ("ridmap", "1100:3211")])
def test_mounts_below(bundle: Bundle, container: Container, nested: str, option: str, expected: str) -> None:
    add(bundle, nested, "rbind", option, uids=[mapping(0, 1000, 300)], gids=[mapping(0, 3000, 300)])
    assert owners(container, "some", "below/some") == ["1100:3211", expected]


@spec(MOUNTS, "The mapping to convert UIDs from the source file system to the destination mount point.")
@requires(idmap)
def test_each_mount_has_its_own_mapping(bundle: Bundle, container: Container, volume: str) -> None:
    for place, first in (("/a", 1000), ("/b", 2000), ("/c", 1000)):
        entry = add(bundle, volume, "bind", "idmap", uids=[mapping(0, first, 500)], gids=[mapping(0, first, 500)])
        entry["destination"] = place
    bundle.config["mounts"].append({"destination": "/d", "source": volume, "options": ["bind"]})
    found = container.output("stat", "-c", "%u:%g", "/a/some", "/b/some", "/c/some", "/d/some").split()
    assert found == ["1100:1211", "2100:2211", "1100:1211", "100:211"]


@spec(MOUNTS, "The mapping to convert UIDs from the source file system to the destination mount point.")
@requires(idmap)
def test_in_a_user_namespace(user: Bundle, container: Container, volume: str) -> None:
    add(user, volume, "bind", "idmap", uids=[mapping(0, ROOT, 300)], gids=[mapping(0, ROOT + 1000, 300)])
    assert owners(container, "root", "some", "far") == ["0:1000", "100:1211", NOBODY]


@spec(OPTIONS, "If they are not specified, the runtime MAY use the container's user namespace mapping")
@requires(idmap)
@xfail_on("crun", "crun 1.8 shows nothing that is mounted below an id-mapped mount")
@pytest.mark.parametrize(("option", "below"), [("idmap", NOBODY), ("ridmap", "100:211")])
def test_the_container_s_mappings(user: Bundle, container: Container, nested: str, option: str, below: str) -> None:
    add(user, nested, "rbind", option)
    assert owners(container, "root", "some", "far", "below/some") == ["0:0", "100:211", "5000:6000", below]


@spec(OPTIONS, "If they are not specified, the runtime MAY use the container's user namespace mapping")
@requires(idmap)
def test_a_joined_user_namespace_s_mappings(
    user: Bundle, new_bundle: Callable[..., Bundle], new_container: Callable[..., Container], volume: str
) -> None:
    user.args("sleep", "1000")
    first = new_container(user)
    first.create()
    second = new_bundle()
    second.namespaces(add=[{"type": "user", "path": f"/proc/{first.pid}/ns/user"}])
    second.own(ROOT, ROOT)
    add(second, volume, "bind", "idmap")
    assert owners(new_container(second), "root", "some") == ["0:0", "100:211"]
    first.delete("--force")


@spec(MOUNTS, "The mapping to convert UIDs from the source file system to the destination mount point.")
@requires(idmap)
def test_below_a_directory_that_only_the_host_may_enter(
    user: Bundle, container: Container, volume: str, test: Test
) -> None:
    """The source is opened with the host's rights, before those are given up; its owner is neither of the two."""
    private = os.path.join(test.directory, "private")
    inside = os.path.join(private, "inside")
    os.makedirs(inside)
    harness.mount(volume, inside, "", MS_BIND)
    try:
        os.chown(private, 4321, 4321)
        os.chmod(private, 0o700)
        add(user, inside, "bind", "idmap")
        assert owners(container, "some") == ["100:211"]
    finally:
        harness.umount(inside)


@spec("config.md#mounts", "The runtime MUST mount entries in the listed order.")
@requires(idmap)
@pytest.mark.parametrize("option", [None, "idmap"])
def test_a_source_on_an_earlier_mount_in_a_user_namespace(
    user: Bundle, container: Container, volume: str, option: str | None
) -> None:
    """The path of a source is the host's, but the root file system is in it, with all that is mounted there by now."""
    if container.runtime.name == "crun":
        pytest.skip("crun opens all sources before it mounts; the specification leaves it open")
    os.mkdir(user.host("/first"))
    user.config["mounts"].append({"destination": "/first", "source": volume, "options": ["bind"]})
    add(user, user.host("/first"), *(["bind", option] if option else ["bind"]))
    assert owners(container, "some") == ["100:211" if option else NOBODY]


@spec(OPTIONS, "private | MUST | Bind mount propagation")
@requires(idmap)
@xfail_on("crun", "crun 1.8 leaves an id-mapped mount private")
def test_other_options_hold_too(user: Bundle, container: Container, volume: str) -> None:
    add(user, volume, "bind", "idmap", "ro", "nosuid", "noexec", "shared")
    lines = harness.parse_mounts(container.output("cat", "/proc/self/mountinfo"))
    [found] = [line for line in lines if line.target == "/data"]
    assert {"ro", "nosuid", "noexec", "idmapped"} <= {*found.options, *found.line.split(" - ")[0].split()[5].split(",")}
    assert "shared:" in found.line


@spec(MOUNTS, "If specified, it MUST be specified along with gidMappings.")
@requires(idmap)
@pytest.mark.parametrize("name", ["uidMappings", "gidMappings"])
def test_one_mapping_needs_the_other(bundle: Bundle, container: Container, volume: str, name: str) -> None:
    add(bundle, volume, "bind", "idmap")[name] = [mapping(0, 1000, 10)]
    refused(container)


@spec(
    OPTIONS,
    "If there are no uidMappings and gidMappings specified and the container isn't using user namespaces, "
    "an error MUST be returned.",
)
@requires(idmap)
@xfail_on("crun", "crun 1.8 does not know ridmap", only=["ridmap"])
@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_there_must_be_a_mapping(bundle: Bundle, container: Container, volume: str, option: str) -> None:
    add(bundle, volume, "bind", option)
    refused(container)


@spec(MOUNTS, "The format is the same as user namespace mappings.")
@requires(idmap)
@pytest.mark.parametrize(
    "runs",
    [[mapping(0, 1000, 0)], [mapping(0, 1000, 10), mapping(5, 2000, 10)], [mapping(0, 4294967290, 10)]],
    ids=["size 0", "overlap", "past the end"],
)
def test_impossible_mappings(bundle: Bundle, container: Container, volume: str, runs: list[Json]) -> None:
    add(bundle, volume, "bind", "idmap", uids=runs, gids=[mapping(0, 1000, 10)])
    refused(container)


@spec(MOUNTS, "The mapping to convert UIDs from the source file system to the destination mount point.")
@requires(idmap)
def test_a_filesystem_that_can_not_be_mapped(bundle: Bundle, container: Container) -> None:
    add(bundle, "/proc/self", "bind", "idmap", uids=[mapping(0, 1000, 10)], gids=[mapping(0, 1000, 10)])
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert f"/mounts/{len(bundle.config['mounts']) - 1}: " in said
        assert "/proc/self can't be id-mapped" in said


@spec(MOUNTS)
@pyrunc_promise
@requires(idmap)
def test_no_process_and_no_descriptor_is_left(user: Bundle, container: Container, volume: str) -> None:
    """The process that opens sources for init is gone, and so is the line to it."""
    add(user, volume, "bind", "idmap")
    before = harness.direct_children()
    user.args("sleep", "1000")
    container.create()
    links = [os.readlink(f"/proc/{container.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{container.pid}/fd")]
    assert not [link for link in links if link.startswith(("socket:", "user:"))]
    assert set(harness.direct_children()) - set(before) <= {container.pid}


@spec("features-linux.md#mountextensions", "represents whether the runtime supports idmap mounts")
@requires("subcommand:features")
@requires(idmap)
def test_features_tell(runtime: Runtime) -> None:
    told = json.loads(runtime.run("features").stdout)
    assert told["linux"]["mountExtensions"]["idmap"]["enabled"] is True
