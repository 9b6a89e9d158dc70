"""/dev: the default devices and links, linux.devices, the console; device nodes in a user namespace."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

import pytest

from conformance import harness
from conformance.harness import (
    Bundle,
    ConsoleSocket,
    Container,
    Json,
    Test,
    not_applicable,
    parse_mounts,
    pyrunc_promise,
    spec,
    xfail_on,
)

DEVICES = "config-linux.md#devices"
DEFAULTS = "config-linux.md#default-devices"
LINKS = "runtime-linux.md#dev-symbolic-links"


def device(path: str, type: str = "c", major: int | None = 1, minor: int | None = 3, **more: Any) -> Json:
    entry: Json = {"path": path, "type": type, **more}
    if major is not None:
        entry.update(major=major, minor=minor)
    return entry


def allow_all(bundle: Bundle) -> None:
    """Let the container's processes use and make every device."""
    bundle.linux["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}


def user_namespace(bundle: Bundle) -> None:
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.namespaces(add=[{"type": "user"}])
    bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
    os.chown(bundle.rootfs, 100000, 100000)
    for name in ("dev", "proc", "sys", "tmp", "etc"):
        os.chown(bundle.host(name), 100000, 100000)


def refused(container: Container) -> str:
    """Creation must fail; what the runtime said."""
    result = container.create(check=False)
    assert result.status != 0, f"should have failed: {result!r}"
    assert result.stderr
    return result.stderr


DEFAULT = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}


@spec(DEFAULTS, "In addition to any devices configured with this setting, the runtime MUST also supply")
@pytest.mark.parametrize("name", DEFAULT)
def test_default_device(container: Container, name: str) -> None:
    said = container.output("stat", "-c", "%F %t:%T %a %u %g", f"/dev/{name}")
    assert said == f"character special file {DEFAULT[name]} 666 0 0\n"


@spec(DEFAULTS, "In addition to any devices configured with this setting, the runtime MUST also supply")
def test_default_devices_work(bundle: Bundle, container: Container) -> None:
    bundle.sh(
        "echo text > /dev/null && cat /dev/null; head -c 4 /dev/zero | od -An -tx1; head -c 9 /dev/urandom | wc -c;"
        " head -c 5 /dev/random | wc -c; head -c 2 /dev/full | od -An -tx1; echo x 2>/dev/null > /dev/full || echo full"
    )
    assert container.output().split() == ["00", "00", "00", "00", "9", "5", "00", "00", "full"]


@spec(DEFAULTS, "In addition to any devices configured with this setting, the runtime MUST also supply")
def test_other_devices_are_out_of_reach(bundle: Bundle, container: Container) -> None:
    for names in bundle.process["capabilities"].values():
        names.append("CAP_MKNOD")
    bundle.sh("mknod /disk b 254 0 2>/dev/null; mknod /mem c 1 1 2>/dev/null; cat /disk /mem 2>/dev/null")
    assert container.run_output()[1] == ""


@spec(LINKS, "runtimes MUST create the following symlinks if the source file exists after processing mounts")
def test_links(bundle: Bundle, container: Container) -> None:
    bundle.sh("for n in fd stdin stdout stderr; do readlink /dev/$n; done")
    assert container.output() == "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n"


@spec(LINKS, "runtimes MUST create the following symlinks if the source file exists after processing mounts")
def test_links_work(bundle: Bundle, container: Container) -> None:
    bundle.sh(
        "{ cat /dev/stdin > /dev/stdout; } | cat; echo error > /dev/stderr; ls /dev/fd/ > /dev/null && echo listed"
    )
    result = container.run(input="text\n", check=True)
    assert (result.stdout, result.stderr) == ("text\nlisted\n", "error\n")


@spec(DEFAULTS, "A bind-mount or symlink of the container's /dev/pts/ptmx")
def test_ptmx(bundle: Bundle, container: Container) -> None:
    bundle.sh("stat -L -c '%F %t:%T %a' /dev/ptmx; exec 3<>/dev/ptmx && ls /dev/pts")
    assert container.output() == "character special file 5:2 666\n0\nptmx\n"


