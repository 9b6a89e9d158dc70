"""containerd in a box, and ctr(8) to talk to it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from typing import Any

from conformance.engines.box import Box, Result, retry
from conformance.engines.podman import containers_in, rootfs_archive

IMAGE = "localhost/busybox:test"
#: What the first container of a pod, which only holds its namespaces, is made of.
PAUSE_IMAGE = "localhost/pause:test"
SOCKET = "/run/box/containerd.sock"

CONFIGURATION = """version = 2
root = "/var/lib/containerd"
state = "/run/box/state"
[grpc]
  address = "/run/box/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%(pause)s"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "/run/box/no-networks"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "tested"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested.options]
        BinaryName = "%(runtime)s"
        SystemdCgroup = %(systemd)s
"""


def image_archive(name: str, *command: str) -> bytes:
    """An OCI image layout of one layer, as a tar archive."""
    layer = rootfs_archive()
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    layer_blob = blob(layer, "layer.v1.tar")
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
    }
    config_blob = blob(json.dumps(config).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": config_blob, "layers": [layer_blob]}
    manifest_blob = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    manifest_blob["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "test"}
    files = {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest_blob]}).encode()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return data.getvalue()


class Containerd:
    """A containerd of the box's own, whose containers use `runtime` (a path). The box's end is its end."""

    def __init__(self, box: Box, runtime: str) -> None:
        self.box = box
        self.runtime = runtime
        os.mkdir(box.path("/run/box"))
        with open(box.path("/run/box/config.toml"), "w") as f:
            f.write(
                CONFIGURATION
                % {"pause": PAUSE_IMAGE, "runtime": runtime, "systemd": "true" if box.systemd else "false"}
            )
        with open(box.path("/run/box/log"), "wb") as log:
            self.daemon = subprocess.Popen(
                box.argv(("containerd", "--config", "/run/box/config.toml")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=box.environment,
            )
        retry(
            lambda: box.run("ctr", "-a", SOCKET, "--connect-timeout=1s", "version").status == 0,
            "containerd does not answer",
            seconds=30,
        )
        for image, command in ((IMAGE, ["/bin/sh"]), (PAUSE_IMAGE, ["/bin/sleep", "1000000"])):
            with open(box.path("/run/box/image.tar"), "wb") as f:
                f.write(image_archive(image, *command))
            for namespace in (box.name, "k8s.io"):  # the latter is CRI's
                box.run("ctr", "-a", SOCKET, "-n", namespace, "images", "import", "/run/box/image.tar")
        rootfs = box.path("/run/box/rootfs")
        os.mkdir(rootfs)
        with tarfile.open(fileobj=io.BytesIO(rootfs_archive())) as tar:
            tar.extractall(rootfs)
        self.quiet = self.traces()

    def close(self) -> None:
        if self.box.systemd:
            self.daemon.terminate()
        self.daemon.wait()

    def argv(self, *args: str) -> list[str]:
        words = list(args)
        if words[0] == "run":
            words[1:1] = ["--runc-binary", self.runtime]
            if self.box.systemd:
                words[1:1] = ["--runc-systemd-cgroup"]
        return ["ctr", "-a", SOCKET, "-n", self.box.name, *words]

    def __call__(self, *args: str, status: int = 0, stdin: str = "") -> str:
        """Run ctr (with --runc-binary after "run"); it must end with `status`. Returns stdout, stripped."""
        return self.result(*args, status=status, stdin=stdin).out.strip()

    def result(self, *args: str, status: int | None = 0, stdin: str = "") -> Result:
        done = self.box.run(*self.argv(*args), stdin=stdin)
        if status is not None and done.status != status:
            log = "\n".join(self.box.read("/run/box/log").splitlines()[-5:])
            raise AssertionError(f"status {status} expected\n{done!r}\ncontainerd's log: {log}")
        return done

    def tasks(self) -> dict[str, tuple[int, str]]:
        """Container -> its PID and status."""
        rows = [line.split() for line in self("tasks", "ls").splitlines()[1:]]
        return {row[0]: (int(row[1]), row[2]) for row in rows}

    def wait_for(self, container: str, status: str) -> None:
        retry(lambda: self.tasks().get(container, (0, ""))[1] == status, f"{container} does not become {status}")

    def traces(self) -> dict[str, list[str]]:
        box = self.box
        states = [
            state
            for namespace in (box.name, "k8s.io")
            for state in containers_in(box.path(f"/run/containerd/runc/{namespace}"))
        ]
        sockets = box.path("/run/containerd/s")
        return {
            "processes": box.processes(),
            "mounts": box.mounts(),
            "cgroups": [c for c in box.cgroups() if os.path.basename(c) not in (box.name, box.parent)],
            "runtime's states": states,
            "shims' sockets": os.listdir(sockets) if os.path.isdir(sockets) else [],
        }

    def clean(self) -> None:
        """End and remove every container; then nothing may be left."""
        for container, (_, status) in self.tasks().items():
            if status == "PAUSED":
                self("tasks", "resume", container)
            self("tasks", "rm", "--force", container)
        for container in self("containers", "ls", "-q").split():
            self("containers", "rm", container)
        self.nothing_left()

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
