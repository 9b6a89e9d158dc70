"""The container's process: program, environment, working directory, user, limits, oom score, hostname."""

from __future__ import annotations

import json
import os
import pathlib
import re
import resource
import struct
import subprocess
from typing import Any

import pytest

from conformance.harness import (
    REQUIREMENTS,
    Bundle,
    Container,
    Json,
    Result,
    Runtime,
    not_applicable,
    requires,
    spec,
    xfail_on,
)

EXECVP = "that entry is used with the same semantics as execvp's file"
CWD = "cwd (string, REQUIRED) is the working directory that will be set for the executable."

#: podman looks for these words: exit status 127
NOT_FOUND = re.compile("executable file .*not found in \\$path|executable file not found")


def refused(result: Result) -> str:
    """The error line of a call that had to fail; what is left behind the fixture looks for."""
    assert result.status != 0, f"should have been refused:\n{result!r}"
    assert "Traceback" not in result.stderr and "panic" not in result.stderr, result
    assert result.stderr.strip(), f"no word of why:\n{result!r}"
    return result.stderr.lower()


# ------------------------------------------------------------------------------------------------- the program


@spec("config.md#process", EXECVP)
def test_argv_is_whole(bundle: Bundle, container: Container) -> None:
    bundle.args("sh", "-c", "tr '\\0' '|' < /proc/$$/cmdline; true", "a b", "", "ä\n$x", "-")
    assert container.output() == "sh|-c|tr '\\0' '|' < /proc/$$/cmdline; true|a b||ä\n$x|-|"


@spec("config.md#process", EXECVP)
def test_a_script_runs_by_its_interpreter(bundle: Bundle, container: Container) -> None:
    bundle.file("/bin/tool", '#!/bin/sh -e\necho "$0" "$@"\n', 0o755)
    assert container.output("tool", "x", "y z") == "/bin/tool x y z\n"


@spec("config.md#process", EXECVP)
@pytest.mark.parametrize("command", ["./tool", "../user/tool", "sub/tool"])
def test_a_path_is_relative_to_the_working_directory(bundle: Bundle, container: Container, command: str) -> None:
    for path in ("/home/user/tool", "/home/user/sub/tool"):
        bundle.file(path, "#!/bin/sh\necho ran\n", 0o755)
    bundle.process["cwd"] = "/home/user"
    assert container.output(command) == "ran\n"


@spec("config.md#process", EXECVP)
def test_a_name_is_not_looked_for_in_the_working_directory(bundle: Bundle, container: Container) -> None:
    bundle.file("/home/user/tool", "#!/bin/sh\necho ran\n", 0o755)
    bundle.process["cwd"] = "/home/user"
    bundle.args("tool")
    assert NOT_FOUND.search(refused(container.run()))


@spec("config.md#process", EXECVP)
def test_path_is_the_one_of_process_env(bundle: Bundle, container: Container) -> None:
    """Not the runtime's own: with no PATH, or one without the directory, nothing is found by name."""
    bundle.process["env"] = ["PATH=/nowhere:/neither"]
    bundle.args("true")
    assert NOT_FOUND.search(refused(container.run(env={"PATH": "/bin:/usr/bin:/sbin"})))


@spec("config.md#process", EXECVP)
def test_what_can_not_be_executed_is_passed_over(bundle: Bundle, container: Container) -> None:
    """execvp(3) goes on after a directory of the name and after a file that may not be executed."""
    bundle.file("/first/tool/file")
    bundle.file("/second/tool", "not for execution", 0o644)
    bundle.file("/third/tool", "#!/bin/sh\necho third\n", 0o755)
    bundle.process["env"] = ["PATH=/first:/second:/third:/bin"]
    assert container.output("tool") == "third\n"


@spec("config.md#process", EXECVP)
@pytest.mark.parametrize("mode", [0o700, 0o744, 0o111])
def test_permission_is_the_user_s(bundle: Bundle, container: Container, mode: int) -> None:
    """Executable for root says nothing about the process's user; executable and not readable is enough to run."""
    host = bundle.host("/bin/tool")
    os.unlink(bundle.file("/bin/tool"))
    subprocess.run(["cp", bundle.host("/bin/busybox"), host], check=True)
    os.chmod(host, mode)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.args("/bin/tool", "echo", "ran")
    if mode == 0o111:
        os.rename(host, bundle.host("/bin/echo.static"))
        bundle.args("/bin/echo.static", "ran")
        result = container.run()
        assert "ermission denied" not in result.stderr and "applet not found" in result.stderr + result.stdout, result
    else:
        assert "permission denied" in refused(container.run())


