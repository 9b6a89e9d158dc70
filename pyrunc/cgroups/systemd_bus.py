"""The conversation with systemd over D-Bus: start, change, stop a unit, and wait until that is done.

jeepney speaks the D-Bus protocol; what is here is whom to call, what systemd's manager understands
(org.freedesktop.systemd1(5)), and patience with an end.
"""

from __future__ import annotations

import errno
import os
import socket
import time

from jeepney import DBusAddress, HeaderFields, Message, MessageType, Parser, new_method_call
from jeepney.bus import get_connectable_addresses

from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from pyrunc.cgroups.systemd_properties import Property

_SYSTEMD = "org.freedesktop.systemd1"
_OBJECT = "/org/freedesktop/systemd1"
_MANAGER = _SYSTEMD + ".Manager"

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
#: Where systemd itself listens; it serves root there also when there is no bus, as early and late in a boot.
SYSTEM_PRIVATE = "unix:path=/run/systemd/private"

#: Seconds to wait for an answer or for the end of a job.
TIMEOUT = 30.0

UNIT_EXISTS = _SYSTEMD + ".UnitExists"
NO_SUCH_UNIT = _SYSTEMD + ".NoSuchUnit"


class Refused(Error):
    """systemd, or the bus, answered with an error.

    Attributes:
        name: the D-Bus error's name, e.g. ``org.freedesktop.systemd1.UnitExists``.
    """

    def __init__(self, name: str, message: str, action: str) -> None:
        super().__init__(f"systemd says: {message.rstrip('.')} ({name})", action=action)
        self.name = name


class Bus:
    """A connection to one systemd manager. To be used in a ``with`` statement.

    Args:
        user: the calling user's manager, not the system's.

    Raises:
        Error: if it can't be reached.
    """

    def __init__(self, user: bool = False) -> None:
        self._serial = 0
        self._parser = Parser()
        #: How jobs ended, by the path of their object.
        self._ended: dict[str, str] = {}
        failed = []
        for address, bus in addresses(user):
            try:
                self._socket = _connect(address)
                self._authenticate()
            except (OSError, Error) as e:
                failed.append(f"{address}: {Error.from_os(e).reason if isinstance(e, OSError) else e.reason}")
                continue
            if bus:
                self._call(
                    DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus"), "Hello"
                )
                match = f"type='signal',sender='{_SYSTEMD}',interface='{_MANAGER}',member='JobRemoved'"
                to = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
                self._call(to, "AddMatch", "s", (match,))
                self._manager("Subscribe")
            return
        whose = "the user's systemd (is there a login session or a lingering user, see loginctl(1)?)"
        reason = "; ".join(failed) or "neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR leads to one"
        raise Error(reason, action=f"connect to {whose if user else 'systemd'}")

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    # -- what systemd's manager does for us

    def version(self) -> int:
        """systemd's version, the number that its documentation speaks of."""
        return parse_version(self.get(_OBJECT, _MANAGER, "Version")[1])

    def own_cgroup(self) -> str:
        """The cgroup in which the manager keeps all of its units, "" for the root."""
        return str(self.get(_OBJECT, _MANAGER, "ControlGroup")[1])

    def start(self, name: str, properties: Iterable[Property]) -> None:
        """Start a transient unit, and wait until it runs.

        What is left of a unit of this name that failed is cleared away first; a unit in use is refused.

        Raises:
            Error: Refused, and then nothing was started; or any other, and then something may have been.
        """
        action = f"start {name}"
        wanted = [(p.name, (p.signature, p.value)) for p in properties]
        body: tuple[Any, ...] = (name, "replace", wanted, [])
        try:
            (job,) = self._manager("StartTransientUnit", "ssa(sv)a(sa(sv))", body, action=action)
        except Refused as e:
            if e.name != UNIT_EXISTS:
                raise
            self.reset_failed(name)
            (job,) = self._manager("StartTransientUnit", "ssa(sv)a(sa(sv))", body, action=action)
        result = self._wait(job, action)
        if result != "done":
            raise Error(f"systemd's job ended with the result {result!r}", action=action)

    def stop(self, name: str) -> None:
        """Stop a unit and forget that it may have failed. One that is gone is fine.

        Raises:
            Error: if it does not come to an end.
        """
        try:
            (job,) = self._manager("StopUnit", "ss", (name, "replace"), action=f"stop {name}")
            self._wait(job, f"stop {name}")
        except Refused as e:
            if e.name != NO_SUCH_UNIT:
                raise
        self.reset_failed(name)

    def reset_failed(self, name: str) -> None:
        """Let systemd forget a unit that failed; nothing happens if there is none, or it did not."""
        try:
            self._manager("ResetFailedUnit", "s", (name,), action=f"reset {name}")
        except Refused as e:
            if e.name != NO_SUCH_UNIT:
                raise

    def set(self, name: str, properties: Iterable[Property]) -> None:
        """Change properties of a unit until the next boot."""
        wanted = [(p.name, (p.signature, p.value)) for p in properties]
        if wanted:
            self._manager("SetUnitProperties", "sba(sv)", (name, True, wanted), action=f"change {name}")

    def attach(self, name: str, below: str, pid: int) -> None:
        """Move a process into a unit's cgroup.

        Args:
            below: a cgroup in the unit's, e.g. "/sub"; "/" for the unit's own.
            pid: as this process sees it.
        """
        action = f"attach process {pid} to {name}"
        self._manager("AttachProcessesToUnit", "ssau", (name, below, [pid]), action=action)

    def get_unit(self, name: str, interface: str, key: str) -> tuple[str, Any]:
        """A property of a unit, with its D-Bus signature.

        Args:
            interface: "Unit", "Scope" or "Slice".
        """
        return self.get(f"{_OBJECT}/unit/{label(name)}", f"{_SYSTEMD}.{interface}", key)

    def get(self, path: str, interface: str, key: str) -> tuple[str, Any]:
        """A property of an object, with its D-Bus signature."""
        at = DBusAddress(path, _SYSTEMD, "org.freedesktop.DBus.Properties")
        signature, value = self._call(at, "Get", "ss", (interface, key), f"ask systemd for {key}")[0]
        return signature, value

    # -- messages

    def _manager(
        self, method: str, signature: str | None = None, body: tuple[Any, ...] = (), *, action: str = ""
    ) -> tuple[Any, ...]:
        return self._call(DBusAddress(_OBJECT, _SYSTEMD, _MANAGER), method, signature, body, action)

    def _call(
        self,
        to: DBusAddress,
        method: str,
        signature: str | None = None,
        body: tuple[Any, ...] = (),
        action: str = "",
    ) -> tuple[Any, ...]:
        """Call a method; the values that it returns.

        Raises:
            Error: Refused if the answer is an error.
        """
        action = action or f"call {method} of systemd"
        message = new_method_call(to, method, signature, body)
        self._serial += 1
        until = time.monotonic() + TIMEOUT
        try:
            self._socket.settimeout(TIMEOUT)
            self._socket.sendall(message.serialise(serial=self._serial))
        except OSError as e:
            raise Error.from_os(e, action=action) from None
        while True:
            answer = self._receive(until, action)
            fields = answer.header.fields
            if fields.get(HeaderFields.reply_serial) != self._serial:
                self._note(answer)
            elif answer.header.message_type is MessageType.error:
                words = answer.body[0] if answer.body and isinstance(answer.body[0], str) else "no reason given"
                raise Refused(fields.get(HeaderFields.error_name, "an error without name"), words, action)
            else:
                return tuple(answer.body)

    def _wait(self, job: str, action: str) -> str:
        """Wait for the end of a job; its result, "done" if it went well."""
        until = time.monotonic() + TIMEOUT
        while job not in self._ended:
            self._note(self._receive(until, action))
        return self._ended.pop(job)

    def _note(self, message: Message) -> None:
        fields = message.header.fields
        if message.header.message_type is MessageType.signal and fields.get(HeaderFields.member) == "JobRemoved":
            _, job, _, result = message.body
            self._ended[job] = result

    def _receive(self, until: float, action: str) -> Message:
        while (message := self._parser.get_next_message()) is None:
            left = until - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
                data = self._socket.recv(65536)
            except TimeoutError:
                reason = f"systemd has not done it within {TIMEOUT:.0f} s"
                raise Error(reason, action=action, errno=errno.ETIMEDOUT) from None
            except OSError as e:
                raise Error.from_os(e, action=action) from None
            if not data:
                raise Error("systemd, or the bus, has hung up", action=action, errno=errno.ECONNRESET)
            self._parser.add_data(data)
        return message

    def _authenticate(self) -> None:
        """The EXTERNAL mechanism: the socket tells who we are, in IDs that the other side understands.

        To name our user ID, as most clients do, would be wrong in a user namespace.
        """
        self._socket.settimeout(TIMEOUT)
        self._socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        got = b""
        while got.count(b"\r\n") < 2 and not got.startswith(b"REJECTED"):
            data = self._socket.recv(1024)
            if not data:
                break
            got += data
        lines = got.split(b"\r\n", 2)
        if len(lines) < 3 or lines[0].rstrip() != b"DATA" or not lines[1].startswith(b"OK "):
            self._socket.close()
            raise Error("it does not want to talk to this user")
        if lines[2]:
            self._parser.add_data(lines[2])


