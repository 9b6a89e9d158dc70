"""Hooks: their order, the namespaces they run in, what they are told, and what their failure does."""

from __future__ import annotations

import json
import os
import pathlib
import re
from typing import Any

import pytest

from conformance.harness import Bundle, Container, Json, alive, namespace, requires, spec, until, xfail_on

HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
OF_CREATE = HOOKS[:3]
IN_RUNTIME = ["prestart", "createRuntime", "poststart", "poststop"]

#: A hook: say the name, the namespaces, and what came over stdin.
SCRIPT = """#!{shell}
{{
  echo "name=$1"
  for n in mnt pid uts ipc net; do echo "$n=$(readlink /proc/self/ns/$n)"; done
  echo "cwd=$(pwd)"
  echo "state=$(cat | tr -d '\\n')"
}} >>{log}
"""


class Recorder:
    """Hooks that write what they see to a file on the host, reachable from the container as /log."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        bundle.file("/log")
        self.log = bundle.host("/log")
        self.script = os.path.join(bundle.path, "hook")
        pathlib.Path(self.script).write_text(SCRIPT.format(shell="/bin/sh", log=self.log))
        os.chmod(self.script, 0o755)
        bundle.file("/hook", SCRIPT.format(shell="/bin/sh", log="/log"), 0o755)
        bundle.config["hooks"] = {}

    def add(self, kind: str, *names: str) -> None:
        for name in names or (kind,):
            path = "/hook" if kind == "startContainer" else self.script
            env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
            self.bundle.config["hooks"].setdefault(kind, []).append({"path": path, "args": ["hook", name], "env": env})

    @property
    def seen(self) -> list[dict[str, str]]:
        """What each hook wrote, in order."""
        calls: list[dict[str, str]] = []
        for line in pathlib.Path(self.log).read_text().splitlines():
            key, _, value = line.partition("=")
            if key == "name":
                calls.append({})
            calls[-1][key] = value
        return calls

    @property
    def names(self) -> list[str]:
        return [call["name"] for call in self.seen]

    def state(self, name: str) -> Json:
        state: Json = json.loads(next(call["state"] for call in self.seen if call["name"] == name))
        return state


@pytest.fixture
def recorder(bundle: Bundle) -> Recorder:
    return Recorder(bundle)


def hook(path: str, *args: str, **more: Any) -> Json:
    return {"path": path, **({"args": [os.path.basename(path), *args]} if args else {}), **more}


@spec("config.md#summary", "See the below table for a summary of hooks and when they are called:")
@xfail_on("runc", "runc 1.1 runs poststart hooks in create")
@xfail_on("crun", "crun 1.8 does not wait in start for the startContainer hooks")
def test_order_and_place(recorder: Recorder, container: Container) -> None:
    for kind in HOOKS:
        recorder.add(kind)
    container.create()
    assert recorder.names == OF_CREATE
    container.start()
    assert recorder.names == HOOKS[:5]
    container.kill("KILL")
    container.wait()
    assert recorder.names == HOOKS[:5]
    container.delete()
    assert recorder.names == HOOKS


@spec("config.md#posix-platform-hooks", "Hooks MUST be called in the listed order.")
@pytest.mark.parametrize("kind", HOOKS)
def test_listed_order(recorder: Recorder, container: Container, kind: str) -> None:
    names = [f"{kind}{i}" for i in range(5)]
    recorder.add(kind, *names)
    container.run_detached()
    if kind != "poststop":
        until(lambda: len(recorder.names) == len(names), "the hooks' words")
    container.delete("--force")
    assert recorder.names == names


@spec("config.md#summary", "See the below table for a summary of hooks and when they are called:")
@xfail_on("runc", "runc 1.1 runs poststart hooks in create")
@xfail_on("crun", "crun 1.8 does not wait in start for the startContainer hooks")
def test_all_in_a_foreground_run(recorder: Recorder, container: Container) -> None:
    for kind in HOOKS:
        recorder.add(kind)
    recorder.bundle.args("true")
    assert container.run().status == 0
    assert recorder.names == HOOKS


@spec("config.md#createcontainer-hooks", "The createContainer hooks MUST be executed in the container namespace.")
@pytest.mark.parametrize("kind", HOOKS)
def test_namespaces(recorder: Recorder, container: Container, kind: str) -> None:
    """createContainer hooks run in all of the container's namespaces, as the hooks of the world expect."""
    recorder.add(kind)
    container.run_detached()
    pid = container.pid
    if kind != "poststop":
        until(lambda: "state=" in pathlib.Path(recorder.log).read_text(), "the hook's words")
    inside = {n: namespace(pid, n) for n in ("mnt", "uts", "ipc", "net")}
    outside = {n: namespace("thread-self", n) for n in ("mnt", "uts", "ipc", "net")}
    container.delete("--force")
    (call,) = recorder.seen
    seen = {n: call[n] for n in inside}
    assert seen == (outside if kind in IN_RUNTIME else inside)


