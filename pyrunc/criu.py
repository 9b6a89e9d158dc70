"""Speaking with CRIU, criu(8), which saves running processes to files and makes them anew.

``criu swrk FD`` serves one caller over a SOCK_SEQPACKET socket. Requests and answers are Protocol Buffers
(CRIU's images/rpc.proto); here is the part of that file which pyrunc uses, as tables, and the encoding, which is a page
(protobuf.dev, "Encoding"): each field is a key, its number and how its value is written, and the value.
"""

from __future__ import annotations

import _socket
import array

from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INT = "int"  # enumerations too
BOOL = "bool"
TEXT = "text"

#: A message: for each field its number and its type, INT, BOOL, TEXT or another message. A repeated field's value is a
#: list when it is encoded; nothing that is decoded here repeats.
Message = dict[str, "tuple[int, str | Message]"]

_PAIR: Message = {"key": (1, TEXT), "val": (2, TEXT)}

FEATURES: Message = {"mem_track": (1, BOOL), "lazy_pages": (2, BOOL)}

OPTIONS: Message = {
    "images_dir_fd": (1, INT),
    "pid": (2, INT),
    "leave_running": (3, BOOL),
    "ext_unix_sk": (4, BOOL),
    "tcp_established": (5, BOOL),
    "evasive_devices": (6, BOOL),
    "shell_job": (7, BOOL),
    "file_locks": (8, BOOL),
    "log_level": (9, INT),
    "log_file": (10, TEXT),
    "ps": (11, {"address": (1, TEXT), "port": (2, INT)}),
    "notify_scripts": (12, BOOL),
    "root": (13, TEXT),
    "parent_img": (14, TEXT),
    "track_mem": (15, BOOL),
    "auto_dedup": (16, BOOL),
    "work_dir_fd": (17, INT),
    "link_remap": (18, BOOL),
    "ext_mnt": (23, _PAIR),
    "manage_cgroups": (24, BOOL),
    "cg_root": (25, {"ctrl": (1, TEXT), "path": (2, TEXT)}),
    "rst_sibling": (26, BOOL),
    "inherit_fd": (27, {"key": (1, TEXT), "fd": (2, INT)}),
    "manage_cgroups_mode": (34, INT),
    "external": (37, TEXT),
    "empty_ns": (38, INT),
    "join_ns": (39, {"ns": (1, TEXT), "ns_file": (2, TEXT)}),
    "freeze_cgroup": (44, TEXT),
    "tcp_skip_in_flight": (46, BOOL),
    "lazy_pages": (48, BOOL),
    "orphan_pts_master": (50, BOOL),
    "config_file": (51, TEXT),
    "lsm_profile": (53, TEXT),
    "lsm_mount_context": (63, TEXT),
}

REQUEST: Message = {
    "type": (1, INT),
    "opts": (2, OPTIONS),
    "notify_success": (3, BOOL),
    "keep_open": (4, BOOL),
    "features": (5, FEATURES),
}

RESPONSE: Message = {
    "type": (1, INT),
    "success": (2, BOOL),
    "notify": (5, {"script": (1, TEXT), "pid": (2, INT)}),
    "cr_errno": (7, INT),
    "features": (8, FEATURES),
    "version": (10, {"major_number": (1, INT), "minor_number": (2, INT), "sublevel": (4, INT)}),
}

#: enum criu_req_type
DUMP, RESTORE, PRE_DUMP, NOTIFY, FEATURE_CHECK, VERSION = 1, 2, 4, 6, 9, 10
TYPES = {
    DUMP: "DUMP",
    RESTORE: "RESTORE",
    PRE_DUMP: "PRE_DUMP",
    NOTIFY: "NOTIFY",
    FEATURE_CHECK: "FEATURE_CHECK",
    VERSION: "VERSION",
}

#: enum criu_cg_mode, by the words of `--manage-cgroups-mode`; "" leaves it to CRIU.
CGROUP_MODES = {"ignore": 0, "soft": 3, "full": 4, "strict": 5, "": 6}

