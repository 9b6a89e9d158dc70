"""SELinux labels without SELinux: one that was to confine a process is refused, one of mounts is left out."""

from __future__ import annotations

import json
import os

from conformance.harness import Bundle, Container, Runtime, pyrunc_promise, requires, spec, xfail_on

UNSUPPORTED = "Runtimes MUST generate an error when invalid or unsupported values are encountered."
PROGRAM = "system_u:system_r:container_t:s0:c1,c2"
FILES = "system_u:object_r:container_file_t:s0:c1,c2"


def no_selinux(_: Runtime) -> str | None:
    return "SELinux is enabled here" if os.path.exists("/sys/fs/selinux/status") else None


@spec("config.md#valid-values", UNSUPPORTED)
@requires(no_selinux)
@xfail_on("crun", "crun drops the label")
def test_a_process_with_a_label_is_refused(bundle: Bundle, container: Container) -> None:
    bundle.process["selinuxLabel"] = PROGRAM
    done = container.create(check=False)
    assert done.status != 0
    assert "selinux" in done.stderr.lower()
    assert not container.exists()


@spec("config.md#valid-values", UNSUPPORTED)
@requires(no_selinux)
@requires("flag:exec --process-label")
@xfail_on("crun", "crun drops the label")
def test_one_more_process_with_a_label_is_refused(bundle: Bundle, container: Container, runtime: Runtime) -> None:
    bundle.args("sleep", "100")
    container.run_detached()
    done = container.exec("true", flags=["--process-label", PROGRAM])
    assert done.status != 0 and "selinux" in done.stderr.lower()
    process = runtime.scratch("process.json")
    with open(process, "w") as file:
        json.dump(bundle.process | {"args": ["true"], "selinuxLabel": PROGRAM}, file)
    done = runtime.run("exec", "--process", process, container.id, check=False)
    assert done.status != 0 and "selinux" in done.stderr.lower()
    container.delete("--force")


@spec("config-linux.md#configLinuxMountLabel", "will set the Selinux context for the mounts in the container.")
@requires(no_selinux)
@pyrunc_promise
def test_mounts_go_without_a_label(bundle: Bundle, container: Container, runtime: Runtime) -> None:
    """As with crun; to runc's mounts the label is an unknown option."""
    bundle.linux["mountLabel"] = FILES
    bundle.args("grep", "-c", "context", "/proc/self/mountinfo")
    done = container.run()
    assert (done.status, done.stdout) == (1, "0\n")
    assert "/linux/mountLabel" in done.stderr
