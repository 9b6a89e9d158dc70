"""What happens to a container, as it happens: statistics at intervals, and want of memory."""

from __future__ import annotations

import os
import select
import time

from pyrunc.cgroups.oom import watch
from pyrunc.errors import Error, NotRunning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from pyrunc.cgroups.base import Manager
    from pyrunc.resctrl import Group
    from pyrunc.state import State

#: Seconds between two looks for processes that go on without init (they share the PID namespace of another).
_LOOK = 0.5

#: Seconds that poll(2) is made to wait at most; it counts milliseconds in 32 bits.
_LONGEST = 3600.0


def stats(container_id: str, manager: Manager, resctrl: Group | None = None) -> dict[str, Any]:
    """One event of the type "stats".

    Args:
        resctrl: the container's group, where it has one.

    Raises:
        OSError: if the cgroup is gone.
    """
    data = manager.stats()
    if resctrl is not None:
        data["intel_rdt"] = resctrl.stats()
    return {"type": "stats", "id": container_id, "data": data}


def events(
    container_id: str,
    state: State,
    manager: Manager,
    interval: float,
    warn: Callable[[str], None],
    resctrl: Group | None = None,
) -> Iterator[dict[str, Any]]:
    """See `pyrunc.Container.events`.

    Args:
        warn: is told what can't be had.
    """
    try:
        init = os.pidfd_open(state.data["pid"])
    except ProcessLookupError:
        raise NotRunning from None
    oom = None
    try:
        if not state.alive():  # the ID may have become another process's before it was opened
            raise NotRunning
        poll = select.poll()
        poll.register(init, select.POLLIN)
        try:
            oom = watch(manager.paths)
        except OSError as e:
            if not manager.exists():
                return
            warn(f"no notices of want of memory: {Error.from_os(e).reason}")
        else:
            if oom is None:
                warn("no notices of want of memory: the container's memory is not counted")
        if oom is not None:
            poll.register(oom.fd, oom.events)
        init_lives = True
        due = time.monotonic() + interval
        while True:
            wait = min(due - time.monotonic(), _LONGEST if init_lives else _LOOK)
            ready = dict(poll.poll(max(0.0, wait * 1000)))
            if oom is not None and oom.fd in ready and oom.happened():
                yield {"type": "oom", "id": container_id}
            if init in ready:
                init_lives = False
                poll.unregister(init)
            if not init_lives and not manager.procs():
                # The kernel tells of the kill before the killed one ends.
                if oom is not None and oom.happened():
                    yield {"type": "oom", "id": container_id}
                return
            if time.monotonic() >= due:
                due = max(due + interval, time.monotonic())
                try:
                    event = stats(container_id, manager, resctrl)
                except OSError:
                    if manager.exists():
                        raise
                    return  # deleted meanwhile
                yield event
    finally:
        if oom is not None:
            oom.close()
        os.close(init)
