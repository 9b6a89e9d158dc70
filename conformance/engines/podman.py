"""podman(1) in a box, with a locally made image and the settings that a machine without systemd needs."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import tarfile
from typing import Any

from conformance.engines.box import Box, Result, retry

#: podman parses this name as complete, so it never looks for a registry.
IMAGE = "localhost/busybox:test"
HEALTH_IMAGE = "localhost/health:test"

#: Made once, when first wanted, and kept: under any runtime.
PODMANS_OWN_MOUNTS = ("/run/netns", "/var/lib/containers/storage/overlay")


def limit(which: int) -> str:
    soft, hard = (("-1" if n == resource.RLIM_INFINITY else str(n)) for n in resource.getrlimit(which))
    return f"{soft}:{hard}"


def configuration(*, systemd: bool, networks: str = "/run/networks") -> str:
    """containers.conf: cgroupfs and files for systemd and its journal; no ulimits above what is allowed here.

    Args:
        systemd: there is one, and podman is to see that by itself.
        networks: directory for podman's networks.
    """
    return "\n".join(
        [
            "[containers]",
            f'default_ulimits = ["nofile={limit(resource.RLIMIT_NOFILE)}", "nproc={limit(resource.RLIMIT_NPROC)}"]',
            'log_driver = "k8s-file"',
            "[engine]",
            *([] if systemd else ['cgroup_manager = "cgroupfs"']),
            'events_logger = "file"',
            "[network]",
            f'network_config_dir = "{networks}"',
            "",
        ]
    )


def rootfs_archive() -> bytes:
    """A root filesystem of busybox, as a tar archive."""
    busybox = shutil.which("busybox")
    assert busybox
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:

        def add(
            name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o755, content: bytes = b"", to: str = ""
        ) -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), to
            tar.addfile(entry, io.BytesIO(content))

        for directory in ("bin", "etc", "home", "proc", "sys", "dev", "root", "var", "run", "work"):
            add(directory, tarfile.DIRTYPE)
        add("tmp", tarfile.DIRTYPE, 0o1777)
        with open(busybox, "rb") as f:
            add("bin/busybox", content=f.read())
        for applet in os.popen(f"{busybox} --list").read().split():
            if applet != "busybox":
                add(f"bin/{applet}", tarfile.SYMTYPE, to="busybox")
        add("etc/passwd", mode=0o644, content=b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n")
        add("etc/group", mode=0o644, content=b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
        add("etc/plain", mode=0o644, content=b"not a program\n")
    return data.getvalue()


def containers_in(root: str) -> list[str]:
    """What a runtime's --root holds, but for what the runtime keeps for itself under a dot (caches)."""
    return [name for name in os.listdir(root) if not name.startswith(".")] if os.path.isdir(root) else []


