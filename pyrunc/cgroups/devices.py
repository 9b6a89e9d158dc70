"""Device rules: what ``linux.resources.devices`` comes to, for v1's lists and for v2's eBPF program.

The kernel's v1 controller keeps a default (allow or deny everything) and a list of exceptions from it
(admin-guide/cgroup-v1/devices.rst); rules are read in order and change these two. The same reading is used
for v2, so that a configuration means the same on both.
"""

from __future__ import annotations

import errno
import os

from pyrunc.cgroups.base import Setting, read
from pyrunc.errors import Error
from pyrunc.linux.proc import in_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    #: Type ("b" or "c"), major and minor number, WILDCARD for all.
    Device = tuple[str, int, int]

WILDCARD = -1

#: Kinds of access, as in linux/bpf.h (BPF_DEVCG_ACC_*).
MKNOD, READ, WRITE = 1, 2, 4
_ALL = MKNOD | READ | WRITE
_BPF_TYPE = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_LETTERS = (("r", READ), ("w", WRITE), ("m", MKNOD))

#: What every container may do, whatever its rules say: make any device node (to open it is another thing),
#: and use the devices that config-linux.md ("Default Devices") gives it, terminals, and tun, which engines
#: have come to rely on.
DEFAULT_DEVICE_RULES: tuple[dict[str, Any], ...] = (
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},  # null
    {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},  # zero
    {"allow": True, "type": "c", "major": 1, "minor": 7, "access": "rwm"},  # full
    {"allow": True, "type": "c", "major": 1, "minor": 8, "access": "rwm"},  # random
    {"allow": True, "type": "c", "major": 1, "minor": 9, "access": "rwm"},  # urandom
    {"allow": True, "type": "c", "major": 5, "minor": 0, "access": "rwm"},  # tty
    {"allow": True, "type": "c", "major": 5, "minor": 2, "access": "rwm"},  # ptmx
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},  # pts/*
    {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rwm"},  # net/tun
)


class Filter:
    """A default and the exceptions from it.

    Attributes:
        allow: whether a device without exception may be used.
        exceptions: for a device (or many, with WILDCARD), the kinds of access that go the other way.
    """

    __slots__ = ("allow", "exceptions")

    def __init__(self, allow: bool = False, exceptions: dict[Device, int] | None = None) -> None:
        self.allow = allow
        self.exceptions = exceptions or {}

    def rule(self, allow: bool, device: Device, access: int) -> None:
        """Take one rule in.

        Raises:
            Error: if it takes a part out of an exception with a wildcard. The v1 kernel does nothing then and
                says nothing, and the container could use what its configuration denies.
        """
        if allow != self.allow:
            self.exceptions[device] = self.exceptions.get(device, 0) | access
            return
        kind, major, minor = device
        for wider in ((kind, WILDCARD, minor), (kind, major, WILDCARD), (kind, WILDCARD, WILDCARD)):
            if wider != device and self.exceptions.get(wider, 0) & access:
                raise Error(
                    f"the rule {text(device, access)} takes a part out of"
                    f" {text(wider, self.exceptions[wider])}, which the kernel can't do"
                )
        left = self.exceptions.get(device, 0) & ~access
        if left:
            self.exceptions[device] = left
        else:
            self.exceptions.pop(device, None)


class DeviceSetting(Setting):
    """The device rules of a container.

    Attributes:
        filter: what they come to.
        asked: whether the configuration has any.
    """

    __slots__ = ("asked", "filter")

    def __init__(self, rules: list[dict[str, Any]], pointer: str) -> None:
        super().__init__("devices", "devices.list", "", pointer)
        self.asked = bool(rules)
        self.filter = build(rules, pointer)

    def describe(self) -> str:
        default = "allow" if self.filter.allow else "deny"
        other = "deny" if self.filter.allow else "allow"
        listed = ", ".join(text(*item) for item in self.filter.exceptions.items())
        return f"{default} all devices" + (f"; {other} {listed}" if listed else "")

    def write_v1(self, directory: str) -> None:
        """Bring a v1 cgroup to this filter with the fewest changes: what stays allowed is so all the time.

        Raises:
            OSError: EPERM if the cgroup above does not have what is to be allowed. The rules are as before then;
                but where the default was to allow, whose exceptions can't be read, what was done stays done.
        """
        before = parse(read(directory + "/devices.list"))
        try:
            _write_v1(directory, changes(before, self.filter))
        except OSError:
            if not before.allow:
                _write_v1(directory, changes(parse(read(directory + "/devices.list")), before))
            raise


