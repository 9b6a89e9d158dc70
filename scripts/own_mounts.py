"""Run a command where a container runtime can work: / is a mount point, and cgroups are mounted.

    own_mounts.py COMMAND [ARGUMENT …]

A chroot has neither by itself: its / is a directory like others, on which pivot_root(2) gives EINVAL and user
namespaces EPERM, and /sys/fs/cgroup is empty where /sys was mounted without what is below it. So: a mount namespace
of our own, in which what was a chroot becomes the real root, and the kernel's cgroup hierarchies are mounted. The
rest of the machine notices nothing, and the namespace ends with its last process.
"""

from __future__ import annotations

import ctypes
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2


def libc(name: str, *arguments: Any) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def mountinfo() -> list[list[str]]:
    with open("/proc/self/mountinfo") as file:
        return [line.split() for line in file]


def make_root() -> None:
    """Make the present root directory the root of this mount namespace."""
    root = os.open("/", os.O_PATH)
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    # setns(2), even to the namespace one is in already, goes to its root: out of the chroot.
    libc("setns", namespace, CLONE_NEWNS)
    libc("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    os.fchdir(root)
    here = os.fsencode(os.getcwd())
    libc("mount", here, here, None, MS_BIND | MS_REC, None)
    os.chdir(here)  # on top of the mount that was just made
    libc("pivot_root", b".", b".")
    libc("umount2", b".", MNT_DETACH)
    os.chroot(".")
    os.close(root)
    os.close(namespace)


def mount_cgroups() -> None:
    """Mount what /proc/self/cgroup lists: "4:memory:/" for a version 1 hierarchy, "0::/" for version 2."""
    place = "/sys/fs/cgroup"
    with open("/proc/self/cgroup") as file:
        hierarchies = [line.split(":")[1] for line in file]
    version1 = [controllers for controllers in hierarchies if controllers]
    if not version1:
        libc("mount", b"cgroup2", place.encode(), b"cgroup2", 0, None)
        return
    libc("mount", b"cgroup", place.encode(), b"tmpfs", 0, b"mode=755")
    for controllers in version1:
        directory = f"{place}/{controllers.removeprefix('name=')}"
        os.mkdir(directory)
        # A named hierarchy without controllers says so; "none" is not in /proc/self/cgroup.
        options = f"none,{controllers}" if controllers.startswith("name=") else controllers
        libc("mount", b"cgroup", directory.encode(), b"cgroup", 0, options.encode())


def main() -> None:
    directory = os.getcwd()
    libc("unshare", CLONE_NEWNS)
    if any(fields[4] == "/" for fields in mountinfo()):
        libc("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    else:
        make_root()
    if not any(fields[fields.index("-") + 1] in ("cgroup", "cgroup2") for fields in mountinfo()):
        mount_cgroups()
    os.chdir(directory)
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    try:
        main()
    except OSError as e:
        sys.exit(f"own_mounts.py: {e}")
