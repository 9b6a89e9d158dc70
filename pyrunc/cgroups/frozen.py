"""Whether a container is paused: all that `state` asks of the cgroups, without loading a manager."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def frozen(saved: dict[str, Any]) -> bool:
    """Whether the cgroup that `Manager.save` described was asked to freeze itself (not only one above it)."""
    paths = saved["paths"]
    if directory := paths.get("freezer"):
        file = f"{directory}/freezer.self_freezing"
    elif directory := paths.get(""):
        file = f"{directory}/cgroup.freeze"
    else:
        return False
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return os.read(fd, 8).strip() == b"1"
    except OSError:  # ENODEV: removed while we looked
        return False
    finally:
        os.close(fd)
