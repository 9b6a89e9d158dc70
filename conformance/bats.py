"""Run runc's own integration tests, written for bats(1), on several runtimes and print one table, side by side.

    python -m conformance.bats --suite DIR --runtime pyrunc,/usr/sbin/runc [--systemd] [FILE …]

DIR is a checkout of runc in which `make test-binaries` has run and whose images are in tests/integration/testdata. The
suite takes the runtime from the environment variable RUNC, so any runtime with runc's command line can be put to it.

Exit status 1 where the first runtime fails a test that another passes.
"""

from __future__ import annotations

import os
import pathlib
import pty
import re
import select
import shutil
import signal
import sys
import threading
import time
from typing import Any

import prctl

from conformance import suite
from conformance.table import comparison

_RESULT = re.compile(r"(?P<not>not )?ok (?P<number>\d+) (?P<name>.*?)(?: # skip ?(?P<why>.*))?")
_PLAN = re.compile(r"1\.\.(?P<count>\d+)")
_CHECK = re.compile(r"# +`(?P<check>.*)' failed.*")

#: A test's outcome as `conformance.table` takes it: "outcome", "reason", and "log" where it failed.
Outcome = dict[str, str]


def outcomes(tap: str) -> dict[str, Outcome]:
    """Each test's outcome, by name, in what `bats --tap` printed.

    Lines that are neither a result nor a diagnostic (``# …``, which belongs to the result before it) do not count: what
    a test's background processes print lands among them.

    Raises:
        ValueError: there is no plan (``1..N``): bats has not come to the tests.
    """
    found: dict[str, Outcome] = {}
    count = None
    last: Outcome | None = None
    for line in tap.replace("\r", "").splitlines():
        if plan := _PLAN.fullmatch(line):
            count = int(plan["count"])
        elif result := _RESULT.fullmatch(line):
            last = {"outcome": "passed", "reason": ""}
            if result["not"]:
                last |= {"outcome": "failed", "log": ""}
            elif result["why"] is not None:
                last |= {"outcome": "not applicable", "reason": result["why"]}
            found[result["name"]] = last
        elif last is not None and last["outcome"] == "failed" and line.startswith("#"):
            last["log"] += line[2:] + "\n"
            if not last["reason"] and (check := _CHECK.fullmatch(line)):
                last["reason"] = check["check"]
    if count is None:
        raise ValueError("bats printed no plan")
    if len(found) < count:
        found["(the rest)"] = {"outcome": "failed", "reason": f"{count - len(found)} of {count} tests have not run"}
    return found