@spec("config.md#process", EXECVP)
def test_links_are_followed_within_the_root(bundle: Bundle, container: Container) -> None:
    os.symlink("/../../../../bin/busybox", bundle.host("/bin/deep"))
    os.symlink("/bin/deep", bundle.host("/usr/bin/sh2"))
    bundle.args("/usr/bin/sh2")
    result = container.run()
    assert "applet not found" in result.stderr + result.stdout, result


# --------------------------------------------------------------------------------------------- the environment


@spec("config.md#process", "env (array of strings, OPTIONAL) with the same semantics as … environ")
def test_environment_exactly(bundle: Bundle, container: Container) -> None:
    bundle.process["env"] = ["PATH=/bin", "HOME=/x", "EMPTY=", "EQUAL==a=b", "SPACE= a b ", "UMLAUT=ä", "LINE=1\n2"]
    text = container.output("env")
    assert sorted(text.splitlines()) == sorted("\n".join(bundle.process["env"]).splitlines())


@spec("config.md#process", "env (array of strings, OPTIONAL) with the same semantics as … environ")
def test_of_a_name_twice_the_last_counts(bundle: Bundle, container: Container) -> None:
    bundle.process["env"] += ["X=first", "X=second"]
    assert container.output("sh", "-c", "echo $X") == "second\n"


@spec("config.md#process", "env (array of strings, OPTIONAL) with the same semantics as … environ")
@pytest.mark.parametrize("uid, home", [(0, "/root"), (1000, "/home/user"), (1, "/"), (4711, "/")])
def test_home_is_the_user_s(bundle: Bundle, container: Container, uid: int, home: str) -> None:
    """Every runtime adds HOME from the container's /etc/passwd where the configuration names none."""
    if container.runtime.name == "crun" and uid == 4711:
        not_applicable("crun adds none for a user whom /etc/passwd does not know")
    bundle.process["user"] = {"uid": uid, "gid": 0}
    assert container.output("sh", "-c", "echo $HOME") == f"{home}\n"


@spec("config.md#process", "env (array of strings, OPTIONAL) with the same semantics as … environ")
@pytest.mark.parametrize("passwd", [None, "", "nonsense\n::\nroot:x:0\n", "\n\nroot:x:0:0:root:/elsewhere:/bin/sh"])
def test_home_of_a_strange_passwd(bundle: Bundle, container: Container, passwd: str | None) -> None:
    if passwd is None:
        os.unlink(bundle.host("/etc/passwd"))
    else:
        bundle.file("/etc/passwd", passwd)
    if container.runtime.name == "crun" and passwd is not None and "elsewhere" not in passwd:
        not_applicable("crun adds none for a user whom /etc/passwd does not know")
    home = "/elsewhere" if passwd and "elsewhere" in passwd else "/"
    got = container.output("sh", "-c", "echo $HOME")
    if container.runtime.name == "runc" and passwd and "root:x:0\n" in passwd and got == "\n":
        not_applicable("runc takes the short line's missing field for an empty home")
    assert got == f"{home}\n"


@spec("config.md#process", "env (array of strings, OPTIONAL) with the same semantics as … environ")
def test_home_of_a_passwd_that_is_a_fifo(bundle: Bundle, container: Container) -> None:
    """A hostile image must not make the runtime wait."""
    if container.runtime.name in ("runc", "crun"):
        not_applicable("runc and crun open it and wait for ever")
    os.unlink(bundle.host("/etc/passwd"))
    os.mkfifo(bundle.host("/etc/passwd"))
    assert container.output("sh", "-c", "echo $HOME", timeout=10) == "/\n"


@spec("config.md#process", "env (array of strings, OPTIONAL) with the same semantics as … environ")
def test_configured_home_stays(bundle: Bundle, container: Container) -> None:
    bundle.process["env"].append("HOME=/my/own")
    assert container.output("sh", "-c", "echo $HOME") == "/my/own\n"


@spec("config.md#process", "env (array of strings, OPTIONAL) with the same semantics as … environ")
def test_home_in_exec(bundle: Bundle, container: Container) -> None:
    container.run_detached()
    result = container.exec("sh", "-c", "echo $HOME", flags=["--user", "1000:1000"], check=True)
    assert result.stdout == "/home/user\n"


# ---------------------------------------------------------------------------------------- the working directory


