"""root: its path, read-only, propagation; how the process gets into it; what is masked or read-only in it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

from conformance import harness
from conformance.harness import (
    Bundle,
    Container,
    Mount,
    Test,
    mounts,
    not_applicable,
    parse_mounts,
    pyrunc_promise,
    requires,
    spec,
    xfail_on,
)

ROOT = "config.md#root"
PROPAGATION = "config-linux.md#rootfs-mount-propagation"
MASKED = "config-linux.md#masked-paths"
READONLY = "config-linux.md#readonly-paths"


def table(container: Container) -> list[Mount]:
    """The container's mounts, as it sees them."""
    return parse_mounts(container.output("cat", "/proc/self/mountinfo"))


def at(found: list[Mount], target: str) -> Mount:
    """The mount on top at a path."""
    return [m for m in found if m.target == target][-1]


def kind(mount: Mount) -> str:
    """shared, master, unbindable, both by "+", or "" for private."""
    return "+".join(sorted(field.partition(":")[0] for field in mount.propagation))


def refused(container: Container, *flags: str) -> str:
    """Creation must fail; what the runtime said."""
    result = container.create(*flags, check=False)
    assert result.status != 0, f"should have failed: {result!r}"
    assert result.stderr
    return result.stderr


def allow(bundle: Bundle, *names: str) -> None:
    """Add capabilities."""
    for kept in bundle.process["capabilities"].values():
        kept.extend(names)


# -------------------------------------------------------------------------------------------------- path


@spec(ROOT, "path is either an absolute path or a relative path to the bundle")
@pytest.mark.parametrize("form", ["rootfs", "./rootfs", "rootfs/", "rootfs/../rootfs", "absolute", "other/deep"])
def test_path(bundle: Bundle, container: Container, form: str) -> None:
    bundle.file("/mark", "here")
    path = form
    if form == "absolute":
        path = bundle.rootfs
    elif form == "other/deep":
        os.mkdir(os.path.join(bundle.path, "other"))
        os.rename(bundle.rootfs, os.path.join(bundle.path, form))
    bundle.config["root"]["path"] = path
    assert container.output("cat", "/mark", cwd="/") == "here"


@spec(ROOT, "path is either an absolute path or a relative path to the bundle")
def test_path_outside_of_the_bundle(bundle: Bundle, container: Container, test: Test) -> None:
    elsewhere = os.path.join(test.directory, "elsewhere")
    os.rename(bundle.rootfs, elsewhere)
    bundle.config["root"]["path"] = elsewhere
    assert container.output("pwd") == "/\n"


@spec(ROOT, "path is either an absolute path or a relative path to the bundle")
def test_path_is_a_link(bundle: Bundle, container: Container) -> None:
    if container.runtime.name == "runc":
        not_applicable("runc 1.1 refuses it; the specification leaves it open")
    os.rename(bundle.rootfs, os.path.join(bundle.path, "real"))
    os.symlink("real", bundle.rootfs)
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    assert container.output("pwd") == "/\n"


@spec(ROOT, "A directory MUST exist at the path declared by the field.")
@pytest.mark.parametrize("what", ["missing", "file", "link to nothing"])
def test_no_directory_at_path(bundle: Bundle, container: Container, what: str) -> None:
    shutil.rmtree(bundle.rootfs)
    if what == "file":
        pathlib.Path(bundle.rootfs).write_text("")
    elif what == "link to nothing":
        os.symlink("nothing", bundle.rootfs)
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert "/root/path" in said


@spec(ROOT)
def test_the_root_is_the_root(bundle: Bundle, container: Container) -> None:
    """Nothing of the host is above it."""
    bundle.sh("cd /; cd ..; cd ../../..; pwd; ls -d /../../bin; stat -c %i / /.. | uniq | wc -l")
    assert container.output() == "/\n/../../bin\n1\n"


@spec(ROOT)
def test_no_mount_of_the_host_is_in_sight(bundle: Bundle, container: Container) -> None:
    targets = [m.target for m in table(container)]
    assert targets.count("/") == 1
    assert not [t for t in targets if not t.startswith(("/proc", "/dev", "/sys")) and t != "/"]


