"""The commands that act on a container that exists."""

from __future__ import annotations

import os

from pyrunc import jsonio
from pyrunc.cli.program import write
from pyrunc.container import Container, discard
from pyrunc.errors import Error, NoSuchContainer, NotRunning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.program import Call


def start(call: Call) -> int:
    """``pyrunc start``."""
    _container(call).start(notify_socket=os.environ.get("NOTIFY_SOCKET"))
    return 0


def state(call: Call) -> int:
    """``pyrunc state``."""
    write(jsonio.dumps(_container(call).state(), indent=2) + "\n")
    return 0


def kill(call: Call) -> int:
    """``pyrunc kill``."""
    container = _container(call)
    number = signal_number(call.arguments[1] if len(call.arguments) > 1 else "TERM")
    try:
        container.kill(number, all=call.options.bool("all"))
    except NotRunning:
        # containerd sends SIGKILL to `--all` while it cleans up, after init has ended
        if not call.options.bool("all"):
            raise
    return 0


def delete(call: Call) -> int:
    """``pyrunc delete``."""
    force = call.options.bool("force")
    try:
        _container(call).delete(force=force)
    except NoSuchContainer:
        discard(call.id, root=call.root)
        if not force:
            raise
    return 0


def pause(call: Call) -> int:
    """``pyrunc pause``."""
    _container(call).pause()
    return 0


def resume(call: Call) -> int:
    """``pyrunc resume``."""
    _container(call).resume()
    return 0


def _container(call: Call) -> Container:
    return Container.load(call.id, root=call.root, log=call.log)


def signal_number(word: str) -> int:
    """The signal that a word names: KILL, SIGKILL, kill, 9; also RTMIN+3, RTMAX-1 (signal(7)).

    Raises:
        Error: where it names none.
    """
    import _signal  # signal would load enum

    if word.isascii() and word.isdigit() and int(word) < _signal.NSIG:
        return int(word)
    name, sign, offset = word.upper().removeprefix("SIG"), "", "0"
    for sign in ("+", "-"):
        if name.startswith("RT") and sign in name:
            name, _, offset = name.partition(sign)
            break
    number = getattr(_signal, f"SIG{name}", None) if name.isalnum() else None
    if isinstance(number, int) and offset.isascii() and offset.isdigit():
        number += -int(offset) if sign == "-" else int(offset)
        if name not in ("RTMIN", "RTMAX") or _signal.SIGRTMIN <= number <= _signal.SIGRTMAX:
            return number
    raise Error(f'unknown signal "{word}"')
