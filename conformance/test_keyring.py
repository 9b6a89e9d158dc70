"""The session keyring of a container (keyrings(7)): not the caller's, and its processes share it."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any

import pytest

from conformance.harness import Bundle, Container, Runtime, not_applicable, requires, spec

#: Number of keyctl(2).
KEYCTL = {"x86_64": 250, "aarch64": 219, "s390x": 280, "ppc64le": 271}.get(platform.machine(), 0)
KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_DESCRIBE = 1, 6

#: Prints serial number and description of this process's session keyring.
LOOK = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
text = ctypes.create_string_buffer(4096)
serial = libc.syscall({KEYCTL}, 0, -3, 0)
libc.syscall({KEYCTL}, {KEYCTL_DESCRIBE}, -3, text, 4096)
print(serial, text.value.decode().split(";")[-1])
"""
PYTHON = "/usr/bin/python3"


def keys(_: Runtime) -> str | None:
    if not KEYCTL:
        return f"the test does not know keyctl's number on {platform.machine()}"
    if not os.path.exists("/proc/keys"):
        return "the kernel has no keys"
    return None if os.path.exists(PYTHON) else f"the host has no {PYTHON}"


def with_python(bundle: Bundle) -> None:
    """Let the container use the host's Python."""
    for path in ("/usr", "/lib", "/lib64"):
        if os.path.isdir(path):
            bundle.config["mounts"].append(
                {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}
            )


def joined(name: str) -> dict[str, Any]:
    """What gives a call of the runtime a session keyring of this name."""
    libc = ctypes.CDLL(None, use_errno=True)
    return {"preexec_fn": lambda: libc.syscall(KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, name.encode())}


@spec("runc-create.8", "Do not create a new session keyring for the container.")
@requires(keys)
@pytest.mark.parametrize("user", [False, True], ids=["root", "user namespace"])
def test_it_is_the_container_s(bundle: Bundle, container: Container, user: bool) -> None:
    """Not the caller's; and a process that joins has the same one."""
    with_python(bundle)
    if user:
        bundle.namespaces(add=[{"type": "user"}])
        run = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        bundle.linux.update(uidMappings=run, gidMappings=run)
        os.chown(bundle.rootfs, 100000, 100000)
    bundle.args(PYTHON, "-uISc", LOOK + "import time; time.sleep(1000)")
    container.run_detached(**joined("caller"))
    init = container.wait_output("\n")
    assert "caller" not in init
    if container.runtime.name == "crun":
        not_applicable("crun gives a process that joins another one")
    if container.runtime.name == "runc" and user:
        not_applicable("in a user namespace runc gives a process that joins another one")
    assert init.split()[1] == f"_ses.{container.id}"
    assert container.exec(PYTHON, "-ISc", LOOK, check=True, **joined("caller")).stdout == init


@spec("runc-create.8", "Do not create a new session keyring for the container.")
@requires(keys)
@requires("flag:create --no-new-keyring")
def test_no_new_keyring(bundle: Bundle, container: Container) -> None:
    """This will cause the container to inherit the calling processes session key."""
    with_python(bundle)
    bundle.args(PYTHON, "-ISc", LOOK)
    container.create("--no-new-keyring", **joined("caller"))
    container.start()
    assert container.wait() == 0
    assert container.stdout.split()[1:] == ["caller"]