@spec(
    "config.md#posix-platform-hooks",
    "The state of the container MUST be passed to hooks over stdin so that they may do work appropriate to the current"
    " state of the container.",
)
@pytest.mark.parametrize("kind", HOOKS)
@xfail_on("runc", "runc 1.1 runs poststart hooks in create, with the status created", only=["poststart"])
@xfail_on("crun", "crun 1.8 tells startContainer hooks that the bundle is /", only=["startContainer"])
def test_state_on_stdin(recorder: Recorder, container: Container, kind: str) -> None:
    recorder.bundle.config["annotations"] = {"org.example.key": "value"}
    recorder.add(kind)
    container.run_detached()
    pid = container.pid
    if kind != "poststop":
        until(lambda: "state=" in pathlib.Path(recorder.log).read_text(), "the hook's words")
    container.delete("--force")
    state = recorder.state(kind)
    assert state["id"] == container.id
    assert isinstance(state["ociVersion"], str)
    assert state["bundle"] == recorder.bundle.path
    assert state["annotations"]["org.example.key"] == "value"
    expected = {"startContainer": {"created"}, "poststart": {"running"}, "poststop": {"stopped"}}
    assert state["status"] in expected.get(kind, {"creating", "created"})
    if kind in ("prestart", "createRuntime", "poststart"):
        assert state["pid"] == pid
    elif kind == "startContainer":
        assert state["pid"] in (1, pid)


@spec(
    "config.md#posix-platform-hooks",
    "env (array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008's environ.",
)
@pytest.mark.parametrize("kind", IN_RUNTIME)
def test_environment(bundle: Bundle, container: Container, kind: str) -> None:
    log = os.path.join(bundle.path, "env")
    script = f"/usr/bin/tr '\\0' '\\n' </proc/self/environ >{log}"
    bundle.config["hooks"] = {kind: [hook("/bin/sh", "-c", script, env=["ONE=1", "TWO=a=b"])]}
    container.run_detached(env={**container.runtime.env, "SECRET": "leaked"})
    container.delete("--force")
    found = set(pathlib.Path(log).read_text().split())
    assert {"ONE=1", "TWO=a=b"} <= found
    assert not any(line.startswith(("SECRET", "CONFORMANCE_TOKEN")) for line in found)


@spec(
    "config.md#posix-platform-hooks",
    "args (array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008 execv's argv.",
)
@pytest.mark.parametrize("args", [["zero", "one", "", "three four"], ["only"], None], ids=["four", "one", "none"])
def test_arguments(bundle: Bundle, container: Container, args: list[str] | None) -> None:
    log = os.path.join(bundle.path, "args")
    script = os.path.join(bundle.path, "show")
    pathlib.Path(script).write_text(f"#!/bin/sh\n/usr/bin/tr '\\0' '\\n' </proc/$$/cmdline >{log}\n")
    os.chmod(script, 0o755)
    bundle.config["hooks"] = {"createRuntime": [{"path": script, **({} if args is None else {"args": args})}]}
    container.create()
    # the kernel puts the interpreter and the script in argv[0]'s place
    assert pathlib.Path(log).read_text().split("\n")[2:-1] == (args or [])[1:]


@spec(
    "config.md#prestart",
    "so they provide an opportunity to customize the container (e.g. the network namespace could be specified"
    " in this hook)",
)
@pytest.mark.parametrize("kind", ["prestart", "createRuntime"])
def test_the_namespaces_are_there(bundle: Bundle, container: Container, kind: str) -> None:
    """A hook in the runtime namespace gets at the container's network by the pid that it is told."""
    log = os.path.join(bundle.path, "ns")
    script = (
        f"pid=$(cat | tr ',' '\\n' | sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p'); readlink /proc/$pid/ns/net >{log}"
    )
    bundle.config["hooks"] = {kind: [hook("/bin/sh", "-c", script, env=["PATH=/usr/bin:/bin"])]}
    container.create()
    assert pathlib.Path(log).read_text().strip() == namespace(container.pid, "net")


