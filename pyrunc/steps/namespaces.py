"""Steps that give a process its own view of the machine: namespaces(7) and what is set in a new one."""

from __future__ import annotations

import errno
import os

from pyrunc.errors import Error
from pyrunc.linux import process as p
from pyrunc.linux.network import interface_up
from pyrunc.linux.proc import read_text
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.steps.context import Context


class JoinNamespaces(Step):
    """Enter existing namespaces by their files.

    All files are opened before the first is entered, because after that their paths may mean something else. The user
    namespace comes after the others, which usually belong to the host and are entered with the host's privileges;
    those that refuse are entered after it, with the privileges that it gives (an ordinary user's case).
    """

    __slots__ = ("paths",)

    def __init__(self, paths: list[tuple[str, str, str]]) -> None:
        """Args:
        paths: (type as in the specification, path, origin) of each.
        """
        super().__init__("/linux/namespaces")
        self.paths = paths

    def describe(self) -> str:
        return "join " + ", ".join(f"the {kind} namespace {path}" for kind, path, _ in self.paths)

    def run(self, ctx: Context) -> None:
        files = []
        for kind, path, origin in self.paths:
            action = f"join the {kind} namespace {path}"
            flag = p.NAMESPACES[kind][0]
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                is_a = p.namespace_type(fd)
            except OSError as e:
                if e.errno == errno.ENOTTY:
                    raise Error("is not a namespace", pointer=origin, action=action) from None
                raise Error.from_os(e, pointer=origin, action=action) from None
            if is_a != flag:
                raise Error(f"is not a {kind} namespace", pointer=origin, action=action)
            files.append((kind, fd, flag, origin, action))
        files.sort(key=lambda f: (f[0] == "user", f[0] == "mount"))  # after a mount namespace, /proc may be another
        later = []
        for kind, fd, flag, origin, action in files:
            try:
                p.setns(fd, flag)
            except OSError as e:
                if e.errno == errno.EPERM and kind != "user" and files[-1][0] == "user":
                    later.append((fd, flag, origin, action))
                    continue
                raise Error.from_os(e, pointer=origin, action=action) from None
        for fd, flag, origin, action in later:
            try:
                p.setns(fd, flag)
            except OSError as e:
                raise Error.from_os(e, pointer=origin, action=action) from None
        for _, fd, _, _, _ in files:
            os.close(fd)


class NewTimeNamespace(Step):
    """Make a time namespace for the children of this process and set its clocks while nobody lives in it.

    clone3(2) could make it too, but offsets can only be written before the first process is in (time_namespaces(7)).
    """

    __slots__ = ("offsets",)

    def __init__(self, offsets: dict[str, dict[str, int]], origin: str) -> None:
        super().__init__(origin)
        self.offsets = offsets

    def describe(self) -> str:
        return "make a time namespace" + "".join(f", {clock} {o}" for clock, o in self.offsets.items())

    def run(self, ctx: Context) -> None:
        p.unshare(p.CLONE_NEWTIME)
        if self.offsets:
            lines = [f"{clock} {o.get('secs') or 0} {o.get('nanosecs') or 0}\n" for clock, o in self.offsets.items()]
            write_file("/proc/self/timens_offsets", "".join(lines))


class NewUserNamespace(Step):
    """Make the user namespace first, alone, and wait until the runtime has mapped its IDs.

    Only where something else must be made in it before init exists (a time namespace by an ordinary user).
    """

    __slots__ = ()

    def describe(self) -> str:
        return "make a user namespace"

    def run(self, ctx: Context) -> None:
        p.unshare(p.CLONE_NEWUSER)
        ctx.peer().send("map", os.getpid())
        ctx.peer().expect("mapped")


class NewCgroupNamespace(Step):
    """Make the cgroup that init is in the root of all that it sees of cgroups."""

    __slots__ = ()

    def describe(self) -> str:
        return "make a cgroup namespace"

    def run(self, ctx: Context) -> None:
        p.unshare(p.CLONE_NEWCGROUP)


class BecomeRoot(Step):
    """Be user and group 0 of the new user namespace, where the namespace has them: what init makes belongs to them."""

    __slots__ = ("gid", "uid")

    def __init__(self, uid: bool, gid: bool, origin: str) -> None:
        super().__init__(origin)
        self.uid = uid
        self.gid = gid

    def describe(self) -> str:
        return "become root of the user namespace"

    def run(self, ctx: Context) -> None:
        try:
            os.setgroups([])
        except PermissionError:
            pass  # "deny" in /proc/PID/setgroups: an ordinary user keeps its groups (user_namespaces(7))
        try:
            if self.gid:
                os.setresgid(0, 0, 0)
            if self.uid:
                os.setresuid(0, 0, 0)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            raise Error("it has no such user or group: no mapping found for uid 0 and gid 0") from None


class MapIds(Step):
    """Tell the kernel which IDs of the user namespace are which on the host; run by the runtime for init."""

    __slots__ = ("gids", "uids")

    def __init__(self, uids: list[dict[str, int]], gids: list[dict[str, int]]) -> None:
        super().__init__("/linux/uidMappings")
        self.uids = uids
        self.gids = gids

    def describe(self) -> str:
        return f"map user IDs {_map_text(self.uids, ' ', ', ')} and group IDs {_map_text(self.gids, ' ', ', ')}"

    def run(self, ctx: Context) -> None:
        map_ids(ctx.init_pid, self.uids, self.gids)


