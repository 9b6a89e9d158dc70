"""What goes wrong: bundles and configs that can't be, commands that can't be run, disks that are full.

That nothing is left (processes, mounts, cgroups, state) is looked for by the harness after every test.
"""

from __future__ import annotations

import copy
import ctypes
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conformance import harness
from conformance.harness import (
    Bundle,
    Container,
    Json,
    Result,
    Runtime,
    pyrunc_promise,
    spec,
    xfail_on,
)

CREATE = (
    "If the runtime cannot apply a property as specified in the configuration, it MUST generate an error and a new"
    " container MUST NOT be created."
)
INVALID = "Runtimes MUST generate an error when invalid or unsupported values are encountered."


def refused(result: Result) -> str:
    """The runtime said no, in words, and did not crash. Returns the words."""
    assert 0 < result.status < 128 or result.status == 255, f"should have been refused:\n{result!r}"
    words = result.stderr.strip()
    assert words, "it says nothing"
    for crash in ("Traceback", "internal error", "panic:", "goroutine ", "Segmentation"):
        assert crash not in result.stderr, result
    return words


def create(container: Container, **kw: Any) -> str:
    """A `create` that must be refused; the error must be in the log too."""
    log = container.runtime.scratch("log")
    before = list(container.runtime.global_args)
    container.runtime.global_args += ["--log", log, "--log-format", "json"]
    try:
        kw.setdefault("timeout", 15)
        words = refused(container.create(check=False, **kw))
    finally:
        container.runtime.global_args = before
    assert not container.exists()
    errors = [entry for entry in map(json.loads, _lines(log)) if entry["level"] == "error"]
    assert errors, "nothing in the log"
    assert any(errors[-1]["msg"].strip() in line or line in errors[-1]["msg"] for line in words.splitlines())
    return words


def _lines(path: str) -> list[str]:
    return pathlib.Path(path).read_text().splitlines() if os.path.exists(path) else []


# ------------------------------------------------------------------------------------------------------ the bundle


@spec("runtime.md#create", "This operation MUST generate an error if it is not provided a path to the bundle")
def test_no_bundle(container: Container) -> None:
    container.bundle.path += "-nothing"
    container.bundle.write_config = False
    refused(container.create(check=False))
    assert not container.exists()


@spec(
    "bundle.md",
    "config.json: contains configuration data. This REQUIRED file MUST reside in the root of the bundle"
    " directory and MUST be named config.json.",
)
@pytest.mark.parametrize("what", ["missing", "directory", "dangling link"])
def test_no_config(container: Container, what: str) -> None:
    path = os.path.join(container.bundle.path, "config.json")
    container.bundle.write_config = False
    if what == "directory":
        os.mkdir(path)
    elif what == "dangling link":
        os.symlink("nothing", path)
    create(container)


@spec("bundle.md", "This REQUIRED file MUST reside in the root of the bundle directory")
@pyrunc_promise
@pytest.mark.parametrize("what", ["fifo", "socket", "device"])
def test_config_is_no_file(container: Container, what: str) -> None:
    """It is refused at once: waiting for a writer would hang the engine."""
    import socket

    path = os.path.join(container.bundle.path, "config.json")
    container.bundle.write_config = False
    if what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        os.symlink("/dev/zero", path)
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
    assert "config.json" in create(container, timeout=5)


NOT_JSON = {
    "empty": b"",
    "blank": b" \n",
    "half": b'{"ociVersion": "1.0.2", ',
    "list": b"[]",
    "string": b'"config"',
    "number": b"5",
    "words": b"this is not JSON",
    "binary": bytes(range(256)),
    "single quotes": b"{'ociVersion': '1.0.2'}",
    "comma": b'{"ociVersion": "1.0.2",}',
    "unquoted": b"{ociVersion: 1}",
    "deep": b"[" * 100000,
    "nan": b'{"ociVersion": NaN}',
}


@spec(
    "config.md#configuration",
    "This configuration file contains metadata necessary to implement standard operations against the container.",
)
@pytest.mark.parametrize("which", NOT_JSON)
def test_not_json(container: Container, which: str) -> None:
    container.bundle.write_config = False
    pathlib.Path(container.bundle.path, "config.json").write_bytes(NOT_JSON[which])
    create(container)


@spec("config.md#configuration")
@pyrunc_promise
@pytest.mark.parametrize("tail", ["x", "{}", "]", "\0"])
def test_something_after_the_json(container: Container, tail: str) -> None:
    container.bundle.write(f"/{container.id}")
    container.bundle.write_config = False
    with open(os.path.join(container.bundle.path, "config.json"), "a") as f:
        f.write(tail)
    create(container)


