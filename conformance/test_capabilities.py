"""The five capability sets of the container's process, as /proc/self/status shows them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest

from conformance.harness import Bundle, Container, not_applicable, proc_status, pyrunc_promise, requires, spec, xfail_on

#: include/uapi/linux/capability.h
NUMBERS = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_MKNOD": 27,
    "CAP_AUDIT_WRITE": 29,
    "CAP_SETFCAP": 31,
    "CAP_BPF": 39,
}

KINDS = {
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "bounding": "CapBnd",
    "ambient": "CapAmb",
}

GRANTED = "SHOULD NOT fail if the container configuration requests capabilities that cannot be granted"
WARNED = "Any value which cannot be mapped to a relevant kernel interface … MUST be logged as a warning"


def mask(*names: str) -> int:
    return sum(1 << NUMBERS[name] for name in names)


def sets(text: str) -> dict[str, int]:
    """The sets in the text of a status file, by the specification's names."""
    lines = dict(line.split(":\t") for line in text.splitlines() if line.startswith("Cap"))
    return {kind: int(lines[word], 16) for kind, word in KINDS.items()}


def look(container: Container) -> dict[str, int]:
    return sets(container.output("cat", "/proc/self/status"))


def give(bundle: Bundle, *names: str, kinds: tuple[str, ...] = tuple(KINDS)) -> None:
    bundle.process["capabilities"] = {kind: list(names) for kind in kinds}


@spec(
    "config.md#linux-process", "the bounding field is an array of bounding capabilities that are kept for the process"
)
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_bounding(bundle: Bundle, container: Container, uid: int, no_new_privileges: bool) -> None:
    bundle.process.update(user={"uid": uid, "gid": 0}, noNewPrivileges=no_new_privileges)
    give(bundle, "CAP_CHOWN", "CAP_BPF", kinds=("bounding",))
    assert look(container)["bounding"] == mask("CAP_CHOWN", "CAP_BPF")


@spec("config.md#linux-process", "the permitted field is an array of permitted capabilities that are kept")
def test_permitted_and_effective(bundle: Bundle, container: Container) -> None:
    """With no_new_privs, root's execve(2) adds nothing to the permitted set (capabilities(7)): it shows what was set"""
    some = ["CAP_KILL", "CAP_CHOWN"]
    bundle.process["capabilities"] = {
        "bounding": [*some, "CAP_FOWNER", "CAP_SYS_CHROOT"],
        "permitted": [*some, "CAP_FOWNER"],
        "effective": some,
    }
    got = look(container)
    assert got["permitted"] == mask(*some, "CAP_FOWNER")
    assert got["bounding"] == mask(*some, "CAP_FOWNER", "CAP_SYS_CHROOT")
    assert (got["inheritable"], got["ambient"]) == (0, 0)


@spec(
    "config.md#linux-process", "the bounding field is an array of bounding capabilities that are kept for the process"
)
def test_root_gets_the_bounding_set(bundle: Bundle, container: Container) -> None:
    """Without no_new_privs root's program gets all of the bounding set, and not one more (capabilities(7))."""
    bundle.process["noNewPrivileges"] = False
    give(bundle, "CAP_KILL", "CAP_FOWNER", kinds=("bounding", "permitted", "effective"))
    got = look(container)
    assert got["permitted"] == got["effective"] == got["bounding"] == mask("CAP_KILL", "CAP_FOWNER")


@spec("config.md#linux-process", "the inheritable field is an array of inheritable capabilities that are kept")
@pytest.mark.parametrize("uid", [0, 1000])
def test_inheritable(bundle: Bundle, container: Container, uid: int) -> None:
    bundle.process["user"]["uid"] = uid
    give(bundle, "CAP_KILL", "CAP_NET_RAW")
    bundle.process["capabilities"]["ambient"] = []
    bundle.process["capabilities"]["inheritable"] = ["CAP_NET_RAW"]
    got = look(container)
    assert (got["inheritable"], got["ambient"]) == (mask("CAP_NET_RAW"), 0)


