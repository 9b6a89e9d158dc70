"""User namespaces: mappings, owners inside and outside, what else is in them, and ordinary users who make them."""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from conformance import harness
from conformance.harness import (
    ROOT,
    Bundle,
    Container,
    Json,
    Test,
    mapping,
    namespace,
    not_applicable,
    parse_mounts,
    proc_status,
    requires,
    spec,
    xfail_on,
)

MAPPINGS = "config-linux.md#user-namespace-mappings"
NAMESPACES = "config-linux.md#namespaces"

CLONE_NEWUSER = 0x10000000
KINDS = {"network": ("net", 0x40000000), "ipc": ("ipc", 0x08000000), "uts": ("uts", 0x04000000)}

_libc = ctypes.CDLL(None, use_errno=True)


def runc_1_1(container: Container) -> bool:
    return container.runtime.name == "runc" and container.runtime.version.startswith("1.1.")


def refused(container: Container) -> str:
    """Creation must fail; what the runtime said."""
    result = container.create(check=False)
    assert result.status != 0, f"should have failed: {result!r}"
    assert result.stderr
    return result.stderr


# ----------------------------------------------------------------------------------------------------- mappings


@spec(MAPPINGS, "describes the user namespace uid mappings from the host to the container")
def test_mappings(user: Bundle, container: Container) -> None:
    user.sh("id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map")
    assert container.output().split() == ["0", "0", "0", str(ROOT), "65536", "0", str(ROOT), "65536"]


@spec(MAPPINGS, "describes the user namespace uid mappings from the host to the container")
def test_several_mappings(user: Bundle, container: Container) -> None:
    user.linux["uidMappings"] = [mapping(0, ROOT, 1), mapping(1, 300000, 999), mapping(1000, 1000, 1)]
    user.linux["gidMappings"] = [mapping(0, ROOT, 10), mapping(100, 200100, 5)]
    user.sh("cat /proc/self/uid_map; echo; cat /proc/self/gid_map")
    uids, gids = container.output().split("\n\n")
    assert [line.split() for line in uids.splitlines()] == [
        ["0", str(ROOT), "1"],
        ["1", "300000", "999"],
        ["1000", "1000", "1"],
    ]
    assert [line.split() for line in gids.splitlines()] == [["0", str(ROOT), "10"], ["100", "200100", "5"]]


@spec(MAPPINGS, "hostID (uint32, REQUIRED) - is the starting uid/gid on the host to be mapped to containerID")
def test_the_process_s_ids_on_the_host(user: Bundle, container: Container) -> None:
    user.process["user"] = {"uid": 12, "gid": 34, "additionalGids": [56]}
    container.run_detached()
    status = proc_status(container.pid)
    assert status["Uid"].split() == [str(ROOT + 12)] * 4
    assert status["Gid"].split() == [str(ROOT + 34)] * 4
    assert status["Groups"].split() == [str(ROOT + 56)]


@spec(MAPPINGS, "hostID (uint32, REQUIRED) - is the starting uid/gid on the host to be mapped to containerID")
def test_no_group_of_the_host_remains(user: Bundle, container: Container) -> None:
    container.run_detached(preexec_fn=lambda: os.setgroups([4, 27]))
    assert proc_status(container.pid)["Groups"].split() == []


@spec(MAPPINGS, "is the starting uid/gid on the host to be mapped to containerID")
@pytest.mark.parametrize(
    "ids", [{"uid": 70000, "gid": 0}, {"uid": 0, "gid": 70000}, {"uid": 0, "gid": 0, "additionalGids": [70000]}]
)
def test_an_unmapped_user(user: Bundle, container: Container, ids: Json) -> None:
    user.process["user"] = ids
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert "/process/user" in said


@spec(MAPPINGS)
@pytest.mark.parametrize("name", ["uidMappings", "gidMappings"])
def test_missing_mappings(user: Bundle, container: Container, name: str) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun maps some by itself")
    del user.linux[name]
    refused(container)


@spec(MAPPINGS)
@pytest.mark.parametrize("case", ["overlap inside", "overlap outside", "empty"])
def test_impossible_mappings(user: Bundle, container: Container, case: str) -> None:
    if container.runtime.name == "crun" and case == "empty":
        not_applicable("crun maps some by itself")
    user.linux["uidMappings"] = {
        "overlap inside": [mapping(0, ROOT, 10), mapping(5, 200000, 10)],
        "overlap outside": [mapping(0, ROOT, 10), mapping(10, ROOT + 5, 10)],
        "empty": [mapping(0, ROOT, 0)],
    }[case]
    refused(container)


# ------------------------------------------------------------------------------------------------ files and mounts


@spec(MAPPINGS, "The runtime SHOULD NOT modify the ownership of referenced filesystems to realize the mapping.")
def test_owners(user: Bundle, container: Container) -> None:
    os.chown(user.file("/mine"), ROOT + 5, ROOT + 6)
    os.chown(user.file("/theirs"), 5, 6)
    user.sh("touch /new; stat -c '%n %u %g' /mine /theirs /new")
    assert container.output() == "/mine 5 6\n/theirs 65534 65534\n/new 0 0\n"
    made = os.stat(user.host("/new"))
    assert (made.st_uid, made.st_gid) == (ROOT, ROOT)
    assert os.stat(user.host("/theirs")).st_uid == 5


