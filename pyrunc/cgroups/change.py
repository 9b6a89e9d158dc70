"""Changing the limits of a living container, all or nothing.

The files that are about to be written are read before, and written back should one value be refused. What a file
reads is not always what it takes: files with a line for each device take one line at a time, and what a line is to
be taken away with differs.
"""

from __future__ import annotations

from pyrunc.cgroups.base import check_above, read, write
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cgroups.base import Manager, Setting
    from pyrunc.cgroups.systemd_properties import Property

#: Files that change along with one that is written: an idle group has no weight, and gets the default one when it is
#: idle no more (kernel/sched/fair.c, sched_group_set_idle); the nice value is another spelling of the weight.
_ALONG = {
    "cpu.idle": ("cpu.weight", "cpu.shares"),
    "cpu.weight.nice": ("cpu.weight",),
}

#: For files with a line for each device: what takes a line away, after the device's number. Others take "default".
_NO_LIMIT = {
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "io.latency": "target=max",
    "blkio.throttle.read_bps_device": "0",
    "blkio.throttle.write_bps_device": "0",
    "blkio.throttle.read_iops_device": "0",
    "blkio.throttle.write_iops_device": "0",
}


def change(manager: Manager, settings: list[Setting], resources: dict[str, Any], at: str) -> None:
    """Apply settings in order, the systemd unit's properties before the files; see `Manager.update`.

    Args:
        settings: what resources come to.
    """
    # Device rules last: they are all or nothing themselves, and can't all be read back.
    settings = sorted(settings, key=_of_devices)
    before = _present(manager, settings)
    properties: list[Property] = []
    try:
        if manager.unit is not None:
            for setting in settings:
                if not _of_devices(setting):
                    check_above(manager._directory(setting), setting)  # systemd would not ask
            properties = manager.unit.change(manager, resources, at)
        for setting in settings:
            manager.apply(setting)
    except BaseException as e:
        if manager.unit is not None and properties:
            manager.unit.change_back(properties)
        left = put_back(before)
        if left and isinstance(e, Error):
            e.reason += f"; what could not be put back: {', '.join(left)}"
        raise


def _of_devices(setting: Setting) -> bool:
    return setting.controller == "devices"


def _present(manager: Manager, settings: list[Setting]) -> dict[str, str]:
    """What the files read that settings will write, by path.

    A file that can't be read is one that the kernel does not have, or that gives orders (cgroup.kill).
    """
    found = {}
    for setting in settings:
        one = None if _of_devices(setting) else setting
        while one is not None:
            directory = manager._directory(one)
            for file in (*_ALONG.get(one.file, ()), one.file):
                path = f"{directory}/{file}"
                try:
                    found[path] = _text(path)
                except OSError:
                    continue
            one = one.otherwise
    return found


def put_back(before: dict[str, str]) -> list[str]:
    """Write back what files read before.

    Some values are refused as long as others are not back (a memory limit above memory and swap together, a quota too
    small for the period): hence as many rounds as there are files.

    Args:
        before: text by path.

    Returns:
        the paths of those that still read something else.
    """
    wrong: list[str] = []
    for _ in range(len(before) + 1):
        wrong = []
        for path, text in before.items():
            try:
                now = _text(path)
                if now == text:
                    continue
                wrong.append(path)
                for line in back(path.rpartition("/")[2], text, now):
                    write(path, line)
            except OSError:
                continue  # refused, which the next round sees; or the cgroup is gone
        if not wrong:
            break
    return wrong


def back(file: str, before: str, now: str) -> list[str]:
    """The writes that bring a file, by its name, back to what it read before.

    >>> back("io.max", "8:0 rbps=1 wbps=max riops=max wiops=max", "8:16 rbps=9 wbps=max riops=max wiops=max")
    ['8:0 rbps=1 wbps=max riops=max wiops=max', '8:16 rbps=max wbps=max riops=max wiops=max']
    """
    old, new = before.splitlines(), now.splitlines()
    found = [line for line in old if line not in new]
    devices = {line.split(" ")[0] for line in old}
    for line in new:
        device = line.split(" ")[0]
        if ":" in device and device not in devices:
            found.append(f"{device} {_NO_LIMIT.get(file, 'default')}")
    return found or ["\n"]  # it was empty, as a cpuset of v2 is that has what its parent has


def _text(path: str) -> str:
    text = read(path).strip()
    if path.endswith("/memory.oom_control"):  # "oom_kill_disable 0", then counters; it takes the 0
        return text.split()[1]
    return text
