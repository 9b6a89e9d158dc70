"""The kubelet's side of the Container Runtime Interface: as much of it as the tests say, over curl(1).

A call is an HTTP/2 request: gRPC (its PROTOCOL-HTTP2.md) puts five bytes before the message, and the message is in
Protocol Buffers' encoding: a field is its number and kind in one varint, then a varint or a length and as many bytes.
The numbers are those of k8s.io/cri-api, pkg/apis/runtime/v1/api.proto.
"""

from __future__ import annotations

import os
import struct
from typing import Any

from conformance.engines.containerd import IMAGE, PAUSE_IMAGE, SOCKET, Containerd

#: A message: the number of each field, with the form of the message in it if it is one.
Form = dict[str, Any]

POD_METADATA: Form = {"name": 1, "uid": 2, "namespace": 3}
NAMESPACES: Form = {"network": 1, "pid": 2, "ipc": 3}
RESOURCES: Form = {
    "cpu_period": 1,
    "cpu_quota": 2,
    "cpu_shares": 3,
    "memory_limit_in_bytes": 4,
    "oom_score_adj": 5,
    "cpuset_cpus": 6,
}
POD: Form = {
    "metadata": (1, POD_METADATA),
    "log_directory": 3,
    "linux": (8, {"cgroup_parent": 1, "security_context": (2, {"namespace_options": (1, NAMESPACES)})}),
}
CONTAINER: Form = {
    "metadata": (1, {"name": 1}),
    "image": (2, {"image": 1}),
    "command": 3,
    "linux": (15, {"resources": (1, RESOURCES), "security_context": (2, {"namespace_options": (3, NAMESPACES)})}),
}
POD_ID: Form = {"pod_sandbox_id": 1}
CONTAINER_ID: Form = {"container_id": 1}
STATS: Form = {"stats": (1, {"memory": (3, {"working_set_bytes": (2, {"value": 1})})})}

#: Call: its service, its request, its answer.
CALLS: dict[str, tuple[str, Form, Form]] = {
    "ImageStatus": ("ImageService", {"image": (1, {"image": 1})}, {"image": (1, {"id": 1})}),
    "RunPodSandbox": ("RuntimeService", {"config": (1, POD)}, POD_ID),
    "StopPodSandbox": ("RuntimeService", POD_ID, {}),
    "RemovePodSandbox": ("RuntimeService", POD_ID, {}),
    "CreateContainer": (
        "RuntimeService",
        {"pod_sandbox_id": 1, "config": (2, CONTAINER), "sandbox_config": (3, POD)},
        CONTAINER_ID,
    ),
    "StartContainer": ("RuntimeService", CONTAINER_ID, {}),
    "StopContainer": ("RuntimeService", {"container_id": 1, "timeout": 2}, {}),
    "RemoveContainer": ("RuntimeService", CONTAINER_ID, {}),
    "ContainerStatus": ("RuntimeService", CONTAINER_ID, {"status": (1, {"state": 3, "exit_code": 7, "reason": 10})}),
    "UpdateContainerResources": ("RuntimeService", {"container_id": 1, "linux": (2, RESOURCES)}, {}),
    "ContainerStats": ("RuntimeService", CONTAINER_ID, STATS),
    "ExecSync": (
        "RuntimeService",
        {"container_id": 1, "cmd": 2, "timeout": 3},
        {"stdout": 1, "stderr": 2, "exit_code": 3},
    ),
}

#: NamespaceMode.
CONTAINERS_OWN, NODES = 1, 2
#: ContainerState.
RUNNING, EXITED = 1, 2


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def encode(message: dict[str, Any], form: Form) -> bytes:
    """A message's bytes; a list is a repeated field."""
    encoded = b""
    for name, given in message.items():
        number, inner = form[name] if isinstance(form[name], tuple) else (form[name], {})
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, int):
                encoded += varint(number << 3) + varint(value)
                continue
            content = value.encode() if isinstance(value, str) else encode(value, inner)
            encoded += varint(number << 3 | 2) + varint(len(content)) + content
    return encoded


