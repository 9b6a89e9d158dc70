"""JSON in and out without the `json` package, whose import costs more than a whole `state` (it loads `re`).

CPython's C accelerator `_json` does the work; `json` itself is imported only to explain an input that is wrong,
or where an interpreter comes without the accelerator.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    from _json import encode_basestring_ascii as _quote
    from _json import make_scanner as _make_scanner
except ImportError:  # the accelerator is optional in CPython and absent in PyPy
    from json.encoder import encode_basestring_ascii as _quote

    _make_scanner = None  # type: ignore[assignment,misc]


class JSONError(ValueError):
    """Input that is not JSON; the message tells line and column."""


def _refuse_constant(name: str) -> Any:
    raise JSONError(f"{name} is not JSON")


class _ScannerSettings:
    """What `json.JSONDecoder` hands to the C scanner."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)
    memo: dict[str, str] = {}


_SPACE = " \t\n\r"


def loads(text: str) -> Any:
    """The value that a JSON text (RFC 8259) stands for.

    Raises:
        JSONError: with line and column, where the text is not JSON or is nested too deeply.
    """
    if _make_scanner is not None:
        start = len(text) - len(text.lstrip(_SPACE))
        try:
            value, end = _make_scanner(_ScannerSettings())(text, start)  # type: ignore[arg-type]
        except JSONError:
            raise
        except (StopIteration, ValueError, SystemError, RecursionError):
            pass  # json.loads below finds the same fault again and knows where it is
        else:
            if not text[end:].strip(_SPACE):
                return value
    import json

    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise JSONError("nested too deeply") from None
    except json.JSONDecodeError as e:
        raise JSONError(f"{e.msg} (line {e.lineno}, column {e.colno})") from None


def dumps(value: Any, indent: int = 0) -> str:
    """The JSON text of a value made of dict, list, str, int, float, bool and None, keys in their order.

    Args:
        indent: spaces a level as Go's MarshalIndent prints them; 0 gives one line without spaces.
    """
    return _dump(value, indent, "\n" if indent else "")


def _dump(value: Any, indent: int, newline: str) -> str:
    if isinstance(value, str):
        return _quote(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int | float):
        return repr(value)
    inner = newline + " " * indent
    if isinstance(value, dict):
        if not value:
            return "{}"
        colon = ": " if indent else ":"
        items = [f"{_quote(str(k))}{colon}{_dump(v, indent, inner)}" for k, v in value.items()]
        return "{" + inner + ("," + inner).join(items) + newline + "}"
    if not value:
        return "[]"
    return "[" + inner + ("," + inner).join(_dump(v, indent, inner) for v in value) + newline + "]"