# ------------------------------------------------------------------------------------------------------- mutations

OBJECT, ARRAY, STRING, UINT, INT, BOOL = "object", "array", "string", "uint", "int", "bool"

#: JSON pointer -> type in the specification. Where the config has no such value yet, SEEDS makes it.
TYPES = {
    "/root": OBJECT,
    "/root/path": STRING,
    "/root/readonly": BOOL,
    "/hostname": STRING,
    "/annotations": OBJECT,
    "/annotations/org.example": STRING,
    "/mounts": ARRAY,
    "/mounts/0": OBJECT,
    "/mounts/0/destination": STRING,
    "/mounts/0/type": STRING,
    "/mounts/0/source": STRING,
    "/mounts/1/options": ARRAY,
    "/mounts/1/options/0": STRING,
    "/process": OBJECT,
    "/process/args": ARRAY,
    "/process/args/0": STRING,
    "/process/env": ARRAY,
    "/process/env/0": STRING,
    "/process/cwd": STRING,
    "/process/terminal": BOOL,
    "/process/noNewPrivileges": BOOL,
    "/process/user": OBJECT,
    "/process/user/uid": UINT,
    "/process/user/gid": UINT,
    "/process/user/additionalGids": ARRAY,
    "/process/user/additionalGids/0": UINT,
    "/process/capabilities": OBJECT,
    "/process/capabilities/bounding": ARRAY,
    "/process/capabilities/effective/0": STRING,
    "/process/rlimits": ARRAY,
    "/process/rlimits/0": OBJECT,
    "/process/rlimits/0/type": STRING,
    "/process/rlimits/0/soft": UINT,
    "/process/rlimits/0/hard": UINT,
    "/process/oomScoreAdj": INT,
    "/hooks": OBJECT,
    "/hooks/poststop": ARRAY,
    "/hooks/poststop/0": OBJECT,
    "/hooks/poststop/0/path": STRING,
    "/hooks/poststop/0/args": ARRAY,
    "/hooks/poststop/0/env": ARRAY,
    "/hooks/poststop/0/timeout": INT,
    "/linux": OBJECT,
    "/linux/namespaces": ARRAY,
    "/linux/namespaces/0": OBJECT,
    "/linux/namespaces/0/type": STRING,
    "/linux/namespaces/0/path": STRING,
    "/linux/devices": ARRAY,
    "/linux/devices/0": OBJECT,
    "/linux/devices/0/path": STRING,
    "/linux/devices/0/type": STRING,
    "/linux/devices/0/major": INT,
    "/linux/devices/0/minor": INT,
    "/linux/devices/0/fileMode": UINT,
    "/linux/devices/0/uid": UINT,
    "/linux/resources": OBJECT,
    "/linux/resources/devices": ARRAY,
    "/linux/resources/devices/0/allow": BOOL,
    "/linux/resources/devices/0/access": STRING,
    "/linux/resources/memory": OBJECT,
    "/linux/resources/memory/limit": INT,
    "/linux/resources/cpu": OBJECT,
    "/linux/resources/cpu/shares": UINT,
    "/linux/resources/cpu/quota": INT,
    "/linux/resources/cpu/cpus": STRING,
    "/linux/resources/pids": OBJECT,
    "/linux/resources/pids/limit": INT,
    "/linux/cgroupsPath": STRING,
    "/linux/sysctl": OBJECT,
    "/linux/sysctl/net.ipv4.ip_forward": STRING,
    "/linux/seccomp": OBJECT,
    "/linux/seccomp/defaultAction": STRING,
    "/linux/seccomp/architectures": ARRAY,
    "/linux/seccomp/syscalls": ARRAY,
    "/linux/seccomp/syscalls/0/names": ARRAY,
    "/linux/seccomp/syscalls/0/names/0": STRING,
    "/linux/seccomp/syscalls/0/action": STRING,
    "/linux/seccomp/syscalls/0/args": ARRAY,
    "/linux/seccomp/syscalls/0/args/0/index": UINT,
    "/linux/seccomp/syscalls/0/args/0/op": STRING,
    "/linux/maskedPaths": ARRAY,
    "/linux/maskedPaths/0": STRING,
    "/linux/readonlyPaths": ARRAY,
    "/linux/rootfsPropagation": STRING,
    "/linux/uidMappings": ARRAY,
    "/linux/uidMappings/0": OBJECT,
    "/linux/uidMappings/0/containerID": UINT,
    "/linux/uidMappings/0/hostID": UINT,
    "/linux/uidMappings/0/size": UINT,
}