@spec(ROOT)
def test_mounts_below_the_root_are_seen(bundle: Bundle, container: Container, test: Test) -> None:
    """An engine may have put the rootfs together from several mounts."""
    os.mkdir(bundle.host("/volume"))
    harness.mount("below", bundle.host("/volume"), "tmpfs")
    try:
        pathlib.Path(bundle.host("/volume/file")).write_text("below")
        assert container.output("cat", "/volume/file") == "below"
    finally:
        harness.umount(bundle.host("/volume"))


@spec(ROOT)
def test_the_root_may_be_a_mount_point(bundle: Bundle, container: Container) -> None:
    harness.mount(bundle.rootfs, bundle.rootfs, "", 0x1000)
    try:
        assert container.output("pwd") == "/\n"
    finally:
        harness.umount(bundle.rootfs)


# ---------------------------------------------------------------------------------------------- read-only


@spec(ROOT, "If true then the root filesystem MUST be read-only inside the container")
def test_readonly(bundle: Bundle, container: Container) -> None:
    bundle.config["root"]["readonly"] = True
    bundle.sh("touch /file; mkdir /directory; touch /dev/shm/file && echo writable; grep ' / ' /proc/self/mountinfo")
    result = container.run(check=True)
    out = result.stdout.splitlines()
    assert out[0] == "writable"
    assert "ro" in Mount(out[1]).options
    assert result.stderr.count("Read-only file system") == 2
    assert not os.path.exists(bundle.host("/file"))


@spec(ROOT, "If true then the root filesystem MUST be read-only inside the container")
def test_readonly_is_the_container_s_only(bundle: Bundle, container: Container) -> None:
    """… on the host the rootfs stays writable."""
    bundle.config["root"]["readonly"] = True
    container.run_detached()
    pathlib.Path(bundle.host("/file")).write_text("host")
    assert container.exec("cat", "/file").stdout == "host"


@spec(ROOT, "defaults to false")
@pytest.mark.parametrize("value", [False, None])
def test_writable(bundle: Bundle, container: Container, value: bool | None) -> None:
    del bundle.config["root"]["readonly"]
    if value is not None:
        bundle.config["root"]["readonly"] = value
    bundle.sh("echo text > /file")
    container.output()
    assert pathlib.Path(bundle.host("/file")).read_text() == "text\n"


@spec(ROOT, "If true then the root filesystem MUST be read-only inside the container")
def test_readonly_with_missing_mount_points(bundle: Bundle, container: Container) -> None:
    """They are made before: on the host the rootfs is writable."""
    bundle.config["root"]["readonly"] = True
    bundle.config["mounts"].append({"destination": "/new/data", "type": "tmpfs", "source": "tmpfs"})
    bundle.process["cwd"] = "/new/cwd"
    bundle.sh("pwd; touch /new/data/file && echo writable; touch /new/file 2>/dev/null || echo refused")
    assert container.output() == "/new/cwd\nwritable\nrefused\n"


# --------------------------------------------------------------------------------------------- propagation


def shared_host(container: Container, script: str, **env: str) -> str:
    """Run a script in a mount namespace where, as under systemd, all is shared; its output.

    "$@" is the runtime with its options. At its end the script must have deleted the container.
    """
    bundle = container.bundle
    bundle.write(f"/{container.id}")
    argv = container.runtime.argv()
    command = ["unshare", "--mount", "--propagation", "shared", "sh", "-euc", script, "sh", *argv]
    # What the runtime's container keeps open would keep a pipe from ending
    out, err = container.runtime.scratch("out"), container.runtime.scratch("err")
    variables = {**container.runtime.env, "BUNDLE": bundle.path, "ID": container.id, **env}
    with open(out, "w") as o, open(err, "w") as e:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=o,
            stderr=e,
            timeout=60 * harness.SCALE,
            env=variables,
            cwd=container.runtime.directory,
            check=False,
        )
    said = pathlib.Path(out).read_text()
    assert done.returncode == 0, said + pathlib.Path(err).read_text()
    return said


#: What the host sees of itself before and after. The mount IDs are left out, peer groups of the rootfs may be new.
WATCHED = """
mounts() { cut -d' ' -f5 /proc/self/mountinfo; }
mount -t tmpfs volume "$VOLUME"
mounts > before
"$@" run --detach --bundle "$BUNDLE" "$ID" > /dev/null 2>&1 < /dev/null
mounts > during
cmp before during && echo nothing appeared
mkdir -p "$OUTSIDE"
mount -t tmpfs later "$OUTSIDE"
touch "$OUTSIDE/file"
"$@" exec "$ID" cat /proc/self/mountinfo > inside
"$@" exec "$ID" ls /volume/later > seen
"$@" exec "$ID" sh -c 'mkdir -p /tmp/inner; mount -t tmpfs inner /tmp/inner'
mounts > with
umount "$OUTSIDE"
"$@" delete --force "$ID"
mounts > after
cmp before after && echo nothing is left
umount "$VOLUME"
"""