class CheckIds(Step):
    """Refuse a joined user namespace with other mappings than those given beside its path; run by the runtime.

    Engines give both, since runtimes once wanted it. The namespace is as it is, so the mappings can only be right or
    wrong; wrong ones would be a container with other owners than the configuration says.
    """

    __slots__ = ("gids", "uids")

    def __init__(self, uids: list[dict[str, int]], gids: list[dict[str, int]]) -> None:
        super().__init__("/linux/uidMappings")
        self.uids = uids
        self.gids = gids

    def describe(self) -> str:
        return "compare the mappings with those of the joined user namespace"

    def run(self, ctx: Context) -> None:
        for kind, wanted in (("uid", self.uids), ("gid", self.gids)):
            # read by the runtime, so that hostID is meant as in the configuration (user_namespaces(7))
            lines = read_text(f"/proc/{ctx.init_pid}/{kind}_map").splitlines()
            found = {tuple(map(int, line.split())) for line in lines}
            if found != {(m["containerID"], m["hostID"], m["size"]) for m in wanted}:
                has = ", ".join(" ".join(map(str, m)) for m in sorted(found))
                raise Error(
                    f"both namespace path and non-matching mapping specified: the namespace has {has or 'none'}",
                    pointer=f"/linux/{kind}Mappings",
                )


def _map_text(mappings: list[dict[str, int]], between: str, end: str) -> str:
    return end.join(between.join(str(m[k]) for k in ("containerID", "hostID", "size")) for m in mappings)


def map_ids(pid: int, uids: list[dict[str, int]], gids: list[dict[str, int]], at: str = "/linux") -> None:
    """Write a process's uid_map and gid_map, by newuidmap(1) and newgidmap(1) where the kernel refuses us.

    Args:
        at: pointer of what holds the mappings.
    """
    own = os.geteuid() != 0 and len(gids) == 1 and gids[0]["size"] == 1 and gids[0]["hostID"] == os.getegid()
    if own:
        # the one mapping that the kernel lets an ordinary user write, after giving up setgroups (user_namespaces(7))
        write_file(f"/proc/{pid}/setgroups", "deny")
    for name, mappings, origin in (("uid", uids, f"{at}/uidMappings"), ("gid", gids, f"{at}/gidMappings")):
        try:
            write_file(f"/proc/{pid}/{name}_map", _map_text(mappings, " ", "\n") + "\n")
        except PermissionError:
            _map_by_helper(pid, f"new{name}map", mappings, origin)
        except OSError as e:
            raise Error.from_os(e, pointer=origin, action=f"map {name}s") from None


def _map_by_helper(pid: int, program: str, mappings: list[dict[str, int]], origin: str) -> None:
    from pyrunc.linux.spawn import output_of

    arguments = [program, str(pid), *_map_text(mappings, " ", " ").split()]
    try:
        status, said = output_of(arguments)
    except FileNotFoundError:
        reason = "is not installed, and without it a user may map no ID but the own"
        raise Error(reason, pointer=origin, action=program) from None
    if status:
        raise Error(said or f"exit status {status}", pointer=origin, action=program)


class LoopbackUp(Step):
    """Bring up lo, the one interface that a new network namespace has."""

    __slots__ = ()

    def describe(self) -> str:
        return "bring the loopback interface up"

    def run(self, ctx: Context) -> None:
        interface_up("lo")


class SetHostname(Step):
    """Set the UTS namespace's host name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__("/hostname")
        self.name = name

    def describe(self) -> str:
        return f"set the host name {self.name}"

    def run(self, ctx: Context) -> None:
        p.sethostname(self.name)


class SetDomainname(Step):
    """Set the UTS namespace's NIS domain name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__("/domainname")
        self.name = name

    def describe(self) -> str:
        return f"set the domain name {self.name}"

    def run(self, ctx: Context) -> None:
        p.setdomainname(self.name)


class SetSysctl(Step):
    """Write one kernel parameter, through a procfs of our own that no image can have dressed up."""

    __slots__ = ("key", "value")

    def __init__(self, key: str, value: str, origin: str) -> None:
        super().__init__(origin)
        self.key = key
        self.value = value

    def describe(self) -> str:
        return f"set sysctl {self.key}={self.value}"

    def run(self, ctx: Context) -> None:
        from pyrunc.linux.procfs import open_proc

        fd = open_proc("sys/" + sysctl_path(self.key), os.O_WRONLY)
        try:
            os.write(fd, self.value.encode())
        finally:
            os.close(fd)


def sysctl_path(key: str) -> str:
    """A parameter's path below /proc/sys. As in sysctl(8), the first separator of a key says which one it uses.

    >>> sysctl_path("net.ipv4.ip_forward"), sysctl_path("net.ipv4.conf.eth0/1.forwarding")
    ('net/ipv4/ip_forward', 'net/ipv4/conf/eth0.1/forwarding')
    >>> sysctl_path("net/ipv4/conf/eth0.1/forwarding")
    'net/ipv4/conf/eth0.1/forwarding'
    """
    dot, slash = key.find("."), key.find("/")
    if dot < 0 or 0 <= slash < dot:
        return key
    return key.translate({ord("."): "/", ord("/"): "."})


def write_file(path: str, text: str) -> None:
    """One write(2) to a file that exists, as files of /proc and cgroups want it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
