"""Steps that turn init into the container's process: its user, its privileges, its limits, its program."""

from __future__ import annotations

import errno
import os
import stat

from pyrunc.errors import Error
from pyrunc.linux import process as p
from pyrunc.linux.path import open_in_root
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.steps.context import Context


class NewSession(Step):
    """Lead a session and process group of its own, so that the caller's terminal and its signals are out of reach."""

    __slots__ = ()

    def describe(self) -> str:
        return "start a session"

    def run(self, ctx: Context) -> None:
        os.setsid()


class NewKeyring(Step):
    """Join a session keyring of the container's own: the caller's keys are the caller's (keyrings(7)).

    It has a name, by which processes that join the container find it, if they may search it: 0 for these themselves.
    """

    __slots__ = ("name", "permissions")

    def __init__(self, name: str, permissions: int) -> None:
        super().__init__()
        self.name = name
        self.permissions = permissions

    def describe(self) -> str:
        return f"join session keyring {self.name}"

    def run(self, ctx: Context) -> None:
        try:
            serial = p.join_session_keyring(self.name)
        except OSError as e:
            # no keys in this kernel, or a seccomp filter around us that refuses them, or the user's quota is used up
            # (every container of the user draws on it): the container is safe either way once the session is left
            if e.errno not in (errno.ENOSYS, errno.EPERM, errno.EDQUOT):
                raise
            ctx.warn(f"no session keyring for this container: {os.strerror(e.errno)}")
            return
        if self.permissions:
            p.allow_on_keyring(serial, self.permissions)


class AllowEveryCpu(Step):
    """Run on all CPUs of the container's cpuset: on which ones the caller runs (taskset(1)) is the caller's matter."""

    __slots__ = ()

    def describe(self) -> str:
        return "run on every CPU of the cgroup"

    def run(self, ctx: Context) -> None:
        try:
            p.allow_every_cpu()
        except OSError as e:  # a sandbox around us may refuse it; the container then runs where we do
            if e.errno not in (errno.EPERM, errno.EINVAL):
                raise
            ctx.warn(f"the CPU affinity stays as it is: {os.strerror(e.errno)}")


class Undumpable(Step):
    """Keep other processes of the container away from this one while it still holds the host's things in its hands.

    Without this a process inside could open /proc/PID/exe or /proc/PID/fd/N of the runtime that joins it
    (CVE-2016-9962, CVE-2019-5736). execve(2) makes it dumpable again.
    """

    __slots__ = ()

    def describe(self) -> str:
        return "be invisible to other processes' ptrace and /proc"

    def run(self, ctx: Context) -> None:
        p.prctl(p.PR_SET_DUMPABLE, 0)


class Dumpable(Step):
    """Let an ordinary user's commands at init while it waits to be started: to enter a process's namespaces is to trace
    it (pidfd and setns(2), ptrace(2)), and without this only the machine's root may trace what has executed nothing in
    the user namespace yet. By now init holds nothing of the host's, and what it runs on its user can't change.
    """

    __slots__ = ()

    def describe(self) -> str:
        return "be visible to the user's other processes"

    def run(self, ctx: Context) -> None:
        p.prctl(p.PR_SET_DUMPABLE, 1)


class CloseDescriptors(Step):
    """Close what init worked with: all but stdio, the descriptors to preserve and the line to the runtime.

    From here on the image and the configuration choose the paths, and /proc/self/fd/N among them would lead to any
    directory still open: the host's, at worst (CVE-2024-21626). Close-on-exec is too late: execve(2) looks its path
    up first.
    """

    __slots__ = ()

    def describe(self) -> str:
        return "close all descriptors that are not the program's"

    def run(self, ctx: Context) -> None:
        line = ctx.peer()
        kept = {line.reader, line.writer, ctx.start_fd, ctx.result_fd, *ctx.keep}
        p.keep_only(kept | set(range(3, 3 + ctx.preserve)))
        ctx.root_fd = ctx.null_fd = -1
        ctx.sources.clear()