@spec("config.md#process", CWD)
def test_cwd_is_made(bundle: Bundle, container: Container) -> None:
    """Images' WORKDIR need not exist; engines count on the runtime to make it."""
    bundle.process["cwd"] = "/made/for/you"
    assert container.output("sh", "-c", "pwd; stat -c '%a %u:%g' . ..") == "/made/for/you\n755 0:0\n755 0:0\n"


@spec("config.md#process", CWD)
def test_cwd_is_made_for_a_read_only_root(bundle: Bundle, container: Container) -> None:
    bundle.process["cwd"] = "/made/for/you"
    bundle.config["root"]["readonly"] = True
    assert container.output("pwd") == "/made/for/you\n"


@spec("config.md#process", CWD)
def test_cwd_in_a_mount(bundle: Bundle, container: Container) -> None:
    bundle.config["mounts"].append({"destination": "/data", "type": "tmpfs", "source": "tmpfs"})
    bundle.process["cwd"] = "/data/sub"
    assert container.output("sh", "-c", "pwd; stat -f -c %T .") == "/data/sub\ntmpfs\n"


@spec("config.md#process", CWD)
def test_cwd_of_the_user_alone(bundle: Bundle, container: Container) -> None:
    """mode 0700 and not root's: root without CAP_DAC_OVERRIDE may not enter, the process may."""
    os.chmod(bundle.host("/home/user"), 0o700)
    bundle.process.update(cwd="/home/user", user={"uid": 1000, "gid": 1000})
    assert container.output("pwd") == "/home/user\n"


@spec("config.md#process", CWD)
def test_cwd_of_root_alone(bundle: Bundle, container: Container) -> None:
    """What only root may enter is entered as root: so runc and crun have it, and images count on it."""
    os.chmod(bundle.host("/root"), 0o700)
    bundle.process.update(cwd="/root", user={"uid": 1000, "gid": 1000})
    bundle.args("sh", "-c", "cd / && echo ran")
    result = container.run()
    assert (result.status, result.stdout) == (0, "ran\n"), result


@spec("config.md#process", CWD)
def test_cwd_by_a_link(bundle: Bundle, container: Container) -> None:
    os.symlink("/home/user", bundle.host("/link"))
    bundle.process["cwd"] = "/link"
    assert container.output("sh", "-c", "pwd -P") == "/home/user\n"


@spec("config.md#process", "This value MUST be an absolute path.")
@xfail_on("crun", "it takes the path from the root directory")
@pytest.mark.parametrize("cwd", ["home", "", "./home", "~"])
def test_cwd_must_be_absolute(bundle: Bundle, container: Container, cwd: str) -> None:
    bundle.process["cwd"] = cwd
    bundle.args("pwd")
    refused(container.run(timeout=15))


@spec("config.md#process", "This value MUST be an absolute path.")
def test_cwd_with_dots_stays_inside(bundle: Bundle, container: Container) -> None:
    bundle.process["cwd"] = "/../../../../../home/./user/../user"
    assert container.output("sh", "-c", "pwd -P; ls /").startswith("/home/user\nbin\n")


MAGIC = ["/proc/self/fd/{n}", "/proc/self/fd/{n}/..", "/proc/self/fd/{n}/../../..", "/proc/thread-self/fd/{n}"]


@spec("CVE-2024-21626")
@spec(
    "runtime-linux.md#file-descriptors",
    "By default, only the stdin, stdout and stderr file descriptors are kept open for the application by the runtime.",
)
@xfail_on("crun", "crun 1.8 leaves the caller's descriptors open while it enters the working directory")
@pytest.mark.parametrize("path", MAGIC)
@pytest.mark.parametrize("how", ["plain", "link", "exec"])
def test_cwd_by_a_descriptor_of_the_runtime(bundle: Bundle, container: Container, how: str, path: str) -> None:
    """With the caller's own directories inheritable, too: none of them may be reached by way of /proc."""
    opened = os.open("/", os.O_RDONLY | os.O_DIRECTORY)

    def leave_open() -> None:
        for fd in range(3, 15):
            os.dup2(opened, fd, inheritable=True)

    keep: Any = {"close_fds": False, "preexec_fn": leave_open}
    # what a process that got out sees: the host's own root directory
    tell = ["sh", "-c", "stat -c '%d %i' . .. /; ls -a ."]
    outside = os.stat("/")
    if how == "exec":
        container.run_detached()
    for n in range(3, 12):
        cwd = path.format(n=n)
        if how == "link":
            link = bundle.host(f"/link{n}")
            os.symlink(cwd, link)
            cwd = f"/link{n}"
        if how == "exec":
            result = container.exec(*tell, flags=["--cwd", cwd], **keep)
        else:
            bundle.process["cwd"] = cwd
            bundle.args(*tell)
            result = container.run(**keep)
        assert f"{outside.st_dev} {outside.st_ino}\n" not in result.stdout, (cwd, result)
        assert result.status != 0, (cwd, result)
    os.close(opened)


