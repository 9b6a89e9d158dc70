"""podman container checkpoint and restore: podman, its monitor conmon, the runtime and CRIU."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from conformance.engines.box import retry
from conformance.engines.podman import IMAGE, Podman
from conformance.harness import spec

COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"


#: A CRIU that works need not be where podman and the runtime would look for it.
CRIU = shutil.which("criu")


def _why_not() -> str:
    if CRIU is None:
        return "needs criu"
    check = subprocess.run([CRIU, "check"], capture_output=True, text=True, check=False)
    lines = [line for line in check.stderr.splitlines() if "Error" in line]
    return "" if check.returncode == 0 else f"criu check: {lines[-1] if lines else 'failed'}"


WHY_NOT = _why_not()
pytestmark = [
    spec("podman-container-checkpoint.1"),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]


@pytest.fixture(autouse=True)
def path(podman_in_box: Podman, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = podman_in_box.box.environment
    monkeypatch.setitem(environment, "PATH", f"{os.path.dirname(str(CRIU))}:{environment['PATH']}")


def counting(podman: Podman, *args: str) -> str:
    """A container that counts; its name."""
    podman("run", "-d", "--name", "web", "--network=none", *args, IMAGE, "sh", "-c", COUNT)
    counts_on(podman, "web", 1)
    return "web"


def numbers(podman: Podman, name: str) -> list[int]:
    return [int(word) for word in podman("logs", name).split()]


def counts_on(podman: Podman, name: str, after: int) -> None:
    """It has come to a number above, and nothing was lost or begun anew."""

    retry(lambda: max(numbers(podman, name), default=0) > after, f"{name} does not count on from {after}")
    found = numbers(podman, name)
    assert found == list(range(found[0], found[0] + len(found)))


def test_checkpoint_and_restore(podman: Podman) -> None:
    web = counting(podman, "-v", "/run/etc:/outside:ro", "--memory=64m", "--tmpfs=/scratch")
    podman("exec", web, "sh", "-c", "echo kept > /scratch/file; echo written > /written")
    for _ in range(2):
        podman("container", "checkpoint", web)
        assert podman("inspect", "--format", "{{.State.Running}} {{.State.Checkpointed}}", web) == "false true"
        last = numbers(podman, web)[-1]
        podman("container", "restore", web)
        assert podman("inspect", "--format", "{{.State.Running}} {{.State.Restored}}", web) == "true true"
        counts_on(podman, web, last + 2)
        assert podman("exec", web, "cat", "/scratch/file", "/written") == "kept\nwritten"
        podman("exec", web, "test", "-d", "/outside")
    podman("stop", "-t", "0", web)
    assert podman("inspect", "--format", "{{.State.ExitCode}}", web) == "137"
    podman("rm", web)


def test_leave_running(podman: Podman) -> None:
    web = counting(podman)
    podman("container", "checkpoint", "--leave-running", web)
    assert podman("inspect", "--format", "{{.State.Running}}", web) == "true"
    counts_on(podman, web, numbers(podman, web)[-1] + 2)


def test_export_and_import(podman: Podman) -> None:
    """A container moves: from a tar archive it becomes another, in another cgroup."""
    web = counting(podman)
    podman("exec", web, "sh", "-c", "echo written > /written")
    podman("container", "checkpoint", "--export=/run/web.tar", web)
    last = numbers(podman, web)[-1]
    podman("rm", web)
    podman("container", "restore", "--import=/run/web.tar", "--name=moved")
    counts_on(podman, "moved", last + 2)
    assert podman("exec", "moved", "cat", "/written") == "written"


def test_terminal(podman: Podman) -> None:
    podman("run", "-dt", "--name", "web", "--network=none", IMAGE, "sh", "-c", f"tty; {COUNT}")
    podman("container", "checkpoint", "web")
    podman("container", "restore", "web")
    before = len(podman("logs", "web").splitlines())
    retry(lambda: len(podman("logs", "web").splitlines()) > before + 2, "it does not count on")
    assert podman("exec", "web", "readlink", "/proc/1/fd/0").startswith("/dev/pts/")
