"""The one table of commands and flags: `parse` reads argv by it and `help` prints it.

Names and forms are runc's (version 1.4), because engines are written for runc.
"""

from __future__ import annotations

BOOL = "bool"
TEXT = "text"
NUMBER = "number"
TEXTS = "texts"
NUMBERS = "numbers"


class Flag:
    """A flag of the program or of a command.

    Attributes:
        name: its long name, without dashes.
        kind: BOOL; TEXT or NUMBER (the last one given counts); TEXTS or NUMBERS (each one given counts).
        usage: what it does, for `--help`.
        short: its one-letter alias, "" without.
        default: what `--help` says of it when it is not given.
        choices: the words that it takes; any where empty.
        hidden: parsed, and not shown in `--help`.
    """

    __slots__ = ("choices", "default", "hidden", "kind", "name", "short", "usage")

    def __init__(
        self,
        name: str,
        kind: str,
        usage: str,
        *,
        short: str = "",
        default: str = "",
        choices: tuple[str, ...] = (),
        hidden: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.usage = usage
        self.short = short
        self.default = default
        self.choices = choices
        self.hidden = hidden


class Command:
    """A command.

    Attributes:
        name: the word that calls it.
        usage: what it does, in a line.
        synopsis: its positional arguments, as `--help` shows them.
        least, most: how many positional arguments it takes; `most` is -1 where any number goes.
        flags: its flags.
        run: ``module.function`` below pyrunc.cli.
        flags_end_at_id: true where what follows the container's id belongs to another program.
        failed: exit status when the command itself fails.
        enters: a process of the program's own gets into a container (see pyrunc/seal.py).
        about: more about it, for `--help`.
    """

    __slots__ = (
        "about",
        "enters",
        "failed",
        "flags",
        "flags_end_at_id",
        "least",
        "most",
        "name",
        "run",
        "synopsis",
        "usage",
    )

    def __init__(
        self,
        name: str,
        usage: str,
        synopsis: str,
        least: int,
        most: int,
        flags: tuple[Flag, ...],
        run: str,
        *,
        flags_end_at_id: bool = False,
        failed: int = 1,
        enters: bool = False,
        about: str = "",
    ) -> None:
        self.name = name
        self.usage = usage
        self.synopsis = synopsis
        self.least = least
        self.most = most
        self.flags = flags
        self.run = run
        self.flags_end_at_id = flags_end_at_id
        self.failed = failed
        self.enters = enters
        self.about = about


HELP = Flag("help", BOOL, "show help", short="h")

GLOBAL = (
    Flag("debug", BOOL, "log each step as it runs"),
    Flag("log", TEXT, "file to append the log to (default: standard error)"),
    Flag("log-format", TEXT, "form of the log: text or json", default="text"),
    Flag("root", TEXT, "directory for the state of containers; best on tmpfs", default="/run/pyrunc"),
    Flag("criu", TEXT, "accepted for the sake of old callers and ignored", hidden=True),
    Flag(
        "systemd-cgroup",
        BOOL,
        "let systemd make the cgroup; cgroupsPath has the form slice:prefix:name",
    ),
    Flag(
        "rootless",
        TEXT,
        "go on without a cgroup where it may not be written: true, false or auto",
        default="auto",
    ),
    HELP,
    Flag("version", BOOL, "print the version", short="v"),
)

_BUNDLE = Flag("bundle", TEXT, "directory of the bundle (default: the current directory)", short="b")
_CONSOLE_SOCKET = Flag("console-socket", TEXT, "AF_UNIX socket to send the master of the terminal to")
_PIDFD_SOCKET = Flag("pidfd-socket", TEXT, "AF_UNIX socket to send a pidfd of the process to")
_PID_FILE = Flag("pid-file", TEXT, "file to write the process's ID to")
_NO_PIVOT = Flag("no-pivot", BOOL, "enter the root filesystem without pivot_root: for one on a ramdisk")
_NO_NEW_KEYRING = Flag("no-new-keyring", BOOL, "stay in the caller's session keyring instead of a new one")
_PRESERVE_FDS = Flag(
    "preserve-fds",
    NUMBER,
    "how many file descriptors to pass on beyond stdio and those of $LISTEN_FDS",
    default="0",
)
_DETACH = Flag("detach", BOOL, "return once the process has started", short="d")
_NO_SUBREAPER = Flag("no-subreaper", BOOL, "do not adopt and reap processes that the container orphans")

# of checkpoint and restore
_WORK_PATH = Flag("work-path", TEXT, "directory for CRIU's log (default: that of the files)")
_TCP_ESTABLISHED = Flag("tcp-established", BOOL, "save and restore open TCP connections")
_EXT_UNIX_SK = Flag("ext-unix-sk", BOOL, "allow Unix sockets whose other end is outside")
_SHELL_JOB = Flag("shell-job", BOOL, "allow a session or terminal that is from outside")
_FILE_LOCKS = Flag("file-locks", BOOL, "save and restore locks on files")
_MANAGE_CGROUPS = Flag("manage-cgroups-mode", TEXT, "what of cgroups is saved: soft|full|strict|ignore", default="soft")
_EMPTY_NS = Flag("empty-ns", TEXTS, "namespace without its properties: network, which always is")
_AUTO_DEDUP = Flag("auto-dedup", BOOL, "free memory that images have twice")
_FORMAT = Flag("format", TEXT, "table or json", short="f", default="table", choices=("table", "json"))

_ID = "<container-id>"

_CREATE = (_BUNDLE, _CONSOLE_SOCKET, _PIDFD_SOCKET, _PID_FILE, _NO_PIVOT, _NO_NEW_KEYRING, _PRESERVE_FDS)
_ABOUT_CREATE = """
<container-id> is a name of your choice, unique on this host below --root. The bundle is a directory with a
config.json ("pyrunc spec" writes one to start from) and the root filesystem that it names."""

COMMANDS = {
    command.name: command
    for command in (
        Command(
            "create",
            "create a container; its process waits for start",
            _ID,
            1,
            1,
            _CREATE,
            "create.create",
            enters=True,
            about=_ABOUT_CREATE,
        ),
        Command("start", "start the process of a created container", _ID, 1, 1, (), "lifecycle.start"),
        Command(
            "run",
            "create and start a container, wait for it and delete it",
            _ID,
            1,
            1,
            (
                *_CREATE,
                _DETACH,
                Flag("keep", BOOL, "do not delete the container when it exits"),
                _NO_SUBREAPER,
            ),
            "create.run",
            enters=True,
            about=_ABOUT_CREATE
            + "\n\nThe exit status is the container's, 128 and the signal's number where one ended it.",
        ),
        Command("state", "print the state of a container as JSON", _ID, 1, 1, (), "lifecycle.state"),
        Command(
            "kill",
            "send a signal (default: SIGTERM) to a container's process",
            f"{_ID} [signal]",
            1,
            2,
            (
                Flag(
                    "all",
                    BOOL,
                    "send it to every process of the container; a stopped one is then no error",
                    short="a",
                ),
            ),
            "lifecycle.kill",
            about="\nThe signal is a name with or without SIG, in any case, or a number.",
        ),
        Command(
            "delete",
            "delete what a stopped container holds",
            _ID,
            1,
            1,
            (Flag("force", BOOL, "kill it if it runs; one that does not exist is no error", short="f"),),
            "lifecycle.delete",
        ),
        Command(
            "exec",
            "start another process in a running container",
            f"{_ID} <command> [argument...]  or  --process process.json {_ID}",
            1,
            -1,
            (
                _CONSOLE_SOCKET,
                _PIDFD_SOCKET,
                Flag("cwd", TEXT, "working directory in the container"),
                Flag("env", TEXTS, "NAME=VALUE to add to the environment", short="e"),
                Flag("tty", BOOL, "give the process a terminal", short="t"),
                Flag("user", TEXT, "user and group: uid[:gid]", short="u"),
                Flag("additional-gids", NUMBERS, "supplementary group ID to add", short="g"),
                Flag(
                    "process",
                    TEXT,
                    "file that describes the process, as config.json does",
                    short="p",
                ),
                _DETACH,
                _PID_FILE,
                Flag("process-label", TEXT, "SELinux label of the process"),
                Flag("apparmor", TEXT, "AppArmor profile of the process"),
                Flag("no-new-privs", BOOL, "set no_new_privs on the process"),
                Flag("cap", TEXTS, "capability to add to the process", short="c"),
                _PRESERVE_FDS,
                Flag("cgroup", TEXTS, "existing cgroup below the container's to run in: [controller:]path"),
                Flag("ignore-paused", BOOL, "go on in a paused container"),
            ),
            "exec.execute",
            enters=True,
            flags_end_at_id=True,
            # runc's; lets a caller tell "exec failed" from most statuses of the process itself
            failed=255,
            about="""
The process is config.json's, with these arguments and what the flags change. The exit status is its own,
128 and the signal's number where one ended it, or 255 where it could not be started.""",
        ),
        Command(
            "list",
            "list the containers below --root",
            "",
            0,
            0,
            (_FORMAT, Flag("quiet", BOOL, "print nothing but ids", short="q")),
            "listing.containers",
        ),
        Command(
            "ps",
            "list the processes of a container",
            f"{_ID} [ps options]",
            1,
            -1,
            (_FORMAT,),
            "listing.processes",
            flags_end_at_id=True,
            about="""
The table is what ps(1) prints with these options (default: -ef), cut down to the container's processes.""",
        ),
        Command("pause", "freeze every process of a container", _ID, 1, 1, (), "lifecycle.pause"),
        Command("resume", "thaw the processes of a paused container", _ID, 1, 1, (), "lifecycle.resume"),
        Command(
            "update",
            "change a container's resource limits",
            _ID,
            1,
            1,
            (
                Flag(
                    "resources",
                    TEXT,
                    "file with resources as config.json has them, or - for standard input; other flags are ignored",
                    short="r",
                ),
                Flag("blkio-weight", TEXT, "weight for block devices, from 10 to 1000"),
                Flag("cpu-period", TEXT, "period that the quota is for, in microseconds"),
                Flag("cpu-quota", TEXT, "CPU time in a period, in microseconds; -1 for no limit"),
                Flag("cpu-burst", TEXT, "unused CPU time that may be taken later, in microseconds"),
                Flag("cpu-share", TEXT, "weight of the container's share of CPU time; 1024 is usual"),
                Flag("cpu-rt-period", TEXT, "period that the realtime runtime is for, in microseconds"),
                Flag("cpu-rt-runtime", TEXT, "realtime CPU time in a period, in microseconds"),
                Flag("cpu-idle", TEXT, "1: run only when nobody else wants to (SCHED_IDLE); 0: as usual"),
                Flag("cpuset-cpus", TEXT, "CPUs to use, as in 0-3,7"),
                Flag("cpuset-mems", TEXT, "memory nodes to use, as in 0-3,7"),
                Flag("kernel-memory", TEXT, "accepted for the sake of old callers and ignored", hidden=True),
                Flag("kernel-memory-tcp", TEXT, "accepted for the sake of old callers and ignored", hidden=True),
                Flag("memory", TEXT, "memory limit in bytes, or as in 512M; -1 for none"),
                Flag("memory-reservation", TEXT, "memory to leave to it while there is enough, as for --memory"),
                Flag("memory-swap", TEXT, "limit of memory and swap together, as for --memory"),
                Flag("pids-limit", TEXT, "how many processes and threads it may have; -1 for any number"),
                Flag("l3-cache-schema", TEXT, "Intel RDT: schema of the L3 cache"),
                Flag("mem-bw-schema", TEXT, "Intel RDT: schema of the memory bandwidth"),
            ),
            "update.update",
            about="""
What is not named stays. If one value is refused, nothing is changed.""",
        ),
        Command(
            "events",
            "print a container's statistics at intervals, and when it runs out of memory",
            _ID,
            1,
            1,
            (
                Flag("interval", TEXT, "time between statistics, as in 500ms or 1m30s", default="5s"),
                Flag("stats", BOOL, "print statistics once, now, and end"),
            ),
            "events.events",
            about="""
Each event is a line of JSON. The end of the container ends the command.""",
        ),
        Command(
            "spec",
            "write a config.json to start from",
            "",
            0,
            0,
            (_BUNDLE, Flag("rootless", BOOL, "one that a user without privileges can run")),
            "spec.spec",
            about="""
The container runs sh on a terminal, from the directory rootfs, read-only.""",
        ),
        Command("features", "print what this build supports, as JSON", "", 0, 0, (), "features.features"),
        Command(
            "validate",
            "check a bundle's config.json",
            "[bundle]",
            0,
            1,
            (_BUNDLE,),
            "examine.validate",
        ),
        Command(
            "plan",
            "print the steps that create and start would take, and take none",
            "[bundle]",
            0,
            1,
            (
                _BUNDLE,
                Flag("format", TEXT, "text or json", short="f", default="text", choices=("text", "json")),
                _NO_PIVOT,
                _NO_NEW_KEYRING,
            ),
            "examine.plan",
        ),
        Command(
            "checkpoint",
            "save a running container's processes to files, and delete it",
            _ID,
            1,
            1,
            (
                Flag("image-path", TEXT, "directory for the files (default: ./checkpoint)"),
                _WORK_PATH,
                Flag("parent-path", TEXT, "directory of a pre-dump, relative to --image-path"),
                Flag("leave-running", BOOL, "let the container run on"),
                _TCP_ESTABLISHED,
                Flag("tcp-skip-in-flight", BOOL, "leave out TCP connections that are only being opened"),
                Flag("link-remap", BOOL, "give files that have no name any more one for the time being"),
                _EXT_UNIX_SK,
                _SHELL_JOB,
                Flag("lazy-pages", BOOL, "leave memory out, and serve it until a restore has got it"),
                Flag("status-fd", NUMBER, "descriptor that gets a zero byte when memory is served"),
                Flag("page-server", TEXT, "ADDRESS:PORT of the page server"),
                _FILE_LOCKS,
                Flag("pre-dump", BOOL, "save memory alone, and let the container run on"),
                _MANAGE_CGROUPS,
                _EMPTY_NS,
                _AUTO_DEDUP,
            ),
            "checkpoint.checkpoint",
            about="""
CRIU does it: see criu(8). Its settings in /etc/criu/runc.conf, or in the file that the annotation
org.criu.config names, count more than these flags.""",
        ),
        Command(
            "restore",
            "make a container from the files of a checkpoint, wait for it and delete it",
            _ID,
            1,
            1,
            (
                _CONSOLE_SOCKET,
                Flag("image-path", TEXT, "directory with the files (default: ./checkpoint)"),
                _WORK_PATH,
                _TCP_ESTABLISHED,
                _EXT_UNIX_SK,
                _SHELL_JOB,
                _FILE_LOCKS,
                _MANAGE_CGROUPS,
                _BUNDLE,
                _DETACH,
                _PID_FILE,
                _NO_SUBREAPER,
                _NO_PIVOT,
                _EMPTY_NS,
                _AUTO_DEDUP,
                Flag("lazy-pages", BOOL, "have memory brought by a criu lazy-pages"),
                Flag("lsm-profile", TEXT, "TYPE:NAME of the profile to use instead of the one that was saved"),
                Flag("lsm-mount-context", TEXT, "SELinux context of mounts instead of the one that was saved"),
            ),
            "checkpoint.restore",
            about="""
The bundle must be as it was, and nobody else have the container's cgroup.""",
        ),
    )
}