@spec(PROPAGATION, "the rootfs mount belongs to a new peer group")
@requires("command:unshare")
@pytest.mark.parametrize(
    "word",
    [
        None,
        "slave",
        "rslave",
        "private",
        "rprivate",
        pytest.param("shared", marks=xfail_on("runc", "runc 1.1 leaves the root private")),
        pytest.param("rshared", marks=xfail_on("runc", "runc 1.1 leaves the root private")),
        pytest.param("unbindable", marks=xfail_on("runc", "runc 1.1 can't bind what it made unbindable")),
    ],
)
def test_propagation_on_a_shared_host(bundle: Bundle, container: Container, test: Test, word: str | None) -> None:
    """Nothing that happens in the container shows on the host, and nothing of the host's goes with it."""
    if word is not None:
        bundle.linux["rootfsPropagation"] = word
    volume = os.path.join(test.directory, "volume")
    os.mkdir(volume)
    bundle.config["mounts"].append({"destination": "/volume", "source": volume, "options": ["rbind", "rslave"]})
    allow(bundle, "CAP_SYS_ADMIN")
    bundle.process["noNewPrivileges"] = False
    said = shared_host(container, WATCHED, VOLUME=volume, OUTSIDE=f"{volume}/later")
    assert said == "nothing appeared\nnothing is left\n"
    directory = container.runtime.directory
    with_inner = pathlib.Path(directory, "with").read_text()
    assert "inner" not in with_inner
    inside = parse_mounts(pathlib.Path(directory, "inside").read_text())
    root = at(inside, "/")
    if word in ("shared", "rshared"):
        assert "shared" in kind(root)
        # "Note this does not mean that it's shared with the host."
        host = {field for m in mounts() for field in m.propagation}
        assert not host & {field for field in root.propagation if field.startswith("shared")}
    elif word in ("private", "rprivate"):
        assert kind(root) == ""
    elif word == "unbindable":
        assert kind(root) == "unbindable"
    seen = pathlib.Path(directory, "seen").read_text()
    if word in ("slave", "rslave", "shared", "rshared"):
        assert seen == "file\n"


@spec(PROPAGATION, "the rootfs mount receives propagation events from the host … but not the other way around")
@requires("command:unshare")
@pytest.mark.parametrize("word", ["slave", "rslave", "private"])
def test_the_root_s_own_propagation(bundle: Bundle, container: Container, test: Test, word: str) -> None:
    """What the host mounts in the rootfs while the container lives."""
    bundle.linux["rootfsPropagation"] = word
    os.mkdir(bundle.host("/volume"))
    script = """
    "$@" run --detach --bundle "$BUNDLE" "$ID" > /dev/null 2>&1 < /dev/null
    mount -t tmpfs later "$BUNDLE/rootfs/volume"
    touch "$BUNDLE/rootfs/volume/file"
    "$@" exec "$ID" ls /volume
    umount "$BUNDLE/rootfs/volume"
    "$@" delete --force "$ID"
    """
    seen = shared_host(container, script)
    if word == "private":
        assert seen == ""
    elif seen == "":
        not_applicable("a new mount of the rootfs is no peer of the host's unless that is a mount point itself")


@spec(PROPAGATION, "the rootfs mount is a private mount that cannot be bind-mounted")
@xfail_on("runc", "runc 1.1 can't bind what it made unbindable")
def test_unbindable(bundle: Bundle, container: Container) -> None:
    bundle.linux["rootfsPropagation"] = "unbindable"
    allow(bundle, "CAP_SYS_ADMIN")
    bundle.sh("mkdir -p /copy; mount -o bind / /copy 2>/dev/null && echo bound || echo refused")
    assert container.output() == "refused\n"


@spec(PROPAGATION, "Its value is either shared, slave, private or unbindable.")
@xfail_on("crun", "crun 1.8 ignores it")
@pytest.mark.parametrize("word", ["no-such-word", 7])
def test_a_wrong_propagation_is_an_error(bundle: Bundle, container: Container, word: Any) -> None:
    bundle.linux["rootfsPropagation"] = word
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert "/linux/rootfsPropagation" in said


