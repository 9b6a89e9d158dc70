"""``linux.resources`` and annotations as properties of a systemd unit (systemd.resource-control(5)). Pure.

The limits are written to the cgroup's files too. They are properties as well because systemd writes the files of its
units again whenever it finds reason to (``systemctl daemon-reload``, a change of another property), from what it
knows; and because ``systemctl show`` is to tell the truth. What has no property, or not in the running version, is
left to the file.
"""

from __future__ import annotations

from pyrunc.cgroups.devices import MKNOD, READ, WILDCARD, WRITE, Filter, build
from pyrunc.cgroups.v1_settings import escape, pids_max
from pyrunc.cgroups.v2_settings import cpu_weight, io_weight, swap_max
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

#: What systemd takes for "no limit" and, of weights, for "not set" (UINT64_MAX).
INFINITY = 0xFFFFFFFFFFFFFFFF

#: A version that has every property.
NEWEST = 1 << 16

ANNOTATION = "org.systemd.property."

_PERIOD = 100000  # µs; the kernel's default

#: Keys of ``resources.unified`` that are a number of bytes, or "max".
_BYTES = {
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.max": "MemoryMax",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
}

_SETS = {
    "cpus": "AllowedCPUs",
    "mems": "AllowedMemoryNodes",
    "cpuset.cpus": "AllowedCPUs",
    "cpuset.mems": "AllowedMemoryNodes",
}