@spec(DEFAULTS, "A bind-mount or symlink of the container's /dev/pts/ptmx")
def test_ptmx_in_the_image_is_replaced(bundle: Bundle, container: Container) -> None:
    """Without a /dev of its own the container has the image's."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] not in ("/dev", "/dev/mqueue")]
    bundle.file("/dev/ptmx", "a file")
    bundle.sh("stat -L -c '%F %t:%T' /dev/ptmx")
    assert container.output() == "character special file 5:2\n"


@spec(
    DEFAULTS,
    "is set up if terminal is enabled in the config by bind mounting the pseudoterminal pty to /dev/console",
)
def test_console(bundle: Bundle, container: Container, console: ConsoleSocket) -> None:
    bundle.process["terminal"] = True
    bundle.sh(
        "stat -c %F /dev/console; stat -c %t:%T /dev/console; stat -c %t:%T $(tty); echo to the console > /dev/console"
    )
    container.create("--console-socket", console.path)
    terminal = console.receive()
    container.start()
    lines = terminal.read_until("to the console").replace("\r", "").splitlines()
    assert lines[0] == "character special file"
    assert lines[1] == lines[2]


@spec(DEFAULTS, "/dev/console is set up if terminal is enabled in the config")
def test_no_console_without_a_terminal(bundle: Bundle, container: Container) -> None:
    bundle.sh("test -e /dev/console && echo there || echo none")
    assert container.output() == "none\n"


@spec(DEFAULTS, "by bind mounting the pseudoterminal pty to /dev/console")
@xfail_on("crun", "crun 1.8 makes the file that the link names on the host")
def test_console_follows_no_link(bundle: Bundle, container: Container, console: ConsoleSocket, test: Test) -> None:
    """An image whose /dev/console is a link must not get a file made on the host, or a mount put there."""
    victim = os.path.join(test.directory, "victim")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] not in ("/dev", "/dev/mqueue")]
    os.symlink("../" * 30 + victim.lstrip("/"), bundle.host("/dev/console"))
    bundle.process["terminal"] = True
    before = {m.line for m in harness.mounts()}
    container.create("--console-socket", console.path, check=False)
    assert not os.path.lexists(victim)
    assert {m.line for m in harness.mounts()} == before


# --------------------------------------------------------------------------------------------- linux.devices


@spec(DEVICES, "lists devices that MUST be available in the container")
@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (device("/dev/mychar", "c", 10, 229, fileMode=0o640, uid=12, gid=34), "character special file a:e5 640 12 34"),
        (device("/dev/unbuffered", "u", 10, 229, fileMode=0o600), "character special file a:e5 600 0 0"),
        (device("/dev/myblock", "b", 7, 300, fileMode=0o660, uid=1, gid=6), "block special file 7:12c 660 1 6"),
        (device("/dev/myfifo", "p", None, fileMode=0o622, uid=7), "fifo 0:0 622 7 0"),
        (device("/dev/all", "c", 10, 200, fileMode=0o1777), "character special file a:c8 1777 0 0"),
        (device("/dev/none", "c", 10, 200, fileMode=0), "character special file a:c8 0 0 0"),
        (device("/dev/deep/er/dev", "c", 1, 3, fileMode=0o666), "character special file 1:3 666 0 0"),
    ],
    ids=["char", "unbuffered", "block", "fifo", "every bit", "no bit", "in a directory"],
)
def test_device(bundle: Bundle, container: Container, entry: Json, said: str) -> None:
    if entry["type"] == "u" and container.runtime.name == "crun":
        not_applicable("crun 1.8 does not know u")
    if entry.get("fileMode") == 0 and container.runtime.name == "crun":
        not_applicable("crun takes a mode of 0 for one left out")
    bundle.linux["devices"] = [entry]
    assert container.output("stat", "-c", "%F %t:%T %a %u %g", entry["path"]) == said + "\n"


@spec(DEVICES, "fileMode (uint32, OPTIONAL) - file mode for the device.")
def test_the_umask_of_the_caller_does_not_count(bundle: Bundle, container: Container) -> None:
    bundle.linux["devices"] = [device("/dev/mine", "c", 10, 229, fileMode=0o666)]
    result = container.run
    bundle.args("stat", "-c", "%a", "/dev/mine", "/dev/null")
    assert result(check=True, preexec_fn=lambda: os.umask(0o077)).stdout == "666\n666\n"


@spec(DEVICES, "The path MAY be anywhere in the container filesystem, notably outside of /dev.")
@pytest.mark.parametrize("path", ["/mynull", "/new/directory/mynull", "/etc/mynull"])
def test_device_outside_of_dev(bundle: Bundle, container: Container, path: str) -> None:
    bundle.linux["devices"] = [device(path, fileMode=0o666)]
    bundle.sh(f"stat -c '%F %t:%T' {path}; echo text > {path}; cat {path}")
    assert container.output() == "character special file 1:3\n"


@spec(DEVICES, "uid (uint32, OPTIONAL) - id of device owner in the container namespace.")
@xfail_on("crun", "crun 1.8 leaves a default device's owner")
def test_a_default_device_configured_anew(bundle: Bundle, container: Container) -> None:
    allow_all(bundle)
    bundle.linux["devices"] = [device("/dev/null", fileMode=0o626, uid=5, gid=6)]
    assert container.output("stat", "-c", "%F %t:%T %a %u %g", "/dev/null") == "character special file 1:3 626 5 6\n"


@spec(
    DEVICES,
    "If a file already exists at path that does not match the requested device, the runtime MUST generate an error.",
)
@xfail_on("runc", "runc takes what it finds")
@xfail_on("crun", "crun 1.8 takes what it finds")
@pytest.mark.parametrize("found", ["file", "directory", "link", "other device"])
def test_a_file_that_does_not_match(bundle: Bundle, container: Container, found: str) -> None:
    path = bundle.host("/mynull")
    if found == "file":
        bundle.file("/mynull")
    elif found == "directory":
        os.mkdir(path)
    elif found == "link":
        os.symlink("/dev/null", path)
    else:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    bundle.linux["devices"] = [device("/mynull")]
    said = refused(container)
    if container.runtime.name == "pyrunc":
        assert "/linux/devices/0" in said
        assert "/mynull" in said


@spec(
    DEVICES,
    "If a file already exists at path that does not match the requested device, the runtime MUST generate an error.",
)
def test_a_device_that_is_there_already(bundle: Bundle, container: Container) -> None:
    os.mknod(bundle.host("/mynull"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    bundle.linux["devices"] = [device("/mynull", fileMode=0o666)]
    assert container.output("stat", "-c", "%F %t:%T", "/mynull") == "character special file 1:3\n"


@spec(DEVICES, "lists devices that MUST be available in the container")
@pytest.mark.parametrize("link", ["directory", "climbing", "dev"])
def test_devices_follow_no_link_out(bundle: Bundle, container: Container, test: Test, link: str) -> None:
    outside = os.path.join(test.directory, "outside")
    os.mkdir(outside)
    if link == "dev":
        if container.runtime.name != "pyrunc":
            not_applicable("runc 1.1.5 and crun 1.8.1 make devices and links on the host here")
        bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
        os.rmdir(bundle.host("/dev"))
        os.symlink(outside, bundle.host("/dev"))
        path = "/dev/mine"
    else:
        os.symlink(outside if link == "directory" else "../" * 30 + outside.lstrip("/"), bundle.host("/link"))
        path = "/link/mine"
    bundle.linux["devices"] = [device(path)]
    container.create(check=False)
    assert os.listdir(outside) == []


@spec(DEVICES)
@pyrunc_promise
@pytest.mark.parametrize(
    ("entry", "place"),
    [
        (device("/dev/x", "c", None), ""),
        (device("/dev/x", "z"), "/type"),
        (device("/dev/x", "c", -1, 0), "/major"),
        (device("/dev/x", "c", 1, 1 << 20), "/minor"),
        ({"type": "c", "major": 1, "minor": 3}, ""),
        (device("", "c"), ""),
    ],
    ids=["no numbers", "type", "major", "minor", "no path", "empty path"],
)
def test_wrong_devices(bundle: Bundle, container: Container, entry: Json, place: str) -> None:
    bundle.linux["devices"] = [entry]
    assert f"/linux/devices/0{place}" in refused(container)


# --------------------------------------------------------------------------------- whose /dev the container has


@spec(DEFAULTS)
def test_a_bound_dev_is_left_alone(bundle: Bundle, container: Container, test: Test) -> None:
    """As runc: who binds a /dev gets that /dev."""
    if container.runtime.name == "crun":
        not_applicable("crun furnishes it all the same")
    own = os.path.join(test.directory, "dev")
    os.mkdir(own)
    os.mknod(f"{own}/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    bundle.config["mounts"].append({"destination": "/dev", "source": own, "type": "bind", "options": ["bind"]})
    assert container.output("ls", "/dev") == "null\n"
    assert os.listdir(own) == ["null"]


@spec(DEFAULTS)
def test_a_bound_default_device_is_left_alone(bundle: Bundle, container: Container) -> None:
    bundle.config["mounts"].append({"destination": "/dev/null", "source": "/dev/zero", "options": ["bind"]})
    assert container.output("stat", "-c", "%t:%T", "/dev/null", "/dev/full") == "1:5\n1:7\n"


@spec(DEFAULTS)
def test_a_read_only_dev(bundle: Bundle, container: Container) -> None:
    """It is furnished before it becomes read-only."""
    entry = next(m for m in bundle.config["mounts"] if m["destination"] == "/dev")
    entry["options"].append("ro")
    bundle.sh("touch /dev/file 2>/dev/null || echo refused; echo text > /dev/null && stat -c %F /dev/null")
    assert container.output() == "refused\ncharacter special file\n"


@spec(DEFAULTS)
def test_dev_of_the_image(bundle: Bundle, container: Container) -> None:
    """No mount on /dev: the nodes are made in the image."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    bundle.sh("echo text > /dev/null; stat -c '%F %t:%T' /dev/null /dev/zero")
    assert container.output() == "character special file 1:3\ncharacter special file 1:5\n"