# -------------------------------------------------------------------------------------- ways into the root


@spec("runc-run.8", "Do not use pivot root to jail process inside rootfs.")
@requires("flag:run --no-pivot")
def test_no_pivot(bundle: Bundle, container: Container) -> None:
    bundle.sh("ls -d /bin /etc; cd /../..; pwd; grep -c . /proc/self/mountinfo > /dev/null && echo mounts")
    assert container.run("--no-pivot", check=True).stdout == "/bin\n/etc\n/\nmounts\n"


@spec("runc-run.8", "Do not use pivot root to jail process inside rootfs.")
@requires("flag:create --no-pivot")
def test_no_pivot_lifecycle(bundle: Bundle, container: Container) -> None:
    before = {m.line for m in mounts()}
    bundle.config["root"]["readonly"] = True
    container.create("--no-pivot")
    container.start()
    assert {m.line for m in mounts()} == before
    assert container.exec("ls", "-d", "/bin").stdout == "/bin\n"
    assert container.exec("touch", "/file").status != 0
    assert "host" not in container.exec("ls", "/proc/1/root/").stdout


@spec("runc-run.8", "Do not use pivot root to jail process inside rootfs.")
@requires("flag:run --no-pivot")
@pytest.mark.parametrize("type", ["proc", "sysfs"])
def test_no_pivot_leaves_no_proc_or_sys_of_the_host(bundle: Bundle, container: Container, type: str) -> None:
    """A process that finds its way out of the changed root must not find these two."""
    if container.runtime.name == "crun":
        not_applicable("crun leaves them")
    bundle.sh("cat /proc/self/mountinfo")
    found = parse_mounts(container.run("--no-pivot", check=True).stdout)
    destination = {"proc": "/proc", "sysfs": "/sys"}[type]
    own = [m for m in found if m.fstype == type]
    assert {m.target for m in own if not m.target.startswith(destination + "/")} == {destination}
    assert len({m.target for m in own if m.target == destination}) == 1


def without_mount_namespace(bundle: Bundle) -> None:
    bundle.namespaces(drop=["mount"])
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []


@spec(
    "config-linux.md#namespaces",
    "the container MUST inherit the runtime namespace of that type",
)
@requires("command:unshare")
def test_no_mount_namespace(bundle: Bundle, container: Container) -> None:
    """The process lives in a changed root directory, with the mounts that the configuration asks for."""
    without_mount_namespace(bundle)
    bundle.sh("ls -d /bin; readlink /proc/self/ns/mnt; cat /proc/self/mountinfo; cd ../..; pwd; stat -c %F /dev/null")
    script = 'readlink /proc/self/ns/mnt; "$@" run --bundle "$BUNDLE" "$ID"'
    said = shared_host(container, script).splitlines()
    assert said[0] == said[2]
    assert said[1] == "/bin"
    assert said[-2:] == ["/", "character special file"]
    assert {m.target for m in parse_mounts("\n".join(said[3:-2]))} >= {"/proc", "/dev", "/dev/pts", "/sys"}


@spec("runtime.md#delete", "Deleting a container MUST delete the resources that were created during the create step.")
@requires("command:unshare")
@pytest.mark.parametrize("way", ["run", "create, start, delete", "create, delete", "kill"])
def test_no_mount_namespace_leaves_no_mounts(bundle: Bundle, container: Container, way: str) -> None:
    if container.runtime.name != "pyrunc":
        not_applicable("runc and crun leave the mounts on the host")
    without_mount_namespace(bundle)
    bundle.args(*(["true"] if way == "run" else ["sleep", "1000"]))
    create = '"$@" create --bundle "$BUNDLE" "$ID" > /dev/null 2>&1 < /dev/null;'
    script = {
        "run": '"$@" run --bundle "$BUNDLE" "$ID"',
        "create, start, delete": create + '"$@" start "$ID"; "$@" delete --force "$ID"',
        "create, delete": create + '"$@" delete "$ID"',
        "kill": create + 'kill -9 $("$@" ps --format json "$ID" | tr -d "[]\\n"); sleep 0.2; "$@" delete "$ID"',
    }[way]
    shared_host(container, f"cat /proc/self/mountinfo > before; {script}; cat /proc/self/mountinfo > after")
    directory = pathlib.Path(container.runtime.directory)
    assert (directory / "after").read_text() == (directory / "before").read_text()