@spec("config.md#linux-process", "the ambient field is an array of ambient capabilities that are kept for the process")
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_ambient(bundle: Bundle, container: Container, uid: int, no_new_privileges: bool) -> None:
    """What gives capabilities to a program of a user who is not root."""
    bundle.process.update(user={"uid": uid, "gid": uid}, noNewPrivileges=no_new_privileges)
    give(bundle, "CAP_NET_BIND_SERVICE", "CAP_NET_RAW")
    bundle.process["capabilities"]["ambient"] = ["CAP_NET_RAW"]
    got = look(container)
    assert got["ambient"] == mask("CAP_NET_RAW")
    assert got["permitted"] & mask("CAP_NET_RAW") and got["effective"] & mask("CAP_NET_RAW")
    if uid:
        assert got["permitted"] == got["effective"] == mask("CAP_NET_RAW")


@spec("config.md#linux-process", "be granted otherwise MUST be logged as a warning by")
@xfail_on("runc", "runc 1.1 says nothing")
@xfail_on("crun", "crun 1.8 says nothing")
def test_ambient_without_inheritable(bundle: Bundle, container: Container) -> None:
    """capabilities(7): only what is both permitted and inheritable can be raised. The container runs without it."""
    sets = bundle.process["capabilities"]
    sets["inheritable"], sets["ambient"] = ["CAP_KILL"], ["CAP_KILL", "CAP_CHOWN"]
    bundle.args("cat", "/proc/self/status")
    result = container.run(check=True)
    assert "can't raise ambient capability CAP_CHOWN: " in result.stderr
    assert "CapAmb:\t0000000000000020\n" in result.stdout


@spec("config.md#linux-process", "the ambient field is an array of ambient capabilities that are kept for the process")
def test_ambient_counts(bundle: Bundle, container: Container) -> None:
    """chown(2) by a user who holds CAP_CHOWN."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    give(bundle, "CAP_CHOWN")
    bundle.sh("touch /tmp/x && chown 4:5 /tmp/x && stat -c %u:%g /tmp/x")
    assert container.output() == "4:5\n"
    bundle.process["capabilities"]["ambient"] = []
    assert container.run().status != 0


@spec("config.md#linux-process", "the effective field is an array of effective capabilities that are kept")
def test_a_user_without_ambient_has_none(bundle: Bundle, container: Container) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    give(bundle, "CAP_KILL", "CAP_CHOWN", kinds=("bounding", "permitted", "effective", "inheritable"))
    got = look(container)
    assert (got["effective"], got["permitted"], got["ambient"]) == (0, 0, 0)
    assert got["bounding"] == got["inheritable"] == mask("CAP_KILL", "CAP_CHOWN")


@spec("config.md#linux-process", "capabilities (object, OPTIONAL) is an object containing arrays")
@pytest.mark.parametrize("how", ["absent", "empty", "empty arrays"])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_none(bundle: Bundle, container: Container, how: str, no_new_privileges: bool) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    if how == "absent":
        del bundle.process["capabilities"]
    else:
        bundle.process["capabilities"] = {kind: [] for kind in KINDS} if how == "empty arrays" else {}
    assert look(container) == dict.fromkeys(KINDS, 0)


@spec(
    "config.md#linux-process", "the permitted field is an array of permitted capabilities that are kept for the process"
)
def test_every_capability_of_the_runtime_s(bundle: Bundle, container: Container) -> None:
    """A privileged container: all that the caller has, by the kernel's names."""
    mine = int(proc_status(os.getpid())["CapEff"], 16)
    listed = subprocess.run(["capsh", f"--decode={mine:x}"], capture_output=True, text=True, check=False)
    if listed.returncode:
        not_applicable("the host has no capsh")
    names = listed.stdout.strip().partition("=")[2].upper().split(",")
    bundle.process["noNewPrivileges"] = False
    bundle.process["capabilities"] = dict.fromkeys(KINDS, names)
    assert look(container) == dict.fromkeys(KINDS, mine)


@spec("config.md#linux-process", WARNED)
@spec("config.md#linux-process", GRANTED)
@pytest.mark.parametrize("name", ["CAP_NO_SUCH", "KILL", "cap_kill", "CAP_63", ""])
def test_unknown_names_are_ignored(bundle: Bundle, container: Container, name: str) -> None:
    give(bundle, "CAP_CHOWN", name)
    got = look(container)
    if container.runtime.name == "crun" and name in ("KILL", "cap_kill"):
        not_applicable("crun takes names in any spelling")
    assert got == dict.fromkeys(KINDS, mask("CAP_CHOWN"))


