"""Run OCI runtime-tools' validation on several runtimes and print one table, side by side.

    python -m conformance.runtime_tools --suite DIR --runtime pyrunc,/usr/sbin/runc [FILE …]

DIR is a checkout of runtime-tools in which `make runtimetest validation-executables` has run, or a directory with what
came of it: `validation/*/*.t`, `runtimetest`, `rootfs-ARCH.tar.gz`. The programs take the runtime from the environment
variable RUNTIME and print TAP.

Exit status 1 where the first runtime is not clean in a file in which another is.
"""

from __future__ import annotations

import collections
import functools
import operator
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from conformance import suite
from conformance.table import comparison

_POINT = re.compile(r"(?P<not>not )?ok (?P<number>\d+)(?: -)? ?(?P<name>.*?)(?P<skip> ?# (?i:skip)\b.*)?")
_PLAN = re.compile(r"1\.\.(?P<count>\d+)")

#: As process 1 of a process ID namespace: what a program leaves behind ends with it, and orphans are reaped.
#: $1: the runtime, $2: the program, $3: a mount that the runtime can't stand, or "";
#: a runtime that looks no closer writes to what is in its place.
_INSIDE = """
[ -z "$3" ] || { umount "$3" && mount -t tmpfs none "$3"; } || exit
"$2"
status=$?
"$1" list -q 2>/dev/null | while read -r id; do "$1" delete --force "$id"; done
exit $status
"""

#: The cgroups that the suite asks for: its own alone.
_CGROUPS = ("/cgrouptest", "/testdir/cgrouptest/container", "/testdir/cgrouptest", "/testdir")

#: A file's outcome as `conformance.table` takes it ("outcome", "reason"); "ok" and "not ok" list what was tested.
Outcome = dict[str, Any]


def outcome(tap: str, status: int) -> Outcome:
    """What a program's output and exit status come to.

    A file is clean ("passed") where it ran to its end: a plan (``1..N``), N results, none of them ``not ok``, and exit
    status 0. A program may print one stream of TAP after another: their plans add up. Lines that do not start in the
    first column are diagnostics.
    """
    found: Outcome = {"outcome": "failed", "reason": "", "ok": [], "not ok": []}
    skipped, count = 0, -1
    for line in tap.splitlines():
        if point := _POINT.fullmatch(line):
            found["not ok" if point["not"] else "ok"].append(point["name"])
            skipped += bool(point["skip"])
        elif plan := _PLAN.fullmatch(line):
            count = max(count, 0) + int(plan["count"])
    results = len(found["ok"]) + len(found["not ok"])
    trouble = [name or "(a test without a name)" for name in dict.fromkeys(found["not ok"])]
    if status:
        trouble.append(f"status {status}")
    if not results:
        trouble.append("nothing was tested")
    elif count != results:
        trouble.append(f"{results} results, {'no plan' if count < 0 else f'{count} planned'}")
    if trouble:
        found["reason"] = "; ".join(trouble)
    else:
        found["outcome"] = "not applicable" if skipped == results else "passed"
    return found


def run(file: pathlib.Path, top: pathlib.Path, runtime: str, log: pathlib.Path, patience: float, hide: str) -> int:
    """Run one file on one runtime, in a mount and a process ID namespace of its own; `log` gets what it printed.

    Args:
        top: the suite's directory.
        patience: seconds, after which everything in it is ended.
        hide: a mount to be out of the runtime's sight, or "".

    Returns:
        The exit status: 128 and more for a signal's, 124 where it took too long.
    """
    directory = pathlib.Path(tempfile.mkdtemp(prefix="runtime-tools-"))
    try:
        directory.chmod(0o711)  # users of a user namespace must pass through
        wrapper = directory / "runtime"
        wrapper.write_text(f'#!/bin/sh\nexec "{runtime}" --root "{directory}/state" "$@"\n')
        wrapper.chmod(0o755)
        environment = os.environ | {"RUNTIME": str(wrapper), "TMPDIR": str(directory)}
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv += ["sh", "-c", _INSIDE, "sh", str(wrapper), str(file), hide]
        with log.open("wb") as out:
            try:
                status = subprocess.run(
                    argv,
                    cwd=top,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    timeout=patience,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                status = 124
        return status if status >= 0 else 128 - status
    finally:
        shutil.rmtree(directory)
        remove_cgroups()


def hierarchies() -> dict[str, str]:
    """The mount points of the cgroup hierarchies, each with its kind: "cgroup" is version 1, "cgroup2" version 2."""
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split() for line in file]
    kinds = {mount[4]: mount[mount.index("-") + 1] for mount in mounts}
    return {place: kind for place, kind in kinds.items() if kind in ("cgroup", "cgroup2")}


