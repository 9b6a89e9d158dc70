"""``pyrunc checkpoint`` and ``pyrunc restore``."""

from __future__ import annotations

import os

from pyrunc.container import Container
from pyrunc.errors import Error
from pyrunc.linux.proc import in_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.program import Call


def checkpoint(call: Call) -> int:
    """``pyrunc checkpoint``."""
    options = call.options
    _warn(call)
    Container.load(call.id, root=call.root, log=call.log).checkpoint(
        **_common(call),
        parent_path=options.text("parent-path") or None,
        pre_dump=options.bool("pre-dump"),
        leave_running=options.bool("leave-running"),
        page_server=_page_server(options.text("page-server")),
        status_fd=options.number("status-fd") if options.given("status-fd") else -1,
        tcp_skip_in_flight=options.bool("tcp-skip-in-flight"),
        link_remap=options.bool("link-remap"),
    )
    return 0


def restore(call: Call) -> int:
    """``pyrunc restore``; the status of the container's process, 0 with `--detach`."""
    options = call.options
    _warn(call)
    return Container.restore(
        call.id,
        os.path.abspath(options.text("bundle") or "."),
        **_common(call),
        root=call.root,
        detach=options.bool("detach"),
        subreaper=not options.bool("no-subreaper"),
        forward_signals=True,
        pid_file=os.path.abspath(options.text("pid-file")) if options.text("pid-file") else None,
        console_socket=options.text("console-socket") or None,
        notify_socket=os.environ.get("NOTIFY_SOCKET"),
        no_pivot=options.bool("no-pivot"),
        lsm_profile=options.text("lsm-profile") or None,
        lsm_mount_context=options.text("lsm-mount-context") or None,
        systemd_cgroup=call.globals.bool("systemd-cgroup"),
        rootless=call.rootless,
        log=call.log,
    )


def _common(call: Call) -> dict[str, Any]:
    """What both have in common, as arguments of the library's."""
    options = call.options
    for kind in options.texts("empty-ns"):
        if kind != "network":
            raise Error(f'namespace "{kind}" is not supported')
    switches = ("lazy-pages", "tcp-established", "ext-unix-sk", "shell-job", "file-locks", "auto-dedup")
    return {
        "image_path": os.path.abspath(options.text("image-path") or "checkpoint"),
        "work_path": options.text("work-path") or None,
        "manage_cgroups": options.text("manage-cgroups-mode"),
        **{name.replace("-", "_"): options.bool(name) for name in switches},
    }


def _page_server(text: str) -> tuple[str, int] | None:
    """What `--page-server` names; an IPv6 address is in brackets."""
    if not text:
        return None
    address, _, port = text.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        address = ""
    if not address or not port:
        raise Error("Use --page-server ADDRESS:PORT to specify page server")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise Error("Invalid port number")
    return address, int(port)


def _warn(call: Call) -> None:
    if os.geteuid() != 0 or in_user_namespace():
        call.log.warn("CRIU can hardly save or restore processes without root's privileges on the host")