@spec("config.md#linux-process", WARNED)
@xfail_on("crun", "crun 1.8 ignores them in silence")
def test_unknown_names_are_warned_of(bundle: Bundle, container: Container) -> None:
    give(bundle, "CAP_CHOWN", "CAP_NO_SUCH")
    bundle.args("true")
    log = container.runtime.scratch("log")
    container.runtime.global_args += ["--log", log, "--log-format", "json"]
    assert container.run().status == 0
    warnings = [json.loads(line) for line in pathlib.Path(log).read_text().splitlines()]
    assert any("CAP_NO_SUCH" in entry["msg"] and entry["level"] == "warning" for entry in warnings), warnings


def _lacks_sys_resource(runtime: object) -> str | None:
    has = int(proc_status(os.getpid())["CapPrm"], 16) >> NUMBERS["CAP_SYS_RESOURCE"] & 1
    return "the tests have CAP_SYS_RESOURCE" if has else None


@spec("config.md#linux-process", GRANTED)
@requires(_lacks_sys_resource)
@xfail_on("runc", "runc 1.1 fails with EPERM")
@xfail_on("crun", "crun 1.8 fails with EPERM")
@pytest.mark.parametrize("uid", [0, 1000])
def test_what_can_not_be_granted_is_left_out(bundle: Bundle, container: Container, uid: int) -> None:
    """The runtime itself lacks CAP_SYS_RESOURCE here, as it does in many a nested container."""
    bundle.process["user"]["uid"] = uid
    give(bundle, "CAP_CHOWN", "CAP_SYS_RESOURCE")
    assert look(container) == dict.fromkeys(KINDS, mask("CAP_CHOWN"))


@spec("config.md#linux-process", GRANTED)
@requires(_lacks_sys_resource)
@pyrunc_promise
def test_what_can_not_be_granted_is_warned_of(bundle: Bundle, container: Container) -> None:
    give(bundle, "CAP_CHOWN", "CAP_SYS_RESOURCE")
    bundle.args("true")
    result = container.run()
    assert result.status == 0 and "CAP_SYS_RESOURCE" in result.stderr, result


@spec("config.md#linux-process", "the inheritable field is an array of inheritable capabilities that are kept")
@pyrunc_promise
@pytest.mark.parametrize("kind", ["inheritable", "permitted", "ambient"])
def test_more_than_the_bounding_set_allows(bundle: Bundle, container: Container, kind: str) -> None:
    """Never more than the bounding set has, and no failure: it can't be granted."""
    give(bundle, "CAP_CHOWN")
    bundle.process["capabilities"][kind] = ["CAP_CHOWN", "CAP_KILL"]
    got = look(container)
    assert got["inheritable"] == got["ambient"] == got["bounding"] == mask("CAP_CHOWN")


@spec(
    "config.md#linux-process", "the bounding field is an array of bounding capabilities that are kept for the process"
)
@pytest.mark.parametrize("uid", [0, 1000])
def test_exec_has_the_container_s(bundle: Bundle, container: Container, uid: int) -> None:
    bundle.process["user"]["uid"] = uid
    give(bundle, "CAP_KILL", "CAP_CHOWN")
    container.run_detached()
    got = sets(container.exec("cat", "/proc/self/status", check=True).stdout)
    assert got == dict.fromkeys(KINDS, mask("CAP_KILL", "CAP_CHOWN"))


@spec(
    "config.md#linux-process", "the bounding field is an array of bounding capabilities that are kept for the process"
)
def test_exec_in_a_user_namespace(bundle: Bundle, container: Container) -> None:
    """Joining a user namespace gives every capability in it: they are dropped again."""
    bundle.namespaces(add=[{"type": "user"}])
    mapping = [{"containerID": 0, "hostID": 300000, "size": 2000}]
    bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
    for directory, names, files in os.walk(bundle.rootfs):
        for name in (".", *names, *files):
            os.chown(os.path.join(directory, name), 300000, 300000, follow_symlinks=False)
    give(bundle, "CAP_KILL", "CAP_CHOWN")
    container.run_detached()
    mine = sets(pathlib.Path(f"/proc/{container.pid}/status").read_text())
    got = sets(container.exec("cat", "/proc/self/status", check=True).stdout)
    assert mine == got == dict.fromkeys(KINDS, mask("CAP_KILL", "CAP_CHOWN"))
