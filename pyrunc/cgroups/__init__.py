"""Control groups: where a container's processes are counted, limited, frozen and found again.

`detect` says which hierarchies a machine has mounted, `manager` picks the class that speaks to them (`v1.V1`,
also for hybrid machines, or `v2.V2`) and works out the directories; from then on a caller knows only
`Manager`. Where systemd is to make and remove the directories (`systemd.py`), the manager has a unit.

Sources: cgroups(7), the kernel's admin-guide/cgroup-v1/ and admin-guide/cgroup-v2.rst, and config-linux.md
("Control groups") of the runtime specification.
"""

from __future__ import annotations

from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cgroups.base import Manager


class Layout:
    """Which cgroup hierarchies are mounted, and where.

    Attributes:
        mode: "v1", "hybrid" (v1 controllers with a v2 hierarchy beside them), "v2", or "none".
        v1: mount point of each v1 controller; co-mounted controllers share one.
        named: mount point of each named v1 hierarchy without controllers, e.g. ``name=systemd``.
        unified: mount point of the v2 hierarchy, or None.
        roots: for each mount point, the cgroup that is seen there; not "/" in a nested container.
    """

    __slots__ = ("mode", "named", "roots", "unified", "v1")

    def __init__(self) -> None:
        self.mode = "none"
        self.v1: dict[str, str] = {}
        self.named: dict[str, str] = {}
        self.unified: str | None = None
        self.roots: dict[str, str] = {}


_MOUNT_ROOT = "/sys/fs/cgroup"

#: Words among a v1 superblock's options that are no controllers (kernel/cgroup/cgroup-v1.c,
#: cgroup1_show_options).
_NOT_CONTROLLERS = ("rw", "ro", "noprefix", "xattr", "clone_children", "cpuset_v2_mode", "favordynmods")


def detect(proc_self_mountinfo: str) -> Layout:
    """The machine's cgroup hierarchies, from the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).

    Of several mounts of one hierarchy the first is taken, except that a v2 hierarchy is rather taken at its
    usual place, /sys/fs/cgroup.
    """
    layout = Layout()
    for line in proc_self_mountinfo.splitlines():
        head, found, tail = line.partition(" - cgroup")
        if not found:
            continue
        fields = head.split(" ")
        root, mountpoint = unescape(fields[3]), unescape(fields[4])
        kind = tail.split(" ")
        if kind[0] == "2":
            if layout.unified is None or mountpoint == _MOUNT_ROOT:
                layout.unified = mountpoint
                layout.roots[mountpoint] = root
        elif kind[0] == "":
            for option in kind[-1].split(","):
                if option.startswith("name="):
                    home = layout.named
                elif option in _NOT_CONTROLLERS or option.startswith("release_agent="):
                    continue
                else:
                    home = layout.v1
                if option not in home:
                    home[option] = mountpoint
                    layout.roots[mountpoint] = root
    if layout.unified == _MOUNT_ROOT:
        layout.mode = "v2"
    elif layout.v1 or layout.named:
        layout.mode = "hybrid" if layout.unified else "v1"
    elif layout.unified:
        layout.mode = "v2"
    return layout


def unescape(path: str) -> str:
    """A path as mountinfo prints it, with blanks, tabs, newlines and backslashes as octal escapes."""
    if "\\" not in path:
        return path
    parts = path.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])


def manager(
    cgroups_path: str,
    container_id: str,
    layout: Layout,
    proc_self_cgroup: str,
    *,
    rootless: bool = False,
    systemd_config: dict[str, Any] | None = None,
) -> Manager:
    """The manager of one container's cgroups. It computes directories and makes none.

    Args:
        cgroups_path: ``linux.cgroupsPath``. Absolute: taken from each hierarchy's mount point. Relative:
            taken from the runtime's own cgroup (on v2 from the parent of it, because a cgroup with processes
            can't hand controllers down). "": the container's id, taken as a relative path. For systemd it has
            another form (`systemd.unit`).
        proc_self_cgroup: text of /proc/self/cgroup.
        rootless: go without a cgroup where one may not be made, unless cgroups_path or a limit asks for it, or
            systemd is asked for one.
        systemd_config: a checked configuration: have systemd make the cgroup, with its limits.

    Raises:
        Error: if cgroups_path stands for the root of a hierarchy, or can't be a systemd unit.
    """
    home = _v2() if layout.mode == "v2" else _v1()
    if systemd_config is not None:
        from pyrunc.cgroups.systemd import unit

        wanted = unit(cgroups_path, container_id, systemd_config, rootless=rootless, v2=layout.mode == "v2")
        found = home(home.place(wanted.cgroup, layout, {}), layout.unified, False)
        found.unit = wanted
        return found
    inner = clean(cgroups_path)
    if inner == "/" or (cgroups_path and not inner):
        raise Error("a container may not live in the root cgroup", pointer="/linux/cgroupsPath", action=cgroups_path)
    own = _own(proc_self_cgroup)
    return home(home.place(inner or container_id, layout, own), layout.unified, rootless and not cgroups_path)


def _own(proc_self_cgroup: str) -> dict[str, str]:
    """The cgroup of each controller, "" for v2's, from the text of /proc/self/cgroup (cgroups(7))."""
    own: dict[str, str] = {}
    for line in proc_self_cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            own[controller] = path
    return own


def own_directories(layout: Layout, proc_self_cgroup: str) -> dict[str, str]:
    """The directory of this process's own cgroup for each controller, "" for v2's.

    Args:
        proc_self_cgroup: text of /proc/self/cgroup.
    """
    mounts = layout.v1 | layout.named | ({"": layout.unified} if layout.unified else {})
    own = _own(proc_self_cgroup)
    return {name: below(at, layout.roots[at], own[name]) for name, at in mounts.items() if name in own}


def restore(saved: dict[str, Any]) -> Manager:
    """The manager that `Manager.save` described."""
    home = _v2() if saved["version"] == "v2" else _v1()
    found = home(dict(saved["paths"]), saved["unified"], saved["rootless"])
    if "systemd" in saved:
        from pyrunc.cgroups.systemd import Unit

        found.unit = Unit.restore(saved["systemd"])
    return found


# One of the two is loaded in a process, so that neither is paid for by who needs the other.


def _v1() -> type[Manager]:
    from pyrunc.cgroups.v1 import V1

    return V1


def _v2() -> type[Manager]:
    from pyrunc.cgroups.v2 import V2

    return V2


def clean(path: str) -> str:
    """The path without ``//``, ``.`` and ``..``, none of which can lead above its start.

    >>> clean("/a/../../b"), clean("../x/./y"), clean("")
    ('/b', 'x/y', '')
    """
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if kept:
                kept.pop()
        elif part and part != ".":
            kept.append(part)
    return ("/" if path.startswith("/") else "") + "/".join(kept)


def below(mountpoint: str, root: str, own: str) -> str:
    """The directory, under a mount point that shows the cgroup `root`, of the cgroup `own`.

    In a container without a cgroup namespace /proc/self/cgroup tells paths of the host, of which the mount
    shows only a part; what lies outside of that part has no directory, and the mount point stands in for it.
    """
    if root != "/":
        if own != root and not own.startswith(root + "/"):
            return mountpoint
        own = own[len(root) :]
    if own.startswith("/.."):  # of a cgroup outside the own cgroup namespace's root
        return mountpoint
    return mountpoint + own.rstrip("/")