@spec("CVE-2024-21626")
def test_cwd_by_a_link_to_the_host(bundle: Bundle, container: Container) -> None:
    """/proc/1/root and /proc/self/cwd are the container's own or nothing."""
    for cwd in ("/proc/1/root", "/proc/self/cwd", "/proc/self/root/..", "/proc/1/cwd"):
        bundle.process["cwd"] = cwd
        bundle.sh("ls -a /proc/self/cwd/")
        result = container.run()
        assert "vmlinuz" not in result.stdout and "lib64" not in result.stdout, (cwd, result)


@spec("CVE-2024-21626")
@spec(
    "runtime-linux.md#file-descriptors",
    "By default, only the stdin, stdout and stderr file descriptors are kept open for the application by the runtime.",
)
def test_program_by_a_descriptor_of_the_runtime(bundle: Bundle, container: Container) -> None:
    opened = os.open("/", os.O_RDONLY | os.O_DIRECTORY)

    def leave_open() -> None:
        for fd in range(3, 15):
            os.dup2(opened, fd, inheritable=True)

    for n in range(3, 12):
        bundle.args(f"/proc/self/fd/{n}/bin/echo", "out")
        result = container.run(close_fds=False, preexec_fn=leave_open)
        assert result.status != 0 and "out\n" not in result.stdout, result
    os.close(opened)


# ----------------------------------------------------------------------------------------------------- the user


@spec("config.md#posix-platform-user", "uid (int, REQUIRED) specifies the user ID in the container namespace")
@pytest.mark.parametrize(
    "uid, gid", [(0, 0), (1000, 1000), (65534, 65534), (4711, 0), (0, 4711), (2**31 - 1, 2**31 - 1)]
)
def test_user(bundle: Bundle, container: Container, uid: int, gid: int) -> None:
    """All four of each: real, effective, saved and filesystem."""
    bundle.process["user"] = {"uid": uid, "gid": gid}
    text = container.output("grep", "-E", "^(Uid|Gid|Groups)", "/proc/self/status")
    ids = {line.split(":")[0]: line.split()[1:] for line in text.splitlines()}
    assert ids["Uid"] == [str(uid)] * 4 and ids["Gid"] == [str(gid)] * 4
    assert ids["Groups"] in ([], [str(gid)]), text


@spec("config.md#posix-platform-user", "additionalGids (array of ints, OPTIONAL) specifies additional group IDs")
@pytest.mark.parametrize("uid", [0, 1000])
def test_additional_gids(bundle: Bundle, container: Container, uid: int) -> None:
    """Exactly these: neither the caller's nor those that /etc/group gives."""
    bundle.process["user"] = {"uid": uid, "gid": 1000, "additionalGids": [5, 6, 70000]}
    text = container.output("grep", "^Groups", "/proc/self/status", preexec_fn=lambda: os.setgroups([3, 4]))
    assert set(text.split()[1:]) - {"1000"} == {"5", "6", "70000"}


@spec("config.md#posix-platform-user", "additionalGids (array of ints, OPTIONAL) specifies additional group IDs")
def test_the_caller_s_groups_are_dropped(bundle: Bundle, container: Container) -> None:
    text = container.output("grep", "^Groups", "/proc/self/status", preexec_fn=lambda: os.setgroups([3, 4]))
    assert set(text.split()[1:]) <= {"0"}


@spec("config.md#posix-platform-user", "umask (int, OPTIONAL) specifies the umask of the user.")
@pytest.mark.parametrize("umask", [0, 0o22, 0o777, 63])
def test_umask(bundle: Bundle, container: Container, umask: int) -> None:
    bundle.process["user"]["umask"] = umask
    assert container.output("sh", "-c", "umask") == f"{umask:04o}\n"


@spec("config.md#posix-platform-user", "uid (int, REQUIRED) specifies the user ID in the container namespace")
@pytest.mark.parametrize("user", [{"uid": -1, "gid": 0}, {"uid": 2**32, "gid": 0}, {"uid": 0, "gid": 2**33},
                                  {"uid": 0, "gid": 0, "additionalGids": [-5]}, {"uid": "0", "gid": 0}])  # fmt: skip
