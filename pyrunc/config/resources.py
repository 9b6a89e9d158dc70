"""New resources for a container that has some: what stays, and what has to be written again beside what is new.

An update names what is to change and nothing else, as runc-update(8) has it. Where cgroup v2 keeps in one file, or
counts apart, what the specification has as two numbers (quota and period; memory, and memory with swap), the number
that is not named is the one that the container has.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

#: Numbers whose 0 means "not given": engines in Go send their structures whole.
_NOT_GIVEN_AT_ZERO = {
    "memory": ("limit", "reservation", "swap", "kernel", "kernelTCP"),
    "cpu": ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod"),
    "blockIO": ("weight", "leafWeight"),
    "network": ("classID",),
}

#: What tells the entries of a list apart; the whole entry where there is nothing.
_KEYS = {
    "weightDevice": ("major", "minor"),
    "throttleReadBpsDevice": ("major", "minor"),
    "throttleWriteBpsDevice": ("major", "minor"),
    "throttleReadIOPSDevice": ("major", "minor"),
    "throttleWriteIOPSDevice": ("major", "minor"),
    "hugepageLimits": ("pageSize",),
    "priorities": ("name",),
    "devices": (),
}

#: A number, and the one that it is taken together with.
_TOGETHER = (
    ("memory", "limit", "swap"),
    ("memory", "swap", "limit"),
    ("cpu", "quota", "period"),
    ("cpu", "period", "quota"),
)


def given(resources: dict[str, Any]) -> dict[str, Any]:
    """Resources without what says nothing: numbers of 0 where the specification has no meaning for them, empty texts,
    lists and objects."""
    found = {}
    for group, value in resources.items():
        if isinstance(value, dict) and group not in ("rdma", "unified"):
            value = {key: v for key, v in value.items() if not _says_nothing(group, key, v)}
        if value not in ({}, []):
            found[group] = value
    return found


def _says_nothing(group: str, key: str, value: Any) -> bool:
    if value == "" or value == []:
        return True
    return value == 0 and key in _NOT_GIVEN_AT_ZERO.get(group, ())


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A container's resources after an update.

    Entries of lists replace those for the same device, page size or interface. Device rules are added to those that
    there are, so that an engine that sends its rules again changes nothing, nor takes from the container what somebody
    between the engine and the runtime has given to it; to deny what was allowed takes a rule.

    Args:
        old: the container's, as in config.json.
        new: what `given` left of the update.
    """
    found = old | {group: _merged(group, old[group], value) if group in old else value for group, value in new.items()}
    memory = new.get("memory", {})
    if memory.get("limit") == -1 and "swap" not in memory:
        # Memory without limit makes sense only with swap without limit.
        found["memory"] = {key: value for key, value in found["memory"].items() if key != "swap"}
    if "shares" in new.get("cpu", {}) and "idle" not in new["cpu"]:
        # A cgroup that has been given a weight is not idle: systemd sees to it, the kernel would have refused.
        found["cpu"] = {key: value for key, value in found["cpu"].items() if key != "idle"}
    return found


def _merged(name: str, old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: _merged(key, old[key], value) if key in old else value for key, value in new.items()}
    if isinstance(old, list) and isinstance(new, list) and name in _KEYS:
        found = list(old)
        for entry in new:
            # The last one counts, so it is the one to change.
            at = next((i for i in reversed(range(len(found))) if _same(found[i], entry, _KEYS[name])), None)
            if at is None:
                found.append(entry)
            else:
                found[at] = found[at] | entry
        return found
    return new


def _same(one: dict[str, Any], other: dict[str, Any], keys: tuple[str, ...]) -> bool:
    return one == other if not keys else all(one[key] == other[key] for key in keys)


def weightless(resources: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Resources without the weight that a cgroup can't have which is to be idle (kernel/sched/fair.c,
    sched_group_set_shares), and what to tell the user of it, "" where there is nothing.

    As runc with systemd: idle is what counts.
    """
    cpu, unified = resources.get("cpu") or {}, resources.get("unified") or {}
    left_out = ""
    if cpu.get("idle") == 1 and cpu.get("shares"):
        left_out = "cpu.shares"
        resources = resources | {"cpu": {key: value for key, value in cpu.items() if key != "shares"}}
    if unified.get("cpu.idle", "").strip() == "1" and "cpu.weight" in unified:
        left_out = "cpu.weight"
        resources = resources | {"unified": {key: value for key, value in unified.items() if key != "cpu.weight"}}
    return resources, f"unable to apply both cpu.idle and {left_out}, which is left out" if left_out else ""


def to_write(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What an update has to write: what is new, and what that is taken together with.

    Args:
        old, new: as for `merge`.
    """
    merged = merge(old, new)
    found = dict(new)
    if "devices" in new:
        del found["devices"]
        if merged["devices"] != old.get("devices"):
            found["devices"] = merged["devices"]
    for group, one, other in _TOGETHER:
        if one in new.get(group, {}) and merged[group].get(other):
            found[group] = found[group] | {other: merged[group][other]}
    cpu = new.get("cpu", {})
    if cpu.get("idle") == 0 and merged["cpu"].get("shares"):
        # The kernel gives the default weight to a group that is idle no more.
        found["cpu"] = found["cpu"] | {"shares": merged["cpu"]["shares"]}
    return found


def settle(merged: dict[str, Any], new: dict[str, Any], written: Collection[str]) -> dict[str, Any]:
    """Merged resources without those of ``unified`` that the update overrules by another name.

    Args:
        merged: what `merge` made.
        new: as for `merge`.
        written: names of the files that the update has written.
    """
    if "unified" not in merged:
        return merged
    asked = new.get("unified", {})
    unified = {file: value for file, value in merged["unified"].items() if file in asked or file not in written}
    return merged | {"unified": unified}