def _write_v1(directory: str, found: list[tuple[bool, str]]) -> None:
    """Write `changes` to a v1 cgroup."""
    deny = os.open(directory + "/devices.deny", os.O_WRONLY | os.O_CLOEXEC)
    try:
        allow = os.open(directory + "/devices.allow", os.O_WRONLY | os.O_CLOEXEC)
        try:
            for allowed, rule in found:
                os.write(allow if allowed else deny, rule.encode())
        finally:
            os.close(allow)
    finally:
        os.close(deny)


def build(rules: Iterable[dict[str, Any]], pointer: str) -> Filter:
    """The filter that rules of a configuration, and DEFAULT_DEVICE_RULES after them, come to.

    It begins with all denied.

    Raises:
        Error: if a rule can't be.
    """
    found = Filter()
    index = 0
    try:
        for rule in rules:
            _take(found, rule)
            index += 1
    except Error as e:
        e.pointer = f"{pointer}/{index}"
        raise
    try:
        for rule in DEFAULT_DEVICE_RULES:
            _take(found, rule)
    except Error as e:
        e.pointer, e.reason = pointer, e.reason + " (every container may use it)"
        raise
    return found


def _take(found: Filter, rule: dict[str, Any]) -> None:
    allow = bool(rule["allow"])
    kind = rule.get("type") or "a"
    major, minor = (_number(rule, key) for key in ("major", "minor"))
    letters = rule.get("access") or ""
    access = 0
    for letter, bit in _LETTERS:
        if letter in letters:  # others mean nothing, as to runc, whose tests have them
            access |= bit
    if not access:
        if allow:
            raise Error("which access to allow is not said")
        access = _ALL
    if kind == "a" and major == minor == WILDCARD and access == _ALL:
        found.allow = allow
        found.exceptions.clear()
        return
    for each in "bc" if kind == "a" else ("c" if kind == "u" else kind):
        found.rule(allow, (each, major, minor), access)


def _number(rule: dict[str, Any], key: str) -> int:
    value = rule.get(key)
    if value is None or value < 0:
        return WILDCARD
    if value > 0xFFFFFFFF:
        raise Error(f"{key} {value} does not fit in 32 bits")
    return int(value)


def text(device: Device, access: int) -> str:
    """A rule as v1's files have it: ``c 1:3 rwm``."""
    kind, major, minor = device
    letters = "".join(letter for letter, bit in _LETTERS if access & bit)
    return f"{kind} {'*' if major < 0 else major}:{'*' if minor < 0 else minor} {letters}"


def parse(devices_list: str) -> Filter:
    """The filter in the text of a devices.list.

    Where the default is to allow, the file does not tell the exceptions.
    """
    found = Filter()
    for line in devices_list.splitlines():
        kind, numbers, letters = line.split(" ")
        if kind == "a":
            return Filter(True)
        major, minor = (WILDCARD if n == "*" else int(n) for n in numbers.split(":"))
        found.exceptions[(kind, major, minor)] = sum(bit for letter, bit in _LETTERS if letter in letters)
    return found


def changes(before: Filter, after: Filter) -> list[tuple[bool, str]]:
    """What to write to devices.allow (True) or devices.deny (False), in order, to get to `after`."""
    found = []
    old = before.exceptions
    if before.allow or after.allow:
        # Exceptions from "allow" can't be read back: start from nothing.
        found.append((after.allow, "a"))
        old = {}
    for device, access in old.items():
        if gone := access & ~after.exceptions.get(device, 0):
            found.append((after.allow, text(device, gone)))
    for device, access in after.exceptions.items():
        if new := access & ~old.get(device, 0):
            found.append((not after.allow, text(device, new)))
    return found


