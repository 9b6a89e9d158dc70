"""Device rules: what they come to, v1's words for it, and v2's program, which is run here by a small interpreter."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pyrunc.cgroups.devices import (
    DEFAULT_DEVICE_RULES,
    MKNOD,
    READ,
    WRITE,
    DeviceSetting,
    Filter,
    build,
    changes,
    parse,
    program,
)
from pyrunc.errors import Error
from pyrunc.linux import bpf

RWM = MKNOD | READ | WRITE
DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}


def rule(allow: bool, kind: str, major: int | None, minor: int | None, access: str) -> dict[str, Any]:
    return {"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}


FUSE = rule(True, "c", 10, 229, "rwm")

DEFAULT_LIST = """\
c *:* m
b *:* m
c 1:3 rwm
c 1:5 rwm
c 1:7 rwm
c 1:8 rwm
c 1:9 rwm
c 5:0 rwm
c 5:2 rwm
c 136:* rwm
c 10:200 rwm
"""


def test_without_rules_there_are_the_default_devices_and_no_others() -> None:
    for rules in ([], [DENY_ALL]):
        found = build(rules, "")
        assert not found.allow
        assert found.exceptions == parse(DEFAULT_LIST).exceptions


def test_rules_are_read_in_order() -> None:
    assert build([FUSE, DENY_ALL], "").exceptions == build([], "").exceptions
    assert build([DENY_ALL, FUSE], "").exceptions[("c", 10, 229)] == RWM
    assert build([FUSE, rule(False, "c", 10, 229, "w")], "").exceptions[("c", 10, 229)] == MKNOD | READ
    assert ("c", 10, 229) not in build([FUSE, rule(False, "c", 10, 229, "rwm")], "").exceptions


def test_allow_all_has_no_exceptions_but_what_is_denied_after_it() -> None:
    assert build([ALLOW_ALL], "").exceptions == {}
    found = build([ALLOW_ALL, rule(False, "b", 8, None, "w")], "")
    assert found.allow
    assert found.exceptions == {("b", 8, -1): WRITE}


def test_a_rule_for_all_types_that_is_not_for_all_devices_is_for_both_types() -> None:
    found = build([{"allow": True, "major": 7, "minor": 1, "access": "r"}], "")
    assert not found.allow
    assert found.exceptions[("b", 7, 1)] == found.exceptions[("c", 7, 1)] == READ
    assert build([{"allow": True, "type": "a", "access": "r"}], "").exceptions[("b", -1, -1)] == READ | MKNOD


def test_letters_that_are_no_access_mean_nothing() -> None:
    """runc's own tests have "rwa"."""
    assert build([rule(True, "c", 1, 1, "rx")], "").exceptions[("c", 1, 1)] == READ
    assert build([ALLOW_ALL, rule(False, "c", 7, 1, "rwa")], "").exceptions[("c", 7, 1)] == READ | WRITE


def test_negative_numbers_and_none_are_wildcards() -> None:
    found = build([rule(True, "c", -1, 3, "r"), rule(True, "c", 4, None, "r")], "")
    assert found.exceptions[("c", -1, 3)] == found.exceptions[("c", 4, -1)] == READ


@pytest.mark.parametrize(
    ("rules", "pointer"),
    [
        ([DENY_ALL, rule(True, "c", 10, None, "rw"), rule(False, "c", 10, 229, "w")], "/d/2"),
        ([rule(True, "c", None, None, "rw"), rule(False, "c", 10, None, "r")], "/d/1"),
        ([ALLOW_ALL, rule(False, "b", 8, None, "w"), rule(True, "b", 8, 0, "w")], "/d/2"),
        ([ALLOW_ALL, rule(False, "c", 136, 3, "w"), rule(True, "c", 136, 3, "w"), rule(False, "c", None, 3,
        "r")], "/d"), ([{"allow": True, "type": "c", "major": 1, "minor": 1}], "/d/0"), ([rule(True, "c", 1,
        1, "x")], "/d/0"), ([rule(True, "c", 1 << 32, 1, "r")], "/d/0"),
    ],
)  # fmt: skip
def test_what_the_kernel_can_not_do_is_refused(rules: list[dict[str, Any]], pointer: str) -> None:
    """v1 silently does nothing with a rule that punches a hole into a wildcard."""
    with pytest.raises(Error) as e:
        build(rules, "/d")
    assert e.value.pointer == pointer


def test_a_hole_that_does_not_overlap_is_none() -> None:
    build([rule(True, "c", 10, None, "r"), rule(False, "c", 10, 229, "w")], "")


def test_describe_tells_the_whole_filter() -> None:
    text = DeviceSetting([DENY_ALL, FUSE], "/linux/resources/devices").describe()
    assert text.startswith("deny all devices; allow c 10:229 rwm, c *:* m")
    assert DeviceSetting([ALLOW_ALL], "").describe() == "allow all devices"


# -- v1


def test_a_new_cgroup_is_closed_first_and_then_opened_for_each() -> None:
    writes = changes(parse("a *:* rwm\n"), build([FUSE], ""))
    assert writes[0] == (False, "a")
    assert writes[1] == (True, "c 10:229 rwm")
    assert [text + "\n" for _, text in writes[2:]] == DEFAULT_LIST.splitlines(keepends=True)


