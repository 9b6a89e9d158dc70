"""``pyrunc spec``: a config.json to start from, the same container that runc's describes."""

from __future__ import annotations

import os

from pyrunc import jsonio
from pyrunc.errors import Error
from pyrunc.version import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.program import Call


def spec(call: Call) -> int:
    """``pyrunc spec``."""
    path = os.path.join(call.options.text("bundle"), "config.json")
    config = example(cgroup_namespace=os.path.exists("/sys/fs/cgroup/cgroup.controllers"))
    if call.options.bool("rootless"):
        make_rootless(config, os.geteuid(), os.getegid())
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        with open(fd, "w") as file:
            file.write(_tabs(jsonio.dumps(config, indent=1)) + "\n")
    except FileExistsError:
        raise Error(f"File {path} exists. Remove it first") from None
    except OSError as e:
        raise Error.from_os(e, action=f"write {path}") from None
    return 0


def example(*, cgroup_namespace: bool) -> dict[str, Any]:
    """The configuration of a container that runs sh on a terminal with few privileges.

    Args:
        cgroup_namespace: give it a cgroup namespace; for hosts with cgroup v2.
    """
    capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    namespaces = ["pid", "network", "ipc", "uts", "mount"] + (["cgroup"] if cgroup_namespace else [])
    quiet = ["nosuid", "noexec", "nodev"]
    terminals = ["ptmxmode=0666", "mode=0620", "gid=5"]
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "pyrunc",
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", *terminals),
            _mount("/dev/shm", "tmpfs", "shm", *quiet, "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", "mqueue", *quiet),
            _mount("/sys", "sysfs", "sysfs", *quiet, "ro"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", *quiet, "relatime", "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": namespace} for namespace in namespaces],
            "maskedPaths": [
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def make_rootless(config: dict[str, Any], uid: int, gid: int) -> None:
    """Change the example to one that an unprivileged user can run.

    In a user namespace with one ID of each kind: root, which is `uid` and `gid` outside. So options that name
    others go; the network is the host's, since nobody could connect another; and with it /sys, which only who
    owns the network namespace may mount. Limits need a cgroup, which may not be there.
    """
    linux = config["linux"]
    kept = [namespace for namespace in linux["namespaces"] if namespace["type"] != "network"]
    linux["namespaces"] = [*kept, {"type": "user"}]
    linux["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": gid, "size": 1}]
    del linux["resources"]
    config["mounts"] = [
        _mount("/sys", "none", "/sys", "rbind", "nosuid", "noexec", "nodev", "ro")
        if mount["destination"] == "/sys"
        else _without_id_options(mount)
        for mount in config["mounts"]
    ]


def _tabs(text: str) -> str:
    """JSON indented by one space a level, indented by tabs; a string in JSON cannot hold a line break."""
    lines = text.split("\n")
    return "\n".join("\t" * (len(line) - len(line.lstrip(" "))) + line.lstrip(" ") for line in lines)


def _without_id_options(mount: dict[str, Any]) -> dict[str, Any]:
    if "options" not in mount:
        return mount
    return {
        **mount,
        "options": [option for option in mount["options"] if not option.startswith(("uid=", "gid="))],
    }


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    return {**mount, "options": list(options)} if options else mount
