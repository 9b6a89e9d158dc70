"""Notices that a cgroup has run out of its memory limit and the kernel killed in it."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class OomV1:
    """By an eventfd that the kernel counts up (admin-guide/cgroup-v1/memory.rst, "OOM Control").

    Attributes:
        fd: to be polled for `events`.
        events: what poll(2) is to wait for.
    """

    events = select.POLLIN

    def __init__(self, directory: str) -> None:
        self._control = directory + "/cgroup.event_control"
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            file = os.open(directory + "/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                control = os.open(self._control, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(control, f"{self.fd} {file}".encode())
                finally:
                    os.close(control)
            finally:
                os.close(file)
        except BaseException:
            os.close(self.fd)
            raise

    def happened(self) -> bool:
        """Whether there was any since this was asked last."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return os.path.exists(self._control)  # the removal of the cgroup counts up, too

    def close(self) -> None:
        os.close(self.fd)


class OomV2:
    """By memory.events, which tells that it has changed by POLLPRI (admin-guide/cgroup-v2.rst).

    Attributes:
        fd: to be polled for `events`.
        events: what poll(2) is to wait for.
    """

    events = select.POLLPRI

    def __init__(self, directory: str) -> None:
        self.fd = os.open(directory + "/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        self._seen = self._kills()

    def happened(self) -> bool:
        """Whether there was any since this was asked last."""
        try:
            before, self._seen = self._seen, self._kills()
        except OSError:  # ENODEV: the cgroup is gone
            return False
        return self._seen > before

    def _kills(self) -> int:
        for line in os.pread(self.fd, 4096, 0).splitlines():
            key, _, value = line.partition(b" ")
            if key == b"oom_kill":
                return int(value)
        return 0

    def close(self) -> None:
        os.close(self.fd)


def watch(paths: Mapping[str, str]) -> OomV1 | OomV2 | None:
    """What tells of a container's want of memory; None if no memory controller counts for it.

    Args:
        paths: a manager's (`pyrunc.cgroups.base.Manager`).

    Raises:
        OSError: if it may not be asked for, or the cgroup is gone.
    """
    if "memory" in paths:
        return OomV1(paths["memory"])
    directory = paths.get("", "")
    if directory and os.path.exists(directory + "/memory.events"):
        return OomV2(directory)
    return None