@spec(
    "config.md#createcontainer-hooks",
    "this would happen before the pivot_root operation is executed but after the mount namespace was created and setup",
)
def test_create_container_sees_the_mounts(bundle: Bundle, container: Container) -> None:
    """The host's paths are still there, and the container's mounts already."""
    log = os.path.join(bundle.path, "mounts")
    script = f"cat /proc/self/mountinfo >{log}; mkdir -p {bundle.rootfs}/dev/shm/made; touch {bundle.rootfs}/from-hook"
    bundle.config["hooks"] = {"createContainer": [hook("/bin/sh", "-c", script, env=["PATH=/usr/bin:/bin"])]}
    bundle.sh("ls -d /dev/shm/made /from-hook; sleep 1000")
    container.run_detached()
    text = pathlib.Path(log).read_text()
    assert f" {bundle.rootfs}/proc " in text
    container.wait_output("/from-hook")
    assert "/dev/shm/made" in container.stdout


@spec("config.md#startcontainer-hooks", "The startContainer hooks' path MUST resolve in the container namespace.")
def test_start_container_is_before_the_program(bundle: Bundle, container: Container) -> None:
    bundle.file("/say", "#!/bin/sh\necho hook >>/order\n", 0o755)
    bundle.config["hooks"] = {"startContainer": [hook("/say")]}
    bundle.sh("echo program >>/order")
    container.create()
    assert not os.path.exists(bundle.host("/order"))
    container.start()
    container.wait()
    assert pathlib.Path(bundle.host("/order")).read_text() == "hook\nprogram\n"


@spec("config.md#poststart", "after the user-specified process is executed but before the start operation returns")
def test_poststart_is_before_start_returns(bundle: Bundle, container: Container) -> None:
    log = os.path.join(bundle.path, "done")
    bundle.config["hooks"] = {
        "poststart": [hook("/bin/sh", "-c", f"sleep 0.5; echo done >{log}", env=["PATH=/bin:/usr/bin"])]
    }
    container.create()
    container.start()
    assert os.path.exists(log)


@spec("config.md#poststop", "after the container is deleted but before the delete operation returns")
def test_poststop_finds_nothing(bundle: Bundle, container: Container) -> None:
    log = os.path.join(bundle.path, "left")
    where = " ".join(f"{top}/{container.id}" for top in container.runtime.cgroups.mountpoints)
    script = f"ls -d {where} >{log} 2>/dev/null; echo end >>{log}"
    bundle.config["hooks"] = {"poststop": [hook("/bin/sh", "-c", script, env=["PATH=/usr/bin:/bin"])]}
    container.create()
    container.delete("--force")
    assert pathlib.Path(log).read_text() == "end\n"


# -------------------------------------------------------------------------------------------------------- failure


@spec(
    "runtime.md#lifecycle",
    "If any prestart hook fails, the runtime MUST generate an error, stop the container, and continue the"
    " lifecycle at step 12.",
)
@pytest.mark.parametrize("kind", OF_CREATE)
@pytest.mark.parametrize("how", ["status", "missing", "signal"])
def test_failure_in_create(recorder: Recorder, container: Container, kind: str, how: str) -> None:
    bundle = recorder.bundle
    failing = {
        "status": hook("/bin/sh", "-c", "exit 3"),
        "missing": hook("/no/such/hook"),
        "signal": hook("/bin/sh", "-c", "kill -9 $$"),
    }[how]
    recorder.add(kind, "before")
    bundle.config["hooks"][kind].append(failing)
    recorder.add(kind, "after")
    for later in OF_CREATE[OF_CREATE.index(kind) + 1 :]:
        recorder.add(later)
    result = container.create(check=False)
    assert result.status != 0
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr
    assert recorder.names == ["before"]
    assert not container.exists()


@spec(
    "runtime.md#lifecycle",
    "If any startContainer hook fails, the runtime MUST generate an error, stop the container, and continue"
    " the lifecycle at step 12.",
)
@pytest.mark.parametrize("how", ["status", "missing"])
def test_failure_of_start_container(bundle: Bundle, container: Container, how: str) -> None:
    bundle.file("/fail", "#!/bin/sh\nexit 3\n", 0o755)
    bundle.config["hooks"] = {"startContainer": [hook("/fail" if how == "status" else "/no/such")]}
    bundle.sh("touch /ran; sleep 1000")
    container.create()
    pid = container.pid
    container.start(check=False)
    until(lambda: not alive(pid), "end of the container's process")
    assert not os.path.exists(bundle.host("/ran"))
    assert container.status in ("stopped", "")


