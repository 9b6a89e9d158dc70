"""Checkpoint and restore: what surrounds the steps in which CRIU does it.

The images are CRIU's (criu(8)), in a directory with one file more, descriptors.json: what the container had as standard
input, output and error. It is the file that runc writes, so each can restore what the other has saved.
"""

from __future__ import annotations

import os

from pyrunc import criu, jsonio, plan, steps
from pyrunc.birth import Birth, context, hook_state
from pyrunc.errors import Error
from pyrunc.plan import checkpoint as planner
from pyrunc.state import State
from pyrunc.steps.record import RecordInit, WritePidFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.birth import Log
    from pyrunc.cgroups.base import Manager
    from pyrunc.steps.context import Context

DESCRIPTORS = "descriptors.json"


def images(
    path: str, work: str | None, manage_cgroups: str, switches: dict[str, Any], *, new: bool, parent: str | None = None
) -> planner.Images:
    """Where CRIU is to put its files or to find them.

    Args:
        new: make the directory if it is missing.
        parent: directory of an earlier pre-dump, relative to `path`.
    """
    if manage_cgroups not in criu.CGROUP_MODES:
        raise Error(f"invalid manage-cgroups-mode {manage_cgroups!r}: not soft, full, strict or ignore")
    switches["manage_cgroups_mode"] = criu.CGROUP_MODES[manage_cgroups]
    path = os.path.abspath(path)
    work = os.path.abspath(work) if work else ""
    for directory in ([path] if new else []) + ([work] if work else []):
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
        except OSError as e:
            raise Error.from_os(e, action=f"make {directory}") from None
    if parent:
        if parent.startswith("/"):
            raise Error("--parent-path must be relative")
        if not os.path.isdir(f"{path}/{parent}"):
            raise Error(f"invalid --parent-path: {path}/{parent} is not a directory")
        switches |= {"parent_img": parent, "track_mem": True}
    return planner.Images(path, work, switches)


def _save_descriptors(directory: str, names: list[str]) -> None:
    path = f"{directory}/{DESCRIPTORS}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, jsonio.dumps(names).encode())
        finally:
            os.close(fd)
    except OSError as e:
        raise Error.from_os(e, action=f"write {path}") from None


def _descriptors(directory: str) -> list[str]:
    path = f"{directory}/{DESCRIPTORS}"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            names = jsonio.loads(file.read())
    except OSError as e:
        raise Error.from_os(e, action=f"read {path}") from None
    except jsonio.JSONError as e:
        raise Error(str(e), action=f"read {path}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Error("is not a list of descriptors' names", action=f"read {path}")
    return names


def dump(
    state: State,
    manager: Manager | None,
    images: planner.Images,
    pre_dump: bool,
    page_server: tuple[str, int] | None,
    status_fd: int,
    log: Log | None,
) -> None:
    """Save the processes of a container that runs or is paused."""
    data, config = state.data, state.config()
    if not plan.Namespaces(config).has("mount"):
        raise Error("a container without a mount namespace of its own cannot be checkpointed")
    if status_fd >= 0:
        _check_status_fd(status_fd)
    opts: dict[str, Any] = {"pid": data["pid"], "root": data["rootfs"]}
    if page_server is not None:
        opts["ps"] = dict(zip(("address", "port"), page_server, strict=True))
    if manager is not None:
        opts["freeze_cgroup"] = manager.freezer() or None
    if not pre_dump:
        _save_descriptors(images.path, data.get("descriptors", []))
    ctx = context(data["id"], data["bundle"], config, log)
    ctx.cgroup = manager
    options = plan.Options(**data["options"])
    request = criu.PRE_DUMP if pre_dump else criu.DUMP
    try:
        steps.run(planner.dump(config, data["bundle"], options, images, request, opts, status_fd), ctx)
    finally:
        if ctx.channel is not None:
            ctx.channel.close()


def _check_status_fd(fd: int) -> None:
    import fcntl

    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError as e:
        raise Error.from_os(e, action=f"invalid --status-fd argument {fd}") from None
    if flags & os.O_ACCMODE not in (os.O_WRONLY, os.O_RDWR):
        raise Error(f"invalid --status-fd argument {fd}: not writable")


def restore(
    birth: Birth, ctx: Context, images: planner.Images, pid_file: str | None, destroy: Callable[[State], None]
) -> State:
    """Take the ID and make the container from images; its state, locked.

    Args:
        destroy: ends the lifecycle, poststop hooks and all, where it fails after hooks may have run.
    """
    if not plan.Namespaces(birth.config).has("mount"):
        raise Error("a container without a mount namespace of its own cannot be restored")
    descriptors = _descriptors(images.path)
    state = State.create(birth.root, birth.id, birth.data(ctx), jsonio.dumps(birth.config))
    ctx.state = hook_state(state.data)
    # CRIU's own mount namespace has the root filesystem here. Without links, as mountinfo has it
    root = f"{os.path.realpath(state.directory)}/root"
    try:
        os.mkdir(root, 0o700)
        birth.make_notify(state)
        options = plan.Options(**birth.saved_options)
        planned = planner.restore(
            birth.config,
            birth.bundle,
            birth.manager,
            options,
            images,
            root,
            descriptors,
            RecordInit(state, creating=True),
            birth.resctrl,
        )
        planned.append(RecordInit(state, creating=False))
        if pid_file:
            planned.append(WritePidFile(pid_file))
        steps.run(planned, ctx)
        os.rmdir(root)
        _note_time_namespace(birth.config, state)
    except BaseException:
        if ctx.state["pid"] and birth.config.get("hooks", {}).get("poststop"):
            destroy(state)
        state.remove()
        raise
    finally:
        if ctx.channel is not None:
            ctx.channel.close()
    return state


def _note_time_namespace(config: dict[str, Any], state: State) -> None:
    """CRIU puts processes into a time namespace, for their clocks to go on; who joins them later is to see the same."""
    types = [namespace["type"] for namespace in config.get("linux", {}).get("namespaces", ())]
    if "time" in types:
        return
    try:
        ours, theirs = (os.readlink(f"/proc/{pid}/ns/time") for pid in ("self", state.data["pid"]))
    except FileNotFoundError:
        return  # it has ended already
    if ours != theirs:
        config.setdefault("linux", {}).setdefault("namespaces", []).append({"type": "time"})
        state.save_config(config)
