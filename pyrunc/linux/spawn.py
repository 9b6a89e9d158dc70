"""Running a helper program of the host to its end, without `subprocess` and its imports."""

from __future__ import annotations

import os


def find(program: str) -> str:
    """The path of a program on PATH (the usual directories where PATH is unset); FileNotFoundError names it."""
    for directory in os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").split(":"):
        path = f"{directory or '.'}/{program}"
        if os.access(path, os.X_OK):
            return path
    raise FileNotFoundError(2, "is not installed", program)


def output_of(arguments: list[str]) -> tuple[int, str]:
    """Run a program; its exit status (negative for a signal) and what it printed on stdout and stderr."""
    reader, writer = os.pipe()
    try:
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
        pid = os.posix_spawn(find(arguments[0]), arguments, os.environ, file_actions=actions)
    finally:
        os.close(writer)
    said = b""
    while data := os.read(reader, 65536):
        said += data
    os.close(reader)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode(errors="replace").strip()
