"""Values in GVariant's text format, in which annotations give properties of systemd units.

Those of its types that D-Bus has (https://docs.gtk.org/glib/gvariant-text-format.html): no maybe types.
"""

from __future__ import annotations

from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    #: What was read, before its type is settled: a kind and its contents.
    Node = tuple[str, Any]

_KEYWORDS = {
    "boolean": "b",
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "handle": "h",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "objectpath": "o",
    "signature": "g",
}

#: Least and greatest value of each integer type.
_INTEGERS = {
    "y": (0, 0xFF),
    "n": (-0x8000, 0x7FFF),
    "q": (0, 0xFFFF),
    "i": (-0x80000000, 0x7FFFFFFF),
    "u": (0, 0xFFFFFFFF),
    "x": (-0x8000000000000000, 0x7FFFFFFFFFFFFFFF),
    "t": (0, 0xFFFFFFFFFFFFFFFF),
}

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_SPACE = " \t\n\r"


def parse(text: str) -> tuple[str, Any]:
    """The D-Bus signature and the value of a text.

    Values are as jeepney takes them: arrays are lists (of bytes, given as ``b'…'``, bytes), structures tuples, a
    variant is a pair of signature and value.

    Raises:
        Error: what is wrong with it.

    >>> parse("uint64 5"), parse("['a', 'b']"), parse("@as []")
    (('t', 5), ('as', ['a', 'b']), ('as', []))
    """
    reader = _Reader(text)
    node = reader.value()
    reader.blanks()
    if reader.at < len(text):
        raise Error(f"{text[reader.at :]!r} is more than a value")
    signature = _infer(node)
    if not signature or "?" in signature:
        raise Error("the type of an empty array has to be said, e.g. @as []")
    return signature, _build(node, signature)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1

    def peek(self) -> str:
        self.blanks()
        return self.text[self.at : self.at + 1]

    def expect(self, letter: str) -> None:
        if self.peek() != letter:
            found = f"not {self.text[self.at :]!r}" if self.at < len(self.text) else "and it ends"
            raise Error(f"{letter!r} is expected, {found}")
        self.at += 1

    def word(self) -> str:
        start = self.at
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "+-._"):
            self.at += 1
        return self.text[start : self.at]

    def value(self) -> Node:
        letter = self.peek()
        if not letter:
            raise Error("a value is expected, and it ends")
        if letter == "[":
            return "array", self.items("[", "]")
        if letter == "(":
            return "tuple", self.items("(", ")")
        if letter == "{":
            return self.dictionary()
        if letter == "<":
            self.at += 1
            inside = self.value()
            self.expect(">")
            return "variant", inside
        if letter == "@":
            self.at += 1
            start = self.at
            while self.at < len(self.text) and self.text[self.at] not in _SPACE:
                self.at += 1
            return "typed", (_signature(self.text[start : self.at]), self.value())
        if letter in "'\"":
            return "string", self.string()
        if letter == "b" and self.text[self.at + 1 : self.at + 2] in ("'", '"'):
            self.at += 1
            return "bytes", self.string()
        word = self.word()
        if word in ("true", "false"):
            return "boolean", word == "true"
        if word in _KEYWORDS:
            return "typed", (_KEYWORDS[word], self.value())
        if not word:
            raise Error(f"{self.text[self.at :]!r} is no value")
        return "number", word

    def items(self, first: str, last: str) -> list[Node]:
        self.expect(first)
        found: list[Node] = []
        while self.peek() != last:
            found.append(self.value())
            if self.peek() != last:
                self.expect(",")
        self.at += 1
        return found

    def dictionary(self) -> Node:
        self.expect("{")
        found: list[tuple[Node, Node]] = []
        while self.peek() != "}":
            key = self.value()
            self.expect(":")
            found.append((key, self.value()))
            if self.peek() != "}":
                self.expect(",")
        self.at += 1
        return "dictionary", found

    def string(self) -> str:
        quote = self.text[self.at]
        self.at += 1
        found = ""
        while True:
            letter = self.text[self.at : self.at + 1]
            if not letter:
                raise Error("a string has no end")
            self.at += 1
            if letter == quote:
                return found
            if letter == "\\":
                letter = self.escape()
            found += letter

    def escape(self) -> str:
        letter = self.text[self.at : self.at + 1]
        self.at += 1
        if letter in ("u", "U"):
            digits = self.text[self.at : self.at + (4 if letter == "u" else 8)]
            self.at += len(digits)
            try:
                return chr(int(digits, 16))
            except (ValueError, OverflowError):
                raise Error(f"\\{letter}{digits} is no character") from None
        return _ESCAPES.get(letter, letter)


def _signature(text: str) -> str:
    """A type string, checked to be one complete type."""
    if not text or _end(text, 0) != len(text):
        raise Error(f"{text!r} is not one type")
    return text