@spec("runtime.md#create")
@requires("command:unshare")
@pytest.mark.parametrize("fault", ["mount", "program", "hook"])
@pyrunc_promise
def test_a_failed_creation_without_mount_namespace_leaves_no_mounts(
    bundle: Bundle, container: Container, fault: str
) -> None:
    without_mount_namespace(bundle)
    if fault == "mount":
        bundle.config["mounts"].append({"destination": "/data", "type": "tmpfs", "options": ["size=9q"]})
    elif fault == "program":
        bundle.args("/no/such/program")
    else:
        bundle.config["hooks"] = {
            "createRuntime": [{"path": "/bin/false"}],
            "poststop": [{"path": "/bin/true"}],
        }
    script = 'cat /proc/self/mountinfo > before; "$@" create --bundle "$BUNDLE" "$ID" && exit 9'
    shared_host(container, f"{script}; cat /proc/self/mountinfo > after")
    directory = pathlib.Path(container.runtime.directory)
    assert (directory / "after").read_text() == (directory / "before").read_text()


@spec(
    "runtime.md#delete",
    "resources associated with the container, but not created by this container, MUST NOT be deleted",
)
@requires("command:unshare")
@pyrunc_promise
def test_the_engine_s_mount_of_the_rootfs_stays(bundle: Bundle, container: Container) -> None:
    """The engine has mounted the rootfs; the container without a mount namespace goes, that mount stays."""
    without_mount_namespace(bundle)
    bundle.args("true")
    script = """
    mkdir "$BUNDLE/upper" "$BUNDLE/work"
    mount -t overlay -o "lowerdir=$BUNDLE/rootfs,upperdir=$BUNDLE/upper,workdir=$BUNDLE/work" engine "$BUNDLE/rootfs"
    cat /proc/self/mountinfo > before
    "$@" run --bundle "$BUNDLE" "$ID"
    cat /proc/self/mountinfo > after
    """
    shared_host(container, script)
    directory = pathlib.Path(container.runtime.directory)
    assert (directory / "after").read_text() == (directory / "before").read_text()


@spec("config-linux.md#namespaces")
@requires("command:unshare")
def test_exec_without_mount_namespace(bundle: Bundle, container: Container) -> None:
    without_mount_namespace(bundle)
    script = """
    "$@" run --detach --bundle "$BUNDLE" "$ID" > /dev/null 2>&1 < /dev/null
    "$@" exec "$ID" ls -d /bin /etc
    "$@" exec "$ID" pidof sleep > /dev/null && echo sleep
    "$@" delete --force "$ID"
    """
    assert shared_host(container, script) == "/bin\n/etc\nsleep\n"


# ------------------------------------------------------------------------------- masked and read-only paths


@spec(MASKED, "will mask over the provided paths inside the container so that they cannot be read")
def test_masked_paths(bundle: Bundle, container: Container) -> None:
    bundle.file("/secret/file", "secret")
    bundle.file("/plain", "secret")
    bundle.linux["maskedPaths"] += ["/secret", "/plain"]
    bundle.sh("ls -A /secret; cat /plain; touch /secret/x 2>/dev/null || echo refused; stat -c %F /plain")
    assert container.output() == "refused\ncharacter special file\n"
    assert os.listdir(bundle.host("/secret")) == ["file"]


@spec(MASKED, "will mask over the provided paths inside the container so that they cannot be read")
def test_masked_paths_of_proc(bundle: Bundle, container: Container) -> None:
    bundle.linux["maskedPaths"] = ["/proc/kcore", "/proc/keys", "/proc/irq", "/proc/timer_list", "/sys/firmware"]
    bundle.sh("cat /proc/keys /proc/timer_list; ls -A /proc/irq /sys/firmware | grep -v ':$' | grep .")
    assert container.run_output() == (1, "")