def decode(data: bytes, form: Form) -> dict[str, Any]:
    """The fields of a message that `form` knows: numbers, texts, messages."""
    names = {(field[0] if isinstance(field, tuple) else field): name for name, field in form.items()}
    message: dict[str, Any] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        field, kind = divmod(number(), 8)
        value: Any
        if kind == 0:
            value = number()
        else:
            length = {1: 8, 5: 4}.get(kind) or number()
            value = data[at : at + length]
            at += length
        if field in names:
            known = form[names[field]]
            if isinstance(value, bytes):
                value = decode(value, known[1]) if isinstance(known, tuple) else value.decode(errors="replace")
            message[names[field]] = value
    return message


class Cri:
    """One pod of containerd's, with whatever containers; its network is the node's."""

    def __init__(self, containerd: Containerd) -> None:
        self.containerd = containerd
        self.box = containerd.box
        self.containers: list[str] = []
        self.config = {
            "metadata": {"name": "pod", "uid": self.box.name, "namespace": "default"},
            "linux": {
                "cgroup_parent": f"/{self.box.parent.lstrip('/')}",
                "security_context": {"namespace_options": {"network": NODES, "pid": CONTAINERS_OWN}},
            },
        }
        self.pod = ""

    def __call__(self, call: str, **request: Any) -> dict[str, Any]:
        """Make a call; it must succeed.

        Raises:
            AssertionError: with what containerd says.
        """
        service, asked, answered = CALLS[call]
        message = encode(request, asked)
        with open(self.box.path("/run/box/request"), "wb") as f:
            f.write(struct.pack(">BI", 0, len(message)) + message)
        done = self.box.run(
            *("curl", "-sS", "--http2-prior-knowledge", "--unix-socket", SOCKET),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            *("--data-binary", "@/run/box/request", "-D", "/run/box/headers", "-o", "/run/box/answer"),
            f"http://localhost/runtime.v1.{service}/{call}",
        )
        trailers = self.box.read("/run/box/headers")
        assert done.status == 0 and "grpc-status: 0" in trailers, f"{call}: {done!r}\n{trailers}"
        with open(self.box.path("/run/box/answer"), "rb") as answer:
            return decode(answer.read()[5:], answered)

    def has_images(self) -> bool:
        """Whether containerd's CRI has heard of the images by now."""
        return all(self("ImageStatus", image={"image": image}) for image in (IMAGE, PAUSE_IMAGE))

    def run_pod(self) -> str:
        self.pod = self("RunPodSandbox", config=self.config)["pod_sandbox_id"]
        return self.pod

    def create(self, *command: str, **resources: Any) -> str:
        """A container that has not been started; its ID."""
        config = {
            "metadata": {"name": f"c{len(self.containers)}"},
            "image": {"image": IMAGE},
            "command": list(command),
            "linux": {
                "resources": resources,
                "security_context": {"namespace_options": {"network": NODES, "pid": CONTAINERS_OWN}},
            },
        }
        made = self("CreateContainer", pod_sandbox_id=self.pod, config=config, sandbox_config=self.config)
        self.containers.append(made["container_id"])
        return self.containers[-1]

    def run(self, *command: str, **resources: Any) -> str:
        container = self.create(*command, **resources)
        self("StartContainer", container_id=container)
        return container

    def status(self, container: str) -> tuple[int, int, str]:
        """State, exit code and reason."""
        status = self("ContainerStatus", container_id=container)["status"]
        return status.get("state", 0), status.get("exit_code", 0), status.get("reason", "")

    def output(self, container: str, *command: str) -> str:
        """What a command says in a running container."""
        answer = self("ExecSync", container_id=container, cmd=list(command))
        assert not answer.get("exit_code"), answer
        return str(answer.get("stdout", ""))

    def pid(self, container: str) -> int:
        """The process ID in the box of a container's process."""
        listed = self.box.run("ctr", "-a", SOCKET, "-n", "k8s.io", "tasks", "ls").out
        return next(int(line.split()[1]) for line in listed.splitlines() if line.startswith(container))

    def close(self) -> None:
        """Take the pod down."""
        for container in self.containers:
            self("RemoveContainer", container_id=container)
        if self.pod:
            self("StopPodSandbox", pod_sandbox_id=self.pod)
            self("RemovePodSandbox", pod_sandbox_id=self.pod)
        for file in ("request", "headers", "answer"):
            if os.path.exists(self.box.path(f"/run/box/{file}")):
                os.unlink(self.box.path(f"/run/box/{file}"))
