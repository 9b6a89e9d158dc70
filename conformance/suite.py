"""Others' suites, put to several runtimes file by file, side by side: what bats.py and runtime_tools.py share."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from conformance.table import behind


def parser(module: str, about: str, suite: str, timeout: float, example: str) -> argparse.ArgumentParser:
    """The options that both have.

    Args:
        module: its name below `conformance`.
        about: what it does, for ``--help``.
        suite: what ``--suite`` names.
        timeout: seconds, the default of ``--timeout``.
        example: how a file may be named.
    """
    known = argparse.ArgumentParser(prog=f"python -m conformance.{module}", description=about)
    known.add_argument("--suite", required=True, type=pathlib.Path, metavar="DIR", help=suite)
    known.add_argument("--runtime", default="pyrunc,runc", metavar="PATH[,…]", help="the first is the one to judge")
    known.add_argument("--timeout", type=float, default=timeout, metavar="SECONDS", help="for one file on one runtime")
    known.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all results as JSON, after every file")
    known.add_argument("--logs", type=pathlib.Path, metavar="DIR", help="where the output goes")
    known.add_argument("file", nargs="*", help=f"files of tests ({example}); all, where none is given")
    return known


def runtimes(given: str) -> list[dict[str, Any]]:
    """A table's head for each runtime: its name (the path, where another has the same), path, and what it says it is.

    Args:
        given: names on PATH or paths, with commas between.

    Raises:
        SystemExit: one is not there or can't tell its version.
    """
    heads: list[dict[str, Any]] = []
    for word in given.split(","):
        path = shutil.which(word)
        if path is None:
            raise SystemExit(f"{word}: no such runtime")
        path = os.path.abspath(path)
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if told.returncode or not told.stdout:
            raise SystemExit(f"{path} --version: {told.stderr.strip() or 'says nothing'}")
        words = told.stdout.splitlines()[0].split()
        head = {"name": os.path.basename(path), "path": path, "program": words[0], "version": words[-1], "notes": []}
        heads.append(head)
    names = [head["name"] for head in heads]
    for head in heads:
        if names.count(head["name"]) > 1:
            head["name"] = head["path"]
    return heads


def side_by_side(
    known: argparse.Namespace,
    files: list[pathlib.Path],
    ask: Callable[[pathlib.Path, dict[str, Any], pathlib.Path], dict[str, dict[str, Any]]],
    tables: list[Callable[[list[dict[str, Any]]], list[str]]],
) -> int:
    """Ask every runtime for every file and print the tables; the exit status.

    Args:
        known: what `parser` has read.
        ask: given a file, a runtime's head and where the output goes: the outcome of each test by name.
        tables: given all results, as `conformance.table` takes them: lines.
    """
    logs = known.logs or pathlib.Path(tempfile.mkdtemp(prefix="conformance-logs-"))
    logs.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = [{"runtime": head, "tests": {}} for head in runtimes(known.runtime)]
    for file in files:
        for r in results:
            name = r["runtime"]["name"]
            log = logs / f"{file.stem}-{name.strip('/').replace('/', '_')}.tap"
            print(f"{file.name} on {name}: {log}", file=sys.stderr)
            r["tests"] |= ask(file, r["runtime"], log)
        if known.json:
            known.json.write_text(json.dumps(results, indent=1))
    print("\n\n".join("\n".join(lines) for table in tables if (lines := table(results))))
    return 1 if behind(results) else 0