def test_ids_that_are_none(bundle: Bundle, container: Container, user: Json) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun cuts numbers down to what fits")
    bundle.process["user"] = user
    refused(container.run(timeout=15))


@spec("config.md#posix-platform-user", "uid (int, REQUIRED) specifies the user ID in the container namespace")
def test_stdio_is_the_user_s(bundle: Bundle, container: Container) -> None:
    """A process that is not root reopens /dev/stdout, as many an image's log is a link to it."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.sh("echo out > /dev/stdout; echo err > /dev/stderr; cat < /dev/stdin")
    read, write = os.pipe()
    read_err, write_err = os.pipe()
    read_in, write_in = os.pipe()
    os.write(write_in, b"in\n")
    os.close(write_in)
    container.run(stdout=write, stderr=write_err, stdin=read_in)
    for fd in (write, write_err, read_in):
        os.close(fd)
    assert (os.read(read, 100), os.read(read_err, 100)) == (b"out\nin\n", b"err\n")
    os.close(read)
    os.close(read_err)


# --------------------------------------------------------------------------------------------------- the limits

INFINITY = 2**64 - 1

#: what is below every sane host's hard limit and leaves room for the runtime and a shell
LIMITS: dict[str, tuple[int, int]] = {
    "RLIMIT_AS": (8 << 30, 16 << 30),
    "RLIMIT_CORE": (1 << 20, 2 << 20),
    "RLIMIT_CPU": (1000, 2000),
    "RLIMIT_DATA": (4 << 30, 8 << 30),
    "RLIMIT_FSIZE": (1 << 30, 2 << 30),
    "RLIMIT_LOCKS": (100, 200),
    "RLIMIT_MEMLOCK": (65536, 131072),
    "RLIMIT_MSGQUEUE": (4096, 8192),
    "RLIMIT_NICE": (0, 0),
    "RLIMIT_NOFILE": (256, 512),
    "RLIMIT_NPROC": (4000, 5000),
    "RLIMIT_RSS": (1 << 30, 2 << 30),
    "RLIMIT_RTPRIO": (0, 0),
    "RLIMIT_RTTIME": (500000, 1000000),
    "RLIMIT_SIGPENDING": (500, 600),
    "RLIMIT_STACK": (4 << 20, 8 << 20),
}

#: the lines of /proc/PID/limits, in the kernel's words (fs/proc/base.c)
WORDS = {
    "RLIMIT_AS": "Max address space", "RLIMIT_CORE": "Max core file size", "RLIMIT_CPU": "Max cpu time",
    "RLIMIT_DATA": "Max data size", "RLIMIT_FSIZE": "Max file size", "RLIMIT_LOCKS": "Max file locks",
    "RLIMIT_MEMLOCK": "Max locked memory", "RLIMIT_MSGQUEUE": "Max msgqueue size", "RLIMIT_NICE": "Max nice priority",
    "RLIMIT_NOFILE": "Max open files", "RLIMIT_NPROC": "Max processes", "RLIMIT_RSS": "Max resident set",
    "RLIMIT_RTPRIO": "Max realtime priority", "RLIMIT_RTTIME": "Max realtime timeout",
    "RLIMIT_SIGPENDING": "Max pending signals", "RLIMIT_STACK": "Max stack size",
}  # fmt: skip


GO = xfail_on("runc", "now and then Go's restoring of its own soft limit comes after runc 1.1 has set the container's")


def shown(text: str, name: str) -> tuple[str, str]:
    """Soft and hard limit, as /proc/PID/limits has them."""
    (line,) = [line for line in text.splitlines() if line.startswith(WORDS[name])]
    soft, hard = line.removeprefix(WORDS[name]).split()[:2]
    return soft, hard


@spec(
    "config.md#posix-process",
    "rlim.rlim_cur MUST match the configured value … rlim.rlim_max MUST match the configured value",
)
@pytest.mark.parametrize("name", [pytest.param(name, marks=GO) if name == "RLIMIT_NOFILE" else name for name in LIMITS])
@pytest.mark.parametrize("how", ["run", "exec"])
def test_rlimit(bundle: Bundle, container: Container, name: str, how: str) -> None:
    soft, hard = LIMITS[name]
    if how == "exec" and container.runtime.name == "crun":
        not_applicable("crun's exec takes limits from a process file only")
    bundle.process["rlimits"] = [{"type": name, "soft": soft, "hard": hard}]
    if how == "run":
        text = container.output("cat", "/proc/self/limits")
    else:
        container.run_detached()
        text = container.exec("cat", "/proc/self/limits", check=True).stdout
    assert shown(text, name) == (str(soft), str(hard))


@spec("config.md#posix-process", "rlim.rlim_cur MUST match the configured value")
def test_all_rlimits_at_once(bundle: Bundle, container: Container) -> None:
    bundle.process["rlimits"] = [{"type": n, "soft": s, "hard": h} for n, (s, h) in LIMITS.items()]
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    text = container.output("cat", "/proc/self/limits")
    assert {n: shown(text, n) for n in LIMITS} == {n: (str(s), str(h)) for n, (s, h) in LIMITS.items()}


@spec("config.md#posix-process", "rlim.rlim_cur MUST match the configured value")
@pytest.mark.parametrize("soft, hard", [(4096, INFINITY), (INFINITY, INFINITY), (0, INFINITY)])
def test_no_limit(bundle: Bundle, container: Container, soft: int, hard: int) -> None:
    """2⁶⁴-1 is RLIM_INFINITY."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        not_applicable("the host's hard limit of RLIMIT_CORE is not infinite")
    bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": soft, "hard": hard}]
    want = tuple("unlimited" if v == INFINITY else str(v) for v in (soft, hard))
    assert shown(container.output("cat", "/proc/self/limits"), "RLIMIT_CORE") == want


