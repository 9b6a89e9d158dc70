"""seccomp(2): filters on the system calls of the calling thread."""

from __future__ import annotations

import errno
import struct

from pyrunc.linux.libc import address, buffer, syscall

SECCOMP_SET_MODE_FILTER = 1

SECCOMP_FILTER_FLAG_LOG = 1 << 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5

#: The longest program that the kernel takes, in instructions (<linux/bpf_common.h>).
BPF_MAXINSNS = 4096
#: sizeof(struct sock_filter): code, jt, jf, k.
SOCK_FILTER_SIZE = 8


def load_filter(program: bytes, flags: int) -> int:
    """Put the calling thread, and what it executes or forks from now on, under a filter. It stays.

    Args:
        program: an array of struct sock_filter in the host's byte order.
        flags: SECCOMP_FILTER_FLAG_*, but not TSYNC, with which a failure would not be an error number.

    Returns:
        the listener's descriptor (close-on-exec) with SECCOMP_FILTER_FLAG_NEW_LISTENER, else -1.

    Raises:
        OSError: EACCES without no_new_privs and without CAP_SYS_ADMIN in the user namespace, EINVAL for a
            program or a flag that the kernel does not take, ENOMEM past 32768 instructions in all filters.
    """
    array = buffer(len(program), program)
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    sock_fprog = struct.pack("@HP", len(program) // SOCK_FILTER_SIZE, address(array))
    result = syscall("seccomp", SECCOMP_SET_MODE_FILTER, flags, sock_fprog)
    return result if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER else -1


def flag_supported(flag: int) -> bool:
    """Whether this kernel takes a SECCOMP_FILTER_FLAG_*, asked as seccomp(2) tells: with no program.

    The kernel looks at the flags first (EINVAL for one it does not know) and at the program then (EFAULT).
    """
    if flag == SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
        flag |= SECCOMP_FILTER_FLAG_NEW_LISTENER  # alone it is EINVAL on every kernel
    try:
        syscall("seccomp", SECCOMP_SET_MODE_FILTER, flag, None)
    except OSError as e:
        return e.errno == errno.EFAULT
    return False