@spec(MAPPINGS, "The runtime SHOULD NOT modify the ownership of referenced filesystems to realize the mapping.")
def test_what_the_runtime_makes_belongs_to_the_container_s_root(user: Bundle, container: Container) -> None:
    user.config["mounts"].append({"destination": "/new/data", "type": "tmpfs", "source": "tmpfs"})
    user.process["cwd"] = "/made/by/runtime"
    assert container.output("stat", "-c", "%u %g", "/new", "/new/data", "/made") == "0 0\n" * 3
    assert os.stat(user.host("/made/by")).st_uid == ROOT


@spec("config.md#mounts")
def test_mounts(user: Bundle, container: Container) -> None:
    mounts = {m.target: m for m in parse_mounts(container.output("cat", "/proc/self/mountinfo"))}
    assert {mounts[path].fstype for path in ("/proc", "/sys", "/dev/pts", "/dev/mqueue")} == {
        "proc",
        "sysfs",
        "devpts",
        "mqueue",
    }
    assert "ro" in mounts["/sys"].options


@spec("config.md#mounts")
def test_masks_and_read_only(user: Bundle, container: Container) -> None:
    user.config["root"]["readonly"] = True
    user.file("/secret", "secret")
    user.linux["maskedPaths"].append("/secret")
    user.sh(
        "cat /secret; touch /file 2>/dev/null || echo refused;"
        " echo 1 2>/dev/null > /proc/sys/kernel/shm_rmid_forced || echo too"
    )
    assert container.output() == "refused\ntoo\n"


@spec("config.md#mounts", "can also be a file or directory name for bind mounts")
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["open", "private"])
def test_a_volume_below_a_directory_that_only_the_host_s_root_enters(
    user: Bundle, container: Container, test: Test, mode: int
) -> None:
    if mode == 0o700 and runc_1_1(container):
        not_applicable("runc 1.1 can't; corrected since")
    above = os.path.join(test.directory, "above")
    os.makedirs(f"{above}/volume")
    os.chmod(above, mode)
    pathlib.Path(above, "volume/file").write_text("text")
    user.config["mounts"].append({"destination": "/data", "source": f"{above}/volume", "options": ["rbind"]})
    assert container.output("cat", "/data/file") == "text"


@spec("config.md#linux-mount-options", "bind | MUST | Bind mount")
@pytest.mark.parametrize(
    "options", [["bind", "ro"], ["rbind", "nosuid", "nodev"], ["rbind", "ro", "rprivate"]], ids=",".join
)
def test_a_volume_with_locked_flags(user: Bundle, container: Container, test: Test, options: list[str]) -> None:
    """The host's nosuid, nodev and noexec can't be taken away in a user namespace; asking for more must work."""
    if container.runtime.name != "pyrunc":
        not_applicable("runc 1.1 can't (corrected since), crun clears them from outside")
    volume = os.path.join(test.directory, "volume")
    os.mkdir(volume)
    harness.mount("volume", volume, "tmpfs", 2 | 4 | 8, "mode=755")
    user.config["mounts"].append({"destination": "/data", "source": volume, "type": "bind", "options": options})
    try:
        found = [m for m in parse_mounts(container.output("cat", "/proc/self/mountinfo")) if m.target == "/data"][-1]
    finally:
        harness.umount(volume)
    assert {"nosuid", "nodev", "noexec"} <= set(found.options)
    if "ro" in options:
        assert "ro" in found.options


@spec("config.md#linux-mount-options", "tmpcopyup | MAY | copy up the contents to a tmpfs")
def test_tmpcopyup(user: Bundle, container: Container) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun keeps no owners")
    os.makedirs(user.host("/data"))
    os.chown(user.host("/data"), ROOT, ROOT)
    os.chown(user.file("/data/file", "text"), ROOT + 7, ROOT + 8)
    user.config["mounts"].append({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]})
    user.sh("stat -c '%u %g' /data/file; cat /data/file")
    assert container.output() == "7 8\ntext"


@spec("config-linux.md#sysctl", "allows kernel parameters to be modified at runtime for the container")
@pytest.mark.parametrize(
    ("key", "value"), [("net.ipv4.ip_forward", "1"), ("kernel.shmmax", "65536"), ("net.core.somaxconn", "99")]
)
def test_sysctl(user: Bundle, container: Container, key: str, value: str) -> None:
    user.linux["sysctl"] = {key: value}
    path = "/proc/sys/" + key.replace(".", "/")
    before = pathlib.Path(path).read_text()
    assert container.output("cat", path) == value + "\n"
    assert pathlib.Path(path).read_text() == before


@spec("config.md#linux-process")
def test_capabilities_are_the_namespace_s(user: Bundle, container: Container) -> None:
    for names in user.process["capabilities"].values():
        names += ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_MKNOD"]
    user.sh(
        "ip link add cfu type veth && echo link; mount -t tmpfs x /tmp && echo mount;"
        " mknod /tmp/disk b 254 0 2>/dev/null || echo no device"
    )
    assert container.output() == "link\nmount\nno device\n"


@spec("runc-exec.8", "Execute new process inside the container")
def test_exec(user: Bundle, container: Container) -> None:
    container.run_detached()
    assert container.exec("id", "-u", flags=["--user", "1000:1000"]).stdout == "1000\n"
    assert container.exec("cat", "/proc/self/uid_map").stdout.split() == ["0", str(ROOT), "65536"]
    assert container.exec("true", flags=["--user", "70000"]).status != 0


@spec("runtime.md#lifecycle")
def test_lifecycle(user: Bundle, container: Container) -> None:
    container.create()
    container.start()
    assert container.state()["status"] == "running"
    container.kill()
    container.wait()
    container.delete()


