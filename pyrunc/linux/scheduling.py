"""When, where and beside which memory a process runs: sched(7), ioprio_set(2), set_mempolicy(2), personality(2)."""

from __future__ import annotations

import struct

from pyrunc.linux.libc import Long, check, libc, syscall

#: Scheduling policies (include/uapi/linux/sched.h).
POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULING_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}


def sched_setattr(policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int) -> None:
    """sched_setattr(2) for this thread.

    Args:
        policy: one of POLICIES' numbers.
        flags: bits of SCHEDULING_FLAGS.
        runtime, deadline, period: of SCHED_DEADLINE, in nanoseconds.
    """
    # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max
    size = 56
    fields = (size, policy, flags, nice, priority, runtime, deadline, period, 0, 0)
    syscall("sched_setattr", 0, struct.pack("=IIQiIQQQII", *fields), 0)


#: I/O scheduling classes (include/uapi/linux/ioprio.h).
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IOPRIO_WHO_PGRP = 2
_IOPRIO_CLASS_SHIFT = 13


def set_io_priority(io_class: int, level: int) -> None:
    """ioprio_set(2) for this process's group.

    Args:
        io_class: one of IO_CLASSES' numbers.
        level: from 0, the highest, to 7.
    """
    syscall("ioprio_set", _IOPRIO_WHO_PGRP, 0, io_class << _IOPRIO_CLASS_SHIFT | level)


#: Memory policies (include/uapi/linux/mempolicy.h).
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}


def set_memory_policy(mode: int, nodes: list[int]) -> None:
    """set_mempolicy(2) for this thread.

    Args:
        mode: one of MEMORY_MODES' numbers, with bits of MEMORY_FLAGS.
        nodes: numbers of memory nodes.
    """
    words = [0] * (max(nodes, default=-1) // 64 + 1)
    for node in nodes:
        words[node // 64] |= 1 << node % 64
    # the kernel counts the highest bit as one that isn't there
    syscall("set_mempolicy", mode, struct.pack(f"={len(words)}Q", *words) or None, len(words) * 64 + 1 if nodes else 0)


#: Execution domains (include/uapi/linux/personality.h).
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}


def personality(domain: int) -> None:
    """personality(2)."""
    check(libc.personality(Long(domain)))


def number_list(text: str, most: int) -> list[int]:
    """The numbers in a list as the kernel's files have them: CPUs, memory nodes.

    >>> number_list("0-3,7", 7)
    [0, 1, 2, 3, 7]

    Args:
        most: the largest number that can be.

    Raises:
        ValueError: with what is wrong with it.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not part.strip():
            continue  # the kernel does not mind either
        for number in (first, last) if dash else (first,):
            if not (number.isascii() and number.isdigit()):
                raise ValueError(f"{part!r} is not a number or a range of numbers")
            if int(number) > most:
                raise ValueError(f"{number} is more than {most}")
        if dash and int(first) > int(last):
            raise ValueError(f"{part!r} ends before it begins")
        found += range(int(first), int(last if dash else first) + 1)
    if not found:
        raise ValueError(f"no number in {text!r}")
    return sorted(set(found))
