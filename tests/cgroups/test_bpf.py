"""Instructions of eBPF, against the encodings in Documentation/bpf/standardization/instruction-set.rst."""

from __future__ import annotations

import sys

import pytest

from pyrunc.linux import bpf

LITTLE = pytest.mark.skipif(sys.byteorder != "little", reason="bytes written down for little-endian machines")


@LITTLE
@pytest.mark.parametrize(
    ("made", "expected"),
    [
        # opcode, src:dst, offset (16), immediate (32)
        (bpf.ldx_w(2, 1, 0), "61 12 0000 00000000"),
        (bpf.ldx_w(5, 1, 8), "61 15 0800 00000000"),
        (bpf.mov32_imm(0, 1), "b4 00 0000 01000000"),
        (bpf.mov32_imm(0, False), "b4 00 0000 00000000"),
        (bpf.mov32_reg(1, 3), "bc 31 0000 00000000"),
        (bpf.and32_imm(2, 0xFFFF), "54 02 0000 ffff0000"),
        (bpf.rsh32_imm(3, 16), "74 03 0000 10000000"),
        (bpf.jeq_imm(1, 0, 2), "15 01 0200 00000000"),
        (bpf.jne_imm(4, 136, 3), "55 04 0300 88000000"),
        (bpf.jne_imm(4, -1, -2), "55 04 feff ffffffff"),
        (bpf.jne_imm(4, 0xFFFFFFFF, 0), "55 04 0000 ffffffff"),
        (bpf.jne_reg(1, 3, 4), "5d 31 0400 00000000"),
        (bpf.exit_(), "95 00 0000 00000000"),
    ],
)
def test_encoding(made: bytes, expected: str) -> None:
    assert made == bytes.fromhex(expected)


def test_every_instruction_is_eight_bytes() -> None:
    assert len(bpf.instruction(0xFF, 10, 10, -32768, 0xFFFFFFFF)) == 8
