"""Planning a checkpoint and a restore: what CRIU is told of a container, and what is there before CRIU begins."""

from __future__ import annotations

import os

from pyrunc.errors import Error
from pyrunc.linux.process import CLONE_NEWNET, NAMESPACES
from pyrunc.plan import Namespaces, delegate, hooks, resctrl_steps
from pyrunc.plan.rootfs import asks_for_mapping, rootfs_steps
from pyrunc.steps import Step
from pyrunc.steps.cgroup import MakeCgroup, SetLimit
from pyrunc.steps.criu import (
    FIRST_FD,
    Criu,
    Dump,
    LoopbackUp,
    MakeMountPoint,
    OwnMounts,
    PutRoot,
    Restore,
    StartCriu,
    TakeDown,
    TellExternal,
)
from pyrunc.steps.devices import MakeDevice
from pyrunc.steps.mounts import BindMount, CgroupMount, Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cgroups.base import Manager
    from pyrunc.plan import Options
    from pyrunc.plan.rootfs import RootfsSteps
    from pyrunc.resctrl import Group

DEFAULT_CONFIG_FILE = "/etc/criu/runc.conf"

#: Namespaces that CRIU leaves alone where they are others': they must be there at the restore. It joins the rest.
_EXTERNAL = {"network": "extRootNetNS", "pid": "extRootPidNS"}


class Images:
    """The files of a checkpoint, and how CRIU is to deal with them.

    Attributes:
        path: absolute path of their directory.
        work: absolute path of the directory for CRIU's log and the like; the same if it is "".
        switches: what the caller asks for, by the names of `criu.OPTIONS`.
    """

    __slots__ = ("path", "switches", "work")

    def __init__(self, path: str, work: str, switches: dict[str, Any]) -> None:
        self.path = path
        self.work = work
        self.switches = switches

    def log(self, name: str) -> str:
        """Path of CRIU's log of this name."""
        return f"{self.work or self.path}/{name}"

    def files(self) -> list[tuple[str, str]]:
        """What CRIU has to have open, first of all."""
        return [(self.path, ""), *([(self.work, "")] if self.work else [])]

    def options(self, config: dict[str, Any], log: str) -> dict[str, Any]:
        """`criu.OPTIONS` of a dump and a restore alike."""
        # As runc, so that what was set up for it works: its own file, or that of the annotation, which may be none
        file = config.get("annotations", {}).get("org.criu.config", DEFAULT_CONFIG_FILE)
        return {
            **self.switches,
            "images_dir_fd": FIRST_FD,
            "work_dir_fd": FIRST_FD + 1 if self.work else None,
            "log_file": log,
            "log_level": 4,
            "manage_cgroups": True,
            "notify_scripts": True,
            "orphan_pts_master": True,
            # Addresses and routes are not the runtime's to keep: who made the network makes it again
            "empty_ns": CLONE_NEWNET,
            "config_file": file or None,
        }


def dump(
    config: dict[str, Any],
    bundle: str,
    options: Options,
    images: Images,
    request: int,
    opts: dict[str, Any],
    status_fd: int,
) -> list[Step]:
    """The steps that save the processes of a running container.

    Args:
        config: as it was created with.
        options: likewise.
        request: criu.DUMP or criu.PRE_DUMP.
        opts: `criu.OPTIONS`, what the configuration does not tell.
    """
    spaces = Namespaces(config)
    _refuse_mapped(config)
    mounts, cgroups = _external_mounts(rootfs_steps(config, bundle, spaces, options))
    masked = config.get("linux", {}).get("maskedPaths", [])
    external = [(NAMESPACES[kind][1], key) for kind, key in _EXTERNAL.items() if kind in spaces.joined]
    shared = Criu()
    opts = {**images.options(config, "dump.log"), **opts}
    return [
        StartCriu(shared, False, [], images.files()),
        Dump(shared, request, opts, images.log("dump.log"), cgroups, mounts, masked, external, status_fd),
    ]