#: low enough to end an interpreter or a garbage collector, and plenty for a shell
LOW: dict[str, int] = {
    "RLIMIT_AS": 24 << 20,
    "RLIMIT_DATA": 2 << 20,
    "RLIMIT_STACK": 128 << 10,
    "RLIMIT_NOFILE": 10,
    "RLIMIT_FSIZE": 8192,
    "RLIMIT_NPROC": 1,
    "RLIMIT_SIGPENDING": 0,
    "RLIMIT_MEMLOCK": 0,
}


@spec("config.md#posix-process", "rlim.rlim_cur MUST match the configured value")
@pytest.mark.parametrize("name", LOW)
@pytest.mark.parametrize("how", ["run", "exec"])
def test_low_limits_are_for_the_program(bundle: Bundle, container: Container, name: str, how: str) -> None:
    """A limit that the program can live with is no business of the runtime's init."""
    if container.runtime.name == "runc" and name == "RLIMIT_AS":
        not_applicable("Go can't live with it")
    if container.runtime.name == "crun" and name == "RLIMIT_NOFILE":
        not_applicable("crun needs some more for itself")
    limits = [{"type": name, "soft": LOW[name], "hard": LOW[name]}]
    # RLIMIT_NPROC counts all of a user's processes on the machine: a user whom nobody else is
    bundle.process["user"] = {"uid": 54321, "gid": 54321}
    if how == "run":
        bundle.process["rlimits"] = limits
        text = container.output("cat", "/proc/self/limits")
    else:
        container.run_detached()
        path = container.runtime.scratch("process")
        pathlib.Path(path).write_text(
            json.dumps({**bundle.process, "rlimits": limits, "args": ["cat", "/proc/self/limits"]})
        )
        text = container.runtime.run("exec", "--process", path, container.id, check=True).stdout
    assert shown(text, name) == (str(LOW[name]), str(LOW[name]))


@spec("config.md#posix-process", "The runtime MUST generate an error for any values which cannot be mapped")
@pytest.mark.parametrize("name", ["RLIMIT_NO_SUCH", "NOFILE", "rlimit_nofile", ""])
def test_unknown_rlimit(bundle: Bundle, container: Container, name: str) -> None:
    bundle.process["rlimits"] = [{"type": name, "soft": 1, "hard": 2}]
    refused(container.run(timeout=15))


@spec(
    "config.md#posix-process",
    "If rlimits contains duplicated entries with same type, the runtime MUST generate an error.",
)
def test_rlimit_twice(bundle: Bundle, container: Container) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": n} for n in (0, 1)]
    refused(container.run(timeout=15))


@spec("config.md#posix-process", "hard (uint64, REQUIRED) the ceiling for the soft limit")
def test_soft_above_hard(bundle: Bundle, container: Container) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]
    refused(container.run(timeout=15))


