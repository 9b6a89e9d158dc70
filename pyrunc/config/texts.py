"""The forms of text that the schema asks for, tested without `re`, whose import costs more than a `state`.

Each `pattern` in schema/ has its entry in PATTERNS; a test holds function and pattern to the same verdicts.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DIGITS = frozenset("0123456789")
_IDENTIFIER = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-")


def absolute(text: str) -> bool:
    return text[:1] == "/"


def absolute_or_empty(text: str) -> bool:
    return not text or text[0] == "/"


def one_line(text: str) -> bool:
    return "\n" not in text


def memory_bandwidth(text: str) -> bool:
    return text.startswith("MB:") and "\n" not in text


def page_size(text: str) -> bool:
    return text[-2:] in ("KB", "MB", "GB") and _number(text[:-2]) and text[0] != "0"


def semver(text: str) -> bool:
    """Semantic Versioning 2.0.0: MAJOR.MINOR.PATCH[-PRE.RELEASE][+BUILD.DATA]."""
    text, plus, build = text.partition("+")
    core, minus, release = text.partition("-")
    numbers = core.split(".")
    return (
        len(numbers) == 3
        and all(_number(part) for part in numbers)
        and (not plus or all(part and _IDENTIFIER.issuperset(part) for part in build.split(".")))
        and (
            not minus
            or all(
                part and _IDENTIFIER.issuperset(part) and (_number(part) or not _DIGITS.issuperset(part))
                for part in release.split(".")
            )
        )
    )


def _number(text: str) -> bool:
    """Decimal digits without a leading zero."""
    return bool(text) and _DIGITS.issuperset(text) and (text[0] != "0" or text == "0")


_SEMVER = (
    r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$"
)

#: pattern in schema/ -> the function above, and the words for a text that isn't so: "…" is not WORDS
PATTERNS: dict[str, tuple[Callable[[str], bool], str]] = {
    r"^/": (absolute, "an absolute path"),
    r"^(/|$)": (absolute_or_empty, "an absolute path"),
    r"^[^\n]*$": (one_line, "a single line"),
    r"^MB:[^\n]*$": (memory_bandwidth, "a line that begins with MB:"),
    r"^[1-9][0-9]*[KMG]B$": (page_size, "a page size like 64KB, 2MB or 1GB"),
    _SEMVER: (semver, "a version like 1.3.0 (Semantic Versioning 2.0.0)"),
}
