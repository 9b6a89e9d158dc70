"""The commands that list: containers, and a container's processes."""

from __future__ import annotations

import pyrunc.container as library
from pyrunc import jsonio
from pyrunc.cli.program import write
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.program import Call


def containers(call: Call) -> int:
    """``pyrunc list``."""
    found = library.containers(call.root)
    if call.options.bool("quiet"):
        write("".join(f"{entry['id']}\n" for entry in found))
    elif call.options.text("format", "table") == "json":
        write(jsonio.dumps(found or None) + "\n")  # null for none, as Go prints an empty slice
    else:
        write(table(found))
    return 0


def table(found: list[dict[str, Any]]) -> str:
    """A table of containers, each given as `containers` gives it."""
    rows = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
    rows += [[str(entry[key]) for key in ("id", "pid", "status", "bundle", "created", "owner")] for entry in found]
    # as Go's tabwriter lays out runc's: at least 12 wide, at least 3 spaces between, nothing behind the last
    widths = [max(12, *(len(row[column]) + 3 for row in rows)) for column in range(5)] + [0]
    return "".join("".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + "\n" for row in rows)


def processes(call: Call) -> int:
    """``pyrunc ps``."""
    pids = library.Container.load(call.id, root=call.root).pids()
    if call.options.text("format", "table") == "json":
        write(jsonio.dumps(pids or None) + "\n")
        return 0
    import subprocess

    command = ["ps", *(call.arguments[1:] or ["-ef"])]
    try:
        ps = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as e:
        raise Error.from_os(e, action=f"run {command[0]}") from None
    output = ps.stdout.decode(errors="surrogateescape")
    if ps.returncode:
        raise Error(f"status {ps.returncode}: {output.strip()}", action=" ".join(command))
    write(rows_of(output, set(pids)))
    return 0


def rows_of(output: str, pids: set[int]) -> str:
    """Of ps(1)'s output the title and the lines of some processes.

    Raises:
        Error: where it has no column PID to know them by.
    """
    title, *lines = output.splitlines()
    try:
        column = title.split().index("PID")
    except ValueError:
        raise Error("ps printed no column PID: these options do not go with pyrunc ps") from None
    rows = [title]
    for line in lines:
        fields = line.split()
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(line)
    return "\n".join(rows) + "\n"