@spec("config.md#posix-process", "Only a privileged process … can raise a hard limit.")
def test_raising_a_hard_limit_without_privilege(bundle: Bundle, container: Container, runtime: Runtime) -> None:
    """It fails where the runtime lacks CAP_SYS_RESOURCE, and never passes in silence."""
    raised = resource.getrlimit(resource.RLIMIT_NOFILE)[1] + 1000
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": raised, "hard": raised}]
    if REQUIREMENTS["CAP_SYS_RESOURCE"](runtime) is None:
        not_applicable("the tests run with CAP_SYS_RESOURCE")
    refused(container.run(timeout=15))


@spec("config.md#posix-process", "Only a privileged process … can raise a hard limit.")
@requires("CAP_SYS_RESOURCE")
@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize("how", ["run", "exec"])
def test_raising_a_hard_limit(bundle: Bundle, container: Container, how: str, user_namespace: bool) -> None:
    """The runtime's privilege counts, which root of a user namespace does not have (user_namespaces(7))."""

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    if user_namespace:
        mapping = [{"containerID": 0, "hostID": 200000, "size": 65536}]
        bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
        bundle.namespaces(add=[{"type": "user"}])
        os.chown(bundle.rootfs, 200000, 200000)
    limits = [{"type": "RLIMIT_NOFILE", "soft": 300, "hard": 400}]
    if how == "run":
        bundle.process["rlimits"] = limits
        text = container.output("cat", "/proc/self/limits", preexec_fn=lower)
    else:
        container.run_detached()
        path = container.runtime.scratch("process")
        pathlib.Path(path).write_text(
            json.dumps({**bundle.process, "rlimits": limits, "args": ["cat", "/proc/self/limits"]})
        )
        result = container.runtime.run("exec", "--process", path, container.id, check=True, preexec_fn=lower)
        text = result.stdout
    assert shown(text, "RLIMIT_NOFILE") == ("300", "400")


# ------------------------------------------------------------------------------- privileges, oom score, hostname


@spec(
    "config.md#linux-process",
    "setting noNewPrivileges to true prevents the process from gaining additional privileges.",
)
@pytest.mark.parametrize("value", [True, False, None])
@pytest.mark.parametrize("uid", [0, 1000])
def test_no_new_privileges(bundle: Bundle, container: Container, value: bool | None, uid: int) -> None:
    bundle.process["user"] = {"uid": uid, "gid": uid}
    bundle.process.pop("noNewPrivileges")
    if value is not None:
        bundle.process["noNewPrivileges"] = value
    text = container.output("grep", "NoNewPrivs", "/proc/self/status")
    assert text.split()[1] == str(int(bool(value)))


@spec(
    "config.md#linux-process",
    "setting noNewPrivileges to true prevents the process from gaining additional privileges.",
)
@pytest.mark.parametrize("value", [True, False])
def test_set_user_id_files(bundle: Bundle, container: Container, value: bool) -> None:
    """busybox itself as a set-user-ID program: id shows whether the bit counted."""
    host = bundle.host("/bin/busybox")
    os.unlink(host)
    subprocess.run(["cp", "/bin/busybox", host], check=True)
    os.chmod(host, 0o4755)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["noNewPrivileges"] = value
    text = container.output("grep", "^Uid", "/proc/self/status")
    # busybox gives the privilege back for most applets: the saved user ID tells
    assert (text.split()[3] == "0") == (not value), text


@spec("config.md#linux-process", "If oomScoreAdj is set, the runtime MUST set oom_score_adj to the given value.")
@pytest.mark.parametrize("score", [0, 1, 500, 1000])
@pytest.mark.parametrize("uid", [0, 1000])
def test_oom_score(bundle: Bundle, container: Container, score: int, uid: int) -> None:
    bundle.process["oomScoreAdj"] = score
    bundle.process["user"] = {"uid": uid, "gid": uid}
    assert container.output("cat", "/proc/self/oom_score_adj") == f"{score}\n"


@spec("config.md#linux-process", "If oomScoreAdj is set, the runtime MUST set oom_score_adj to the given value.")
def test_oom_score_in_exec(bundle: Bundle, container: Container) -> None:
    if container.runtime.name == "crun":
        not_applicable("crun's exec takes the score from a process file only")
    bundle.process["oomScoreAdj"] = 300
    container.run_detached()
    got = container.exec("cat", "/proc/self/oom_score_adj", check=True).stdout
    assert got == "300\n"


@spec("config.md#linux-process", "If oomScoreAdj is set, the runtime MUST set oom_score_adj to the given value.")
def test_lowering_the_oom_score(bundle: Bundle, container: Container) -> None:
    """With the privilege it is done, without it is an error: never passed over (rootless is another matter)."""
    bundle.process["oomScoreAdj"] = -500
    bundle.args("cat", "/proc/self/oom_score_adj")
    result = container.run()
    if REQUIREMENTS["CAP_SYS_RESOURCE"](container.runtime) is None:
        assert (result.status, result.stdout) == (0, "-500\n")
    else:
        refused(result)