@spec(NAMESPACES, "the container will have its own network stack")
def test_loopback(user: Bundle, container: Container) -> None:
    assert "UP" in container.output("ip", "link", "show", "lo")


@spec(NAMESPACES, "the container will have an isolated view of the cgroup hierarchy")
def test_all_namespaces(user: Bundle, container: Container) -> None:
    kinds = ["cgroup"] + (["time"] if container.runtime.name == "pyrunc" else [])
    user.namespaces(add=[{"type": kind} for kind in kinds])
    if "time" in kinds:
        user.linux["timeOffsets"] = {"boottime": {"secs": 1000000}}
    container.run_detached()
    for name in ("user", "pid", "net", "ipc", "uts", "mnt", *kinds):
        assert namespace(container.pid, name) != namespace("self", name)
    if "time" in kinds:
        assert float(container.exec("cat", "/proc/uptime").stdout.split()[0]) > 1000000


@spec("config.md#linux-mount-options")
@requires("cgroup v1")
def test_cgroup_mount(user: Bundle, container: Container) -> None:
    user.namespaces(add=[{"type": "cgroup"}])
    user.config["mounts"].append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
    )
    assert "1" in container.output("cat", "/sys/fs/cgroup/pids/cgroup.procs").split()


# ------------------------------------------------------------------------------------------- joining by path


class Holder:
    """A process in a user namespace and others that belong to it."""

    def __init__(self, *kinds: str, first: int = 0) -> None:
        """
        Args:
            first: the lowest ID in it.
        """
        flags = CLONE_NEWUSER + sum(KINDS[kind][1] for kind in kinds)
        up, down = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            if _libc.unshare(flags):
                os._exit(1)
            os.write(up[1], b"x")
            signal.pause()
            os._exit(0)
        os.close(up[1])
        assert os.read(up[0], 1) == b"x"
        for fd in (up[0], *down):
            os.close(fd)
        for name in ("uid_map", "gid_map"):
            pathlib.Path(f"/proc/{self.pid}/{name}").write_text(f"{first} {ROOT} 65536\n")

    def path(self, name: str) -> str:
        return f"/proc/{self.pid}/ns/{name}"

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def holder(test: Test) -> Iterator[Holder]:
    made = Holder(*KINDS)
    yield made
    made.close()


def takes_user_namespaces_by_path(container: Container) -> None:
    if container.runtime.name == "runc" and container.runtime.version.startswith("1.1."):
        not_applicable("runc 1.1 wants mappings beside the path, and then can't join it")


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
@pytest.mark.parametrize("with_mappings", [False, True])
@pytest.mark.parametrize("others", [[], ["network"], ["network", "ipc", "uts"]], ids=len)
def test_joining(bundle: Bundle, container: Container, holder: Holder, others: list[str], with_mappings: bool) -> None:
    """podman and containerd give the mappings beside the path, as runc once wanted it."""
    takes_user_namespaces_by_path(container)
    bundle.own(ROOT, ROOT)
    entries = [{"type": "user", "path": holder.path("user")}]
    entries += [{"type": kind, "path": holder.path(KINDS[kind][0])} for kind in others]
    bundle.namespaces(drop=others, add=entries)
    if with_mappings:
        bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = [mapping(0, ROOT, 65536)]
    container.run_detached()
    for name in ("user", *(KINDS[kind][0] for kind in others)):
        assert namespace(container.pid, name) == namespace(holder.pid, name)
    assert container.exec("id", "-u").stdout == "0\n"
    assert proc_status(container.pid)["Uid"].split()[0] == str(ROOT)


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
def test_a_pod_with_a_user_namespace(
    user: Bundle, container: Container, new_bundle: Callable[[], Bundle], new_container: Callable[..., Container]
) -> None:
    takes_user_namespaces_by_path(container)
    container.run_detached()
    member = new_bundle()
    member.own(ROOT, ROOT)
    shared = {"user": "user", "network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"}
    del member.config["hostname"]
    member.namespaces(
        drop=shared, add=[{"type": k, "path": f"/proc/{container.pid}/ns/{n}"} for k, n in shared.items()]
    )
    second = new_container(member)
    second.run_detached()
    for name in shared.values():
        assert namespace(second.pid, name) == namespace(container.pid, name)
    assert second.exec("cat", "/proc/1/comm").stdout == "sleep\n"
    second.kill()
    second.wait()
    second.delete()


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
@pytest.mark.parametrize(
    ("uids", "gids"),
    [
        ([mapping(0, ROOT + 1, 65536)], [mapping(0, ROOT, 65536)]),
        ([mapping(0, ROOT, 65536)], [mapping(0, ROOT, 65535)]),
        ([mapping(0, ROOT, 65536)], []),
    ],
    ids=["other users", "fewer groups", "no groups"],
)
def test_joining_with_other_mappings(
    bundle: Bundle, container: Container, holder: Holder, uids: list[Json], gids: list[Json]
) -> None:
    """What is configured can't be had there: to go on would be a container other than the one asked for."""
    if container.runtime.name == "crun":
        not_applicable("crun passes over the mappings")
    takes_user_namespaces_by_path(container)
    bundle.namespaces(add=[{"type": "user", "path": holder.path("user")}])
    bundle.linux["uidMappings"], bundle.linux["gidMappings"] = uids, gids
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert "/linux/uidMappings" in said or "/linux/gidMappings" in said


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
@pytest.mark.parametrize("first", ["user", "others"])
def test_joining_in_any_order(bundle: Bundle, container: Container, holder: Holder, first: str) -> None:
    """What belongs to the host is entered with the host's privileges, what belongs to the user namespace with those
    that it gives, whichever the configuration names first."""
    takes_user_namespaces_by_path(container)
    bundle.own(ROOT, ROOT)
    others = [{"type": "network", "path": holder.path("net")}, {"type": "uts", "path": "/proc/self/ns/uts"}]
    others.append({"type": "ipc", "path": holder.path("ipc")})
    user = [{"type": "user", "path": holder.path("user")}]
    kept = [n for n in bundle.linux["namespaces"] if n["type"] not in ("network", "uts", "ipc")]
    del bundle.config["hostname"]
    bundle.linux["namespaces"] = [*user, *others, *kept] if first == "user" else [*kept, *others, *user]
    container.run_detached()
    for name in ("user", "net", "ipc"):
        assert namespace(container.pid, name) == namespace(holder.pid, name)
    assert namespace(container.pid, "uts") == namespace("self", "uts")
    assert container.exec("id", "-u").stdout == "0\n"


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
def test_joining_a_namespace_without_root(bundle: Bundle, container: Container, test: Test) -> None:
    """Nobody could set the container up."""
    rootless = Holder(first=1000)
    try:
        bundle.namespaces(add=[{"type": "user", "path": rootless.path("user")}])
        bundle.process["user"] = {"uid": 1000, "gid": 1000}
        said = refused(container)
    finally:
        rootless.close()
    if container.runtime.name == "pyrunc":
        assert "become root of the user namespace: " in said and "/path: " in said
        assert "no mapping found for uid 0" in said


