"""list, ps, pause, resume, spec, features, help, version and the log: what people and engines read."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

from conformance.harness import Bundle, Container, Runtime, alive, not_applicable, requires, spec, until, xfail_on

COMMANDS = ["create", "delete", "exec", "kill", "list", "pause", "ps", "resume", "run", "spec", "start", "state"]


def pids(container: Container) -> list[int]:
    text = container.runtime.run("ps", "--format", "json", container.id, check=True).stdout
    found: list[int] = json.loads(text)
    return found


# ----------------------------------------------------------------------------------------------------------- list


@spec("runc-list.8", "Specify the format. Default is table. The json format provides more details.")
def test_list_json(container: Container) -> None:
    container.create()
    (entry,) = json.loads(container.runtime.run("list", "--format", "json", check=True).stdout)
    assert entry["id"] == container.id
    assert entry["status"] == "created"
    assert entry["pid"] == container.pid
    assert entry["bundle"] == container.bundle.path
    assert "created" in entry
    assert "owner" in entry
    container.start()
    (entry,) = json.loads(container.runtime.run("list", "-f", "json", check=True).stdout)
    assert entry["status"] == "running"
    container.kill("KILL")
    container.wait()
    (entry,) = json.loads(container.runtime.run("list", "-f", "json", check=True).stdout)
    assert entry["status"] == "stopped"
    assert entry["pid"] == 0


@spec("runc-list.8", "lists containers")
def test_list_created_is_a_time(container: Container) -> None:
    container.create()
    (entry,) = json.loads(container.runtime.run("list", "--format", "json", check=True).stdout)
    stamp = re.sub(r"\.(\d{1,6})\d*", r".\1", entry["created"])  # Python takes microseconds
    made = datetime.datetime.fromisoformat(stamp)
    assert abs((datetime.datetime.now(datetime.UTC) - made).total_seconds()) < 60


@spec("runc-list.8", "The list commands lists containers.")
def test_list_table(new_container: Callable[..., Container]) -> None:
    one, two = new_container(), new_container()
    one.create()
    two.create()
    lines = one.runtime.run("list", check=True).stdout.splitlines()
    words = ["NAME", "PID", "STATUS", "BUNDLE"] if one.runtime.name == "crun" else ["ID", "PID", "STATUS", "BUNDLE"]
    assert lines[0].split()[:4] == words
    rows = {line.split()[0]: line.split() for line in lines[1:]}
    assert set(rows) == {one.id, two.id}
    assert rows[one.id][1:4] == [str(one.pid), "created", one.bundle.path]


@spec("runc-list.8", "Only display container IDs.")
@pytest.mark.parametrize("flag", ["--quiet", "-q"])
def test_list_quiet(new_container: Callable[..., Container], flag: str) -> None:
    containers = [new_container() for _ in range(3)]
    for container in containers:
        container.create()
    lines = containers[0].runtime.run("list", flag, check=True).stdout.splitlines()
    assert sorted(lines) == sorted(container.id for container in containers)


@spec("runc-list.8", "The list commands lists containers.")
@pytest.mark.parametrize("flags", [[], ["-q"], ["-f", "json"]], ids=["table", "quiet", "json"])
def test_list_of_nothing(runtime: Runtime, flags: list[str]) -> None:
    text = runtime.run("list", *flags, check=True).stdout
    if flags == ["-f", "json"]:
        assert not json.loads(text)
    else:
        assert len(text.splitlines()) == (0 if flags else 1)


@spec("runc-list.8", "a global --root option can be specified to change the default root")
def test_list_of_a_root_that_is_not_there(runtime: Runtime) -> None:
    os.rmdir(runtime.root)
    try:
        assert runtime.run("list", "-q", check=True).stdout == ""
    finally:
        os.makedirs(runtime.root, exist_ok=True)


@spec("runc-list.8", "Specify the format.")
def test_list_in_no_format(runtime: Runtime) -> None:
    assert runtime.run("list", "--format", "yaml").status != 0


@spec("runc-list.8", "The list commands lists containers.")
def test_list_while_containers_come_and_go(
    new_bundle: Callable[[], Bundle], new_container: Callable[..., Container]
) -> None:
    containers = [new_container(bundle=new_bundle().args("true")) for _ in range(3)]
    running = [container.run_background() for container in containers]
    while any(background.process.poll() is None for background in running):
        result = containers[0].runtime.run("list", "--format", "json", check=True)
        assert isinstance(json.loads(result.stdout), list | None)
    results = [background.wait() for background in running]
    assert [result.status for result in results] == [0, 0, 0], results


# ------------------------------------------------------------------------------------------------------------- ps


@spec("runc-ps.8", "The json format shows a mere array of PIDs belonging to a container")
def test_ps_json(bundle: Bundle, container: Container) -> None:
    bundle.sh("sleep 1000 & sleep 1000 & echo ready; wait")
    container.run_detached()
    container.wait_output("ready")
    found = until(lambda: len(pids(container)) == 3 and pids(container), "three processes")
    assert container.pid in found
    assert all(alive(pid) for pid in found)
    container.exec("sleep", "1000", flags=["-d"], check=True)
    assert len(pids(container)) == 4


@spec("runc-ps.8", "filters its output to only contain processes belonging to a specified container-id")
@requires("command:ps")
def test_ps_table(container: Container) -> None:
    container.run_detached()
    lines = container.runtime.run("ps", container.id, check=True).stdout.splitlines()
    assert "PID" in lines[0]
    assert len(lines) == 2
    assert str(container.pid) in lines[1].split()


@spec("runc-ps.8", "Any ps(1) options can be used, but some might break the filtering.")
@requires("command:ps")
def test_ps_options(container: Container) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun's ps takes no options of ps(1)")
    container.run_detached()
    result = container.runtime.run("ps", container.id, "-e", "-o", "pid,comm", check=True)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines == [["PID", "COMMAND"], [str(container.pid), "sleep"]]


@spec("runc-ps.8")
def test_ps_of_a_stopped_container(container: Container) -> None:
    container.run_detached()
    container.kill("KILL")
    container.wait()
    result = container.runtime.run("ps", "--format", "json", container.id)
    if result.status == 0:
        assert not json.loads(result.stdout)
    assert "Traceback" not in result.stderr


# ----------------------------------------------------------------------------------------------- pause and resume


def count(container: Container) -> int:
    return container.stdout.count("\n")


@spec("runc-pause.8", "suspends all processes in the instance of the container")
@requires("controller:freezer")
def test_pause_and_resume(bundle: Bundle, container: Container) -> None:
    bundle.sh("while :; do echo tick; sleep 0.02; done")
    container.run_detached()
    container.wait_output("tick")
    container.pause()
    try:
        assert container.status == "paused"
        before = count(container)
        time.sleep(0.3)
        assert count(container) == before
        (entry,) = json.loads(container.runtime.run("list", "-f", "json", check=True).stdout)
        assert entry["status"] == "paused"
    finally:
        container.resume()
    assert container.status == "running"
    until(lambda: count(container) > before, "a tick after resume")


@spec("runc-pause.8", "The pause command suspends all processes")
@requires("controller:freezer")
def test_pause_again(container: Container) -> None:
    """The second says so or does nothing; either way the container stays paused, and one resume is enough."""
    container.run_detached()
    container.pause()
    container.runtime.run("pause", container.id)
    assert container.status == "paused"
    container.resume()
    assert container.status == "running"


@spec("runc-resume.8", "resume all processes that have been previously paused")
@requires("controller:freezer")
@pytest.mark.parametrize("status", ["running", "stopped"])
def test_resume_what_is_not_paused(container: Container, status: str) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun thaws whatever there is")
    container.run_detached()
    if status == "stopped":
        container.kill("KILL")
        container.wait()
    assert container.resume(check=False).status != 0
    assert container.status == status


@spec("runc-pause.8")
@requires("controller:freezer")
def test_pause_stopped(container: Container) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun freezes the empty cgroup")
    container.run_detached()
    container.kill("KILL")
    container.wait()
    assert container.pause(check=False).status != 0
    assert container.status == "stopped"
    container.delete()


# ----------------------------------------------------------------------------------------------------------- spec


@spec("runc-spec.8", "The spec command creates the new specification file named config.json for the bundle.")
@pytest.mark.parametrize("flags", [[], ["--bundle"], ["-b"]], ids=["here", "--bundle", "-b"])
def test_spec_is_a_config_that_runs(bundle: Bundle, container: Container, flags: list[str]) -> None:
    if flags:
        container.runtime.run("spec", *flags, bundle.path, check=True)
    else:
        container.runtime.run("spec", cwd=bundle.path, check=True)
    path = pathlib.Path(bundle.path, "config.json")
    config = json.loads(path.read_text())
    assert config["process"]["args"] == ["sh"]
    assert config["process"]["terminal"] is True
    assert config["root"]["path"] == "rootfs"
    config["process"]["terminal"] = False
    config["process"]["args"] = ["sh", "-c", "echo fine; id -u"]
    config["linux"]["cgroupsPath"] = f"/{container.id}"
    path.write_text(json.dumps(config))
    bundle.write_config = False
    assert container.run_output() == (0, "fine\n0\n")


@spec("runc-spec.8", "creates the new specification file")
def test_spec_overwrites_nothing(runtime: Runtime, bundle: Bundle) -> None:
    path = pathlib.Path(bundle.path, "config.json")
    path.write_text("mine")
    assert runtime.run("spec", cwd=bundle.path).status != 0
    assert path.read_text() == "mine"


@spec("runc-spec.8", "Generate a configuration for a rootless container.")
@xfail_on("crun", "crun 1.8 writes no mappings")
def test_spec_rootless(runtime: Runtime, bundle: Bundle) -> None:
    runtime.run("spec", "--rootless", cwd=bundle.path, check=True)
    config = json.loads(pathlib.Path(bundle.path, "config.json").read_text())
    assert "user" in {n["type"] for n in config["linux"]["namespaces"]}
    assert [mapping["size"] for mapping in config["linux"].get("uidMappings", [])] == [1]


# ------------------------------------------------------------------------------------------------- features, help


@spec(
    "features.md#features-structure",
    "A runtime MAY provide a JSON structure about its implemented features to runtime callers.",
)
def test_features(runtime: Runtime) -> None:
    features = runtime.features()
    assert isinstance(features["ociVersionMin"], str)
    assert isinstance(features["ociVersionMax"], str)
    assert {"createRuntime", "createContainer", "startContainer", "poststart", "poststop"} <= set(features["hooks"])
    assert {"bind", "rbind", "ro", "nosuid"} <= set(features["mountOptions"])
    linux = features["linux"]
    assert {"pid", "network", "mount", "ipc", "uts", "user"} <= set(linux["namespaces"])
    assert {"CAP_CHOWN", "CAP_SYS_ADMIN"} <= set(linux["capabilities"])
    assert isinstance(linux["cgroup"]["v1"], bool)
    assert isinstance(linux["cgroup"]["v2"], bool)


@spec("runc.8", "Show version.")
@pytest.mark.parametrize("flag", ["--version", "-v"])
def test_version(runtime: Runtime, flag: str) -> None:
    lines = runtime.run(flag, check=True).stdout.splitlines()
    assert lines[0].startswith(f"{runtime.name} version ")
    assert any(line.startswith("spec: 1.") for line in lines)


@spec("runc.8", "Show help.")
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(runtime: Runtime, flag: str) -> None:
    if runtime.name == "crun" and flag == "-h":
        not_applicable("crun has -? for it")
    text = runtime.run(flag, check=True).stdout
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", text), command


@spec("runc.8", "Show a list of commands or help for a particular command.")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(runtime: Runtime, command: str) -> None:
    result = runtime.run(command, "--help", check=True)
    assert command in result.stdout
    assert os.listdir(runtime.root) == []


@spec("runc.8", "runc [global-option ...] command [command-option ...] [argument ...]")
@pytest.mark.parametrize(
    "args", [["no-such-command"], ["--no-such-option", "list"], ["list", "--no-such-option"]], ids=" ".join
)
def test_mistyped(runtime: Runtime, args: list[str]) -> None:
    result = runtime.run(*args)
    if runtime.name == "runc" and args == ["no-such-command"]:
        assert "no-such-command" in result.stdout + result.stderr  # it says so, with status 3
    assert result.status != 0
    assert "Traceback" not in result.stderr


# ------------------------------------------------------------------------------------------------------------ log


def failing(runtime: Runtime, bundle: Bundle, *args: str) -> tuple[Any, str]:
    log = runtime.scratch("log")
    empty = os.path.join(bundle.path, "nothing")
    os.mkdir(empty)
    result = runtime.run("--log", log, *args, "create", "--bundle", empty, f"{runtime.token}-x")
    return result, pathlib.Path(log).read_text()


@spec("runc.8", "Set the log format (default is text).")
def test_log_json(runtime: Runtime, bundle: Bundle) -> None:
    result, text = failing(runtime, bundle, "--log-format", "json")
    assert result.status != 0
    entries = [json.loads(line) for line in text.splitlines()]
    errors = [entry for entry in entries if entry["level"] == "error"]
    assert len(errors) == 1
    assert errors[0]["msg"]
    stamp = re.sub(r"\.(\d{1,6})\d*", r".\1", errors[0]["time"])
    assert datetime.datetime.fromisoformat(stamp).tzinfo is not None
    assert errors[0]["msg"] in result.stderr or result.stderr == ""


@spec("runc.8", "Set the log destination to path.")
def test_log_text(runtime: Runtime, bundle: Bundle) -> None:
    result, text = failing(runtime, bundle)
    assert result.status != 0
    assert len(text.splitlines()) == 1
    assert "nothing" in text or "config.json" in text


@spec("runc.8", "Set the log destination to path.")
def test_log_is_appended(runtime: Runtime, bundle: Bundle) -> None:
    log = runtime.scratch("log")
    for i in (1, 2):
        runtime.run("--log", log, "--log-format", "json", "state", f"{runtime.token}-no{i}")
    lines = pathlib.Path(log).read_text().splitlines()
    assert len([line for line in lines if json.loads(line)["level"] == "error"]) == 2


@spec("runc.8", "Set the log format (default is text).")
def test_log_in_no_format(runtime: Runtime) -> None:
    assert runtime.run("--log-format", "yaml", "list").status != 0


@spec("runc.8", "Set the log destination to path.")
def test_log_in_no_directory(runtime: Runtime) -> None:
    result = runtime.run("--log", os.path.join(runtime.directory, "no/such/log"), "list")
    assert result.status != 0
    assert "Traceback" not in result.stderr


@spec("runc.8", "Enable debug logging.")
def test_debug_goes_to_the_log(container: Container) -> None:
    log = container.runtime.scratch("log")
    container.bundle.sh("echo mine")
    container.runtime.global_args += ["--debug", "--log", log, "--log-format", "json"]
    result = container.run()
    assert (result.status, result.stdout) == (0, "mine\n")
    for line in pathlib.Path(log).read_text().splitlines():
        json.loads(line)


@spec("runc.8", "Set the root directory to store containers' state.")
def test_roots_are_apart(container: Container) -> None:
    container.create()
    other = container.runtime.scratch("root")
    result = container.runtime.run("--root", other, "list", "-q")
    assert (result.status, result.stdout) == (0, "")
    if os.path.isdir(other):
        shutil.rmtree(other)
