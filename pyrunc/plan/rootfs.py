"""Planning the root filesystem: what is mounted, made and hidden in it, and how init gets there."""

from __future__ import annotations

import os

from pyrunc.linux import mount as m
from pyrunc.plan.mountopts import MountOptions
from pyrunc.steps import Step
from pyrunc.steps import mounts as s
from pyrunc.steps.devices import MakeDevice, MakeLink, ReopenNull

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan import Namespaces, Options

#: runtime-spec config-linux.md, Default Devices: path, major, minor.
DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)

#: runtime-linux.md, Dev symbolic links (but /dev/core, which runc makes where the host has /proc/kcore).
LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
)

#: rootfsPropagation -> (what the whole namespace becomes before anything is mounted, what the root becomes after).
#: Before: nothing done here may show on the host, except that "shared" leaves the ties of the host's mounts as they
#: are, so that a volume bound with rshared carries mounts both ways.
PROPAGATION: dict[str, tuple[tuple[str, int] | None, int]] = {
    "": (("rslave", m.MS_SLAVE), 0),
    "slave": (("rslave", m.MS_SLAVE), 0),
    "private": (("rprivate", m.MS_PRIVATE), 0),
    "shared": (None, m.MS_SHARED),
    "unbindable": (("rprivate", m.MS_PRIVATE), m.MS_UNBINDABLE),
}


#: File systems that have labels by rules of the policy's, not by the option `context`; cgroups are not mounted here.
WITHOUT_CONTEXT = ("proc", "sysfs", "mqueue")


class RootfsSteps:
    """The steps of the root filesystem by when they are due.

    Attributes:
        on_host: the runtime's, before init exists.
        serve: the runtime's, when init exists: whatever opens sources for it.
        served: the runtime's, when init is done with that.
        before_root: while init still is the host's user.
        mounts: before the hooks, with the host's root still in sight.
        hide: after the hooks, what shall not be seen or written. The host's /dev/null is still in reach then.
        enter: make it the root.
    """

    __slots__ = ("before_root", "enter", "hide", "mounts", "on_host", "serve", "served")

    def __init__(self) -> None:
        self.on_host: list[Step] = []
        self.serve: list[Step] = []
        self.served: list[Step] = []
        self.before_root: list[Step] = []
        self.mounts: list[Step] = []
        self.enter: list[Step] = []
        self.hide: list[Step] = []


def rootfs_steps(config: dict[str, Any], bundle: str, spaces: Namespaces, options: Options) -> RootfsSteps:
    """Everything about the root filesystem."""
    linux = config.get("linux", {})
    root = config["root"]
    path = os.path.normpath(os.path.join(bundle, root["path"]))
    own_mounts = spaces.has("mount")
    word = linux.get("rootfsPropagation", "").removeprefix("r")
    before, after = PROPAGATION[word]
    steps = RootfsSteps()

    label = linux.get("mountLabel", "")
    mounts = [_mount(i, mount, bundle, path, spaces, label) for i, mount in enumerate(config.get("mounts", ()))]
    binds = [step for step in mounts if isinstance(step, s.BindMount)]
    if spaces.has("user") and options.unprivileged:
        # The runtime's user can do no more than init, as long as that still is this user
        steps.before_root.append(s.OpenSources([(path, "/root/path"), *((b.source, b.origin) for b in binds)]))
    else:
        if spaces.has("user"):
            steps.before_root.append(s.OpenSources([(path, "/root/path")]))
        _serve(config, binds, spaces, steps)
    if not own_mounts:
        steps.on_host.append(s.BindRoot(path))
    elif before is not None:
        steps.mounts.append(s.SetRootPropagation(before[0], before[1], True, "/linux/rootfsPropagation"))
    steps.mounts.append(s.OpenRoot(path, bind=own_mounts, private_parent=before is None))
    steps.mounts.append(s.OpenNull())
    steps.mounts += mounts
    if label:
        from pyrunc.steps.selinux import LabelMount

        steps.mounts += [LabelMount(step.destination, label) for step in mounts if step.type == "mqueue"]
    if steps.serve:
        from pyrunc.steps.sources import CloseLine

        steps.mounts.append(CloseLine())

    destinations = {_clean(step.destination) for step in binds}
    if "/dev" not in destinations:
        steps.mounts += _devices(linux, spaces, options, destinations)
    process = config.get("process", {})
    if process.get("terminal"):
        from pyrunc.plan.process import open_terminal

        steps.mounts.append(open_terminal(process, make_console="/dev/console" not in destinations))
    if cwd := process.get("cwd"):
        steps.mounts.append(s.MakeWorkingDirectory(cwd, "/process/cwd"))

    if not own_mounts:
        steps.enter.append(s.Chroot())
    elif options.no_pivot:
        steps.enter.append(s.MoveRoot())
    else:
        steps.enter.append(s.PivotRoot())
    if own_mounts and after:
        steps.enter.append(s.MarkRoot(word, "/linux/rootfsPropagation", propagation=after))
    for step in mounts:
        if (
            isinstance(step, s.FilesystemMount)
            and step.options.read_only
            and not step.options.set & m.MOUNT_ATTR_RDONLY
        ):
            steps.hide.append(s.MarkMount(step.destination, step.origin))
    if root.get("readonly"):
        steps.hide.append(s.MarkRoot("read-only", "/root/readonly", attributes=m.MOUNT_ATTR_RDONLY))
    for i, hidden in enumerate(linux.get("readonlyPaths", ())):
        steps.hide.append(s.ReadonlyPath(hidden, f"/linux/readonlyPaths/{i}"))
    masked = list(linux.get("maskedPaths", ()))
    for i, hidden in enumerate(masked):
        if hidden not in masked[:i]:
            steps.hide.append(s.MaskPath(hidden, f"/linux/maskedPaths/{i}", label))
    return steps