class SetOomScore(Step):
    """Write init's oom_score_adj; run by the runtime, whose /proc is the host's and who may lower it."""

    __slots__ = ("score",)

    def __init__(self, score: int) -> None:
        super().__init__("/process/oomScoreAdj")
        self.score = score

    def describe(self) -> str:
        return f"set oom_score_adj {self.score}"

    def run(self, ctx: Context) -> None:
        from pyrunc.steps.namespaces import write_file

        write_file(f"/proc/{ctx.init_pid or 'self'}/oom_score_adj", str(self.score))


class SetRlimit(Step):
    """Set one resource limit of init: by itself, or by the runtime where only the host's root can raise a hard one."""

    __slots__ = ("hard", "name", "soft")

    def __init__(self, name: str, soft: int, hard: int, origin: str) -> None:
        super().__init__(origin)
        self.name = name
        self.soft = soft
        self.hard = hard

    def describe(self) -> str:
        return f"set {self.name} {self.soft}:{self.hard}"

    def run(self, ctx: Context) -> None:
        p.prlimit(ctx.init_pid, p.RLIMITS[self.name], self.soft, self.hard)


class DropBoundingSet(Step):
    """Take capabilities out of the bounding set: no program that this process executes can ever gain them."""

    __slots__ = ("keep",)

    def __init__(self, keep: int) -> None:
        super().__init__("/process/capabilities/bounding")
        self.keep = keep

    def describe(self) -> str:
        return f"drop the bounding set to {names(self.keep)}"

    def run(self, ctx: Context) -> None:
        for number in range(p.last_capability() + 1):
            if not self.keep >> number & 1:
                p.prctl(p.PR_CAPBSET_DROP, number)


def names(mask: int) -> str:
    """A capability set for people: CAP_CHOWN,CAP_KILL; "none"."""
    return ",".join(name for number, name in enumerate(p.CAPABILITIES) if mask >> number & 1) or "none"


class SetUser(Step):
    """Become the container's user. Permitted capabilities survive until SetCapabilities (PR_SET_KEEPCAPS)."""

    __slots__ = ("gid", "groups", "uid", "umask")

    def __init__(self, uid: int, gid: int, groups: list[int], umask: int | None) -> None:
        super().__init__("/process/user")
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.umask = umask

    def describe(self) -> str:
        more = f", additional groups {','.join(map(str, self.groups))}" if self.groups else ""
        return f"become user {self.uid}, group {self.gid}{more}"

    def run(self, ctx: Context) -> None:
        p.prctl(p.PR_SET_KEEPCAPS, 1)
        self._own_stdio()
        try:
            os.setgroups(self.groups)
        except PermissionError:
            # An ordinary user's namespace has setgroups denied (user_namespaces(7)). Groups that were asked for
            # by name are an error then; an empty list is what runc passes over too.
            if self.groups:
                raise Error("cannot set any additional groups in a rootless container") from None
        try:
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as e:
            if e.errno == errno.EINVAL:
                raise Error("is not mapped in the user namespace") from None
            raise
        # runc's default; the specification says "not changed from the calling process' umask", which an engine's
        # daemon has set to whatever it likes: no image was ever tested with that
        os.umask(0o022 if self.umask is None else self.umask)
        p.prctl(p.PR_SET_KEEPCAPS, 0)

    def _own_stdio(self) -> None:
        """Let the user reopen /dev/stdout and the like: give it the pipes and terminals that are stdio."""
        for fd in (0, 1, 2):
            try:
                status = os.fstat(fd)
            except OSError as e:
                if e.errno == errno.EBADF:
                    continue  # a caller may well close its standard input
                raise
            if status.st_uid == self.uid or (stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)):
                continue
            try:
                os.fchown(fd, self.uid, -1)
            except OSError as e:
                # not ours (an unmapped owner), or a place where owners do not change: it stays as it is
                if e.errno not in (errno.EPERM, errno.EROFS, errno.EINVAL, errno.EACCES):
                    raise


