"""Run the suite on several runtimes and print one table, side by side.

    python -m conformance --runtimes pyrunc,runc,crun [pytest's arguments …]

Exit status 1 where the first runtime fails a test that another passes, or fails to run at all.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
MARK = {"passed": "passed", "failed": "FAILED", "not applicable": "n/a"}


def run(runtime: str, arguments: list[str], directory: str) -> dict[str, Any]:
    """The results of one runtime: what `--results` wrote."""
    results = os.path.join(directory, f"{runtime.replace('/', '_')}.json")
    log = os.path.join(directory, f"{runtime.replace('/', '_')}.log")
    where = [] if any(os.path.exists(word.partition("::")[0]) for word in arguments) else [str(HERE)]
    options = ["--runtime", runtime, "--results", results, "-q"]
    argv = [sys.executable, "-m", "pytest", *where, *options, *arguments]
    print(f"{runtime}: running; its log is {log}", file=sys.stderr)
    with open(log, "wb") as out:
        status = subprocess.run(argv, cwd=HERE.parent, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    if not os.path.exists(results):
        tail = pathlib.Path(log).read_text(errors="replace")[-3000:]
        raise SystemExit(f"{runtime}: the tests did not run (status {status}):\n{tail}")
    found: dict[str, Any] = json.loads(pathlib.Path(results).read_text())
    return found


def short(name: str) -> str:
    """A node id without the directory."""
    path, mark, test = name.partition("::")  # a parameter may hold slashes
    return path.rpartition("/")[2] + mark + test


def comparison(names: list[str], shown: list[tuple[str, list[dict[str, Any]]]]) -> list[str]:
    """A line for each test with its outcome on each runtime, and a line for each reason.

    Args:
        names: of the runtimes.
        shown: tests, each with its entries in the order of `names`.
    """
    width = max([len(short(test)) for test, _ in shown] + [10])
    lines = [" ".join(["test".ljust(width), *(name.ljust(8) for name in names)])]
    for test, outcomes in shown:
        cells = [MARK.get(o["outcome"], o["outcome"]).ljust(8) for o in outcomes]
        reasons = [f"{name}: {o['reason']}" for name, o in zip(names, outcomes, strict=True) if o["reason"]]
        lines.append(" ".join([short(test).ljust(width), *cells]).rstrip())
        lines += [f"    {reason[:300]}" for reason in reasons]
    return lines


def table(results: list[dict[str, Any]], *, everything: bool) -> list[str]:
    """The lines of the table.

    Args:
        everything: also tests that every runtime passes.
    """
    names = [r["runtime"]["name"] for r in results]
    tests = sorted({test for r in results for test in r["tests"]}, key=lambda t: (t.partition("::")[0], t))
    shown = []
    for test in tests:
        outcomes = [r["tests"].get(test, {"outcome": "not run", "reason": ""}) for r in results]
        if everything or any(o["outcome"] != "passed" for o in outcomes):
            shown.append((test, outcomes))
    lines = comparison(names, shown)
    lines.append("")
    for r in results:
        count = {kind: sum(t["outcome"] == kind for t in r["tests"].values()) for kind in MARK}
        about = f"{r['runtime']['name']} {r['runtime']['version']}"
        counts = ", ".join(f"{n} {kind}" for kind, n in count.items())
        lines.append(f"{about:16} {len(r['tests'])} tests: {counts}")
        lines += [f"    {note}" for note in r["runtime"]["notes"]]
    return lines


def behind(results: list[dict[str, Any]]) -> list[str]:
    """Tests that the first runtime fails and another passes."""
    first, others = results[0]["tests"], results[1:]
    return [
        test
        for test, entry in first.items()
        if entry["outcome"] == "failed" and any(o["tests"].get(test, {}).get("outcome") == "passed" for o in others)
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runtimes", default="pyrunc,runc,crun", help="paths or names, the first is the one to judge")
    parser.add_argument("--all", action="store_true", help="list also the tests that every runtime passes")
    parser.add_argument("--json", metavar="FILE", help="write all results as JSON")
    known, rest = parser.parse_known_args(argv)
    directory = tempfile.mkdtemp(prefix="conformance-results-")
    results = [run(runtime, rest, directory) for runtime in known.runtimes.split(",")]
    if known.json:
        pathlib.Path(known.json).write_text(json.dumps(results, indent=1))
    print("\n".join(table(results, everything=known.all)))
    worse = behind(results)
    if worse:
        print(f"\n{results[0]['runtime']['name']} fails what another runtime passes:")
        print("\n".join(f"    {short(test)}" for test in worse))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
