"""Run by an interpreter that no container can write to (CVE-2019-5736).

A process that makes or joins a container can be reached there as /proc/PID/exe, its program with it. Without a user
namespace the container's root is the host's root: it could overwrite the interpreter that everybody uses. So what is
executed must be sealed: an immutable file (`scripts/install` makes a copy of the interpreter so), or one on a mount or
in a file that can't be written to. Where it isn't, because pip installed pyrunc or the filesystem knows no immutable
files, the program executes itself once more from a clone that is: an overlay mount of the interpreter's directory with
nothing to write to, which costs microseconds, or a sealed copy in memory.

The price is another start of the interpreter; a program that uses the library can't be served like this at all.
"""

from __future__ import annotations

import fcntl
import os
import sys

from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Tells the program that it is the clone: one that still isn't sealed must not try again.
_MARK = "_PYRUNC_CLONE"

_FS_IOC_GETFLAGS = 0x80086601  # ioctl_iflags(2), on 64-bit machines
_FS_IMMUTABLE_FL = 0x10
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_EXEC = 0x10  # memfd_create(2), since Linux 6.3


def ensure(debug: Callable[[str], None]) -> None:
    """Return if this process runs by a sealed interpreter; execute it anew from a sealed clone otherwise.

    Args:
        debug: called with a line that tells what is done, in runc's words.

    Raises:
        Error: there can be no clone.
    """
    exe = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    cloned = os.environ.pop(_MARK, "")
    try:
        if is_sealed(exe):
            debug(f"pyrunc exeseal: using /proc/self/exe {'clone' if cloned else 'as it is: it is sealed'}")
            return
        if cloned:
            raise Error(f"the interpreter's clone by {cloned} can be written to")
        environment = os.environ | {_MARK: "overlayfs"}
        try:
            program = _overlay(os.readlink("/proc/self/exe"))
            debug("pyrunc exeseal: using overlayfs for sealed /proc/self/exe")
        except OSError as e:
            debug(f"pyrunc exeseal: no overlayfs for sealed /proc/self/exe: {e.strerror}")
            environment[_MARK] = "memfd"
            program = f"/proc/self/fd/{_memory(exe)}"
        os.execve(program, sys.orig_argv, environment)
    except OSError as e:
        raise Error.from_os(e, action="clone /proc/self/exe") from None
    finally:
        os.close(exe)


def is_sealed(fd: int) -> bool:
    """Whether nobody can write to an open file: by its own flag, by its mount's, or by a memory file's seals."""
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        return True
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
            return True
    except OSError:
        pass  # EINVAL: it isn't a memory file
    try:
        flags = fcntl.ioctl(fd, _FS_IOC_GETFLAGS, b"\0" * 8)
    except OSError:
        return False  # ENOTTY and others: its filesystem has no such flags
    return bool(flags[0] & _FS_IMMUTABLE_FL)


def _overlay(path: str) -> str:
    """The path of the same file on an overlay mount that is nowhere attached, and ends with the descriptor."""
    from pyrunc.linux import mount as m

    directory, name = os.path.split(path)
    # Without a directory to write to overlayfs wants two to read from, and the second may not lie in the first
    empty_fs = m.fsopen("tmpfs")
    empty = m.fsmount(empty_fs)
    overlay_fs = m.fsopen("overlay")
    lower = directory.replace("\\", "\\\\").replace(":", "\\:")
    m.fsconfig(overlay_fs, "lowerdir", f"{lower}:/proc/self/fd/{empty}")
    return f"/proc/self/fd/{m.fsmount(overlay_fs)}/{name}"


def _memory(exe: int) -> int:
    """A copy of a file in memory, sealed."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("pyrunc_cloned:/proc/self/exe", flags | _MFD_EXEC)
    except OSError:
        fd = os.memfd_create("pyrunc_cloned:/proc/self/exe", flags)
    while os.sendfile(fd, exe, None, 1 << 30):
        pass
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd
