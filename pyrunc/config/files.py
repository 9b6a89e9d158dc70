"""A JSON file of a caller, read without trusting what it is."""

from __future__ import annotations

import os
import stat

from pyrunc import jsonio
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Bytes. Engines write some 10 KB; an argument list may have 2 MiB (ARG_MAX).
LIMIT = 16 << 20


def read(path: str, *, pipe: bool = False) -> Any:
    """The value in a JSON file.

    Args:
        pipe: whether the path may also be a FIFO, as a shell's <(command) is, or "-" for standard input.

    Raises:
        Error: the file isn't there, isn't a regular one, is too long, isn't UTF-8 or isn't JSON.
    """
    from_stdin = pipe and path == "-"
    name = "standard input" if from_stdin else path
    data = _content(0, name) if from_stdin else _file(path, pipe)
    if not data.strip():
        raise Error(f"{name} is empty")
    try:
        # RFC 8259, 8.1: a byte order mark may be ignored
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        raise Error(f"{name} is not UTF-8 (byte {e.start})") from None
    try:
        value = jsonio.loads(text)
    except ValueError as e:  # JSONError, and Python's limit on the digits of an integer
        raise Error(f"{name} is not JSON: {e}") from None
    if "\\u0000" in text or "\\ud" in text or "\\uD" in text:
        _refuse_odd_text(value, "")
    return value


def _file(path: str, pipe: bool) -> bytes:
    """The content of a file. Where a pipe isn't asked for, opening waits for nobody and a FIFO is an error."""
    folder, _, name = path.rpartition("/")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if pipe else os.O_NONBLOCK))
    except (FileNotFoundError, NotADirectoryError):
        raise Error(f"JSON specification file {name} not found in {folder or '.'}") from None
    except ValueError:  # a NUL in the path
        raise Error(f"no file can be named {path!r}") from None
    except OSError as e:
        raise Error.from_os(e, action=f"open {path}") from None
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) and not (pipe and stat.S_ISFIFO(mode)):
            kind = "a directory" if stat.S_ISDIR(mode) else "a FIFO" if stat.S_ISFIFO(mode) else "a device"
            raise Error(f"{path} is {kind}, not a regular file")
        return _content(fd, path)
    finally:
        os.close(fd)


def _content(fd: int, name: str) -> bytes:
    data = b""
    try:
        while piece := os.read(fd, 1 << 16 if len(data) < 1 << 16 else 1 << 20):
            data += piece
            if len(data) > LIMIT:
                raise Error(f"{name} has more than {LIMIT >> 20} MiB")
    except OSError as e:
        raise Error.from_os(e, action=f"read {name}") from None
    return data


def _refuse_odd_text(value: Any, at: str) -> None:
    """Refuse texts that no system call can be given: with a NUL, or with half of a surrogate pair.

    Annotations stay in JSON and may hold anything.
    """
    from pyrunc.config.check import pointer

    if isinstance(value, dict):
        for name, item in value.items():
            if at or name != "annotations":
                _refuse_odd_text(name, pointer(at, name))
                _refuse_odd_text(item, pointer(at, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_odd_text(item, pointer(at, index))
    elif isinstance(value, str):
        if "\0" in value:
            raise Error("contains a NUL character", pointer=_printable(at))
        if _printable(value) != value:
            raise Error("contains half of a surrogate pair", pointer=_printable(at))


def _printable(text: str) -> str:
    return text.replace("\0", "\\u0000").encode(errors="replace").decode()
