"""``pyrunc events``: a line of JSON for each event, in runc's shape, which containerd reads."""

from __future__ import annotations

import re

from pyrunc import jsonio
from pyrunc.cli.parse import UsageError
from pyrunc.cli.program import write
from pyrunc.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.program import Call

_SECONDS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

_PART = r"(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"


def events(call: Call) -> int:
    """``pyrunc events``."""
    container = Container.load(call.id, root=call.root, log=call.log)
    interval = duration(call.options.text("interval", "5s"))
    if call.options.bool("stats"):
        _tell({"type": "stats", "id": container.id, "data": container.stats()})
        return 0
    for event in container.events(interval):
        _tell(event)
    return 0


def _tell(event: dict[str, object]) -> None:
    write(jsonio.dumps(event) + "\n")


def duration(text: str) -> float:
    """Seconds, more than 0, in a duration as Go writes it: ``500ms``, ``1m30s``, ``1.5h``.

    Raises:
        UsageError: it is none, or not more than 0.
    """
    sign, rest = (text[0], text[1:]) if text[:1] in ("-", "+") else ("", text)
    if rest != "0" and not re.fullmatch(f"({_PART})+", rest, re.ASCII):
        raise UsageError(f'invalid value "{text}" for --interval: not a duration such as 5s or 1m30s')
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_PART, rest, re.ASCII))
    if sign == "-" or seconds <= 0:
        raise UsageError("duration interval must be greater than 0")
    return seconds