@spec("runtime.md#lifecycle", "If any startContainer hook fails, the runtime MUST generate an error")
def test_failure_of_start_container_in_run(bundle: Bundle, container: Container) -> None:
    bundle.file("/fail", "#!/bin/sh\nexit 3\n", 0o755)
    bundle.config["hooks"] = {"startContainer": [hook("/fail")]}
    bundle.sh("touch /ran")
    assert container.run().status != 0
    assert not os.path.exists(bundle.host("/ran"))
    assert not container.exists()


@spec(
    "runtime.md#lifecycle",
    "If any poststart hook fails, the runtime MUST generate an error, stop the container, and continue the"
    " lifecycle at step 12.",
)
@xfail_on("runc", "runc 1.1 runs poststart hooks in create")
@xfail_on("crun", "crun 1.8 says nothing of a failing poststart hook and lets the container run")
def test_failure_of_poststart(bundle: Bundle, container: Container) -> None:
    bundle.config["hooks"] = {"poststart": [hook("/bin/sh", "-c", "exit 3")]}
    container.create()
    pid = container.pid
    assert container.start(check=False).status != 0
    until(lambda: not alive(pid), "end of the container's process")


@spec(
    "runtime.md#lifecycle",
    "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle"
    " continue as if the hook had succeeded.",
)
@pytest.mark.parametrize("how", ["status", "missing"])
@xfail_on("runc", "runc 1.1 runs no poststop hooks after one that failed")
def test_failure_of_poststop(recorder: Recorder, container: Container, how: str) -> None:
    recorder.add("poststop", "before")
    recorder.bundle.config["hooks"]["poststop"].append(
        hook("/bin/sh", "-c", "exit 3") if how == "status" else hook("/no/such")
    )
    recorder.add("poststop", "after")
    container.create()
    result = container.delete("--force", check=False)
    assert not container.exists()
    assert recorder.names == ["before", "after"]
    assert result.status == 0


@spec(
    "runtime.md#lifecycle",
    "stop the container, and continue the lifecycle at step 12. … 13. The poststop hooks MUST be invoked by"
    " the runtime.",
)
@pytest.mark.parametrize("kind", OF_CREATE)
@xfail_on("crun", "crun 1.8 runs no poststop hooks for a create that failed")
def test_poststop_after_a_failed_create(recorder: Recorder, container: Container, kind: str) -> None:
    recorder.bundle.config["hooks"][kind] = [hook("/bin/sh", "-c", "exit 3")]
    recorder.add("poststop")
    assert container.create(check=False).status != 0
    assert recorder.names == ["poststop"]


@spec("config.md#posix-platform-hooks", "timeout (int, OPTIONAL) is the number of seconds before aborting the hook.")
@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_timeout(bundle: Bundle, container: Container, kind: str) -> None:
    bundle.config["hooks"] = {kind: [hook("/bin/sh", "-c", "exec sleep 60", timeout=1, env=["PATH=/usr/bin:/bin"])]}
    result = container.create(check=False, timeout=20)
    assert result.status != 0
    assert 0.9 <= result.seconds <= 10
    assert not container.exists()


@spec("config.md#posix-platform-hooks", "timeout (int, OPTIONAL) is the number of seconds before aborting the hook.")
def test_within_the_timeout(bundle: Bundle, container: Container) -> None:
    bundle.config["hooks"] = {"createRuntime": [hook("/bin/sh", "-c", "exit 0", timeout=10)]}
    assert container.create().seconds < 5


INVALID = {
    "relative path": {"path": "bin/true"},
    "no path": {"args": ["true"]},
    "timeout 0": {"path": "/bin/true", "timeout": 0},
    "timeout -1": {"path": "/bin/true", "timeout": -1},
    "args a string": {"path": "/bin/true", "args": "true"},
}