def _serve(config: dict[str, Any], binds: list[s.BindMount], spaces: Namespaces, steps: RootfsSteps) -> None:
    """The sources that init has not the right to open or to map are opened for it (pyrunc/steps/sources.py)."""
    mounts = [config["mounts"][int(bind.origin.rpartition("/")[2])] for bind in binds]
    if not binds or not (spaces.has("user") or any(asks_for_mapping(mount) for mount in mounts)):
        return
    from pyrunc.steps import sources

    asked: list[sources.Source] = []
    for bind, mount in zip(binds, mounts, strict=True):
        mapping = None
        if asks_for_mapping(mount):
            recursive = "ridmap" in mount.get("options", ())
            if mount.get("uidMappings"):
                mapping = sources.IdMapping(bind.origin, recursive, mount["uidMappings"], mount["gidMappings"])
            elif "user" in spaces.joined:
                mapping = sources.IdMapping(bind.origin, recursive, path=spaces.joined["user"][0])
            else:
                linux = config["linux"]
                mapping = sources.IdMapping("/linux", recursive, linux["uidMappings"], linux["gidMappings"])
        elif not spaces.has("user"):
            continue
        bind.served = len(asked)
        asked.append(sources.Source(bind.source, bind.recursive, mapping))
    steps.on_host.append(sources.OpenLine())
    steps.serve.append(sources.ServeSources(asked))
    steps.served.append(sources.EndServing())


def asks_for_mapping(mount: dict[str, Any]) -> bool:
    """Whether a mount is to be id-mapped. Mappings alone, without a word for them, are meant so too (config.md)."""
    options = mount.get("options") or ()
    return bool(mount.get("uidMappings")) or "idmap" in options or "ridmap" in options


def _clean(path: str) -> str:
    """A path in the container as words only: absolute, without "." and ".." (normpath alone leaves "//" in front)."""
    return os.path.normpath("/" + path.lstrip("/"))


def _mount(index: int, mount: dict[str, Any], bundle: str, root: str, spaces: Namespaces, label: str) -> s.Mount:
    origin = f"/mounts/{index}"
    destination = mount["destination"]
    if destination.startswith(root + "/"):
        # As runc: some callers name the place on the host. No image has its own path on the host in it but by them
        destination = destination[len(root) :]
    kind = mount.get("type", "")
    options = MountOptions(mount.get("options"))
    if options.remount:
        return s.Remount(destination, kind, "", options, origin)
    if options.bind or options.rbind or kind == "bind":
        source = os.path.normpath(os.path.join(bundle, mount.get("source", "")))
        return s.BindMount(destination, source, options.rbind, options, origin)
    if kind == "cgroup":
        return s.CgroupMount(destination, "cgroup" in spaces.new, options, origin)
    if kind == "tmpfs" or options.copy_up or _clean(destination) == "/dev":
        options.defer_read_only()  # later mounts' mount points, devices and copies have to be put into it
    if label and kind not in WITHOUT_CONTEXT:
        options.filesystem.append(("context", label))
    return s.FilesystemMount(destination, kind, mount.get("source", ""), options, origin)


def _devices(linux: dict[str, Any], spaces: Namespaces, options: Options, bound: set[str]) -> list[Step]:
    """Nodes and links of /dev. In a user namespace mknod(2) makes no device, so the host's are shown.

    Args:
        bound: where the configuration itself has bind mounts: what they show there counts instead of a default device.
    """
    bind = spaces.has("user") or options.unprivileged
    asked = [_clean(device["path"]) for device in linux.get("devices", ())]
    steps: list[Step] = [
        MakeDevice({"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666}, bind, "")
        for path, major, minor in DEFAULT_DEVICES
        if path not in asked and path not in bound
    ]
    steps += [
        MakeDevice(device, bind, f"/linux/devices/{i}")
        for i, device in enumerate(linux.get("devices", ()))
        if _clean(device["path"]) != "/dev/ptmx"
    ]
    steps += [MakeLink(path, target) for path, target in LINKS]
    steps.append(MakeLink("/dev/ptmx", "pts/ptmx", replace=True))
    steps.append(ReopenNull())
    return steps