class Property:
    """A property of a unit.

    Attributes:
        name: as systemd's D-Bus interface has it, which is not always the unit file's (``…USec``, not ``…Sec``).
        signature: its D-Bus type.
        value: as jeepney takes it.
        pointer: JSON pointer of the value that asks for it, "" for what every unit gets.
    """

    __slots__ = ("name", "pointer", "signature", "value")

    def __init__(self, name: str, signature: str, value: Any, pointer: str = "") -> None:
        self.name = name
        self.signature = signature
        self.value = value
        self.pointer = pointer

    def __repr__(self) -> str:
        return f"{self.name}={self.text()}"

    def text(self) -> str:
        """The value, in words for people."""
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        if isinstance(self.value, bytes):
            return ",".join(str(bit) for bit in range(8 * len(self.value)) if self.value[bit // 8] >> bit % 8 & 1)
        if self.signature == "a(ss)":
            return " ".join(f"{path}:{access}" for path, access in self.value)
        if isinstance(self.value, list):
            return " ".join(str(item) for item in self.value)
        return "infinity" if self.value == INFINITY else str(self.value)


# -- what every unit gets


def basic(description: str, slice: str, pid: int, *, scope: bool, v2: bool) -> list[Property]:
    """What makes a unit a container's home.

    No CollectMode: as under runc a unit that failed, because the kernel ran out of memory for it, say, can be looked at
    until `delete` has systemd forget it.

    Args:
        slice: name of the slice to put it into.
        pid: the process that a scope begins with.
        scope: whether it is a scope; otherwise it is a slice, which begins empty and can't be delegated.
        v2: whether the machine has cgroup v2 and nothing else.
    """
    found = [Property("Description", "s", description)]
    if scope:
        found += [
            Property("Slice", "s", slice),
            # Without it systemd would take the cgroups below for its own (systemd.io/CGROUP_DELEGATION)
            Property("Delegate", "b", True),
            Property("PIDs", "au", [pid]),
        ]
    else:
        found.append(Property("Wants", "as", [slice]))  # its place follows from its name
    # The controllers are to be there even where no limit asks for them: an update may, and there are figures
    kinds = ("Memory", "CPU", "IO" if v2 else "BlockIO", "Tasks")
    found += [Property(f"{kind}Accounting", "b", True) for kind in kinds]
    found.append(Property("DefaultDependencies", "b", False))  # its end is the engine's business, also at shutdown
    return found


def annotated(annotations: dict[str, str]) -> list[Property]:
    """The properties that annotations ``org.systemd.property.NAME`` give as GVariant texts.

    A NAME that ends in ``Sec``, as in unit files, is a number of seconds; D-Bus has microseconds and ``USec``.

    Raises:
        Error: with the annotation's pointer.
    """
    found = []
    for key, text in annotations.items():
        if not key.startswith(ANNOTATION):
            continue
        from pyrunc.cgroups.gvariant import parse

        name, pointer = key[len(ANNOTATION) :], "/annotations/" + escape(key)
        if len(name) < 3 or not (name.isascii() and name.isalpha()):
            raise Error(
                f"{name!r} is not the name of a property: three letters at least, and nothing else", pointer=pointer
            )
        try:
            signature, value = parse(text)
            if name.endswith("Sec") and name[-4:-3].islower():
                name, signature, value = f"{name[:-3]}USec", "t", _microseconds(signature, value)
        except Error as e:
            e.pointer, e.action = pointer, f"read {text!r} as a GVariant text"
            raise
        found.append(Property(name, signature, value, pointer))
    return found


def _microseconds(signature: str, value: Any) -> int:
    if signature not in "ynqiuxtd":
        raise Error("a number of seconds is expected")
    if not 0 <= value <= INFINITY // 1000000:
        raise Error(f"{value} is no number of seconds")
    return int(value * 1000000)


# -- resources


def agreed(resources: dict[str, Any], at: str) -> dict[str, Any]:
    """The resources as systemd can have them, for property and file to say the same.

    systemd keeps a CPU quota in whole percents of a CPU: it is rounded up, here as in runc.
    """
    cpu = resources.get("cpu") or {}
    quota, period = cpu.get("quota") or 0, cpu.get("period") or _PERIOD
    if quota > 0:
        rounded = _per_second(quota, period) * period // 1000000
        resources = resources | {"cpu": cpu | {"quota": rounded}}
    unified = resources.get("unified") or {}
    if (text := unified.get("cpu.max")) is not None:
        quota, period = _cpu_max(text, f"{at}/unified/cpu.max")
        if quota > 0:
            rounded = _per_second(quota, period) * period // 1000000
            resources = resources | {"unified": unified | {"cpu.max": f"{rounded} {period}"}}
    return resources


def limits(resources: dict[str, Any], at: str, *, v2: bool, devices: bool, version: int = NEWEST) -> list[Property]:
    """Properties for ``linux.resources``.

    Args:
        at: JSON pointer of resources in its document.
        v2: whether the machine has cgroup v2 and nothing else.
        devices: whether to set device rules (see `pyrunc.cgroups.base.Manager.settings`).
        version: systemd's.

    Raises:
        Error: if a value can't be had.
    """
    found: list[Property] = []
    if devices:
        wanted = build(resources.get("devices") or [], at + "/devices")
        found += device_rules(wanted, at + "/devices", superset=v2, version=version)
    found += (_memory_v2 if v2 else _memory_v1)(resources.get("memory") or {}, at + "/memory")
    if weight := (resources.get("blockIO") or {}).get("weight"):
        name, value = ("IOWeight", io_weight(weight)) if v2 else ("BlockIOWeight", weight)
        found.append(Property(name, "t", value, at + "/blockIO/weight"))
    cpu = resources.get("cpu") or {}
    idle = v2 and cpu.get("idle") == 1 and version >= 252
    if idle:
        found.append(Property("CPUWeight", "t", 0, at + "/cpu/idle"))
    if (shares := cpu.get("shares")) and not idle:
        name, value = ("CPUWeight", cpu_weight(shares)) if v2 else ("CPUShares", shares)
        found.append(Property(name, "t", value, at + "/cpu/shares"))
    if cpu.get("quota") or cpu.get("period"):
        pointer = at + ("/cpu/quota" if cpu.get("quota") else "/cpu/period")
        found += _quota(cpu.get("quota") or 0, cpu.get("period") or _PERIOD, pointer, version)
    for key in ("cpus", "mems"):
        if cpu.get(key):
            found += _set(key, cpu[key], f"{at}/cpu/{key}", version)
    if (limit := (resources.get("pids") or {}).get("limit")) is not None:
        found.append(Property("TasksMax", "t", _or_infinity(pids_max(limit)), at + "/pids/limit"))
    if v2:
        found += _unified(resources.get("unified") or {}, at + "/unified", version)
    return found


def _memory_v2(memory: dict[str, Any], at: str) -> list[Property]:
    found = []
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        found.append(Property("MemoryMax", "t", limit if limit > 0 else INFINITY, at + "/limit"))
    if reservation := memory.get("reservation"):
        found.append(Property("MemoryLow", "t", reservation if reservation > 0 else INFINITY, at + "/reservation"))
    if swap or limit == -1:
        pointer = at + ("/swap" if swap else "/limit")
        found.append(Property("MemorySwapMax", "t", _or_infinity(swap_max(limit, swap, at)), pointer))
    return found


def _memory_v1(memory: dict[str, Any], at: str) -> list[Property]:
    limit = memory.get("limit")
    return [Property("MemoryLimit", "t", limit if limit > 0 else INFINITY, at + "/limit")] if limit else []


def _or_infinity(text: str) -> int:
    return INFINITY if text == "max" else int(text)


def _per_second(quota: int, period: int) -> int:
    """Microseconds of CPU time a second, rounded up to what systemd can keep."""
    return -(-(quota * 1000000 // period) // 10000) * 10000


def _quota(quota: int, period: int, pointer: str, version: int) -> list[Property]:
    found = []
    if version >= 242:
        found.append(Property("CPUQuotaPeriodUSec", "t", period, pointer))
    value = _per_second(quota, period) if quota > 0 else INFINITY
    return [*found, Property("CPUQuotaPerSecUSec", "t", value, pointer)]


def _set(key: str, text: str, pointer: str, version: int) -> list[Property]:
    if version < 244:
        return []
    bits = to_bits(text, pointer)
    return [Property(_SETS[key], "ay", bits, pointer)] if bits else []


def to_bits(text: str, pointer: str) -> bytes:
    """A list of CPUs or memory nodes as a bit mask, least first.

    >>> to_bits("0-2,9", "").hex()
    '0702'

    Raises:
        Error: if it is no such list.
    """
    mask = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not part.strip():
            continue  # the kernel does not mind either
        numbers = (first.strip(), last.strip()) if dash else (first.strip(),) * 2
        if not all(n.isascii() and n.isdigit() and len(n) < 6 for n in numbers) or int(numbers[0]) > int(numbers[1]):
            raise Error(f"{part.strip()!r} is neither a number nor a range like 0-3", pointer=pointer)
        mask |= (1 << int(numbers[1]) + 1) - (1 << int(numbers[0]))
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def _unified(unified: dict[str, str], at: str, version: int) -> list[Property]:
    found: list[Property] = []
    idle = unified.get("cpu.idle", "").strip() == "1" and version >= 252
    for key, value in unified.items():
        pointer, text = f"{at}/{escape(key)}", value.strip()
        if key in _BYTES:
            if text != "max" and _unit_of_bytes(text):
                continue  # "1G", which the file takes, and a property does not
            found.append(Property(_BYTES[key], "t", _number(text, pointer), pointer))
        elif key == "pids.max":
            found.append(Property("TasksMax", "t", _number(text, pointer) or 1, pointer))
        elif key == "cpu.idle" and idle:
            found.append(Property("CPUWeight", "t", 0, pointer))
        elif key == "cpu.weight" and not idle:
            found.append(Property("CPUWeight", "t", _number(text, pointer), pointer))
        elif key == "cpu.max":
            found += _quota(*_cpu_max(text, pointer), pointer, version)
        elif key in _SETS:
            found += _set(key, text, pointer, version)
    return found


def _unit_of_bytes(text: str) -> bool:
    """Whether a number of bytes has a unit behind it (the kernel's memparse)."""
    return text[-1:].lower() in ("k", "m", "g", "t", "p", "e") and text[:-1].isdigit()


def _number(text: str, pointer: str) -> int:
    if text == "max":
        return INFINITY
    if not (text.isascii() and text.isdigit()) or int(text) > INFINITY:
        raise Error(f"{text!r} is neither a number nor max", pointer=pointer)
    return int(text)


def _cpu_max(text: str, pointer: str) -> tuple[int, int]:
    """Quota, 0 for none, and period of a cpu.max."""
    words = text.split()
    if len(words) not in (1, 2) or not all(word.isascii() and word.isdigit() for word in words[1:]):
        raise Error(f"{text!r} is not a quota and a period", pointer=pointer)
    period = int(words[1]) if len(words) > 1 else _PERIOD
    if not period:
        raise Error(f"{text!r} has no period", pointer=pointer)
    quota = _number(words[0], pointer)
    return (0 if quota == INFINITY else quota), period


# -- devices


def device_rules(wanted: Filter, pointer: str, *, superset: bool, version: int = NEWEST) -> list[Property]:
    """``DevicePolicy`` and ``DeviceAllow`` for a filter of device accesses.

    systemd's list can't say everything: nothing that denies a part of what is allowed, no minor number without a major.

    Args:
        superset: whether to allow more in such a case. On v2 an eBPF program of our own does the exact filtering, and a
            device has to pass that and systemd's: more does no harm, less would take devices from the container at
            systemd's next occasion. On v1 there is one list, which both write: there it is less, and safe.
    """
    policy, listed = "strict", []
    if wanted.allow:
        if not wanted.exceptions or superset:
            policy = "auto"  # without a list: everything
    else:
        for (kind, major, minor), access in wanted.exceptions.items():
            if (path := _device(kind, major, minor, version, superset)) is not None:
                listed.append(
                    (path, "".join(c for c, bit in zip("rwm", (READ, WRITE, MKNOD), strict=True) if access & bit))
                )
    return [
        Property("DeviceAllow", "a(ss)", [], pointer),  # an empty list takes away what an earlier one has allowed
        Property("DevicePolicy", "s", policy, pointer),
        *([Property("DeviceAllow", "a(ss)", listed, pointer)] if listed else []),
    ]


def _device(kind: str, major: int, minor: int, version: int, superset: bool) -> str | None:
    word = "char" if kind == "c" else "block"
    if major != WILDCARD and minor != WILDCARD:
        return f"/dev/{word}/{major}:{minor}"  # need not exist since systemd 240, which reads the numbers off the path
    if major != WILDCARD and version >= 240:
        return f"{word}-{major}"
    if (major == WILDCARD and minor == WILDCARD) or superset:
        return f"{word}-*"
    return None


def pointer_of(reason: str, properties: Iterable[Property]) -> str:
    """The pointer of the property that an error of systemd's names, or can only be about; "" if it can't be told.

    Of a value of the wrong type systemd says no more than that it is wrong. Of ours none is, so an annotation's is.
    """
    known = [one for one in properties if one.pointer]
    for one in known:
        if one.name in reason:
            return one.pointer
    annotated = [one.pointer for one in known if one.pointer.startswith("/annotations/")]
    if "Unexpected message contents" not in reason or not annotated:
        return ""
    return annotated[0] if len(annotated) == 1 else "/annotations"