#: What pyrunc asks of CRIU, an older one does not know, and would not say so.
OLDEST = (3, 16)

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def encode(message: Message, values: dict[str, Any]) -> bytes:
    """The bytes of a message. A field with the value None is left out.

    >>> encode(REQUEST, {"type": VERSION, "keep_open": True}).hex()
    '080a2001'
    """
    out = b""
    for name, value in values.items():
        number, kind = message[name]
        for item in value if isinstance(value, list) else () if value is None else (value,):
            if kind in (INT, BOOL):
                out += _varint(number << 3 | _VARINT) + _varint(int(item))
                continue
            data = encode(kind, item) if isinstance(kind, dict) else item.encode(errors="surrogateescape")
            out += _varint(number << 3 | _BYTES) + _varint(len(data)) + data
    return out


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number as 64 bits of two's complement."""
    number &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode(message: Message, data: bytes) -> dict[str, Any]:
    """The fields of a message that its table knows.

    >>> decode(RESPONSE, bytes.fromhex("080a10015206080410011801"))
    {'type': 10, 'success': True, 'version': {'major_number': 4, 'minor_number': 1}}
    """
    known = {number: (name, kind) for name, (number, kind) in message.items()}
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        wire = key & 7
        value: Any = b""
        if wire == _VARINT:
            value, at = _read_varint(data, at)
        else:
            size, at = _read_varint(data, at) if wire == _BYTES else ({_FIXED64: 8, _FIXED32: 4}[wire], at)
            value, at = data[at : at + size], at + size
        name, kind = known.get(key >> 3, ("", ""))
        if isinstance(kind, dict):
            found[name] = decode(kind, value)
        elif kind == TEXT:
            found[name] = value.decode(errors="surrogateescape")
        elif kind == BOOL:
            found[name] = bool(value)
        elif kind == INT:
            found[name] = value - (1 << 64) if value >> 63 else value
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def sockets() -> tuple[int, int]:
    """The two ends of a line to a ``criu swrk``, close-on-exec."""
    kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, kind)
    return ours.detach(), theirs.detach()


class Connection:
    """The line to a ``criu swrk``.

    Attributes:
        socket: our end.
    """

    __slots__ = ("socket",)

    def __init__(self, socket_fd: int) -> None:
        self.socket = _socket.socket(fileno=socket_fd)

    def send(self, **request: Any) -> None:
        """Send a request.

        Raises:
            Error: nobody is there to get it.
        """
        try:
            self.socket.send(encode(REQUEST, request))
        except OSError as e:
            raise Error.from_os(e, action="ask criu") from None

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """The next answer, and descriptors that came along, which are the caller's to close.

        Raises:
            Error: CRIU has ended, or says that it failed.
        """
        room = _socket.CMSG_SPACE(4 * 16)
        data, ancillary, _, _ = self.socket.recvmsg(1 << 16, room, _socket.MSG_CMSG_CLOEXEC)
        descriptors: list[int] = []
        for level, kind, content in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                descriptors += array.array("i", content[: len(content) // 4 * 4])
        if not data:
            raise Error("criu failed: it ended without an answer")
        response = decode(RESPONSE, data)
        if not response.get("success"):
            kind = response["type"]
            raise Error(f"criu failed: type {TYPES.get(kind, kind)} errno {response.get('cr_errno', 0)}")
        return response, descriptors

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request that is answered at once."""
        self.send(**request)
        return self.receive()[0]

    def check_version(self) -> None:
        """Raise an Error if this CRIU is too old."""
        found = self.ask(type=VERSION, keep_open=True).get("version", {})
        major, minor = found.get("major_number", 0), found.get("minor_number", 0)
        if (major, minor) < OLDEST:
            raise Error(f"criu {major}.{minor} is too old: it takes {OLDEST[0]}.{OLDEST[1]} or newer")

    def check_features(self, **wanted: bool) -> None:
        """Raise an Error if CRIU, with this kernel, lacks one of FEATURES."""
        found = self.ask(type=FEATURE_CHECK, features=wanted, keep_open=True).get("features", {})
        if missing := [name for name in wanted if not found.get(name)]:
            raise Error(f"criu is missing features: {', '.join(missing)} (criu check --all tells more)")

    def close(self) -> None:
        """End the conversation: CRIU takes back what it has not finished."""
        self.socket.close()