def test_an_update_changes_what_differs_and_nothing_else() -> None:
    before = parse(DEFAULT_LIST + "c 10:229 rwm\nb 8:0 rw\n")
    assert changes(before, before) == []
    after = build([rule(True, "c", 10, 229, "r"), rule(True, "b", 8, 16, "r")], "")
    assert changes(before, after) == [
        (False, "c 10:229 wm"),
        (False, "b 8:0 rw"),
        (True, "b 8:16 r"),
    ]


def test_to_and_from_allow_all() -> None:
    everything = build([ALLOW_ALL, rule(False, "b", 8, 0, "w")], "")
    assert changes(parse(DEFAULT_LIST), everything) == [(True, "a"), (False, "b 8:0 w")]
    assert changes(parse("a *:* rwm\n"), Filter(True)) == [(True, "a")]
    assert changes(parse("a *:* rwm\n"), Filter(False))[0] == (False, "a")


# -- v2


def run(code: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """What a program returns for struct bpf_cgroup_dev_ctx.

    It knows the instructions that programs here have.
    """
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers = [0] * 11
    at = 0
    while True:
        op, regs, offset, immediate = struct.unpack_from("=BBhi", code, at * 8)
        dst, src = regs & 15, regs >> 4
        at += 1
        wide = immediate & 0xFFFFFFFFFFFFFFFF
        if op == 0x61:  # ldxw
            assert src == 1, "only the context is readable"
            registers[dst] = struct.unpack_from("=I", context, offset)[0]
        elif op == 0xB4:  # mov32 imm
            registers[dst] = immediate & 0xFFFFFFFF
        elif op == 0xBC:  # mov32 reg
            registers[dst] = registers[src] & 0xFFFFFFFF
        elif op == 0x54:  # and32 imm
            registers[dst] &= immediate & 0xFFFFFFFF
        elif op == 0x74:  # rsh32 imm
            registers[dst] = (registers[dst] & 0xFFFFFFFF) >> immediate
        elif op == 0x15:  # jeq imm
            at += offset if registers[dst] == wide else 0
        elif op == 0x55:  # jne imm
            at += offset if registers[dst] != wide else 0
        elif op == 0x5D:  # jne reg
            at += offset if registers[dst] != registers[src] else 0
        elif op == 0x95:  # exit
            return registers[0]
        else:
            raise AssertionError(f"instruction {op:#x}")


def allows(wanted: Filter, kind: str, major: int, minor: int, access: int) -> bool:
    """What admin-guide/cgroup-v1/devices.rst says of a filter."""
    matching = [
        bits for (k, m, n), bits in wanted.exceptions.items() if k == kind and m in (-1, major) and n in (-1, minor)
    ]
    if wanted.allow:
        return not any(bits & access for bits in matching)
    return any(bits & access == access for bits in matching)


FILTERS = [
    Filter(False),
    Filter(True),
    build([], ""),
    build([ALLOW_ALL], ""),
    build([DENY_ALL, FUSE, rule(True, "b", 8, None, "r"), rule(True, "b", None, 3, "wm")], ""),
    build([ALLOW_ALL, rule(False, "b", 8, None, "w"), rule(False, "c", 1, 5, "rm"), rule(False, "b", 259, 0,
    "rwm")], ""), build([rule(True, "c", 0xFFFFFFFF, 0x80000000, "rwm")], ""),
]  # fmt: skip


@pytest.mark.parametrize("wanted", FILTERS)
def test_the_program_allows_what_the_filter_does(wanted: Filter) -> None:
    code = program(wanted)
    asked = 0
    for kind, number in (("b", 1), ("c", 2)):
        for major in (0, 1, 5, 8, 10, 136, 259, 4095):
            for minor in (0, 1, 3, 5, 200, 229, 1 << 19):
                for access in range(1, 8):
                    expected = allows(wanted, kind, major, minor, access)
                    assert run(code, number, access, major, minor) == expected, (kind, major, minor, access)
                    asked += 1
    assert asked == 784


def test_every_jump_lands_in_the_program() -> None:
    for wanted in FILTERS:
        code = program(wanted)
        count = len(code) // 8
        assert code[-8:] == bpf.exit_()
        for i in range(count):
            op, _, offset, _ = struct.unpack_from("=BBhi", code, i * 8)
            if op & 7 == bpf.BPF_JMP and op != bpf.BPF_JMP | bpf.BPF_EXIT:
                assert 0 <= offset < count - i - 1


def test_one_exception_costs_at_most_eight_instructions() -> None:
    """Every open of a device in a container pays for the program."""
    prologue, verdict = 6, 2
    assert len(program(Filter(False))) // 8 == prologue + verdict
    assert len(program(Filter(False, {("c", 1, 3): READ}))) // 8 == prologue + 8 + verdict
    assert len(program(Filter(False, {("c", 1, 3): RWM}))) // 8 == prologue + 5 + verdict
    assert len(program(Filter(False, {("c", -1, -1): RWM}))) // 8 == prologue + 3 + verdict


def test_default_rules_are_well_formed() -> None:
    assert all(r["allow"] and r["type"] in "bc" and set(r["access"]) <= set("rwm") for r in DEFAULT_DEVICE_RULES)