class ChangeDirectory(Step):
    """Enter process.cwd and be sure to be inside the container's root.

    Descriptors of host directories would lead out (CVE-2024-21626: cwd /proc/self/fd/7); magic links do not resolve
    here, and a directory that the root does not contain shows as "(unreachable)".

    It is planned twice: as root, who may reach a directory that the container's user may not, and as that user, who may
    reach one that root may not (a root-squashed network filesystem, no CAP_DAC_OVERRIDE). One of them has to succeed.
    """

    __slots__ = ("last", "path")

    about_command = True

    def __init__(self, path: str, *, last: bool, origin: str = "/process/cwd") -> None:
        super().__init__(origin)
        self.path = path
        self.last = last

    def describe(self) -> str:
        return f"change to the working directory {self.path}"

    def run(self, ctx: Context) -> None:
        if ctx.in_cwd:
            return
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            fd = open_in_root(root, self.path, os.O_PATH | os.O_DIRECTORY)
            os.fchdir(fd)
        except PermissionError:
            if self.last:
                raise
            return
        except OSError as e:
            if e.errno in (errno.ELOOP, errno.EXDEV):
                raise Error("leads out of the container") from None
            raise
        finally:
            os.close(root)
        os.close(fd)
        if not os.getcwd().startswith("/"):
            raise Error("leads out of the container")
        ctx.in_cwd = True