#: Two values for each type that no reading of the specification takes for it (null isn't among them: to Go it
#: is an absent value).
WRONG: dict[str, list[Any]] = {
    OBJECT: ["word", 5],
    ARRAY: ["word", 5],
    STRING: [5, {"a": "b"}],
    UINT: ["word", -1],
    INT: ["word", [1]],
    BOOL: ["true", 1],
}


def seeded(config: Json, part: str = "") -> Json:
    """A config with every property that TYPES names; mappings, with their namespace, only where they are the part."""
    config = copy.deepcopy(config)
    if part == "/linux/uidMappings":
        config["linux"]["namespaces"].append({"type": "user"})
        mapping = [{"containerID": 0, "hostID": 200000, "size": 1000}]
        config["linux"].update(uidMappings=mapping, gidMappings=copy.deepcopy(mapping))
    config["annotations"] = {"org.example": "x"}
    config["hooks"] = {"poststop": [{"path": "/bin/true", "args": ["true"], "env": ["A=1"], "timeout": 5}]}
    config["process"]["user"]["additionalGids"] = [10]
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]
    linux = config["linux"]
    linux["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0}
    ]
    linux["resources"] |= {"memory": {"limit": 1 << 26}, "cpu": {"shares": 512}, "pids": {"limit": 50}}
    linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    return config


def put(config: Json, pointer: str, value: Any) -> None:
    """Set what a JSON pointer names; objects and arrays on the way are made."""
    at: Any = config
    *way, last = pointer.split("/")[1:]
    for step, after in zip(way, pointer.split("/")[2:], strict=True):
        if isinstance(at, list):
            while len(at) <= int(step):
                at.append([] if after.isdigit() else {})
            at = at[int(step)]
        else:
            at = at.setdefault(step, [] if after.isdigit() else {})
    if isinstance(at, list):
        at[int(last) : int(last) + 1] = [value]
    else:
        at[last] = value


def section(pointer: str) -> str:
    """TYPES are tested in groups: a property of the top, or of linux, at a time."""
    parts = pointer.split("/")
    return "/".join(parts[:3]) if parts[1] == "linux" and len(parts) > 2 else "/".join(parts[:2])


SECTIONS = sorted({section(pointer) for pointer in TYPES})


def mutations(part: str) -> Iterator[tuple[str, Any]]:
    for pointer, kind in TYPES.items():
        if section(pointer) == part:
            for value in WRONG[kind]:
                yield pointer, value


@spec("config.md#configuration", "This configuration file contains metadata necessary to implement standard operations")
def test_the_seed_of_the_mutations_is_valid(bundle: Bundle, container: Container) -> None:
    bundle.config = seeded(bundle.config)
    container.create()


@spec("config.md#valid-values", INVALID)
def test_there_are_a_hundred_mutations() -> None:
    assert sum(len(WRONG[kind]) for kind in TYPES.values()) >= 100


@spec("config.md#valid-values", INVALID)
@pytest.mark.parametrize("part", SECTIONS)
@xfail_on("crun", "crun 1.8 overlooks many values of a wrong type")
def test_wrong_shape(bundle: Bundle, container: Container, part: str) -> None:
    """Each of a hundred mutations: one value of a type that it can't have."""
    valid = seeded(bundle.config, part)
    accepted = []
    for pointer, value in mutations(part):
        bundle.config = copy.deepcopy(valid)
        put(bundle.config, pointer, value)
        result = container.create(check=False)
        if result.status == 0:
            accepted.append(f"{pointer}: {value!r}")
            container.delete("--force")
        else:
            refused(result)
    assert not accepted


@spec("config.md#valid-values", INVALID)
@pyrunc_promise
@pytest.mark.parametrize("part", SECTIONS)
def test_wrong_shape_is_told_by_a_pointer(bundle: Bundle, container: Container, part: str) -> None:
    """The line names the value that is wrong, or what contains it."""
    valid = seeded(bundle.config, part)
    for pointer, value in mutations(part):
        bundle.config = copy.deepcopy(valid)
        put(bundle.config, pointer, value)
        words = create(container)
        assert len(words.splitlines()) == 1
        found = re.search(r"(?<!\S)(/[\w.~/-]*):", words.split(container.id, 1)[-1])
        assert found, words
        assert pointer.startswith(found[1]) or found[1].startswith(pointer), words


