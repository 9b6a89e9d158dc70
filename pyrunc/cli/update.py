"""``pyrunc update``: flags, or a document, as resources."""

from __future__ import annotations

from pyrunc import config
from pyrunc.container import Container
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.cli.parse import Options
    from pyrunc.cli.program import Call

_KIBI = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def update(call: Call) -> int:
    """``pyrunc update``."""
    container = Container.load(call.id, root=call.root, log=call.log)
    rdt = _intel_rdt(call.options)
    if path := call.options.text("resources"):
        container.update(config.load_resources(path), intel_rdt=rdt)
        return 0
    for name in ("kernel-memory", "kernel-memory-tcp"):
        if text := call.options.text(name):
            size(text, f"--{name}")
            call.log.warn(f"--{name} is ignored: kernels have no such limit any more")
    try:
        container.update(resources(call.options), intel_rdt=rdt)
    except Error as e:
        e.pointer = _FLAG_AT.get(e.pointer, e.pointer)
        raise
    return 0


def resources(options: Options) -> dict[str, Any]:
    """What the flags ask for, as config.json's linux.resources.

    Raises:
        Error: for a value that is not of the flag's form.
    """
    found: dict[str, Any] = {}
    for name, group, key, form in _FLAGS:
        if text := options.text(name):
            found.setdefault(group, {})[key] = form(text, f"--{name}")
    return found


def size(text: str, flag: str) -> int:
    """Bytes: a number, which may have a unit: ``64M``, ``1.5g``, ``100 KiB``; all are powers of 1024. -1 is no limit.

    The forms are those of docker/go-units' RAMInBytes, which runc reads sizes by.
    """
    if text == "-1":
        return -1
    number = text.rstrip("bBiIkKmMgGtTpP")
    unit = text[len(number) :].lower()
    number = number.removesuffix(" ")
    letter = unit.removesuffix("ib") if len(unit) == 3 else unit.removesuffix("b")
    digits = number.replace(".", "", 1)
    if letter not in ("", *_KIBI) or not (digits.isascii() and digits.isdigit()):
        raise Error(f"{text!r} is not a size such as 64M, nor -1", pointer=flag)
    return int((float(number) if "." in number else int(number)) * _KIBI.get(letter, 1))


def number(text: str, flag: str) -> int:
    """A decimal number, which may be negative."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()):
        raise Error(f"{text!r} is not a number", pointer=flag)
    return int(text)


def words(text: str, flag: str) -> str:
    """A text as it is."""
    return text


#: Flag, and the group and key in resources that it sets. Further down a wrong value is found by its pointer.
_FLAGS: tuple[tuple[str, str, str, Callable[[str, str], Any]], ...] = (
    ("blkio-weight", "blockIO", "weight", number),
    ("cpu-period", "cpu", "period", number),
    ("cpu-quota", "cpu", "quota", number),
    ("cpu-burst", "cpu", "burst", number),
    ("cpu-share", "cpu", "shares", number),
    ("cpu-rt-period", "cpu", "realtimePeriod", number),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", number),
    ("cpu-idle", "cpu", "idle", number),
    ("cpuset-cpus", "cpu", "cpus", words),
    ("cpuset-mems", "cpu", "mems", words),
    ("memory", "memory", "limit", size),
    ("memory-reservation", "memory", "reservation", size),
    ("memory-swap", "memory", "swap", size),
    ("pids-limit", "pids", "limit", number),
)

_RDT_FLAGS = (("l3-cache-schema", "l3CacheSchema"), ("mem-bw-schema", "memBwSchema"))

_FLAG_AT = {f"/{group}/{key}": f"--{name}" for name, group, key, _ in _FLAGS}
_FLAG_AT |= {f"/linux/intelRdt/{key}": f"--{flag}" for flag, key in _RDT_FLAGS}


def _intel_rdt(options: Options) -> dict[str, Any]:
    """What the flags ask for, as config.json's linux.intelRdt."""
    return {key: text for flag, key in _RDT_FLAGS if (text := options.text(flag))}