class NoNewPrivileges(Step):
    """prctl(2) PR_SET_NO_NEW_PRIVS: no set-user-ID bit and no file capability will count."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("/process/noNewPrivileges")

    def describe(self) -> str:
        return "set no_new_privs"

    def run(self, ctx: Context) -> None:
        p.prctl(p.PR_SET_NO_NEW_PRIVS, 1)


class SetCapabilities(Step):
    """Set effective, permitted, inheritable and ambient capabilities, as far as this process has them to give.

    A capability that the kernel does not know, that the runtime lacks or that the bounding set forbids is left out with
    a warning (runtime-spec config.md, Linux Process).

    Attributes:
        wanted: what the configuration names in any set.
        bounding: what DropBoundingSet has left.
        unknown: names in the configuration that are no capability's.
        unraisable: what the configuration wants to be ambient and can't be by its own word.
    """

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "permitted", "unknown", "unraisable", "wanted")

    def __init__(
        self,
        effective: int,
        permitted: int,
        inheritable: int,
        ambient: int,
        *,
        wanted: int,
        bounding: int,
        unknown: list[str],
        unraisable: int = 0,
    ) -> None:
        super().__init__("/process/capabilities")
        self.effective = effective
        self.permitted = permitted
        self.inheritable = inheritable
        self.ambient = ambient
        self.wanted = wanted
        self.bounding = bounding
        self.unknown = unknown
        self.unraisable = unraisable

    def describe(self) -> str:
        return f"set capabilities {names(self.effective)}" + (
            f", ambient {names(self.ambient)}" if self.ambient else ""
        )

    def run(self, ctx: Context) -> None:
        _, own, inherited = p.capget()
        permitted = self.permitted & own
        inheritable = self.inheritable & (inherited | own & self.bounding)
        if self.unknown:
            ctx.warn(f"{self.origin}: unknown, ignored: {', '.join(self.unknown)}")
        for number, name in enumerate(p.CAPABILITIES):
            if self.unraisable >> number & 1:
                why = "it is not both permitted and inheritable (capabilities(7))"
                ctx.warn(f"{self.origin}/ambient: can't raise ambient capability {name}: {why}")
        if left_out := self.wanted & ~own | self.inheritable & ~inheritable:
            ctx.warn(f"{self.origin}: cannot be granted, ignored: {names(left_out)}")
        p.capset(self.effective & permitted, permitted, inheritable)
        p.prctl(p.PR_CAP_AMBIENT, p.PR_CAP_AMBIENT_CLEAR_ALL)
        ambient = self.ambient & permitted & inheritable
        for number in range(ambient.bit_length()):
            if ambient >> number & 1:
                p.prctl(p.PR_CAP_AMBIENT, p.PR_CAP_AMBIENT_RAISE, number)


class LoadSeccomp(Step):
    """Put the process under its system call filter, as late as possible: pyrunc's own calls are not the profile's.

    After it comes nothing but execve(2), which also sheds the CAP_SYS_ADMIN that loading takes without no_new_privs:
    the new program's capabilities come from the other sets (capabilities(7)).
    """

    __slots__ = ("flags", "program")

    def __init__(self, program: bytes, flags: int) -> None:
        super().__init__("/linux/seccomp")
        self.program = program
        self.flags = flags

    def describe(self) -> str:
        return f"load a seccomp filter of {len(self.program) // 8} instructions"

    def run(self, ctx: Context) -> None:
        self._load(ctx)

    def _load(self, ctx: Context) -> int:
        from pyrunc.linux.seccomp import load_filter

        ctx.debug(f"seccomp filter flags: {self.flags}")  # runc's words, which its tests look for
        listener = load_filter(self.program, self.flags)
        # a line in the log would be a system call of ours under the program's filter
        ctx.trace, ctx.debug = None, lambda line: None
        return listener


class LoadNotifyingSeccomp(LoadSeccomp):
    """Put the process under a filter that asks an agent, and leave the listener to the runtime (see SendListener).

    That is in `create`, as under runc, because the runtime has to be there. So all that init does from here on is the
    agent's to decide about: it may be asked about the read(2) of "taken" already, but not about write(2), which
    `pyrunc.config.rules` refuses.

    Attributes:
        open_up: the runtime has no CAP_SYS_PTRACE over its user namespace and gets the descriptor only from a process
            that is dumpable (pidfd_getfd(2)). There is nothing of the host's root to be had from this one.
    """

    __slots__ = ("open_up",)

    def __init__(self, program: bytes, flags: int, *, open_up: bool) -> None:
        super().__init__(program, flags)
        self.open_up = open_up

    def describe(self) -> str:
        return super().describe() + " that asks an agent"

    def run(self, ctx: Context) -> None:
        if self.open_up:
            p.prctl(p.PR_SET_DUMPABLE, 1)
        listener = self._load(ctx)
        ctx.peer().send("listener", listener)
        ctx.peer().expect("taken")
        os.close(listener)


class SetEnvironment(Step):
    """Work out the process's environment: as configured, HOME from the container's /etc/passwd where it lacks."""

    __slots__ = ("env", "uid")

    def __init__(self, env: list[str], uid: int) -> None:
        super().__init__("/process/env")
        self.env = env
        self.uid = uid

    def describe(self) -> str:
        return f"set {len(self.env)} environment variables"

    def run(self, ctx: Context) -> None:
        environment: dict[bytes, bytes] = {}
        for entry in self.env:
            key, _, value = os.fsencode(entry).partition(b"=")
            environment.pop(key, None)  # the last one of a name counts, in the last one's place
            environment[key] = value
        if not environment.get(b"HOME"):
            environment[b"HOME"] = home_directory(self.uid)
        ctx.environment = environment


def home_directory(uid: int) -> bytes:
    """The home directory of a user in this root's /etc/passwd (passwd(5)), "/" where it names none."""
    try:
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b"/"  # an image need not have one
    try:
        text = os.read(fd, 1 << 20) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == str(uid).encode():
            return fields[5] or b"/"
    return b"/"


#: The interpreter that runs this, by device and inode: known while /proc is the host's.
_INTERPRETER = os.stat("/proc/self/exe")

#: How many scripts may be the interpreters of each other (fs/exec.c, exec_binprm).
_SCRIPT_DEPTH = 5


def refuse_interpreter(path: str) -> None:
    """Refuse to execute what /proc/self/exe is, directly or as a script's interpreter (CVE-2019-5736).

    It would be the host's interpreter with the image's loader in it, and /proc/PID/exe a way to the host's
    file. A process of the container that exchanges the file between this look and execve(2) gets past it.

    Raises:
        Error: "permission denied".
    """
    for _ in range(_SCRIPT_DEPTH):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return  # readable or not, there or not: execve(2) will say
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == (_INTERPRETER.st_dev, _INTERPRETER.st_ino):
                raise Error("is the runtime itself: permission denied", errno=errno.EACCES)
            head = os.read(fd, 256) if stat.S_ISREG(status.st_mode) else b""
        finally:
            os.close(fd)
        if not head.startswith(b"#!"):
            return
        words = head[2:].partition(b"\n")[0].split()
        if not words:
            return
        path = os.fsdecode(words[0])