@spec(DEFAULTS)
def test_dev_of_the_image_twice(bundle: Bundle, new_container: Callable[..., Container]) -> None:
    """The second container finds what the first one made."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    for _ in range(2):
        assert new_container().output("readlink", "/dev/fd") == "/proc/self/fd\n"


# ------------------------------------------------------------------------------------------ user namespaces


@spec(
    DEVICES,
    "The runtime MAY supply them however it likes (with mknod, by bind mounting from the runtime mount namespace",
)
@pytest.mark.parametrize("name", DEFAULT)
def test_default_device_in_a_user_namespace(bundle: Bundle, container: Container, name: str) -> None:
    user_namespace(bundle)
    assert container.output("stat", "-c", "%F %t:%T", f"/dev/{name}") == f"character special file {DEFAULT[name]}\n"


@spec(
    DEVICES,
    "The runtime MAY supply them however it likes (with mknod, by bind mounting from the runtime mount namespace",
)
def test_devices_work_in_a_user_namespace(bundle: Bundle, container: Container) -> None:
    user_namespace(bundle)
    allow_all(bundle)
    bundle.linux["devices"] = [device("/dev/fuse", "c", 10, 229)] if os.path.exists("/dev/fuse") else []
    bundle.sh(
        "echo text > /dev/null && head -c 3 /dev/zero | wc -c; ls -l /dev/fd | grep -c /proc/self/fd;"
        " cat /proc/self/mountinfo"
    )
    said = container.output()
    assert said.startswith("3\n1\n")
    bound = {m.target for m in parse_mounts(said.split("\n", 2)[2])}
    assert {"/dev/null", "/dev/zero"} <= bound


@spec(DEVICES, "lists devices that MUST be available in the container")
@pyrunc_promise
def test_a_device_that_the_host_lacks_in_a_user_namespace(bundle: Bundle, container: Container) -> None:
    user_namespace(bundle)
    bundle.linux["devices"] = [device("/dev/no-such-device", "c", 10, 250)]
    said = refused(container)
    assert "/linux/devices/0" in said
    assert "/dev/no-such-device" in said


@spec(DEVICES, "lists devices that MUST be available in the container")
@pyrunc_promise
def test_the_host_s_device_must_be_the_one(bundle: Bundle, container: Container) -> None:
    """A bind mount shows what is on the host by that name: it has to have the numbers asked for."""
    user_namespace(bundle)
    bundle.linux["devices"] = [device("/dev/zero", "c", 10, 229)]
    assert "/linux/devices/0" in refused(container)


@spec(DEVICES)
def test_fifo_in_a_user_namespace(bundle: Bundle, container: Container) -> None:
    if container.runtime.name != "pyrunc":
        not_applicable("the others try to bind it from the host")
    user_namespace(bundle)
    bundle.linux["devices"] = [device("/dev/pipe", "p", None, fileMode=0o600, uid=3)]
    assert container.output("stat", "-c", "%F %a %u", "/dev/pipe") == "fifo 600 3\n"
