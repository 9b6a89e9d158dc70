"""AppArmor: the profile of the container's process and of those that join it."""

from __future__ import annotations

import json
import os
import pathlib
import secrets
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from conformance.harness import (
    SCALE,
    Bundle,
    Container,
    Json,
    Runtime,
    pyrunc_promise,
    requires,
    spec,
    until,
    xfail_on,
)

PROFILE = "specifies the name of the AppArmor profile for the process."


def enabled() -> bool:
    try:
        return pathlib.Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except FileNotFoundError:
        return False


def apparmor(_: Runtime) -> str | None:
    """For `requires`."""
    if not enabled():
        return "AppArmor is not enabled in this kernel"
    return None if shutil.which("apparmor_parser") else "the host has no apparmor_parser"


def no_apparmor(_: Runtime) -> str | None:
    """For `requires`."""
    return "AppArmor is enabled in this kernel" if enabled() else None


def parse(action: str, text: str) -> None:
    done = subprocess.run(
        ["apparmor_parser", "--skip-cache", action],
        input=text,
        capture_output=True,
        text=True,
        timeout=60 * SCALE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def profiles() -> Iterator[tuple[str, str]]:
    """Two loaded profiles that forbid nothing but /forbidden."""
    token = secrets.token_hex(4)
    names = (f"conformance-{token}-a", f"conformance-{token}-b")
    rules = "capability, file, mount, umount, pivot_root, network, signal, ptrace, unix, dbus, deny /forbidden rw,"
    text = "\n".join(f"profile {name} flags=(attach_disconnected,mediate_deleted) {{ {rules} }}" for name in names)
    parse("--replace", text)
    yield names
    parse("--remove", text)


def under(confinement: str) -> set[str]:
    """The test's profiles in a confinement as the kernel shows it, ``NAME//&OTHER (mode)``.

    Distributions have profiles for runc and crun themselves that allow everything; a program may keep those too.
    """
    names = confinement.strip("\0\n").rpartition(" (")[0].split("//&")
    return {name for name in names if name.startswith("conformance-")}


def profiles_of(pid: int) -> set[str]:
    """The test's profiles that a process is under; asked of the host's /proc."""
    return under(pathlib.Path(f"/proc/{pid}/attr/apparmor/current").read_text())


def asleep(container: Container, profile: str) -> Container:
    """Run a container with a profile; it sleeps."""
    container.bundle.process["apparmorProfile"] = profile
    container.run_detached()
    until(lambda: pathlib.Path(f"/proc/{container.pid}/comm").read_text() == "sleep\n", "the container's program")
    return container


OUTPUT = ("cat", "/proc/self/attr/current")


@spec("config.md#linux-process", PROFILE)
@requires(apparmor)
def test_the_process_runs_under_its_profile(container: Container, bundle: Bundle, profiles: tuple[str, str]) -> None:
    bundle.file("/forbidden", "secret")
    bundle.process["apparmorProfile"] = profiles[0]
    status, out = container.run_output("sh", "-c", "cat /proc/self/attr/current; cat /forbidden 2>&1")
    confinement, said = out.splitlines()
    assert (status, under(confinement), said) == (1, {profiles[0]}, "cat: can't open '/forbidden': Permission denied")


@spec("config.md#linux-process", PROFILE)
@requires(apparmor)
def test_without_a_profile_there_is_none(container: Container, bundle: Bundle) -> None:
    """But the one that allows everything of the runtime itself, where the distribution has such."""
    assert container.output(*OUTPUT) in ("unconfined\n", f"{container.runtime.name} (unconfined)\n")


@spec("config.md#linux-process", PROFILE)
@requires(apparmor)
def test_unconfined_is_the_name_of_no_profile(container: Container, bundle: Bundle) -> None:
    bundle.process["apparmorProfile"] = "unconfined"
    assert "unconfined" in container.output(*OUTPUT)


@spec("config.md#linux-process", PROFILE)
@requires(apparmor)
def test_the_profile_counts_from_start_on(container: Container, bundle: Bundle, profiles: tuple[str, str]) -> None:
    """aa_change_onexec(3): with the program that is executed, not with init, which still has to set up what the profile
    might forbid."""
    bundle.process["apparmorProfile"] = profiles[0]
    container.create()
    assert profiles_of(container.pid) == set()
    container.start()
    until(lambda: profiles_of(container.pid) == {profiles[0]}, "the profile")


@spec("config.md#linux-process", PROFILE)
@requires(apparmor)
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_an_ordinary_user_under_a_profile(
    no_new_privileges: bool, container: Container, bundle: Bundle, profiles: tuple[str, str]
) -> None:
    """Without capabilities; no_new_privs keeps nobody from being confined (kernel: domain.c, handle_onexec)."""
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["capabilities"] = {}
    bundle.process["apparmorProfile"] = profiles[0]
    assert under(container.output(*OUTPUT)) == {profiles[0]}


@spec("config.md#linux-process", PROFILE)
@requires(apparmor)
def test_in_a_user_namespace(container: Container, bundle: Bundle, profiles: tuple[str, str]) -> None:
    """Where the kernel makes no new procfs for whoever sees one that has files hidden."""
    mapping = [{"containerID": 0, "hostID": 200000, "size": 65536}]
    bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
    bundle.namespaces(add=[{"type": "user"}])
    os.chown(bundle.rootfs, 200000, 200000)
    running = asleep(container, profiles[0])
    assert profiles_of(running.pid) == {profiles[0]}
    assert under(running.exec(*OUTPUT, check=True).stdout) == {profiles[0]}


@spec("config.md#linux-process", PROFILE)
@requires(apparmor)
@xfail_on("runc", "runc 1.1 wants a /proc in the container to ask for the profile")
@xfail_on("crun", "crun wants a /proc in the container to ask for the profile")
@pytest.mark.parametrize("dressed", ["no /proc", "a directory of the image"])
def test_the_containers_proc_does_not_matter(
    dressed: str, container: Container, bundle: Bundle, profiles: tuple[str, str]
) -> None:
    """A /proc of the image's own is not asked (CVE-2019-16884)."""
    bundle.config["mounts"] = [mount for mount in bundle.config["mounts"] if mount["destination"] != "/proc"]
    for name in ("maskedPaths", "readonlyPaths"):
        del bundle.linux[name]
    if dressed != "no /proc":
        for thread in ("self", "thread-self"):
            for directory in ("attr", "attr/apparmor"):
                bundle.file(f"/proc/{thread}/{directory}/exec")
    running = asleep(container, profiles[0])
    assert profiles_of(running.pid) == {profiles[0]}
    if dressed != "no /proc":
        assert pathlib.Path(bundle.host("/proc/thread-self/attr/apparmor/exec")).read_text() == ""
    pid_file = running.runtime.scratch("exec.pid")
    running.exec("sleep", "1000", flags=["--detach", "--pid-file", pid_file], check=True)
    pid = int(pathlib.Path(pid_file).read_text())
    until(lambda: profiles_of(pid) == {profiles[0]}, "the profile of the second process")


# ------------------------------------------------------------------------------------------------ exec


@spec("config.md#linux-process", PROFILE)
@requires(apparmor)
def test_exec_has_the_profile_of_the_container(container: Container, profiles: tuple[str, str]) -> None:
    running = asleep(container, profiles[0])
    assert under(running.exec(*OUTPUT, check=True).stdout) == {profiles[0]}


@spec("runc-exec.8", "Set the **apparmor**(7) _profile_ for the process.")
@requires(apparmor)
@requires("flag:exec --apparmor")
def test_exec_with_a_profile_of_its_own(container: Container, profiles: tuple[str, str]) -> None:
    running = asleep(container, profiles[0])
    result = running.exec(*OUTPUT, flags=["--apparmor", profiles[1]], check=True)
    assert under(result.stdout) == {profiles[1]}
    assert profiles_of(running.pid) == {profiles[0]}


@spec("config.md#linux-process", PROFILE)
@requires(apparmor)
def test_exec_with_a_profile_in_its_file(container: Container, profiles: tuple[str, str]) -> None:
    running = asleep(container, profiles[0])
    process: Json = {"args": list(OUTPUT), "cwd": "/", "env": ["PATH=/bin"], "apparmorProfile": profiles[1]}
    path = running.runtime.scratch("process.json")
    pathlib.Path(path).write_text(json.dumps(process))
    result = running.runtime.run("exec", "--process", path, running.id, check=True)
    assert under(result.stdout) == {profiles[1]}


# ------------------------------------------------------------------------------------------------ errors

INVALID = "Runtimes MUST generate an error when invalid or unsupported values are encountered."


@spec("config.md#valid-values", INVALID)
@requires(apparmor)
def test_a_profile_that_is_not_loaded(container: Container, bundle: Bundle) -> None:
    bundle.process["apparmorProfile"] = "conformance-no-such-profile"
    assert container.create(check=False).status != 0
    assert not container.exists()


@spec("config.md#valid-values", INVALID)
@requires(no_apparmor)
def test_a_kernel_without_apparmor(container: Container, bundle: Bundle) -> None:
    bundle.process["apparmorProfile"] = "conformance-no-such-profile"
    assert container.create(check=False).status != 0
    assert not container.exists()


@spec("config.md#valid-values", INVALID)
def test_exec_with_a_profile_that_cannot_be(container: Container) -> None:
    container.run_detached()
    assert container.exec("true", flags=["--apparmor", "conformance-no-such-profile"]).status != 0
    assert container.status == "running"


@pyrunc_promise
@spec("config.md#linux-process", PROFILE)
def test_one_line_says_what_is_wrong(container: Container, bundle: Bundle) -> None:
    why = "no such profile is loaded" if enabled() else "AppArmor is not enabled in this kernel"
    init = "error during container init"
    line = "pyrunc {} failed: unable to start container process: {} /process/apparmorProfile: {}\n"
    action = "change to the AppArmor profile strict on exec"
    bundle.process["apparmorProfile"] = "strict"
    expected = line.format("create", f"{init}: {action}: {container.id}", why)
    assert container.create(check=False).stderr == expected
    del bundle.process["apparmorProfile"]
    container.run_detached()
    result = container.exec("true", flags=["--apparmor", "strict"])
    assert (result.status, result.stderr) == (255, line.format("exec", f"{action}: {container.id}", why))