class FindExecutable(Step):
    """Look the program up as execvp(3) would, while an error can still be an error of `create`.

    Engines tell a missing command from one that may not run by the words used here (see pyrunc/errors.py).
    """

    __slots__ = ("name",)

    about_command = True

    def __init__(self, name: str) -> None:
        super().__init__("/process/args/0")
        self.name = name

    def describe(self) -> str:
        return f'exec: "{self.name}"'

    def run(self, ctx: Context) -> None:
        self._find(ctx)
        refuse_interpreter(ctx.executable)

    def _find(self, ctx: Context) -> None:
        if "/" in self.name:
            status = os.stat(self.name)
            if stat.S_ISDIR(status.st_mode):
                raise Error("is a directory: permission denied", errno=errno.EACCES)
            if not os.access(self.name, os.X_OK, effective_ids=True):
                raise Error("permission denied", errno=errno.EACCES)
            ctx.executable = self.name
            return
        denied = False
        for directory in os.fsdecode(ctx.environment.get(b"PATH", b"")).split(":"):
            candidate = f"{directory or '.'}/{self.name}"
            try:
                status = os.stat(candidate)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                if os.access(candidate, os.X_OK, effective_ids=True):
                    ctx.executable = candidate
                    return
                denied = True
        if denied:
            raise Error("permission denied", errno=errno.EACCES)
        raise Error("executable file not found in $PATH", errno=errno.ENOENT)


class WaitForStart(Step):
    """Tell the runtime that all is ready, then sleep until `start` writes to the exec fifo.

    The signals that would end any other process end this one too: as PID 1 of its namespace it would not hear those
    it does not handle (pid_namespaces(7)).
    """

    __slots__ = ()

    def describe(self) -> str:
        return "wait for start"

    def run(self, ctx: Context) -> None:
        import _signal

        for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM):
            _signal.signal(number, _exit_by_signal)
        ctx.debug("init: closing the pipe to signal completion")  # runc's words, for those who look for them in a log
        ctx.peer().send("ready")
        ctx.peer().close()
        if not os.read(ctx.start_fd, 1):
            os._exit(1)  # a foreground runtime died before it said go


def _exit_by_signal(number: int, frame: Any) -> None:
    os._exit(128 + number)


class PrepareExec(Step):
    """Do what execve(2) does not: default signals, preserved descriptors; and tell `start` that all is well.

    All this takes system calls, so it comes before the filter. Should the filter or execve(2) fail, `start` gets an
    error after this word and before the end of file that it waits for.
    """

    __slots__ = ("joining",)

    def __init__(self, *, joining: bool) -> None:
        super().__init__()
        self.joining = joining

    def describe(self) -> str:
        return "hand signals and descriptors over to the program"

    def run(self, ctx: Context) -> None:
        if ctx.executable:
            refuse_interpreter(ctx.executable)  # again: `create` may be long ago
        if self.joining:
            ctx.debug("setns_init: about to exec")  # runc's words
        p.reset_signals()
        for fd in range(3, 3 + ctx.preserve):
            os.set_inheritable(fd, True)
        if ctx.result_fd >= 0:
            os.write(ctx.result_fd, b"x")


class Exec(Step):
    """Become the container's program."""

    __slots__ = ("args",)

    about_command = True

    def __init__(self, args: list[str]) -> None:
        super().__init__("/process/args")
        self.args = args

    def describe(self) -> str:
        return f"exec {self.args[0]}"  # not as where it is looked for: the file is there, the kernel refuses it

    def run(self, ctx: Context) -> None:
        os.execve(ctx.executable, self.args, ctx.environment)