def run(file: pathlib.Path, environment: dict[str, str], log: pathlib.Path, patience: float) -> None:
    """Run one file of tests; `log` gets what bats printed.

    The tests have a terminal, their controlling one, as they have where runc's people run them: they start containers
    that take it over. bats itself prints to the log.

    No time limit is set for a single test (BATS_TEST_TIMEOUT): bats waits for it in a child of the test's shell, and a
    plain `wait` in a test would wait for that too.

    Args:
        patience: seconds, after which the run is ended.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir(file.parent)
            os.execvpe("bats", ["bats", "--tap", file.name], environment)
        finally:
            os._exit(127)
    end = time.monotonic() + patience
    readable = [terminal]
    try:
        while pid not in reap():
            if time.monotonic() > end:
                os.killpg(pid, signal.SIGKILL)  # pty.fork made it the leader of a session and of a group
                with log.open("a") as text:
                    text.write(f"\n# ended after {patience:g} s\n")
                end = float("inf")
            if select.select(readable, [], [], 0.05)[0]:
                try:
                    os.read(terminal, 65536)  # nobody reads it, but full it would stop who writes
                except OSError:  # EIO: nobody has the other end open
                    readable.remove(terminal)
    finally:
        os.close(terminal)
        end_children()


def reap() -> set[int]:
    """Wait for all children that have ended, orphans too: tests look whether a container's processes are gone, and a
    zombie isn't, however long the machine's process 1 takes to wait for it."""
    found = set()
    try:
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            found.add(pid)
    except ChildProcessError:
        pass
    return found


def end_children() -> None:
    """End what is left of a file's tests, which the next may not meet: a container's processes, a recvtty."""
    own = f"/proc/self/task/{threading.get_native_id()}/children"
    while children := pathlib.Path(own).read_text().split():
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        reap()
        time.sleep(0.01)


def directories(top: pathlib.Path) -> set[pathlib.Path]:
    """What is a directory of its own where version 1 is mounted below, and no hierarchy. The tests make one for each
    controller that the kernel has and the machine does not mount, and engines take them for hierarchies."""
    if (top / "cgroup.procs").exists():
        return set()  # version 2: cgroups, all of them
    return {path for path in top.iterdir() if path.is_dir() and not path.is_symlink() and not path.is_mount()}


def summary(results: list[dict[str, Any]]) -> list[str]:
    """The lines of the table of files: how many tests each runtime has passed, failed and skipped."""
    names = [r["runtime"]["name"] for r in results]
    files = list(dict.fromkeys(test.partition("::")[0] for r in results for test in r["tests"]))
    width = max(len(file) for file in [*files, "passed/failed/skipped"])
    columns = [max(len(name), 10) for name in names]
    lines = [" ".join(["passed/failed/skipped".ljust(width), *map(str.ljust, names, columns)]).rstrip()]
    for file in [*files, "all"]:
        cells = []
        for r in results:
            kinds = [t["outcome"] for test, t in r["tests"].items() if file in ("all", test.partition("::")[0])]
            cells.append("/".join(str(kinds.count(kind)) for kind in ("passed", "failed", "not applicable")))
        lines.append(" ".join([file.ljust(width), *map(str.ljust, cells, columns)]).rstrip())
    return lines


def differences(results: list[dict[str, Any]]) -> list[str]:
    """The lines of the table of tests in whose outcome runtimes differ."""
    shown = []
    for test in dict.fromkeys(test for r in results for test in r["tests"]):
        row = [r["tests"].get(test, {"outcome": "not run", "reason": ""}) for r in results]
        if len({outcome["outcome"] for outcome in row}) > 1:
            shown.append((test, row))
    return comparison([r["runtime"]["name"] for r in results], shown) if shown else []


def main(argv: list[str] | None = None) -> int:
    parser = suite.parser(
        "bats", (__doc__ or "").split("\n")[0], "the checkout of runc", 900.0, "cgroups, cgroups.bats"
    )
    parser.add_argument("--systemd", action="store_true", help="with --systemd-cgroup, and the tests that are about it")
    known = parser.parse_args(argv)

    tests = known.suite.resolve() / "tests" / "integration"
    files = [tests / f"{name.removesuffix('.bats')}.bats" for name in known.file] or sorted(tests.glob("*.bats"))
    missing = [str(path) for path in files if not path.is_file()] if files else [str(tests)]
    if missing:
        raise SystemExit(f"{missing[0]}: no such tests")
    if shutil.which("bats") is None:
        raise SystemExit("bats is not installed")
    prctl.set_child_subreaper(True)
    environment = {name: value for name, value in os.environ.items() if name != "RUNC_USE_SYSTEMD"}
    if known.systemd:
        environment["RUNC_USE_SYSTEMD"] = "yes"

    def ask(file: pathlib.Path, runtime: dict[str, Any], log: pathlib.Path) -> dict[str, Outcome]:
        run(file, environment | {"RUNC": runtime["path"]}, log, known.timeout)
        text = log.read_text(errors="replace")
        try:
            found = outcomes(text)
        except ValueError as e:
            raise SystemExit(f"{file}: {e}:\n{text[-3000:]}") from None
        return {f"{file.name}::{name}": outcome for name, outcome in found.items()}

    top = pathlib.Path("/sys/fs/cgroup")
    before = directories(top)
    try:
        return suite.side_by_side(known, files, ask, [summary, differences])
    finally:
        for path in directories(top) - before:
            shutil.rmtree(path)


if __name__ == "__main__":
    sys.exit(main())