# ------------------------------------------------------------------------------------------ values that can't be


def _wrong_values() -> dict[str, Callable[[Json], Any]]:
    def rlimits(config: Json) -> None:
        one = {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}
        config["process"]["rlimits"] = [one, dict(one, soft=32)]

    return {
        "args empty": lambda c: c["process"].update(args=[]),
        "no args": lambda c: c["process"].pop("args"),
        "cwd relative": lambda c: c["process"].update(cwd="tmp"),
        "cwd empty": lambda c: c["process"].update(cwd=""),
        "unknown rlimit": lambda c: c["process"].update(rlimits=[{"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1}]),
        "rlimit twice": rlimits,
        "no root": lambda c: c.pop("root"),
        "unknown namespace": lambda c: c["linux"]["namespaces"].append({"type": "nosuch"}),
        "namespace twice": lambda c: c["linux"]["namespaces"].append({"type": "pid"}),
        "namespace without type": lambda c: c["linux"]["namespaces"].append({}),
        "namespace path relative": lambda c: c["linux"]["namespaces"].append({"type": "user", "path": "ns/user"}),
        "namespace path missing": lambda c: c["linux"]["namespaces"].append({"type": "cgroup", "path": "/no/such/ns"}),
        "unknown file system": lambda c: c["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "x"}),
        "missing source": lambda c: c["mounts"].append(
            {"destination": "/x", "source": "/no/such", "options": ["bind"]}
        ),
        "bad data": lambda c: c["mounts"].append(
            {"destination": "/x", "type": "tmpfs", "source": "x", "options": ["size=9q"]}
        ),
        "unknown device type": lambda c: c["linux"].update(
            devices=[{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}]
        ),
        "unknown propagation": lambda c: c["linux"].update(rootfsPropagation="nosuch"),
        "unknown sysctl": lambda c: c["linux"].update(sysctl={"net.no.such": "1"}),
        "sysctl of the host": lambda c: c["linux"].update(sysctl={"vm.swappiness": "1"}),
        "unknown seccomp action": lambda c: c["linux"].update(seccomp={"defaultAction": "SCMP_ACT_NOSUCH"}),
        "unknown architecture": lambda c: c["linux"].update(
            seccomp={"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOSUCH"]}
        ),
        "hostname without uts": lambda c: c["linux"].update(
            namespaces=[n for n in c["linux"]["namespaces"] if n["type"] != "uts"]
        ),
        "cpus that are not there": lambda c: c["linux"]["resources"].update(cpu={"cpus": "4000-4001"}),
    }


WRONG_VALUES = _wrong_values()


@spec("config.md#valid-values", INVALID)
@spec(
    "config.md#posix-process",
    "If rlimits contains duplicated entries with same type, the runtime MUST generate an error.",
)
@pytest.mark.parametrize("which", WRONG_VALUES)
@xfail_on("runc", "runc 1.1 takes the last of two rlimits of a type", only=["rlimit twice"])
@xfail_on(
    "crun",
    "crun 1.8 overlooks what it does not know or has no use for",
    only=["no args", "cwd relative", "rlimit twice", "namespace twice", "unknown device type", "unknown propagation"],
)
@xfail_on("crun", "crun 1.8 leaves its cgroups behind", only=["cpus that are not there"])
def test_wrong_value(bundle: Bundle, container: Container, which: str) -> None:
    WRONG_VALUES[which](bundle.config)
    create(container)


# ---------------------------------------------------------------------------------------------------- the rootfs


@spec("config.md#root", "A directory MUST exist at the path declared by the field.")
@pytest.mark.parametrize("what", ["missing", "a file", "dangling link"])
def test_no_rootfs(bundle: Bundle, container: Container, what: str) -> None:
    path = os.path.join(bundle.path, "nothing")
    bundle.config["root"]["path"] = "nothing"
    if what == "a file":
        open(path, "w").close()
    elif what == "dangling link":
        os.symlink("really-nothing", path)
    create(container)
    assert what != "missing" or not os.path.exists(path)


@spec(
    "config-linux.md#user-namespace-mappings",
    "uidMappings (array of objects, OPTIONAL) describes the user namespace uid mappings from the host to the"
    " container.",
)
@pytest.mark.parametrize("which", ["uid not mapped", "mapping overlaps", "size 0"])
def test_user_mappings_that_can_t_be(bundle: Bundle, container: Container, which: str) -> None:
    bundle.namespaces(add=[{"type": "user"}])
    mapping = [{"containerID": 0, "hostID": 200000, "size": 100}]
    if which == "uid not mapped":
        bundle.process["user"] = {"uid": 1000, "gid": 0}
    elif which == "mapping overlaps":
        mapping.append({"containerID": 50, "hostID": 300000, "size": 100})
    else:
        mapping[0]["size"] = 0
    bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
    for directory, _, _ in os.walk(bundle.rootfs):
        os.chown(directory, 200000, 200000)
    refused(container.run(timeout=15))
    assert not container.exists()


# --------------------------------------------------------------------------------------------------- the command

COMMANDS = {
    "missing": ("no-such-command", ("executable file not found", "no such file or directory")),
    "missing path": ("/no/such/command", ("no such file or directory",)),
    "directory": ("/bin", ("permission denied", "operation not permitted", "is a directory")),
    "not executable": ("/etc/passwd", ("permission denied",)),
    "empty": ("", ("no such file or directory", "executable file not found", "operation not permitted")),
    "through a file": ("/etc/passwd/x", ("not a directory",)),
}


@spec("config.md#process", "that entry is used with the same semantics as execvp's file")
@pytest.mark.parametrize("which", COMMANDS)
@pytest.mark.parametrize("how", ["run", "create and start"])
def test_command(bundle: Bundle, container: Container, which: str, how: str) -> None:
    """podman tells a missing command (127) from one that may not be run (126) by these words."""
    command, words = COMMANDS[which]
    bundle.args(command)
    if how == "run":
        result = container.run(timeout=15)
    else:
        result = container.create(check=False, timeout=15)
        if result.status == 0:
            result = container.start(check=False, timeout=15)
    said = refused(result).lower()
    assert any(word in said for word in words), result


@spec("config.md#process", "that entry is used with the same semantics as execvp's file")
@pytest.mark.parametrize("content", [b"", b"no magic\n", b"#!/no/such/interpreter\n", b"\x7fELF broken"])
def test_broken_executable(bundle: Bundle, container: Container, content: bytes) -> None:
    """A file that may be executed and can't be: known only at the exec itself."""
    bundle.file("/bin/broken", content, 0o755)
    bundle.args("/bin/broken")
    result = container.run(timeout=15)
    assert result.status != 0
    assert "Traceback" not in result.stderr
    if container.runtime.name == "pyrunc":  # as runc 1.4: the container's word, alone
        assert result.stderr.startswith("exec /bin/broken: ") and result.stderr.count("\n") == 1


@spec("config.md#process", "cwd (string, REQUIRED) is the working directory that will be set for the executable.")
@pytest.mark.parametrize("cwd", ["/etc/passwd", "/etc/passwd/x"])
def test_cwd_is_a_file(bundle: Bundle, container: Container, cwd: str) -> None:
    bundle.process["cwd"] = cwd
    refused(container.run(timeout=15))


@spec("config.md#process", "cwd (string, REQUIRED) is the working directory that will be set for the executable.")
def test_cwd_is_missing(bundle: Bundle, container: Container) -> None:
    """runc and crun make it. Where a runtime doesn't, it has to say why."""
    bundle.process["cwd"] = "/made/for/you"
    bundle.args("pwd")
    result = container.run(timeout=15)
    if result.status:
        assert "no such file or directory" in refused(result).lower()
    else:
        assert result.stdout == "/made/for/you\n"


# ------------------------------------------------------------------------------------------------- the host's limits


@pytest.fixture
def small_root(runtime: Runtime) -> Iterator[str]:
    """A --root on a full file system."""
    harness.mount("tmpfs", runtime.root, "tmpfs", data="size=4k,mode=700")
    with open(os.path.join(runtime.root, ".full"), "wb") as f:
        f.write(b"x" * 4096)
    yield runtime.root
    harness.umount(runtime.root)


@spec(
    "runtime.md#errors",
    "generating an error MUST leave the state of the environment as if the operation were never attempted",
)
@xfail_on("crun", "crun 1.8 leaves the container's directory in --root")
def test_full_disk_for_the_state(small_root: str, container: Container) -> None:
    create(container)
    assert os.listdir(small_root) == [".full"]


@spec(
    "runtime.md#errors",
    "generating an error MUST leave the state of the environment as if the operation were never attempted",
)
def test_read_only_root(runtime: Runtime, container: Container) -> None:
    harness.mount("tmpfs", runtime.root, "tmpfs", flags=1)
    try:
        create(container)
    finally:
        harness.umount(runtime.root)


def read_only_cgroups(mountpoints: list[str]) -> Callable[[], None]:
    """What a child does before the runtime: a mount namespace of its own, the cgroup mounts in it read-only."""
    libc = ctypes.CDLL(None, use_errno=True)
    bind, remount, read_only = 4096, 32, 1

    def set_up() -> None:
        if libc.unshare(harness.CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "unshare")
        for target in mountpoints:
            harness.mount("none", target, "", bind | remount | read_only)

    return set_up


@spec("runtime.md#create", CREATE)
def test_read_only_cgroups(container: Container) -> None:
    mountpoints = container.runtime.cgroups.mountpoints
    create(container, preexec_fn=read_only_cgroups(mountpoints))


@spec(
    "runtime.md#errors",
    "generating an error MUST leave the state of the environment as if the operation were never attempted",
)
def test_the_id_is_free_after_an_error(bundle: Bundle, container: Container) -> None:
    bundle.config["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "x"})
    for _ in range(3):
        create(container)
    del bundle.config["mounts"][-1]
    container.create()
    assert container.status == "created"


# ----------------------------------------------------------------------------------------------- pyrunc's promises


@pyrunc_promise
class TestOneLine:
    """pyrunc's errors are one line: the command, the container, the place, the action, the reason.

    What the container's init has to say begins with runc's words.
    """

    def check(self, container: Container, *words: str) -> None:
        said = create(container)
        assert len(said.splitlines()) == 1, said
        if said.startswith("pyrunc create failed: unable to start container process: error during container init: "):
            assert f": {container.id} /" in said, said
        else:
            assert said.startswith(f"pyrunc: create {container.id}: "), said
        for word in words:
            assert word in said, said

    @spec("runtime.md#errors")
    @pytest.mark.parametrize(
        ("pointer", "value"),
        [
            ("/process/cwd", "tmp"),
            ("/process/args", []),
            ("/root/path", "nothing"),
            ("/mounts/6", {"destination": "/x", "type": "nosuchfs", "source": "x"}),
            ("/mounts/6", {"destination": "/x", "type": "tmpfs", "source": "x", "options": ["size=9q"]}),
            ("/mounts/6", {"destination": "/x", "source": "/no/such", "options": ["bind"]}),
            ("/linux/namespaces/5", {"type": "nosuch"}),
            ("/linux/namespaces/5", {"type": "pid"}),
            ("/linux/sysctl", {"net.no.such": "1"}),
            ("/hooks/createRuntime", [{"path": "/no/such/hook"}]),
            ("/hooks/createContainer", [{"path": "/bin/false"}]),
            ("/linux/resources/cpu/cpus", "4000-4001"),
        ],
    )
    def test_place(self, bundle: Bundle, container: Container, pointer: str, value: Any) -> None:
        put(bundle.config, pointer, value)
        self.check(container, f"{pointer}")

    @spec("runtime.md#errors")
    def test_read_only_cgroups(self, container: Container) -> None:
        said = create(container, preexec_fn=read_only_cgroups(container.runtime.cgroups.mountpoints))
        assert "no such file" not in said.lower(), "an engine would take it for a missing command"

    @spec("runtime.md#errors")
    def test_no_config(self, container: Container) -> None:
        container.bundle.write_config = False
        self.check(container, "config.json")

    @spec("runtime.md#errors")
    @pytest.mark.parametrize("which", sorted(set(NOT_JSON) - {"empty", "blank"}))
    def test_not_json(self, container: Container, which: str) -> None:
        container.bundle.write_config = False
        pathlib.Path(container.bundle.path, "config.json").write_bytes(NOT_JSON[which])
        self.check(container)

    @spec("runtime.md#errors")
    @pytest.mark.parametrize(
        "pointer, value",
        [
            ("/mounts/6", {"destination": "/x", "source": "/no/such", "options": ["bind"]}),
            ("/root/path", "nothing"),
            ("/hooks/createRuntime", [{"path": "/no/such/hook"}]),
            ("/linux/namespaces/5", {"type": "cgroup", "path": "/no/such/ns"}),
        ],
    )
    def test_only_a_missing_command_reads_like_one(
        self, bundle: Bundle, container: Container, pointer: str, value: Any
    ) -> None:
        """podman makes exit status 127 or 126 of these words."""
        put(bundle.config, pointer, value)
        said = create(container).lower()
        for words in (
            "no such file or directory",
            "executable file not found",
            "permission denied",
            "operation not permitted",
        ):
            assert words not in said