def program(wanted: Filter) -> bytes:
    """The filter as an eBPF program of type BPF_PROG_TYPE_CGROUP_DEVICE, which returns 1 to allow an access.

    It is given struct bpf_cgroup_dev_ctx (linux/bpf.h): access << 16 | type, major, minor, 32 bits each. All
    of an access has to be in one exception that allows, and any of it in one that denies, as on v1.
    """
    from pyrunc.linux import bpf

    r0, r1, kind, access, major, minor = range(6)
    found = [
        bpf.ldx_w(kind, r1, 0),
        bpf.and32_imm(kind, 0xFFFF),
        bpf.ldx_w(access, r1, 0),
        bpf.rsh32_imm(access, 16),
        bpf.ldx_w(major, r1, 4),
        bpf.ldx_w(minor, r1, 8),
    ]
    for (letter, want_major, want_minor), bits in wanted.exceptions.items():
        # From the end to the start, as each test jumps over what is behind it. Numbers of 2³¹ and more
        # compare as negative ones and never match; there is no such device, a dev_t has 12 and 20 bits.
        block = [bpf.mov32_imm(r0, not wanted.allow), bpf.exit_()]
        if want_minor != WILDCARD:
            block.insert(0, bpf.jne_imm(minor, want_minor, len(block)))
        if want_major != WILDCARD:
            block.insert(0, bpf.jne_imm(major, want_major, len(block)))
        if bits != _ALL:
            test = bpf.jeq_imm(r1, 0, len(block)) if wanted.allow else bpf.jne_reg(r1, access, len(block))
            block[:0] = [bpf.mov32_reg(r1, access), bpf.and32_imm(r1, bits), test]
        block.insert(0, bpf.jne_imm(kind, _BPF_TYPE[letter], len(block)))
        found += block
    found += [bpf.mov32_imm(r0, wanted.allow), bpf.exit_()]
    return b"".join(found)


def attach(directory: str, wanted: Filter) -> None:
    """Make a filter the only one of a v2 cgroup.

    While an older one is replaced, one of the two is always in force.
    Filters of the cgroups above go on to apply.

    Raises:
        OSError: of bpf(2).
    """
    from pyrunc.linux import bpf

    cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    held = [cgroup]
    try:
        old = []
        for prog_id in bpf.prog_query(cgroup, bpf.BPF_CGROUP_DEVICE):
            try:
                old.append(bpf.prog_get_fd_by_id(prog_id))
            except OSError as e:
                # Gone, or kept from us by a security module: it can only forbid more.
                if e.errno not in (errno.ENOENT, errno.EPERM, errno.EACCES):
                    raise
        held += old
        new = _load(program(wanted))
        held.append(new)
        if len(old) == 1:
            try:
                flags = bpf.BPF_F_ALLOW_MULTI | bpf.BPF_F_REPLACE
                bpf.prog_attach(cgroup, new, bpf.BPF_CGROUP_DEVICE, flags, old[0])
                return
            except OSError as e:
                if e.errno != errno.EINVAL:  # a kernel before 5.6
                    raise
        bpf.prog_attach(cgroup, new, bpf.BPF_CGROUP_DEVICE, bpf.BPF_F_ALLOW_MULTI)
        for program_fd in old:
            bpf.prog_detach(cgroup, program_fd, bpf.BPF_CGROUP_DEVICE)
    finally:
        for fd in held:
            os.close(fd)


def _load(code: bytes) -> int:
    from pyrunc.linux import bpf

    try:
        return bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, code)
    except OSError as e:
        if e.errno != errno.EPERM:
            raise
    # A kernel before 5.11 counts programs as locked memory, of which a process has 64 KiB. Nobody is to
    # inherit this.
    import resource

    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from None
    try:
        return bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, code)
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def may_be_ignored(e: OSError) -> bool:
    """Whether a kernel refused device rules because only root of the whole machine may set them.

    Any other can have a container only in a user namespace, and that has its own protection: mknod is refused and
    device nodes of its mounts do not open.
    """
    if e.errno not in (errno.EPERM, errno.EACCES):
        return False
    return os.geteuid() != 0 or in_user_namespace()