def addresses(user: bool) -> Iterator[tuple[str, bool]]:
    """D-Bus addresses to try in order, and for each whether there is a bus between us and systemd."""
    if not user:
        yield os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS, True
        yield SYSTEM_PRIVATE, False
        return
    directory = os.environ.get("XDG_RUNTIME_DIR")
    if session := os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        yield session, True
    elif directory:
        yield f"unix:path={directory}/bus", True
    if directory:
        yield f"unix:path={directory}/systemd/private", False


def _connect(address: str) -> socket.socket:
    try:
        paths = list(get_connectable_addresses(address))
    except (RuntimeError, ValueError, KeyError):
        raise Error("is no D-Bus address that leads to a Unix socket") from None
    pause = 0.1
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.connect(paths[0])
            return connection
        except OSError as e:
            connection.close()
            if e.errno != errno.EAGAIN or pause > TIMEOUT / 4:  # many are waiting to be let in
                raise
        time.sleep(pause)
        pause *= 2


def parse_version(text: str) -> int:
    """The number in what systemd says of its version; 0 where there is none.

    >>> parse_version("257.7-1"), parse_version("v245.4-1.fc32"), parse_version("252")
    (257, 245, 252)
    """
    digits = ""
    for letter in text.lstrip('"v'):
        if not letter.isdigit():
            break
        digits += letter
    return int(digits or 0)


def label(name: str) -> str:
    """A unit's name as the last part of its object's path (sd_bus_path_encode(3)).

    >>> label("a-1.scope")
    'a_2d1_2escope'
    """
    return "".join(
        chr(byte) if chr(byte).isalpha() or (i and chr(byte).isdigit()) else f"_{byte:02x}"
        for i, byte in enumerate(name.encode())
    )
