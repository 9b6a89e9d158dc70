"""The commands that make a container."""

from __future__ import annotations

import os

from pyrunc.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.program import Call


def create(call: Call) -> int:
    """``pyrunc create``."""
    Container.create(call.id, **_options(call))
    return 0


def run(call: Call) -> int:
    """``pyrunc run``; the status of the container's process, 0 with `--detach`."""
    options = call.options
    return Container.run(
        call.id,
        **_options(call),
        detach=options.bool("detach"),
        keep=options.bool("keep"),
        subreaper=not options.bool("no-subreaper"),
        forward_signals=True,
    )


def _options(call: Call) -> dict[str, Any]:
    """What create and run have in common, as arguments of the library's."""
    options = call.options
    return {
        "bundle": os.path.abspath(options.text("bundle") or "."),
        "root": call.root,
        "console_socket": options.text("console-socket") or None,
        "pidfd_socket": options.text("pidfd-socket") or None,
        # absolute: the library may change its working directory to the bundle before it writes the file
        "pid_file": os.path.abspath(options.text("pid-file")) if options.text("pid-file") else None,
        "no_pivot": options.bool("no-pivot"),
        "no_new_keyring": options.bool("no-new-keyring"),
        "preserve_fds": options.number("preserve-fds"),
        "systemd_cgroup": call.globals.bool("systemd-cgroup"),
        "rootless": call.rootless,
        "notify_socket": os.environ.get("NOTIFY_SOCKET"),
        "log": call.log,
    }