@spec("config.md#linux-process", "adjusts the oom-killer score in [pid]/oom_score_adj")
@pytest.mark.parametrize("score", [1001, -1001])
def test_oom_score_out_of_range(bundle: Bundle, container: Container, score: int) -> None:
    bundle.process["oomScoreAdj"] = score
    refused(container.run(timeout=15))


@spec("config.md#hostname", "specifies the container's hostname as seen by processes running inside the container")
@pytest.mark.parametrize("name", ["moon", "a" * 64, "with.dots.example"])
def test_hostname(bundle: Bundle, container: Container, name: str) -> None:
    mine = os.uname().nodename
    bundle.config["hostname"] = name
    assert container.output("hostname") == f"{name}\n"
    assert os.uname().nodename == mine


@spec("config.md#hostname", "specifies the container's hostname as seen by processes running inside the container")
def test_hostname_too_long(bundle: Bundle, container: Container) -> None:
    bundle.config["hostname"] = "a" * 65
    refused(container.run(timeout=15))


@spec("config.md#hostname", "On Linux, for example, this will change the hostname in the container UTS namespace.")
def test_hostname_without_a_namespace_of_its_own(bundle: Bundle, container: Container) -> None:
    """It would be the host's that changed."""
    bundle.namespaces(drop=["uts"])
    mine = os.uname().nodename
    bundle.config["hostname"] = "not-the-host"
    try:
        refused(container.run(timeout=15))
    finally:
        changed = os.uname().nodename != mine
        if changed:
            subprocess.run(["hostname", mine], check=True)
    assert not changed


@spec("config.md#domainname", "specifies the container's domainname")
def test_domainname(bundle: Bundle, container: Container) -> None:
    if container.runtime.name == "runc" and container.runtime.version.startswith(("1.0", "1.1")):
        not_applicable("runc has it since 1.2")
    bundle.config["domainname"] = "example.org"
    assert container.output("cat", "/proc/sys/kernel/domainname") == "example.org\n"


# ---------------------------------------------------------------------------------------- the runtime's own binary


def _waiting_loader() -> bytes:
    """An ELF interpreter (x86-64) that makes one system call, pause(2): whoever is loaded by it stands still."""
    code = b"\xb8\x22\0\0\0\x0f\x05\xeb\xf7"  # 1: mov $34,%eax; syscall; jmp 1b
    address, size = 0x10000000, 64 + 56
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, address + size, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, address, address, size + len(code), size + len(code), 4096) + code


@spec("CVE-2019-5736")
@pytest.mark.parametrize("program", ["script", "link", "path"])
@pytest.mark.parametrize("how", ["run", "exec"])
def test_the_runtime_s_binary_is_out_of_reach(bundle: Bundle, container: Container, program: str, how: str) -> None:
    """A program that is /proc/self/exe is the runtime itself, or its interpreter, with the image's own loader in it.

    It may run. But what /proc/PID/exe then names must not be a file of the host's that can be written by that way: a
    copy will do, a sealed memory file, or a mount that is read-only.
    """
    if os.uname().machine != "x86_64":
        not_applicable("the test's program is for x86-64")
    bundle.file("/lib64/ld-linux-x86-64.so.2", _waiting_loader(), 0o755)
    bundle.file("/bin/evil", "#!/proc/self/exe\n", 0o755)
    os.symlink("/proc/self/exe", bundle.host("/bin/link"))
    command = {"script": "/bin/evil", "link": "/bin/link", "path": "/proc/self/exe"}[program]
    if how == "run":
        bundle.args(command)
        if container.run_detached(check=False).status:
            return  # refused: fine
        pid = container.pid
    else:
        container.run_detached()
        path = container.runtime.scratch("pid")
        if container.exec(command, flags=["--detach", "--pid-file", path]).status:
            return
        pid = int(pathlib.Path(path).read_text())
    exe = f"/proc/{pid}/exe"
    try:
        name, found, mount = os.readlink(exe), os.stat(exe), os.statvfs(exe)
    except FileNotFoundError:
        return  # it could not live
    copied = not os.path.exists(name) or not os.path.samestat(os.stat(name), found)
    assert copied or mount.f_flag & os.ST_RDONLY, f"{name} of the host can be had by {exe}"
