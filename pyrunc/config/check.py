"""Valid or not, in a fraction of a millisecond, by a table that scripts/make-check makes from schema/.

Says only whether; pyrunc/config/explain.py, which loads jsonschema, says where and why not.

The table is made of nodes. A node is one of
    str, bool               the value has this type
    object                  any value
    a frozenset             the value is one of these texts
    a function              the value is a text for which it is true (pyrunc/config/texts.py)
    (int, least, most)
    (list, node, least)     a list of at least so many items
    (dict, node, least)     a map; each name has at least so many characters
    (object, properties, required, alternatives)
                            an object with properties {name: node}, of which some are required; and one of the
                            alternatives holds, if there are any: (required, {name: its value if it is there})
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def valid(value: Any, node: Any) -> bool:
    """Whether a parsed JSON value is what a node of the table asks for.

    Python's bool is an int and JSON's isn't, and 1.0 is no integer for Go's decoder: hence `type(…) is`.
    """
    if node is str:
        return type(value) is str
    if type(node) is not tuple:
        if node is object:
            return True
        if node is bool:
            return type(value) is bool
        return type(value) is str and (value in node if type(node) is frozenset else node(value))
    kind = node[0]
    if kind is object:
        return type(value) is dict and _valid_object(value, node)
    if type(value) is not kind:
        return False
    if kind is int:
        return bool(node[1] <= value <= node[2])
    if len(value) < node[2] if kind is list else any(len(name) < node[2] for name in value):
        return False
    node = node[1]
    for item in value if kind is list else value.values():  # noqa: SIM110  half the time of all()
        if not valid(item, node):
            return False
    return True


def _valid_object(value: dict[str, Any], node: Any) -> bool:
    _, properties, required, alternatives = node
    for name in required:
        if name not in value:
            return False
    for name, item in value.items():
        expected = properties.get(name)
        if expected is None:
            if name in meant(value, properties):
                return False  # until `go_decoded` has named it
        elif not valid(item, expected):
            return False
    return not alternatives or any(
        all(name in value for name in names) and all(value.get(name, c) == c for name, c in fixed.items())
        for names, fixed in alternatives
    )


def go_decoded(value: Any, node: Any) -> Any:
    """The value without those known properties that are null, and with required ones named as they should be.

    Go's decoder, through which other runtimes see a configuration, takes null for "not set", and its encoder
    writes null for an empty list that isn't omitempty. What comes after this never meets a null.
    It also takes a name in other letters' case (``CPU``, ``pagesize``) for the one that it knows, and where both are
    there the later one adds to the earlier. Configurations made by hand are written for runc: so they are read here.
    """
    if type(node) is not tuple or node[0] is int:
        return value
    if node[0] is list:
        return [go_decoded(item, node[1]) for item in value] if type(value) is list else value
    if type(value) is not dict:
        return value
    if node[0] is dict:
        return {name: go_decoded(item, node[1]) for name, item in value.items()}
    known = node[1]
    names = meant(value, known)
    found: dict[str, Any] = {}
    for written, item in value.items():
        name: str = names.get(written) or written
        if item is None and name in known:
            found.pop(name, None)
        else:
            decoded = go_decoded(item, known.get(name, object))
            found[name] = _added(found[name], decoded) if name in found else decoded
    return found


def _added(earlier: Any, later: Any) -> Any:
    if type(earlier) is not dict or type(later) is not dict:
        return later
    both = {name: _added(earlier[name], later[name]) for name in earlier if name in later}
    return earlier | later | both


def meant(value: dict[str, Any], properties: dict[str, Any]) -> dict[str, str]:
    """Names in `value` that differ in nothing but case from a property: name -> the property's."""
    odd = [name for name in value if name not in properties]
    known = {name.lower(): name for name in properties} if odd else {}
    return {name: known[name.lower()] for name in odd if name.lower() in known}


def unknown(value: Any, node: Any, at: str = "") -> list[str]:
    """JSON pointers of the properties in a valid value that the specification doesn't know."""
    if type(node) is not tuple or node[0] is int:
        return []
    if node[0] is object:
        known = node[1]
        found = [pointer(at, name) for name in value if name not in known]
        inner = [(name, item, known[name]) for name, item in value.items() if name in known]
    else:
        found = []
        members = enumerate(value) if node[0] is list else value.items()
        inner = [(name, item, node[1]) for name, item in members]
    for name, item, expected in inner:
        found += unknown(item, expected, pointer(at, name))
    return found


def pointer(at: str, name: str | int) -> str:
    """JSON pointer (RFC 6901) of a member of the value at a pointer."""
    return f"{at}/{str(name).replace('~', '~0').replace('/', '~1')}"
