"""`--help` and `--version`, from the table."""

from __future__ import annotations

import sys

from pyrunc.cli.table import BOOL, COMMANDS, GLOBAL, HELP
from pyrunc.version import COMMIT, OCI_VERSION, __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrunc.cli.table import Command, Flag

_ABOUT = """
pyrunc runs containers from bundles: a bundle is a directory with a specification file named config.json and a
root filesystem. It is driven by engines such as podman and containerd, and by hand:

    # mkdir -p bundle/rootfs && tar -C bundle/rootfs -xf image.tar
    # pyrunc spec --bundle bundle
    # pyrunc run --bundle bundle my-container"""


def program() -> str:
    """The help of the program as a whole."""
    return "\n".join(
        [
            "NAME:",
            "   pyrunc - Open Container Initiative runtime",
            _ABOUT,
            "",
            "USAGE:",
            "   pyrunc [global options] command [command options] [arguments...]",
            "",
            "VERSION:",
            f"   {__version__}",
            "",
            "COMMANDS:",
            *_columns(
                [
                    *((command.name, command.usage) for command in COMMANDS.values()),
                    ("help, h", "show this help or that of one command"),
                ]
            ),
            "",
            "GLOBAL OPTIONS:",
            *_flags(GLOBAL),
            "",
        ]
    )


def command(command: Command) -> str:
    """The help of one command."""
    words = ("pyrunc", command.name, "[options]", command.synopsis)
    lines = [
        "NAME:",
        f"   pyrunc {command.name} - {command.usage}",
        "",
        "USAGE:",
        "   " + " ".join(word for word in words if word),
    ]
    if command.about:
        lines += [command.about]
    return "\n".join([*lines, "", "OPTIONS:", *_flags((*command.flags, HELP)), ""])


def version() -> str:
    """What `--version` prints; engines look for the lines that begin with "pyrunc version", "commit:" and "spec:"."""
    from pyrunc import seccomp

    lines = [
        f"pyrunc version {__version__}",
        f"commit: {COMMIT}",
        f"spec: {OCI_VERSION}",
        f"python: {sys.version.split()[0]}",
    ]
    libseccomp = seccomp.libseccomp_version()
    if libseccomp is not None:
        lines.append(f"libseccomp: {libseccomp}")
    return "\n".join([*lines, ""])


def _flags(flags: Iterable[Flag]) -> list[str]:
    rows = []
    for flag in flags:
        if flag.hidden:
            continue
        value = "" if flag.kind == BOOL else " value"
        names = f"--{flag.name}{value}" + (f", -{flag.short}{value}" if flag.short else "")
        rows.append((names, flag.usage + (f" (default: {flag.default})" if flag.default else "")))
    return _columns(rows)


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(left) for left, _ in rows)
    return [f"   {left:{width}}  {right}".rstrip() for left, right in rows]