@spec("config.md#valid-values", "Runtimes MUST generate an error when invalid or unsupported values are encountered.")
@spec("config.md#posix-platform-hooks", "path MUST be absolute. … If set, timeout MUST be greater than zero.")
@xfail_on(
    "runc",
    "runc 1.1 looks at hooks when it runs them, and not at their time-outs",
    only=[f"poststop-{which}" for which in INVALID if which != "args a string"] + ["createRuntime-timeout 0"],
)
@xfail_on(
    "crun",
    "crun 1.8 looks at hooks when it runs them, and not at their time-outs",
    only=["createRuntime-timeout 0", "createRuntime-args a string"]
    + [f"poststop-{which}" for which in INVALID if which != "no path"],
)
@pytest.mark.parametrize("which", INVALID)
@pytest.mark.parametrize("kind", ["createRuntime", "poststop"])
def test_invalid_hooks(bundle: Bundle, container: Container, which: str, kind: str) -> None:
    bundle.config["hooks"] = {kind: [INVALID[which]]}
    result = container.create(check=False)
    assert result.status != 0
    assert "Traceback" not in result.stderr
    assert not container.exists()


@spec("config.md#posix-platform-hooks", "The state of the container MUST be passed to hooks over stdin")
def test_a_hook_that_does_not_read(bundle: Bundle, container: Container) -> None:
    """The runtime must not stumble over a hook that closes its stdin, nor wait for one that leaves it full."""
    bundle.config["annotations"] = {f"org.example.k{i}": "x" * 1000 for i in range(100)}
    bundle.config["hooks"] = {"createRuntime": [hook("/bin/sh", "-c", "exec <&-; exit 0")]}
    container.create(timeout=10)


@spec("config.md#posix-platform-hooks")
def test_a_hook_with_much_to_say(bundle: Bundle, container: Container) -> None:
    bundle.config["hooks"] = {
        "createRuntime": [
            hook("/bin/sh", "-c", "yes | head -c 300000; yes | head -c 300000 >&2", env=["PATH=/usr/bin:/bin"])
        ]
    }
    container.create(timeout=10)


@spec("runtime-linux.md#file-descriptors")
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_hooks_get_no_descriptors(bundle: Bundle, container: Container, kind: str) -> None:
    log = os.path.join(bundle.path, "fds")
    bundle.config["hooks"] = {
        kind: [
            hook(
                "/bin/sh",
                "-c",
                f"for f in /proc/$$/fd/*; do readlink $f; done >{log}; true",
                env=["PATH=/usr/bin:/bin"],
            )
        ]
    }
    container.create()
    links = pathlib.Path(log).read_text().splitlines()
    foreign = [
        link for link in links if not link.startswith(("pipe:", "/dev/null", log, "/dev/tty", "socket:", "/memfd"))
    ]
    outputs = {container.created._out, container.created._err} if container.created else set()
    assert set(foreign) <= outputs, links


@spec("config.md#createcontainer-hooks", "The createContainer hooks MUST be executed in the container namespace.")
@xfail_on("crun", "crun 1.8 runs it in the host's directory")
def test_create_container_s_directory_is_the_root(bundle: Bundle, container: Container) -> None:
    """Hooks that put libraries in place (hooks of GPUs do) name them below "."."""
    bundle.file("/mark")
    bundle.config["hooks"] = {"createContainer": [hook("/bin/sh", "-c", "mkdir made && test -e mark")]}
    assert container.output("ls", "-d", "/made") == "/made\n"


@spec("config.md#posix-platform-hooks", "Hooks MUST be called in the listed order.")
@pytest.mark.parametrize("kind", HOOKS[:5])
@requires(lambda runtime: "crun tells no hook's place" if runtime.name == "crun" else None)
def test_the_error_names_the_hook(bundle: Bundle, container: Container, kind: str) -> None:
    """runc's words; engines show them to their user."""
    bundle.args("true")
    bundle.config["hooks"] = {kind: [hook("/bin/true"), hook("/bin/false")]}
    result = container.run()
    assert result.status != 0
    assert re.search(rf"error running (hook|{kind} hook) #1: ", result.stderr), result


@spec("config-linux.md#seccomp", "syscalls (array of objects, OPTIONAL) - match a syscall in seccomp.")
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_start_container_hooks_are_under_the_filter(
    bundle: Bundle, container: Container, no_new_privileges: bool
) -> None:
    """They are processes of the container. How one ended is told in the words that runc has for a signal."""
    bundle.args("true")
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}],
    }
    bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    bundle.config["hooks"] = {"startContainer": [hook("/bin/mkdir", "/tmp/x")]}
    result = container.run()
    assert result.status != 0
    if container.runtime.name != "crun":
        assert "bad system call" in result.stderr, result