@spec(MASKED, "will mask over the provided paths inside the container so that they cannot be read")
def test_masked_directories_share_one_empty_filesystem(bundle: Bundle, container: Container) -> None:
    """Each tmpfs has a price in the kernel, and profiles mask many directories."""
    if container.runtime.name == "crun" or container.runtime.version.startswith("1.1."):
        not_applicable("it makes one for each; the specification leaves it open")
    for name in ("a", "b"):
        bundle.file(f"/{name}/file", "secret")
    bundle.linux["maskedPaths"] += ["/a", "/b", "/a"]
    bundle.sh("stat -c %d /a /b; ls -A /a /b; touch /b/x 2>/dev/null || echo refused; grep -c ' /a ' /proc/self/mounts")
    first, second, *rest = container.output().splitlines()
    assert first == second
    assert rest == ["/a:", "", "/b:", "refused", "1"]


@spec(MASKED)
def test_missing_masked_paths_are_passed_over(bundle: Bundle, container: Container) -> None:
    bundle.linux["maskedPaths"] += ["/no/such", "/etc/passwd/below", "/proc/no-such"]
    bundle.linux["readonlyPaths"] += ["/no/such", "/etc/passwd/below", "/proc/no-such"]
    if container.runtime.name != "pyrunc":
        bundle.linux["readonlyPaths"].remove("/etc/passwd/below")
        bundle.linux["maskedPaths"].remove("/etc/passwd/below")
    assert container.run_output("true") == (0, "")


@spec(READONLY, "will set the provided paths as readonly inside the container")
def test_readonly_paths(bundle: Bundle, container: Container) -> None:
    bundle.file("/data/file", "text")
    bundle.file("/plain", "text")
    bundle.linux["readonlyPaths"] += ["/data", "/plain"]
    bundle.sh(
        'for f in /data/new /data/file /plain; do sh -c "echo x > $f" 2>/dev/null && echo written $f; done;'
        " cat /data/file /plain; touch /other && echo writable"
    )
    assert container.output() == "texttextwritable\n"


@spec(READONLY, "will set the provided paths as readonly inside the container")
def test_readonly_paths_of_proc(bundle: Bundle, container: Container) -> None:
    bundle.sh("echo 1 > /proc/sys/kernel/shm_rmid_forced && echo written || echo refused")
    assert container.output() == "refused\n"


@spec(READONLY, "will set the provided paths as readonly inside the container")
def test_readonly_paths_keep_the_flags_of_the_mount(bundle: Bundle, container: Container) -> None:
    """A read-only /proc/sys is not to be one where set-user-ID and devices suddenly count."""
    if container.runtime.name == "crun":
        not_applicable("crun clears them; the specification leaves it open")
    bundle.config["mounts"].append(
        {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "noexec"]}
    )
    bundle.linux["readonlyPaths"] += ["/data"]
    found = at(table(container), "/data")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(found.options)


@spec("CVE-2025-31133")
@pytest.mark.parametrize("where", ["absolute", "climbing"])
def test_masks_follow_no_link_out(bundle: Bundle, container: Container, test: Test, where: str) -> None:
    """A link of the image's in place of a path to mask must not get a file of the host's masked or bound."""
    outside = os.path.join(test.directory, "outside")
    os.mkdir(outside)
    pathlib.Path(outside, "file").write_text("host")
    target = outside if where == "absolute" else "../" * 30 + outside.lstrip("/")
    os.symlink(target, bundle.host("/masked"))
    os.symlink(target + "/file", bundle.host("/masked-file"))
    os.symlink(target, bundle.host("/readonly"))
    bundle.linux["maskedPaths"] += ["/masked", "/masked-file"]
    bundle.linux["readonlyPaths"] += ["/readonly"]
    before = {m.line for m in mounts()}
    container.run("--detach")
    assert {m.line for m in mounts()} == before
    assert pathlib.Path(outside, "file").read_text() == "host"
    pathlib.Path(outside, "new").write_text("still writable")


@spec("CVE-2025-31133")
def test_an_image_s_own_dev_null_masks_nothing(bundle: Bundle, container: Container) -> None:
    """What masks a file is the host's null device, whatever /dev/null is in the image."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    bundle.file("/secret", "secret")
    os.symlink("/proc/sys/kernel/core_pattern", bundle.host("/dev/null"))
    bundle.linux["maskedPaths"] = ["/secret"]
    bundle.sh("cat /secret; stat -c '%F %t:%T' /secret")
    before = pathlib.Path("/proc/sys/kernel/core_pattern").read_text()
    # a runtime may refuse: "If a file already exists at path that does not match the requested device"
    assert container.run_output()[1] in ("", "character special file 1:3\n")
    assert pathlib.Path("/proc/sys/kernel/core_pattern").read_text() == before
