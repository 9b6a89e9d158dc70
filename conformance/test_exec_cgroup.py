"""Which cgroup a further process comes to: `exec --cgroup`, and exec after init has moved."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from conformance.harness import Container, Runtime, not_applicable, pyrunc_promise, requires, spec

SUB = "Execute a process in a sub-cgroup. If the specified cgroup does not exist, an error is returned."
TOP = "Default is empty path, which means to use container's top level cgroup."
V1 = "the option can be used multiple times to set different paths for different controllers"
V2 = (
    "Note for cgroup v2, in case the process can't join the top level cgroup,"
    " runc exec fallback is to try joining the cgroup of container's init."
)

WHERE = ("cat", "/proc/self/cgroup")


def needs_flag(runtime: Runtime) -> str | None:
    if "--cgroup" not in runtime.help("exec"):
        return f"{runtime.name} {runtime.version} has no `exec --cgroup`"
    return "crun's --cgroup is another: it makes what is not there" if runtime.name == "crun" else None


def joined(container: Container, *flags: str) -> dict[str, str]:
    """The cgroup of each controller, "" for v2's, that exec puts a process into."""
    text = container.exec(*WHERE, flags=flags, check=True).stdout
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


@pytest.fixture
def running(container: Container) -> Container:
    container.run_detached()
    return container


@spec("runc-exec.8", TOP)
@requires(needs_flag)
@pytest.mark.parametrize("flags", [(), ("--cgroup", "/"), ("--cgroup", "")], ids=["none", "slash", "empty"])
def test_top(running: Container, flags: tuple[str, ...]) -> None:
    known = running.runtime.cgroups.of(running.pid)
    text = pathlib.Path(f"/proc/{running.pid}/cgroup").read_text()
    assert running.exec(*WHERE, flags=flags, check=True).stdout.split() == text.split()
    assert known


@spec("runc-exec.8", SUB)
@requires(needs_flag)
@pytest.mark.parametrize("path", ["..", "../..", "below/../../x", "/.."])
def test_out_of_the_container(running: Container, path: str) -> None:
    result = running.exec("true", flags=["--cgroup", path])
    assert result.status != 0 and "sub cgroup path" in result.stderr, result
    assert running.exec("true").status == 0


@spec("runc-exec.8", SUB)
@requires(needs_flag)
@pyrunc_promise
def test_a_sibling_by_its_name(running: Container) -> None:
    """Whose name begins as the container's: it is still another's."""
    result = running.exec("true", flags=["--cgroup", f"../{running.id}x"])
    assert result.status == 255 and "sub cgroup path" in result.stderr, result


@spec("runc-exec.8", SUB)
@requires(needs_flag)
@pytest.mark.parametrize("argument", ["no-such", "no/such"])
def test_no_such_cgroup(running: Container, argument: str) -> None:
    result = running.exec("true", flags=["--cgroup", argument])
    assert result.status == 255 and "o such file or directory" in result.stderr, result
    assert running.status == "running"


@spec("runc-exec.8", V1)
@requires(needs_flag)
@requires("cgroup v1")
@pytest.mark.parametrize("arguments, word", [
    (["whaaat:/"], "unknown controller"),
    (["memory:no-such"], "o such file or directory"),
    ([":below"], "prefix"),
    (["memory:/", "memory:/below"], "memory"),
    (["memory:/", "below"], "prefix"),
    (["memory:.."], "sub cgroup path"),
])  # fmt: skip
@requires("controller:memory")
def test_bad_arguments(running: Container, arguments: list[str], word: str) -> None:
    flags = [word for argument in arguments for word in ("--cgroup", argument)]
    result = running.exec("true", flags=flags)
    assert result.status == 255, result
    if arguments != [":below"] or running.runtime.name == "pyrunc":  # runc 1.1 looks for the cgroup first
        assert word in result.stderr, result
    if running.runtime.name == "pyrunc":
        assert len(result.stderr.splitlines()) == 1


@spec("runc-exec.8", V1)
@requires(needs_flag)
@requires("cgroup v1")
@requires("controller:memory")
def test_each_controller(running: Container) -> None:
    cgroups = running.runtime.cgroups
    tops = cgroups.of(running.pid)
    chosen = [name for name in tops if name in ("memory", "cpu", "cpuacct")]
    for name in chosen:
        os.makedirs(f"{tops[name]}/sub{name[0]}", exist_ok=True)
    before = joined(running)
    flags = ["--cgroup", "memory:subm", "--cgroup", ",".join(name for name in chosen if name != "memory") + ":/subc/"]
    after = joined(running, *flags)
    for name, path in before.items():
        want = f"{path}/sub{name[0]}" if name in chosen else path
        assert after[name] == want, name
    running.delete("--force")