@spec(NAMESPACES, "The runtime MUST generate an error if path is not associated with a namespace of type type.")
def test_joining_something_else(bundle: Bundle, container: Container, holder: Holder) -> None:
    bundle.namespaces(add=[{"type": "user", "path": holder.path("net")}])
    refused(container)


# ------------------------------------------------------------------------------------------------ ordinary users


class Ordinary:
    """Runs the runtime as an ordinary user, in a mount namespace where /etc/subuid gives this user some IDs."""

    UID = 54321

    def __init__(self, container: Container, test: Test) -> None:
        self.container = container
        self.directory = os.path.join(test.directory, "ordinary")
        for name in ("", "root", "run"):
            os.makedirs(os.path.join(self.directory, name), exist_ok=True)
            os.chown(os.path.join(self.directory, name), self.UID, self.UID)
        container.bundle.own(self.UID, self.UID)
        os.chown(container.bundle.path, self.UID, self.UID)
        passwd = pathlib.Path("/etc/passwd").read_text() + f"conformance:x:{self.UID}:{self.UID}::/:/bin/sh\n"
        group = pathlib.Path("/etc/group").read_text() + f"conformance:x:{self.UID}:\n"
        ids = f"conformance:{ROOT}:65536\n"
        files = {"passwd": passwd, "group": group, "subuid": ids, "subgid": ids}
        self.setup = ""
        for name, text in files.items():
            path = os.path.join(test.directory, name)
            pathlib.Path(path).write_text(text)
            os.chmod(path, 0o644)
            pathlib.Path("/etc", name).touch()
            self.setup += f"mount -o bind {path} /etc/{name}; "

    def run(self, *args: str, within: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run the runtime; `within` is a command that runs it, such as unshare(1)."""
        return self.sh(f'exec {" ".join(within)} $RUNTIME "$@"', *args)

    def sh(self, script: str, *args: str, groups: str = "--clear-groups") -> subprocess.CompletedProcess[str]:
        """Run a script of the shell: $RUNTIME in it is the runtime with its global options, $ID the container's ID.

        The arguments are the script's. All of its commands see the same files.
        """
        runtime = self.container.runtime
        command = " ".join([runtime.path, *runtime.global_args, "--root", f"{self.directory}/root"])
        return subprocess.run(
            ["unshare", "--mount", "sh", "-euc", self.setup + 'exec "$@"', "sh"]
            + ["setpriv", f"--reuid={self.UID}", f"--regid={self.UID}", groups, "sh", "-c", script, "sh", *args],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=harness.TIMEOUT * harness.SCALE,
            cwd=self.directory,
            env={
                **runtime.env,
                "XDG_RUNTIME_DIR": f"{self.directory}/run",
                "RUNTIME": command,
                "ID": self.container.id,
                "BUNDLE": self.container.bundle.path,
            },
            check=False,
        )

    def maps_itself(self) -> None:
        """As the machine lets everybody: root of the container is this user, and there is no other ID."""
        self.container.bundle.linux["uidMappings"] = [mapping(0, self.UID, 1)]
        self.container.bundle.linux["gidMappings"] = [mapping(0, self.UID, 1)]

    def said(self, script: str) -> str:
        """What a script prints, both ways, with the bundle as it is now; the container is gone at its end.

        The script ends well, and what it lets fail it asks itself.
        """
        self.container.bundle.write()
        done = self.sh(f"{{ {script}\n}} 2>&1; said=$?; $RUNTIME delete --force $ID > /dev/null 2>&1; exit $said")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def ordinary(bundle: Bundle, container: Container, test: Test) -> Ordinary:
    try:
        pwd.getpwuid(Ordinary.UID)
        not_applicable(f"the host has a user {Ordinary.UID}")
    except KeyError:
        pass
    bundle.namespaces(drop=["network"], add=[{"type": "user"}])
    bundle.linux["resources"] = {}
    bundle.linux["cgroupsPath"] = None
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] not in ("sysfs", "mqueue")]
    bundle.linux["maskedPaths"] = ["/proc/kcore"]
    pts = next(m for m in bundle.config["mounts"] if m["type"] == "devpts")
    pts["options"].remove("gid=5")
    return Ordinary(container, test)


@spec("runc-spec.8", "Generate a configuration for a rootless container.")
def test_what_spec_writes_for_an_ordinary_user_runs(bundle: Bundle, container: Container, ordinary: Ordinary) -> None:
    """With its cgroup mount, although the container may have no cgroup of its own."""
    path = pathlib.Path(bundle.path, "config.json")
    path.unlink(missing_ok=True)
    done = ordinary.run("spec", "--rootless", "--bundle", bundle.path)
    assert done.returncode == 0, done.stderr
    config = json.loads(path.read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["sh", "-c", "id -u; ls -A /sys/fs/cgroup | head -n 1"]
    path.write_text(json.dumps(config))
    done = ordinary.run("run", "--bundle", bundle.path, container.id)
    assert done.returncode == 0, done.stderr
    root, something = done.stdout.split()
    assert root == "0" and something


@spec("config.md#mounts", "The runtime MUST mount entries in the listed order.")
def test_a_source_in_an_ordinary_user_s_root_filesystem_has_the_mounts_before(
    bundle: Bundle, container: Container, ordinary: Ordinary
) -> None:
    ordinary.maps_itself()
    rootfs = os.path.join(bundle.path, "rootfs")
    os.mkdir(os.path.join(bundle.path, "volume"))
    pathlib.Path(bundle.path, "volume/file").write_text("text\n")
    for name in ("data", "again"):
        os.mkdir(os.path.join(rootfs, name))
    pathlib.Path(rootfs, "file").touch()
    sources = {"/data": "volume", "/again": "rootfs/data", "/file": "rootfs/data/file"}
    bundle.config["mounts"] += [
        {"destination": path, "source": os.path.join(bundle.path, source), "options": ["bind"]}
        for path, source in sources.items()
    ]
    bundle.process["args"] = ["cat", "/again/file", "/file"]
    bundle.write()
    done = ordinary.run("run", "--bundle", bundle.path, container.id)
    assert (done.returncode, done.stdout) == (0, "text\ntext\n"), done.stderr


@spec(MAPPINGS, "describes the user namespace uid mappings from the host to the container")
def test_an_ordinary_user_maps_itself(bundle: Bundle, container: Container, ordinary: Ordinary) -> None:
    ordinary.maps_itself()
    bundle.sh("id -u; id -g; cat /proc/self/uid_map; touch /file; cat /proc/self/setgroups")
    bundle.write()
    done = ordinary.run("run", "--bundle", bundle.path, container.id)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "0", "0", str(Ordinary.UID), "1", "deny"]), done.stderr
    assert os.stat(bundle.host("/file")).st_uid == Ordinary.UID


@spec("runtime.md#lifecycle")
def test_an_ordinary_user_who_is_root_of_a_namespace(bundle: Bundle, container: Container, ordinary: Ordinary) -> None:
    """As podman calls a runtime for an ordinary user: as root, who may make no cgroup and no device all the same."""
    bundle.namespaces(drop=["user"])
    bundle.sh("id -u; cat /proc/self/uid_map; echo gone > /dev/null && ls -A /dev/null")
    bundle.write()
    done = ordinary.run(
        *("run", "--bundle", bundle.path, container.id), within=("unshare", "--user", "--map-root-user", "--mount")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "0", str(Ordinary.UID), "1", "/dev/null"]


@spec(MAPPINGS, "describes the user namespace uid mappings from the host to the container")
@requires("command:newuidmap")
def test_an_ordinary_user_with_subordinate_ids(bundle: Bundle, container: Container, ordinary: Ordinary) -> None:
    """newuidmap(1) and newgidmap(1) write mappings that the kernel takes from nobody else."""
    bundle.linux["uidMappings"] = [mapping(0, Ordinary.UID, 1), mapping(1, ROOT, 65536)]
    bundle.linux["gidMappings"] = [mapping(0, Ordinary.UID, 1), mapping(1, ROOT, 65536)]
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.sh("id -u; id -g; cat /proc/self/uid_map")
    bundle.write()
    done = ordinary.run("run", "--bundle", bundle.path, container.id)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1000", "1000", "0", str(Ordinary.UID), "1", "1", str(ROOT), "65536"]


@spec(MAPPINGS)
@requires("command:newuidmap")
def test_an_ordinary_user_with_ids_of_others(bundle: Bundle, container: Container, ordinary: Ordinary) -> None:
    bundle.linux["uidMappings"] = [mapping(0, Ordinary.UID, 1), mapping(1, 300000, 100)]
    bundle.linux["gidMappings"] = [mapping(0, Ordinary.UID, 1), mapping(1, 300000, 100)]
    bundle.write()
    done = ordinary.run("run", "--bundle", bundle.path, container.id)
    assert done.returncode != 0
    assert done.stderr
    if container.runtime.name == "pyrunc":
        assert "/linux/uidMappings" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@spec(MAPPINGS)
def test_subordinate_ids_without_newuidmap(container: Container, ordinary: Ordinary) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun maps the one ID then")
    ids = [mapping(0, Ordinary.UID, 1), mapping(1, ROOT, 65536)]
    container.bundle.linux["uidMappings"] = container.bundle.linux["gidMappings"] = ids
    container.bundle.args("echo", "runs")
    said = ordinary.said("PATH=/nonexistent $RUNTIME run --bundle $BUNDLE $ID; true")
    assert said and "runs" not in said.split()
    if container.runtime.name == "pyrunc":
        assert "/linux/uidMappings: newuidmap: is not installed" in said


@spec("runtime.md#lifecycle")
@requires("command:newuidmap")
def test_an_ordinary_user_s_lifecycle(bundle: Bundle, container: Container, ordinary: Ordinary) -> None:
    """Calls one after the other, each in a namespace with the same files."""
    bundle.linux["uidMappings"] = [mapping(0, Ordinary.UID, 1), mapping(1, ROOT, 65536)]
    bundle.linux["gidMappings"] = [mapping(0, Ordinary.UID, 1), mapping(1, ROOT, 65536)]
    bundle.write()
    script = """
    $RUNTIME run --detach --bundle $BUNDLE $ID > /dev/null 2> errors < /dev/null || cat errors
    $RUNTIME state $ID | grep -o running
    $RUNTIME exec $ID id -u
    $RUNTIME kill $ID KILL
    sleep 0.3
    $RUNTIME delete $ID && echo deleted
    """
    done = ordinary.sh(script)
    assert done.stdout.split() == ["running", "0", "deleted"], done.stderr
    shutil.rmtree(f"{ordinary.directory}/root")


#: A script's beginning: a container that goes on by itself.
DETACHED = "$RUNTIME run --detach --bundle $BUNDLE $ID > /dev/null 2> errors < /dev/null || { cat errors; exit 1; }\n"


@spec(NAMESPACES, "The runtime MUST place the container process in the namespace associated with that path.")
@xfail_on("crun", "enters the PID namespace before the user namespace, and may not")
@requires("command:newuidmap")
def test_an_ordinary_user_s_pod(
    bundle: Bundle, container: Container, ordinary: Ordinary, new_bundle: Callable[[], Bundle]
) -> None:
    """The other namespaces belong to the user namespace, so only who has entered that may enter them."""
    takes_user_namespaces_by_path(container)
    bundle.linux["uidMappings"] = [mapping(0, Ordinary.UID, 1), mapping(1, ROOT, 65536)]
    bundle.linux["gidMappings"] = [mapping(0, Ordinary.UID, 1), mapping(1, ROOT, 65536)]
    bundle.write()
    shared = {"user": "user", "ipc": "ipc", "uts": "uts", "pid": "pid"}
    member = new_bundle()
    member.own(Ordinary.UID, Ordinary.UID)
    member.config = json.loads(json.dumps(bundle.config))
    del member.config["hostname"], member.linux["uidMappings"], member.linux["gidMappings"]
    member.namespaces(
        drop=shared, add=[{"type": kind, "path": f"/proc/PID/ns/{name}"} for kind, name in shared.items()]
    )
    member.sh("id -u; hostname; cat /proc/1/comm; cat /proc/self/uid_map")
    member.write()
    os.chown(member.path, Ordinary.UID, Ordinary.UID)
    os.chown(f"{member.path}/config.json", Ordinary.UID, Ordinary.UID)
    script = f"""
    pid=$($RUNTIME state $ID | sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p')
    sed -i "s:/proc/PID/:/proc/$pid/:" {member.path}/config.json
    $RUNTIME run --bundle {member.path} $ID-member
    """
    said = ordinary.said(DETACHED + script).split()  # a warning first: without a cgroup and a PID namespace of its own
    wanted = ["0", bundle.config["hostname"], "sleep", "0", str(Ordinary.UID), "1", "1", str(ROOT), "65536"]
    assert said[-len(wanted) :] == wanted


@spec("runc-create.8", "Create an instance of a container from a bundle")
def test_an_ordinary_user_execs_in_a_created_container(container: Container, ordinary: Ordinary) -> None:
    """Its init has executed nothing in the user namespace, and may all the same be entered by who made it."""
    if container.runtime.name == "crun":
        not_applicable("crun execs in running containers only")
    ordinary.maps_itself()
    created = "$RUNTIME create --bundle $BUNDLE $ID > /dev/null 2> errors < /dev/null || cat errors\n"
    assert (
        ordinary.said(created + "$RUNTIME exec $ID id -u; $RUNTIME state $ID | grep -o created.,") == '0\ncreated",\n'
    )


@spec("runc-ps.8", "displays the processes running inside a container")
def test_without_a_cgroup_init_at_least_is_listed(container: Container, ordinary: Ordinary) -> None:
    if container.runtime.name != "pyrunc":
        not_applicable("runc and crun know a container's processes by its cgroup alone")
    ordinary.maps_itself()
    (pid,) = json.loads(ordinary.said(DETACHED + "$RUNTIME ps --format json $ID"))
    assert pid > 1


@spec("runc-events.8", "--stats")
def test_without_a_cgroup_nothing_is_counted(container: Container, ordinary: Ordinary) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun has no events")
    ordinary.maps_itself()
    events = [
        json.loads(line) for line in ordinary.said(DETACHED + "$RUNTIME events --stats $ID 2> /dev/null").splitlines()
    ]
    assert [(e["type"], e["id"], e["data"]["pids"]) for e in events] == [("stats", container.id, {})]


@spec("runc-pause.8", "suspends all processes in a container")
def test_without_a_cgroup_there_is_no_pause(container: Container, ordinary: Ordinary) -> None:
    ordinary.maps_itself()
    said = ordinary.said(DETACHED + "$RUNTIME pause $ID && echo paused; $RUNTIME exec $ID echo runs")
    assert "paused" not in said.split()
    assert said.endswith("\nruns\n")
    if container.runtime.name != "crun":
        assert "cannot toggle freezer: cgroups not configured for container" in said


@spec("runc-kill.8", "sends the specified signal (default: SIGTERM) to the container's initial process")
def test_without_a_cgroup_it_is_killed_and_deleted(container: Container, ordinary: Ordinary) -> None:
    ordinary.maps_itself()
    refused = "$RUNTIME delete $ID && echo deleted while it ran\n"
    killed = "$RUNTIME kill $ID KILL; n=0\n"
    killed += "until $RUNTIME delete $ID 2> /dev/null || [ $((n += 1)) = 50 ]; do sleep 0.1; done\n"
    gone = "$RUNTIME state $ID > /dev/null 2>&1 || echo gone"
    assert ordinary.said(DETACHED + refused + killed + gone).splitlines()[-1] == "gone"


@spec("config-linux.md#control-groups")
def test_a_limit_without_a_cgroup_is_refused(container: Container, ordinary: Ordinary) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun drops the limit")
    ordinary.maps_itself()
    container.bundle.linux["resources"] = {"pids": {"limit": 10}}
    said = ordinary.said("$RUNTIME run --bundle $BUNDLE $ID && echo runs; true")
    assert "cannot set pids limit: container could not join or create cgroup" in said
    assert "runs" not in said.split()


@spec("config-linux.md#cgroups-path")
def test_a_cgroup_of_others_is_refused(container: Container, ordinary: Ordinary) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun goes without")
    ordinary.maps_itself()
    container.bundle.linux["cgroupsPath"] = f"/{container.id}/below"
    said = ordinary.said("$RUNTIME run --bundle $BUNDLE $ID && echo runs; true")
    assert "unable to apply cgroup configuration" in said
    assert "permission denied" in said
    assert "runs" not in said.split()


@spec(NAMESPACES, "processes inside the container will only be able to see other processes inside the same container")
@pytest.mark.parametrize("own", [True, False])
def test_without_a_cgroup_and_a_pid_namespace(container: Container, ordinary: Ordinary, own: bool) -> None:
    """Nobody can find all of its processes then: there is a warning, and the container."""
    if container.runtime.name == "crun" or runc_1_1(container):
        not_applicable("runc warns since 1.2")
    ordinary.maps_itself()
    if not own:
        container.bundle.namespaces(drop=["pid"])
        proc = next(m for m in container.bundle.config["mounts"] if m["type"] == "proc")
        proc |= {"type": "bind", "source": "/proc", "options": ["rbind"]}
        container.bundle.linux["maskedPaths"] = []
    container.bundle.args("echo", "runs")
    said = ordinary.said("$RUNTIME run --bundle $BUNDLE $ID").splitlines()
    assert said[-1] == "runs"
    assert ("strongly discouraged" in said[0]) != own


@spec(NAMESPACES, "user the container will be able to remap user and group IDs from the host")
def test_an_ordinary_user_needs_a_user_namespace(container: Container, ordinary: Ordinary) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun makes one by itself")
    spaces = container.bundle.linux["namespaces"]
    container.bundle.linux["namespaces"] = [n for n in spaces if n["type"] != "user"]
    said = ordinary.said("$RUNTIME run --bundle $BUNDLE $ID && echo runs; true")
    assert "rootless container requires user namespaces" in said
    assert "runs" not in said.split()


@spec("config.md#posix-platform-user", "specifies additional group IDs to be added to the process")
def test_groups_where_setgroups_is_denied(container: Container, ordinary: Ordinary) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun drops them")
    ordinary.maps_itself()
    container.bundle.process["user"]["additionalGids"] = [0]
    said = ordinary.said("$RUNTIME run --bundle $BUNDLE $ID && echo runs; true")
    assert "cannot set any additional groups in a rootless container" in said
    assert "runs" not in said.split()


@spec("config.md#posix-platform-user", "specifies additional group IDs to be added to the process")
@requires("command:newgidmap")
def test_groups_among_subordinate_ids(container: Container, ordinary: Ordinary) -> None:
    if container.runtime.name.startswith("runc"):
        not_applicable("runc sets no additional groups for an ordinary user")
    ids = [mapping(0, Ordinary.UID, 1), mapping(1, ROOT, 65536)]
    container.bundle.linux["uidMappings"] = container.bundle.linux["gidMappings"] = ids
    container.bundle.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [7]}
    container.bundle.args("id", "-G")
    assert ordinary.said("$RUNTIME run --bundle $BUNDLE $ID") == "6 7\n"


@spec(MAPPINGS)
def test_no_group_of_an_ordinary_user_is_dropped_where_it_may_not_be(container: Container, ordinary: Ordinary) -> None:
    """user_namespaces(7): setgroups is denied for who maps but his own group, since a group can also forbid."""
    ordinary.maps_itself()
    container.bundle.args("cat", "/proc/self/setgroups")
    container.bundle.write()
    done = ordinary.sh("$RUNTIME run --bundle $BUNDLE $ID; grep Groups /proc/self/status", groups="--groups=7")
    assert done.stdout.split() == ["deny", "Groups:", "7"], done.stderr


@spec("config-linux.md#default-devices", "the runtime MUST also supply the following default devices")
def test_an_ordinary_user_s_devices_are_the_host_s(container: Container, ordinary: Ordinary) -> None:
    ordinary.maps_itself()
    container.bundle.sh("echo x > /dev/null; head -c 3 /dev/zero | wc -c; stat -c '%t:%T %u' /dev/zero /dev/full")
    assert ordinary.said("$RUNTIME run --bundle $BUNDLE $ID").split() == ["3", "1:5", "65534", "1:7", "65534"]


@spec("runc.8", "--rootless true|false|auto")
@pytest.mark.parametrize(("word", "runs"), [("auto", True), ("true", True), ("false", False), ("maybe", False)])
def test_whether_to_go_without_a_cgroup(container: Container, ordinary: Ordinary, word: str, runs: bool) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun has no --rootless")
    ordinary.maps_itself()
    container.bundle.args("echo", "runs")
    said = ordinary.said(f"$RUNTIME --rootless {word} run --bundle $BUNDLE $ID; true")
    assert ("runs" in said.split()) == runs
    if word == "maybe":
        assert "maybe" in said


@spec(NAMESPACES, "user the container will be able to remap user and group IDs from the host")
def test_a_namespace_in_an_ordinary_user_s_namespace(container: Container, ordinary: Ordinary) -> None:
    container.bundle.linux["uidMappings"] = container.bundle.linux["gidMappings"] = [mapping(0, 0, 1)]
    container.bundle.sh("id -u; stat -c %t:%T /dev/null")
    container.bundle.write()
    done = ordinary.sh("exec unshare --user --map-root-user $RUNTIME run --bundle $BUNDLE $ID")
    assert done.stdout.split() == ["0", "1:3"], done.stderr


@spec("config-linux.md#cgroups-path")
@requires("cgroup v1")
@requires("controller:pids")
def test_another_user_s_container_of_the_same_id(container: Container, ordinary: Ordinary) -> None:
    """Its cgroup, which is where this one's would be, is not for this user, who goes without as ever."""
    if container.runtime.name != "pyrunc":
        not_applicable("runc wants that cgroup to be empty, crun has none for ordinary users")
    ordinary.maps_itself()
    container.bundle.args("grep", ":pids:", "/proc/self/cgroup")
    ours = harness.Cgroups().of(os.getpid())
    there = {f"{ours[name]}/{container.id}" for name in ("devices", "freezer", "pids", "memory", "cpu") if name in ours}
    other = subprocess.Popen(["sleep", "1000"])
    try:
        for directory in there:
            os.mkdir(directory)
            pathlib.Path(directory, "cgroup.procs").write_text(str(other.pid))
        assert container.id not in ordinary.said("$RUNTIME run --bundle $BUNDLE $ID")
    finally:
        other.kill()
        other.wait()
        for directory in there:
            os.rmdir(directory)


# ------------------------------------------------------------------------------------------- delegated cgroups


@pytest.fixture
def delegated(ordinary: Ordinary, container: Container) -> Iterator[str]:
    """The path of a cgroup that the ordinary user may use, of v1's controllers and of nothing else: administrators who
    hand those down seldom know of other hierarchies."""
    cgroups = harness.Cgroups()
    path = f"/{container.id}-delegated"
    made = []
    for mountpoint in sorted({cgroups.controllers[name] for name in cgroups.controllers if "=" not in name}):
        if mountpoint == cgroups.unified:
            continue
        directory = mountpoint + path
        os.mkdir(directory)
        made.append(directory)
        for name in ("", "cgroup.procs", "tasks"):
            os.chown(f"{directory}/{name}", 0, Ordinary.UID)
            os.chmod(f"{directory}/{name}", 0o775)
        for name in ("cpuset.cpus", "cpuset.mems"):
            file = pathlib.Path(directory, name)
            if file.exists():
                file.write_text(pathlib.Path(mountpoint, name).read_text())
    yield path
    for directory in made:
        os.rmdir(directory)


@spec("config-linux.md#cgroups-path")
@requires("cgroup v1")
@requires("controller:pids")
def test_a_delegated_cgroup(container: Container, ordinary: Ordinary, delegated: str) -> None:
    """With a limit, processes that are added, pause, and nothing left of it at the end."""
    if container.runtime.name == "crun":
        not_applicable("crun takes cgroup v1 or v2, not both")
    ordinary.maps_itself()
    container.bundle.linux["cgroupsPath"] = f"{delegated}/{container.id}"
    container.bundle.linux["resources"] = {"pids": {"limit": 20}}
    script = """
    $RUNTIME exec $ID cat /proc/self/cgroup | grep :pids:
    cat $PIDS/pids.max
    $RUNTIME ps --format json $ID
    $RUNTIME pause $ID && $RUNTIME state $ID | grep -o '"paused"' && $RUNTIME resume $ID
    $RUNTIME update --pids-limit 30 $ID; cat $PIDS/pids.max
    $RUNTIME kill $ID KILL
    sleep 0.5
    $RUNTIME delete $ID; ls -d $PIDS 2> /dev/null
    true
    """
    pids = harness.Cgroups().controllers["pids"] + f"{delegated}/{container.id}"
    said = ordinary.said(DETACHED + script.replace("$PIDS", pids))
    lines = [line for line in said.splitlines() if "level=warning" not in line]  # runc 1.1's
    (pid,) = json.loads(lines[2])
    assert pid > 1
    if not container.runtime.name.startswith("runc"):  # which may be too late to move it, and goes without, silently
        assert lines[0].endswith(f":pids:{delegated}/{container.id}")
    assert [lines[1], *lines[3:]] == ["20", '"paused"', "30"]
