"""``pyrunc features``: what this build can do (runtime-spec features.md, features-linux.md)."""

from __future__ import annotations

from pyrunc import jsonio, seccomp
from pyrunc.cli.program import write
from pyrunc.linux.process import CAPABILITIES, NAMESPACES
from pyrunc.linux.scheduling import MEMORY_FLAGS, MEMORY_MODES
from pyrunc.plan import mountopts
from pyrunc.version import OCI_VERSION, OCI_VERSION_MIN, __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.program import Call

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def features(_: Call) -> int:
    """``pyrunc features``."""
    write(jsonio.dumps(structure(), indent=4) + "\n")
    return 0


def structure() -> dict[str, Any]:
    """The features structure.

    It tells about pyrunc, whatever this host can do; but filters are made by the libseccomp that is here. What is not
    supported yet is told as such, not left out: an absent property says nothing (features.md).
    """
    annotations = {"org.opencontainers.runc.checkpoint.enabled": "true"}
    libseccomp = seccomp.libseccomp_version()
    if libseccomp is not None:
        annotations["io.github.seccomp.libseccomp.version"] = libseccomp
    return {
        "ociVersionMin": OCI_VERSION_MIN,
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOKS),
        "mountOptions": mount_options(),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(CAPABILITIES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": seccomp.features(),
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "memoryPolicy": {"modes": list(MEMORY_MODES), "flags": list(MEMORY_FLAGS)},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {**annotations, "io.github.pyrunc.version": __version__},
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property.", "org.criu.config"],
    }


def mount_options() -> list[str]:
    """The mount options that pyrunc knows by itself; others are the filesystem's."""
    return sorted(
        {
            *mountopts.ATTRIBUTES,
            *mountopts.RECURSIVE,
            *mountopts.PROPAGATION,
            *mountopts.SUPERBLOCK,
            *mountopts.NO_EFFECT,
            *mountopts.KINDS,
        }
    )