@spec("runc-exec.8", SUB)
@requires(needs_flag)
def test_one_path_for_all(running: Container) -> None:
    cgroups = running.runtime.cgroups
    for top in set(cgroups.of(running.pid).values()):
        if running.id in top:
            os.mkdir(f"{top}/below")
            if "cpuset" in top:
                for file in ("cpuset.cpus", "cpuset.mems"):
                    pathlib.Path(top, "below", file).write_text(pathlib.Path(top, file).read_text())
    before = joined(running)
    if cgroups.mode == "hybrid" and running.id not in before[""]:
        not_applicable("runc 1.1 keeps a container out of the hierarchy beside v1's")
    after = joined(running, "--cgroup", "below")
    assert after == {name: f"{path}/below" if running.id in path else path for name, path in before.items()}


# ------------------------------------------------------------------------------------------------------------ v2


def domain_controller(directory: str) -> str:
    """A controller that a cgroup with processes can't hand down."""
    threaded = {"cpu", "cpuset", "pids", "perf_event"}
    offered = pathlib.Path(directory, "cgroup.controllers").read_text().split()
    chosen = [name for name in offered if name not in threaded]
    if not chosen:
        not_applicable(f"the cgroup has no such controller: {offered}")
    return chosen[0]


@pytest.fixture
def moved(running: Container) -> tuple[Container, str]:
    """A container whose init lives below its own cgroup, as systemd in a container does; and init's cgroup."""
    top = running.runtime.cgroups.of(running.pid)[""]
    os.mkdir(f"{top}/init")
    pathlib.Path(top, "init", "cgroup.procs").write_text(str(running.pid))
    return running, top


@spec("runc-exec.8", V2)
@requires("cgroup v2")
def test_init_below(moved: tuple[Container, str]) -> None:
    """As long as the container's own cgroup can be joined it is."""
    container, _ = moved
    assert joined(container)[""].endswith(f"/{container.id}")


@spec("runc-exec.8", V2)
@requires("cgroup v2")
@pytest.mark.parametrize("flags", [(), ("--detach",)], ids=["", "detach"])
def test_init_below_a_cgroup_that_hands_controllers_down(moved: tuple[Container, str], flags: tuple[str, ...]) -> None:
    container, top = moved
    pathlib.Path(top, "cgroup.subtree_control").write_text(f"+{domain_controller(top)}")
    if flags:
        container.exec("sleep", "1000", flags=[*flags, "--pid-file", f"{container.pid_file}2"], check=True)
        pid = int(pathlib.Path(f"{container.pid_file}2").read_text())
        assert container.runtime.cgroups.of(pid)[""] == f"{top}/init"
    else:
        assert joined(container)[""].endswith(f"/{container.id}/init")


@spec("runc-exec.8", "This fallback can be disabled by using --cgroup /.")
@requires("cgroup v2")
@requires(needs_flag)
def test_no_fallback(moved: tuple[Container, str]) -> None:
    container, top = moved
    pathlib.Path(top, "cgroup.subtree_control").write_text(f"+{domain_controller(top)}")
    result = container.exec("true", flags=["--cgroup", "/"])
    assert result.status == 255 and "evice or resource busy" in result.stderr, result
    os.mkdir(f"{top}/second")
    assert joined(container, "--cgroup", "init")[""].endswith("/init")
    assert joined(container, "--cgroup", "second")[""].endswith("/second")


@pytest.fixture
def elsewhere(running: Container) -> Iterator[str]:
    """A cgroup of the test's own."""
    path = f"{running.runtime.cgroups.unified}/{running.runtime.token}-other"
    os.mkdir(path)
    yield path
    running.runtime.start("delete", "--force", running.id).wait(reaping_but=())
    os.rmdir(path)


@spec("runc-exec.8", V2)
@requires("cgroup v2")
def test_init_elsewhere(running: Container, elsewhere: str) -> None:
    """Without a cgroup namespace, and where it may write there, init can leave its cgroup, and that can be removed."""
    if running.runtime.name == "runc" and running.runtime.version.startswith("1.1"):
        not_applicable("runc 1.1 needs the cgroup")
    top = running.runtime.cgroups.of(running.pid)[""]
    pathlib.Path(elsewhere, "cgroup.procs").write_text(str(running.pid))
    os.rmdir(top)
    assert joined(running)[""] == elsewhere.removeprefix(running.runtime.cgroups.unified)


@spec("runc-exec.8", "For cgroup v1 only, a particular controller")
@requires("cgroup v2")
@pyrunc_promise
def test_controllers_are_v1s(running: Container) -> None:
    result = running.exec("true", flags=["--cgroup", "memory:/"])
    assert result.status == 255 and "unknown controller memory" in result.stderr, result
