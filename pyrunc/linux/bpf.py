"""bpf(2): programs of extended BPF, made instruction by instruction, and their attachment to cgroups.

The instruction set is Documentation/bpf/standardization/instruction-set.rst of the kernel; the names are
those of linux/bpf.h.
"""

from __future__ import annotations

from struct import pack, unpack_from
from sys import byteorder

from pyrunc.linux.libc import address, buffer, syscall

# bpf(2) commands
BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16

BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6

BPF_F_ALLOW_MULTI = 1 << 1
BPF_F_REPLACE = 1 << 2

# Instruction classes, sizes, sources and operations
BPF_LDX, BPF_ALU, BPF_JMP = 0x01, 0x04, 0x05
BPF_W, BPF_MEM = 0x00, 0x60
BPF_K, BPF_X = 0x00, 0x08
BPF_AND, BPF_RSH, BPF_MOV = 0x50, 0x70, 0xB0
BPF_JEQ, BPF_JNE, BPF_EXIT = 0x10, 0x50, 0x90


def instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """One instruction: struct bpf_insn.

    Args:
        dst, src: register numbers.
        offset: signed, 16 bits.
        immediate: 32 bits, signed or not.
    """
    registers = src << 4 | dst if byteorder == "little" else dst << 4 | src
    return pack("=BBhI", code, registers, offset, immediate & 0xFFFFFFFF)


def ldx_w(dst: int, src: int, offset: int) -> bytes:
    """dst = *(u32 *)(src + offset)"""
    return instruction(BPF_LDX | BPF_W | BPF_MEM, dst, src, offset)


def mov32_imm(dst: int, value: int) -> bytes:
    """dst = value, the upper half cleared"""
    return instruction(BPF_ALU | BPF_K | BPF_MOV, dst, immediate=value)


def mov32_reg(dst: int, src: int) -> bytes:
    """dst = src, the upper half cleared"""
    return instruction(BPF_ALU | BPF_X | BPF_MOV, dst, src)


def and32_imm(dst: int, value: int) -> bytes:
    """dst &= value, the upper half cleared"""
    return instruction(BPF_ALU | BPF_K | BPF_AND, dst, immediate=value)


def rsh32_imm(dst: int, bits: int) -> bytes:
    """dst >>= bits, as a number of 32 bits"""
    return instruction(BPF_ALU | BPF_K | BPF_RSH, dst, immediate=bits)


def jeq_imm(dst: int, value: int, over: int) -> bytes:
    """Skip `over` instructions if dst == value, which is taken as signed and widened to 64 bits."""
    return instruction(BPF_JMP | BPF_K | BPF_JEQ, dst, offset=over, immediate=value)


def jne_imm(dst: int, value: int, over: int) -> bytes:
    """Skip `over` instructions if dst != value, which is taken as signed and widened to 64 bits."""
    return instruction(BPF_JMP | BPF_K | BPF_JNE, dst, offset=over, immediate=value)


def jne_reg(dst: int, src: int, over: int) -> bytes:
    """Skip `over` instructions if dst != src."""
    return instruction(BPF_JMP | BPF_X | BPF_JNE, dst, src, over)


def exit_() -> bytes:
    """Return r0."""
    return instruction(BPF_JMP | BPF_EXIT)


def prog_load(prog_type: int, program: bytes, licence: str = "Apache-2.0") -> int:
    """BPF_PROG_LOAD: a descriptor (close-on-exec) of a program that the kernel has verified.

    Raises:
        OSError: EPERM without CAP_BPF and the program type's capability (or CAP_SYS_ADMIN); EINVAL or EACCES
            if the verifier does not like the program.
    """
    text = buffer(len(program), program)
    name = buffer(len(licence) + 1, licence.encode())
    attr = pack("=IIQQ", prog_type, len(program) // 8, address(text), address(name))
    # log_level, log_size, log_buf, kern_version, prog_flags
    return _bpf(BPF_PROG_LOAD, attr + pack("=IIQII", 0, 0, 0, 0, 0))


def prog_attach(target: int, program: int, attach_type: int, flags: int = 0, replaced: int = 0) -> None:
    """BPF_PROG_ATTACH a program to the cgroup that the descriptor `target` stands for.

    Args:
        replaced: with BPF_F_REPLACE (Linux 5.6), descriptor of the attached program whose place it takes.
    """
    _bpf(BPF_PROG_ATTACH, pack("=IIIII", target, program, attach_type, flags, replaced))


def prog_detach(target: int, program: int, attach_type: int) -> None:
    """BPF_PROG_DETACH."""
    _bpf(BPF_PROG_DETACH, pack("=IIII", target, program, attach_type, 0))


def prog_query(target: int, attach_type: int) -> list[int]:
    """BPF_PROG_QUERY: IDs of the programs attached to the cgroup itself, not to those above."""
    room = 64  # what the kernel allows for one cgroup (BPF_CGROUP_MAX_PROGS)
    ids = buffer(4 * room)
    # target_fd, attach_type, query_flags, attach_flags, prog_ids, prog_cnt
    attr = pack("=IIIIQII", target, attach_type, 0, 0, address(ids), room, 0)
    memory = buffer(len(attr), attr)
    syscall("bpf", BPF_PROG_QUERY, memory, len(attr))
    count = unpack_from("=I", memory, 24)[0]
    return list(unpack_from(f"={count}I", ids))


def prog_get_fd_by_id(prog_id: int) -> int:
    """BPF_PROG_GET_FD_BY_ID: a descriptor (close-on-exec). ENOENT if the program is gone."""
    return _bpf(BPF_PROG_GET_FD_BY_ID, pack("=III", prog_id, 0, 0))


def _bpf(command: int, attr: bytes) -> int:
    return syscall("bpf", command, attr, len(attr))
