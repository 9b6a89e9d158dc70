"""Why a configuration isn't valid, in a line. Loads jsonschema: for when something is known to be wrong."""

from __future__ import annotations

import os

from pyrunc import jsonio
from pyrunc.config.check import pointer
from pyrunc.config.texts import PATTERNS
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_TYPES = {
    "string": "a string",
    "boolean": "true or false",
    "integer": "an integer",
    "array": "an array",
    "object": "an object",
}

#: What a loaded file may be, and where in config-schema.json its schema is.
_SCHEMAS = {"config": "", "process": "#/$defs/process", "resources": "#/$defs/resources"}


def schema(name: str) -> dict[str, Any]:
    """A file of schema/, which an installed package has beside its modules and a checkout at its top.

    Args:
        name: "config", "state" or "features".
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in (package, os.path.dirname(package)):
        path = f"{folder}/schema/{name}-schema.json"
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                value: dict[str, Any] = jsonio.loads(f.read())
            return value
    raise Error(f"schema/{name}-schema.json does not exist below {package} or beside it")


def errors(value: Any, what: str) -> list[Error]:
    """All that is wrong with the shape of a value, in the order in which the schema comes to it.

    Args:
        value: parsed JSON.
        what: "config", "process" or "resources".
    """
    found = []
    for error in validator(what).iter_errors(value):
        at = ""
        for part in error.absolute_path:
            at = pointer(at, part)
        found.append(_in_words(error, at))
    return found


def explain(value: Any, what: str) -> Error:
    """The most telling of `errors`: the one nearest to the top, for what is below it may follow from it."""
    try:
        found = errors(value, what)
    except ImportError:
        return Error(f"{what} does not match schema/config-schema.json; install jsonschema to be told where")
    if not found:
        raise AssertionError(f"pyrunc/config/_table.py and schema/ differ on {jsonio.dumps(value)}")
    return min(found, key=lambda error: error.pointer.count("/"))


def validator(what: str) -> Any:
    """A jsonschema validator for "config", "process" or "resources"; Go's integers, ECMA's patterns."""
    try:
        import jsonschema
    except ImportError:  # the launcher starts Python without site-packages (-S), which costs 2 ms less
        import site

        site.main()
        import jsonschema

    whole = schema("config")
    wanted = _SCHEMAS[what]
    if wanted:
        whole = {"$schema": whole["$schema"], "$ref": wanted, "$defs": whole["$defs"]}
    base = jsonschema.Draft202012Validator
    # Go reads no 1.0 where an integer belongs, nor do the steps that come after
    types = base.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    extend: Any = jsonschema.validators.extend
    return extend(base, {"pattern": _pattern}, type_checker=types)(whole)


def _pattern(_: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    """JSON Schema's pattern by ECMA 262, where $ is the end of the text; Python's $ lets a newline follow."""
    import re

    import jsonschema

    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


def _in_words(error: Any, at: str) -> Error:
    """A jsonschema error as one of ours; a missing property is pointed at, though it isn't there."""
    value, limit = _short(error.instance), error.validator_value
    if error.validator == "required":
        missing = next(name for name in limit if error.message.startswith(repr(name)))
        kind = error.schema["properties"].get(missing, {})
        return Error(_invalid(kind) + "is required", pointer=pointer(at, missing))
    words: dict[str, Callable[[], str]] = {
        "type": lambda: f"{value} is not {_TYPES[limit]}",
        "enum": lambda: f"{value} is not one of {', '.join(limit)}",
        "pattern": lambda: f"{value} is not {PATTERNS[limit][1]}",
        "minimum": lambda: f"{value} is less than {limit}",
        "maximum": lambda: f"{value} is more than {limit}",
        "minItems": lambda: f"needs at least {limit} item",
        "minLength": lambda: "has a name that is empty",
        "anyOf": lambda: f"needs {' or '.join(' and '.join(one['required']) for one in limit if 'required' in one)}",
    }
    return Error(_invalid(error.schema) + words[error.validator](), pointer=at)


def _invalid(schema: dict[str, Any]) -> str:
    """What a value is called in messages: where the schema has a title for it, others look for these words."""
    return f"invalid {schema['title']}: " if "title" in schema and "$schema" not in schema else ""


def _short(value: Any) -> str:
    text = jsonio.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