def restore(
    config: dict[str, Any],
    bundle: str,
    manager: Manager,
    options: Options,
    images: Images,
    at: str,
    descriptors: list[str],
    record: Step,
    resctrl: Group | None = None,
) -> list[Step]:
    """The steps that make a container from the images of a checkpoint.

    Args:
        config: a checked configuration.
        bundle: absolute path of the bundle.
        manager: the container's cgroups, not yet made.
        at: a directory on which nothing is mounted, for CRIU alone to see the root filesystem there.
        descriptors: what standard input, output and error were when it was created.
        record: writes down who can be killed to end it all: CRIU, and when that has made init, init.
        resctrl: the group of linux.intelRdt.
    """
    spaces = Namespaces(config)
    linux = config.get("linux", {})
    _refuse_mapped(config)
    rootfs = rootfs_steps(config, bundle, spaces, options)
    mounts, cgroups = _external_mounts(rootfs)
    external = mounts + ([("/dev/null", "/dev/null")] if linux.get("maskedPaths") else [])

    path = os.path.normpath(os.path.join(bundle, config["root"]["path"]))
    # What is missing in the image for the mounts is made as at creation, by the very same mounts, out of everybody's
    # sight. Only cgroups need not be shown for that
    prepare: list[Step] = [OwnMounts(), PutRoot(path, at)]
    for step in rootfs.mounts:
        if isinstance(step, CgroupMount):
            prepare.append(MakeMountPoint(step))
        elif isinstance(step, Mount):
            prepare.append(step)
    prepare += [TellExternal(mounts), TakeDown(at), PutRoot(path, at)]

    inherit = images.files()
    opts = {**images.options(config, "restore.log"), "evasive_devices": True, "rst_sibling": True, "root": at}
    # A pipe of the old caller's is one of the new caller's now
    opts["inherit_fd"] = [{"key": name, "fd": fd} for fd, name in enumerate(descriptors) if name.startswith("pipe:")]
    opts["join_ns"] = []
    for kind, (file, origin) in spaces.joined.items():
        if kind in _EXTERNAL:
            opts["inherit_fd"].append({"key": _EXTERNAL[kind], "fd": FIRST_FD + len(inherit)})
            inherit.append((file, origin))
        elif kind == "cgroup":
            raise Error("criu can't restore a container into an existing cgroup namespace", pointer=origin)
        else:
            opts["join_ns"].append({"ns": NAMESPACES[kind][1], "ns_file": file})

    shared = Criu()
    start = StartCriu(shared, True, prepare, inherit)
    cgroup: list[Step] = [MakeCgroup(manager, "/linux/cgroupsPath" if linux.get("cgroupsPath") else "")]
    cgroup += [SetLimit(manager, setting) for setting in manager.settings(linux.get("resources", {}))]
    outside: list[Step] = [LoopbackUp()] if "network" in spaces.new else []
    outside += hooks(config, "prestart", "creating") + hooks(config, "createRuntime", "creating")
    rdt = resctrl_steps(resctrl, linux.get("intelRdt"), whole=True)
    return [
        *rdt[:1],
        # systemd makes no cgroup without a process to be in it
        *([start, *cgroup] if manager.unit is not None else [*cgroup, start]),
        record,
        Restore(shared, opts, images.log("restore.log"), cgroups, external, outside, [record, *rdt[1:]]),
        *delegate(config, spaces),
    ]


def _refuse_mapped(config: dict[str, Any]) -> None:
    """CRIU binds a source again as it is: its files would have other owners in the restored container."""
    for i, mount in enumerate(config.get("mounts", ())):
        if asks_for_mapping(mount):
            raise Error("criu can't restore id-mapped mounts", pointer=f"/mounts/{i}")


def _external_mounts(rootfs: RootfsSteps) -> tuple[list[tuple[str, str]], list[CgroupMount]]:
    """(path in the container, host path) of what is mounted from the host's files, and the mounts of cgroups."""
    found: list[tuple[str, str]] = []
    for step in rootfs.mounts:
        if isinstance(step, BindMount):
            found.append((step.destination, step.source))
        elif isinstance(step, MakeDevice) and step.bind:
            found.append((step.path, step.path))
    return found, [step for step in rootfs.mounts if isinstance(step, CgroupMount)]