def hybrid() -> str:
    """Where version 2 is mounted beside version 1, "" where it isn't."""
    found = hierarchies()
    return next((place for place, kind in found.items() if kind == "cgroup2" and "cgroup" in found.values()), "")


def remove_cgroups() -> None:
    """Remove what is left of the suite's cgroups: the next runtime is to find none."""
    for top in hierarchies():
        for name in _CGROUPS:
            try:
                os.rmdir(top + name)
            except OSError:  # mostly it isn't there; one in use can't be helped from here
                continue


def cell(found: Outcome) -> str:
    """ "12/0 clean": ok and not ok."""
    mark = {"passed": " clean", "not applicable": " n/a"}.get(found["outcome"], "")
    return f"{len(found['ok'])}/{len(found['not ok'])}{mark}"


def summary(results: list[dict[str, Any]]) -> list[str]:
    """The lines of the table of files."""
    names = [r["runtime"]["name"] for r in results]
    files = list(dict.fromkeys(file for r in results for file in r["tests"]))
    width = max(len(file) for file in [*files, "ok/not ok"])
    columns = [max(len(name), len("100/100 clean")) for name in names]
    rows = [["ok/not ok", *names]]
    rows += [[file, *(cell(r["tests"][file]) for r in results)] for file in files]
    clean = [sum(t["outcome"] == "passed" for t in r["tests"].values()) for r in results]
    rows.append([f"clean, of {len(files)}", *map(str, clean)])
    return [" ".join([row[0].ljust(width), *map(str.ljust, row[1:], columns)]).rstrip() for row in rows]


def differences(results: list[dict[str, Any]]) -> list[str]:
    """The lines about the files in which runtimes differ: what each fails there that another does not."""
    shown = []
    for file in results[0]["tests"]:
        row = [dict(r["tests"][file]) for r in results]
        if len({(o["outcome"], tuple(sorted(o["not ok"]))) for o in row}) < 2:
            continue
        failed: list[collections.Counter[str]] = [collections.Counter(o["not ok"]) for o in row]
        everyones = functools.reduce(operator.and_, failed)
        for o, points in zip(row, failed, strict=True):
            if own := points - everyones:
                o["reason"] = "; ".join(f"{name} ({n} times)" if n > 1 else name for name, n in own.items())
        shown.append((file, row))
    return comparison([r["runtime"]["name"] for r in results], shown) if shown else []


def main(argv: list[str] | None = None) -> int:
    parser = suite.parser("runtime_tools", (__doc__ or "").split("\n")[0], "the built suite", 120.0, "mounts, mounts.t")
    parser.add_argument(
        "--attempts", type=int, default=1, metavar="N", help="at a file, until it is clean (killsig races)"
    )
    known = parser.parse_args(argv)

    directory = known.suite.resolve()
    tests = directory / "validation"
    wanted = [name.removesuffix(".t") for name in known.file]
    files = [tests / name / f"{name}.t" for name in wanted] or sorted(tests.glob("*/*.t"))
    needed = [*files, directory / "runtimetest"] if files else [tests / "*" / "*.t"]
    if missing := [path for path in needed if not os.access(path, os.X_OK)]:
        raise SystemExit(f"{missing[0]}: no such program")
    if os.geteuid():
        raise SystemExit("the validation needs root")
    unified = hybrid()

    def ask(file: pathlib.Path, runtime: dict[str, Any], log: pathlib.Path) -> dict[str, Outcome]:
        # crun refuses the hybrid layout: it gets to see no more than version 1
        hide = unified if runtime["program"] == "crun" else ""
        for _ in range(known.attempts):
            status = run(file, directory, runtime["path"], log, known.timeout, hide)
            found = outcome(log.read_text(errors="replace"), status)
            if found["outcome"] != "failed":
                break
        return {file.stem: found}

    return suite.side_by_side(known, files, ask, [summary, differences])


if __name__ == "__main__":
    sys.exit(main())
