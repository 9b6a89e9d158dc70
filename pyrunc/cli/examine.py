"""The commands that look at a bundle and make nothing of it."""

from __future__ import annotations

import os

from pyrunc import config, jsonio
from pyrunc.cli.program import write
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.program import Call


def validate(call: Call) -> int:
    """``pyrunc validate``."""
    path = f"{_bundle(call)}/config.json"
    try:
        found = config.load(_bundle(call))
    except Error as e:
        for other in shape_errors(path):
            if str(other) != str(e):
                write(f"{other}\n")
        raise
    for pointer in config.notes(found):
        write(f"{pointer}: not in the specification, ignored\n")
    write(f"{path} is valid\n")
    return 0


def shape_errors(path: str) -> list[Error]:
    """All that the schema finds wrong with a config.json.

    Nothing where the file can't be read, which `config.load` has told, or where jsonschema is missing.
    """
    from pyrunc.config.explain import errors
    from pyrunc.config.files import read

    try:
        return errors(read(path), "config")
    except (Error, ImportError):
        return []


def plan(call: Call) -> int:
    """``pyrunc plan``."""
    from pyrunc.container import describe

    steps = describe(
        _bundle(call),
        no_pivot=call.options.bool("no-pivot"),
        no_new_keyring=call.options.bool("no-new-keyring"),
        systemd_cgroup=call.globals.bool("systemd-cgroup"),
    )
    if call.options.text("format", "text") == "json":
        write(jsonio.dumps(steps, indent=2) + "\n")
        return 0
    process = ""
    for step in steps:
        if step["process"] != process:
            process = step["process"]
            write(f"{process}:\n")
        write(f"    {step['action']}" + (f"  ({step['origin']})" if step["origin"] else "") + "\n")
    return 0


def _bundle(call: Call) -> str:
    """The bundle: the argument, `--bundle` or the current directory."""
    return os.path.abspath(call.arguments[0] if call.arguments else call.options.text("bundle") or ".")
