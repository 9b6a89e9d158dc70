"""PID 1 of a box (see box.py): furnish the new mount and network namespaces, then reap what engines leave to init.

Run as ``unshare … python3 -IS box_init.py [--show=DIRECTORY-OF-RUN…] [MOUNT-POINT-TO-HIDE…]``; says "ready" when the
box can be entered.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

#: Everything an engine writes outside the directories it is told to use.
SCRATCH = ("/run", "/dev/shm", "/var/tmp", "/var/lib/containers", "/var/lib/containerd", "/var/lib/cni")


def sh(*argv: str) -> None:
    subprocess.run(argv, check=True)


def furnish(hide: list[str], show: list[str]) -> None:
    """Make the namespaces the box's own.

    Args:
        hide: mount points to be empty.
        show: directories of the machine's below a SCRATCH directory to be there all the same.
    """
    # A systemd host has a shared root: a runtime that forgets to make its mounts private shows it only there.
    sh("mount", "--make-rprivate", "/")
    sh("mount", "--make-rshared", "/")
    for directory in hide:
        if os.path.ismount(directory):
            sh("umount", directory)
        # What a runtime makes there all the same is not to land in the host's file system below the mount.
        sh("mount", "-t", "tmpfs", "box", directory)
    held = {directory: os.open(directory, os.O_PATH) for directory in show}
    for directory in SCRATCH:
        if not os.path.isdir(directory):
            continue  # the engine that wants it isn't installed
        sh("mount", "-t", "tmpfs", "-o", "mode=0755", "box", directory)
    for directory, fd in held.items():
        os.makedirs(directory)
        subprocess.run(
            ["mount", "--no-canonicalize", "--rbind", f"/proc/self/fd/{fd}", directory], check=True, pass_fds=[fd]
        )
        os.close(fd)
    for directory in ("/dev/shm", "/var/tmp"):
        os.chmod(directory, 0o1777)
    os.mkdir("/run/etc")
    os.mkdir("/run/etc/upper")
    os.mkdir("/run/etc/work")
    sh(
        "mount",
        "-t",
        "overlay",
        "-o",
        "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work",
        "box",
        "/etc",
    )
    sh("ip", "link", "set", "lo", "up")


def reap() -> None:
    while True:
        signal.sigwait([signal.SIGCHLD])
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue  # nobody left to wait for


if __name__ == "__main__":
    words = sys.argv[1:]
    furnish(
        [word for word in words if not word.startswith("--show=")],
        [word.removeprefix("--show=") for word in words if word.startswith("--show=")],
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    os.write(1, b"ready\n")
    reap()