class Podman:
    """podman in `box`, with `runtime` (a path)."""

    def __init__(self, box: Box, runtime: str) -> None:
        self.box = box
        self.runtime = runtime
        with open(box.path("/run/containers.conf"), "w") as f:
            f.write(configuration(systemd=box.systemd))
        with open(box.path("/run/rootfs.tar"), "wb") as f:
            f.write(rootfs_archive())
        for file in ("subuid", "subgid"):  # --userns=auto takes its ranges from this user's
            with open(box.path(f"/etc/{file}"), "a") as f:
                f.write("containers:1000000:1000000\n")
        self("import", "--change", 'CMD ["/bin/sh"]', "/run/rootfs.tar", IMAGE)
        recipe = f"FROM {IMAGE}\nHEALTHCHECK CMD test -e /healthy\n"
        self(
            "build", "-q", "--format=docker", "-t", HEALTH_IMAGE, "-f", "-", "/run/etc", stdin=recipe
        )  # OCI's has no such field
        os.unlink(box.path("/run/rootfs.tar"))
        self.quiet = self.traces()

    @property
    def states(self) -> str:
        """The directory, in the box, of the runtime's states."""
        return f"/run/{os.path.basename(self.runtime)}"

    def argv(self, command: str, *args: str) -> list[str]:
        words = [command]
        if command == "pod" and args[0] == "create":
            words = ["pod", "create", f"--cgroup-parent={self.box.parent}"]
            args = args[1:]
        elif command in ("run", "create") and not any(a.startswith(("--pod=", "--cgroup-parent=")) for a in args):
            words.append(f"--cgroup-parent={self.box.parent}")
        return ["podman", "--runtime", self.runtime, *words, *args]

    def __call__(self, *args: str, status: int = 0, stdin: str = "", timeout: float = 60) -> str:
        """Run podman; it must end with `status`. Returns stdout, stripped."""
        return self.result(*args, status=status, stdin=stdin, timeout=timeout).out.strip()

    def result(self, *args: str, status: int | None = 0, stdin: str = "", timeout: float = 60) -> Result:
        """As calling it; gives all of the result. Any status is fine where `status` is None."""
        done = self.box.run(*self.argv(*args), stdin=stdin, timeout=timeout)
        assert status is None or done.status == status, f"status {status} expected\n{done!r}"
        return done

    def image_run(self, *args: str, status: int = 0) -> str:
        """``podman run --rm --network=none OPTIONS IMAGE COMMAND``; args has "--" between options and command."""
        at = args.index("--")
        return self("run", "--rm", "--network=none", *args[:at], IMAGE, *args[at + 1 :], status=status)

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("inspect", "--type=container", container))[0]
        return found

    def state(self, container: str) -> str:
        return str(self.inspect(container)["State"]["Status"])

    def pid(self, container: str) -> int:
        return int(self.inspect(container)["State"]["Pid"])

    def wait_for(self, container: str, state: str) -> None:
        retry(lambda: self.state(container) == state, f"{container} does not become {state}")

    def traces(self) -> dict[str, list[str]]:
        """Everything of a container's that can be seen from outside of it."""
        box = self.box
        netns = box.path("/run/netns")
        return {
            "processes": box.processes(),
            "mounts": sorted(m for m in box.mounts() if m not in PODMANS_OWN_MOUNTS),
            "interfaces": box.interfaces(),
            "network namespaces": os.listdir(netns) if os.path.isdir(netns) else [],
            "cgroups": sorted(c for c in box.cgroups() if not self.podmans_cgroup(os.path.basename(c))),
            "runtime's states": containers_in(box.path(self.states)),
            "forwarded ports": [
                rule for rule in box.run("nft", "list", "ruleset").out.splitlines() if " dnat to " in rule
            ],
        }

    def podmans_cgroup(self, name: str) -> bool:
        """Not the runtime's to remove: the parent, the monitors', and a pod's (podman misses some hierarchies)."""
        known = (self.box.name, self.box.parent, "conmon")
        return name in known or re.fullmatch("[0-9a-f]{64}", name) is not None

    def clean(self) -> None:
        """Remove every container and pod; then nothing may be left.

        Raises:
            AssertionError: with what is left.
        """
        retry(
            lambda: self.result("pod", "rm", "--all", "--force", "--time=0", status=None).status == 0,
            "pods cannot be removed",
        )
        # podman 4.3 removes a container before those that share its namespaces and refuses: ask again for what is left.
        retry(
            lambda: self.result("rm", "--all", "--force", "--time=0", status=None).status == 0,
            "containers cannot be removed",
        )
        self.nothing_left()

    def remove_pod(self, name: str) -> None:
        """Remove a pod; again, if podman did not wait for its own monitors to end before it removed their cgroup."""
        retry(
            lambda: self.result("pod", "rm", "--force", "--ignore", name, status=None).status == 0,
            f"the pod {name} cannot be removed",
        )

    def nothing_left(self) -> None:
        left: dict[str, list[str]] = {}

        def quiet() -> bool:
            now = self.traces()
            left.clear()
            left.update({kind: [t for t in now[kind] if t not in self.quiet[kind]] for kind in now})
            return not any(left.values())

        try:
            retry(quiet, "", seconds=5)
        except AssertionError:
            self.quiet = self.traces()  # one test fails for it, not all that come after
            raise AssertionError(f"left behind: { {k: v for k, v in left.items() if v} }") from None


class OrdinaryPodman(Podman):
    """podman as an ordinary user of the box, who has a home and subordinate IDs, but no cgroup to write to."""

    UID = 54399
    HOME = "/run/home"
    RUNTIME_DIR = f"/run/user/{UID}"

    def __init__(self, box: Box, runtime: str) -> None:
        self.box = box
        self.runtime = runtime
        for file, line in {
            "passwd": f"ordinary:x:{self.UID}:{self.UID}::{self.HOME}:/bin/sh\n",
            "group": f"ordinary:x:{self.UID}:\n",
            "subuid": "ordinary:100000:65536\n",
            "subgid": "ordinary:200000:65536\n",
        }.items():
            with open(box.path(f"/etc/{file}"), "a") as f:
                f.write(line)
        for directory in (self.HOME, self.RUNTIME_DIR):
            os.makedirs(box.path(directory))
            os.chown(box.path(directory), self.UID, self.UID)
        # udev lets everybody have it, which slirp4netns counts on; a machine without udev may not
        furnish = "mount -t tmpfs box /dev/net && mknod -m 666 /dev/net/tun c 10 200"
        done = box.run("sh", "-c", furnish)
        assert done.status == 0, done
        with open(box.path("/run/containers.conf"), "w") as f:
            f.write(configuration(systemd=False, networks=f"{self.HOME}/networks"))
        with open(box.path("/run/rootfs.tar"), "wb") as f:
            f.write(rootfs_archive())
        self("import", "--change", 'CMD ["/bin/sh"]', "/run/rootfs.tar", IMAGE)
        os.unlink(box.path("/run/rootfs.tar"))
        self.quiet = self.traces()

    @property
    def states(self) -> str:
        return f"{self.RUNTIME_DIR}/{os.path.basename(self.runtime)}"

    def argv(self, command: str, *args: str) -> list[str]:
        user = ["setpriv", f"--reuid={self.UID}", f"--regid={self.UID}", "--clear-groups"]
        environment = ["env", "-C", self.HOME, f"HOME={self.HOME}", f"XDG_RUNTIME_DIR={self.RUNTIME_DIR}"]
        driver = "--storage-driver=vfs"  # the one that needs nothing of the kernel
        return [*user, *environment, "podman", driver, "--runtime", self.runtime, command, *args]
