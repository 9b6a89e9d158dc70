"""The kernel's side of a filter: classic BPF over struct seccomp_data (networking/filter.rst)."""

from __future__ import annotations

import struct

AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_AARCH64 = 0xC00000B7
AUDIT_ARCH_S390X = 0x80000016
X32 = 0x40000000

KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000
NOTIFY = 0x7FC00000
TRACE = 0x7FF00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000


def run(program: bytes, number: int, *arguments: int, arch: int = AUDIT_ARCH_X86_64) -> int:
    """What the filter answers: SECCOMP_RET_* with its data."""
    return trace(program, number, *arguments, arch=arch)[0]


def trace(program: bytes, number: int, *arguments: int, arch: int = AUDIT_ARCH_X86_64) -> tuple[int, int]:
    """The answer, and how many instructions it took."""
    values = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *values)
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = 0
    scratch = [0] * 16
    pc = steps = 0
    while True:
        steps += 1
        code, jt, jf, k = instructions[pc]
        pc += 1
        match code:
            case 0x20:  # ld [k]
                assert k % 4 == 0 and k < len(data)
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x60:  # ld M[k]
                accumulator = scratch[k]
            case 0x02:  # st M[k]
                scratch[k] = accumulator
            case 0x54:  # and #k
                accumulator &= k
            case 0x05:  # ja
                pc += k
            case 0x15:  # jeq
                pc += jt if accumulator == k else jf
            case 0x25:  # jgt
                pc += jt if accumulator > k else jf
            case 0x35:  # jge
                pc += jt if accumulator >= k else jf
            case 0x45:  # jset
                pc += jt if accumulator & k else jf
            case 0x06:  # ret #k
                return k, steps
            case _:
                raise AssertionError(f"instruction {pc - 1} has the unknown code {code:#x}")