def _end(text: str, at: int) -> int:
    """Where the type that begins at a place ends; -1 if it is none."""
    letter = text[at : at + 1]
    if letter == "a":
        return _end(text, at + 1)
    if letter in ("(", "{"):
        close = ")" if letter == "(" else "}"
        count = 0
        at += 1
        while text[at : at + 1] != close:
            at = _end(text, at)
            if at < 0:
                return -1
            count += 1
        return at + 1 if count and (letter == "(" or count == 2) else -1
    return at + 1 if letter and letter in "bynqiuxtdhsogv" else -1


def _infer(node: Node) -> str:
    """The type of what was read; "?" where an empty array leaves it open."""
    kind, value = node
    if kind == "typed":
        return str(value[0])
    if kind == "array":
        return "a" + _common([_infer(item) for item in value], value)
    if kind == "tuple":
        return "(" + "".join(_infer(item) for item in value) + ")"
    if kind == "dictionary":
        keys, values = [key for key, _ in value], [item for _, item in value]
        return f"a{{{_common([_infer(k) for k in keys], keys)}{_common([_infer(v) for v in values], values)}}}"
    if kind == "number":
        return "d" if _is_float(value) else "i"
    return {"string": "s", "boolean": "b", "bytes": "ay", "variant": "v"}[kind]


def _common(types: list[str], nodes: list[Node]) -> str:
    """The type that all items of an array have: of the first that says so, a number alone takes after the others."""
    said = [t for t, node in zip(types, nodes, strict=True) if node[0] != "number" and "?" not in t]
    if said:
        return said[0]
    if "d" in types:
        return "d"
    return types[0] if types else "?"


def _is_float(text: str) -> bool:
    lower = text.lower().lstrip("+-")
    return not lower.startswith("0x") and ("." in lower or "e" in lower or lower in ("inf", "nan", "infinity"))


def _build(node: Node, signature: str) -> Any:
    """The value of what was read, as a type."""
    kind, value = node
    if kind == "typed":
        if value[0] != signature:
            raise Error(f"a value of type {signature!r} is expected, not {value[0]!r}")
        return _build(value[1], signature)
    if signature == "v" and kind == "variant":
        inner = _infer(value)
        if "?" in inner:
            raise Error("the type of an empty array has to be said, e.g. @as []")
        return inner, _build(value, inner)
    if signature == "ay" and kind == "bytes":
        return value.encode() + b"\0"  # as GVariant has it, with an end
    if signature == "b" and kind == "boolean":
        return value
    if signature in ("s", "o", "g") and kind == "string":
        return _text(value, signature)
    if kind == "number" and (signature in _INTEGERS or signature == "d"):
        return _number(value, signature)
    if kind == "array" and signature.startswith("a") and not signature.startswith("a{"):
        return [_build(item, signature[1:]) for item in value]
    if kind == "dictionary" and signature.startswith("a{"):
        middle = _end(signature, 2)
        key, item = signature[2:middle], signature[middle:-1]
        if key not in "bynqiuxtdhsog":
            raise Error("a key may not be made of parts")
        return {_build(k, key): _build(v, item) for k, v in value}
    if kind == "tuple" and signature.startswith("("):
        return _tuple(value, signature)
    raise Error(f"a value of type {signature!r} is expected")


def _tuple(items: list[Node], signature: str) -> tuple[Any, ...]:
    found = []
    at = 1
    for item in items:
        end = _end(signature, at)
        if end < 0:
            break
        found.append(_build(item, signature[at:end]))
        at = end
    if len(found) != len(items) or at != len(signature) - 1 or not items:
        raise Error(f"a value of type {signature!r} is expected")
    return tuple(found)


def _text(value: str, signature: str) -> str:
    if "\0" in value:
        raise Error("a string may not have a NUL character in it")
    if signature == "o":
        parts = value[1:].split("/") if value != "/" else ["_"]
        if not value.startswith("/") or not all(p and p.isascii() and p.replace("_", "a").isalnum() for p in parts):
            raise Error(f"{value!r} is no object path")
    if signature == "g":
        at = 0
        while 0 <= at < len(value):
            at = _end(value, at)
        if at < 0:
            raise Error(f"{value!r} is no signature")
    return value


def _number(text: str, signature: str) -> int | float:
    if signature == "d":
        try:
            return float(text)
        except ValueError:
            raise Error(f"{text!r} is no number") from None
    digits = text.lstrip("+-")
    octal = len(digits) > 1 and digits.startswith("0") and digits.isdigit()
    try:
        value = int(text, 8 if octal else 0)
    except ValueError:
        raise Error(f"{text!r} is no number") from None
    least, greatest = _INTEGERS[signature]
    if not least <= value <= greatest:
        hint = "; put int64 or uint64 before it" if signature == "i" else ""
        raise Error(f"{value} does not fit in type {signature!r}{hint}")
    return value
