"""``pyrunc exec``: another process in a running container."""

from __future__ import annotations

import os

from pyrunc import config
from pyrunc.container import Container
from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.parse import Options
    from pyrunc.cli.program import Call


def execute(call: Call) -> int:
    """``pyrunc exec``; the status of the process, 0 with `--detach`."""
    options = call.options
    container = Container.load(call.id, root=call.root, log=call.log)
    if options.text("process"):
        process = config.load_process(options.text("process"))
    else:
        if len(call.arguments) < 2:
            raise Error("exec args cannot be empty")
        # the container's own process, but for what was asked for
        process = container.config().get("process", {"cwd": "/"}) | {"args": call.arguments[1:]}
        change(process, options)
        process = config.check_process(process)
    return container.exec(
        process,
        forward_signals=True,
        detach=options.bool("detach"),
        console_socket=options.text("console-socket") or None,
        pidfd_socket=options.text("pidfd-socket") or None,
        pid_file=os.path.abspath(options.text("pid-file")) if options.text("pid-file") else None,
        preserve_fds=options.number("preserve-fds"),
        cgroups=cgroups(options.texts("cgroup")),
        ignore_paused=options.bool("ignore-paused"),
        log=call.log,
    )


def change(process: dict[str, Any], options: Options) -> None:
    """Change a process, of the form of config.json's, as the flags of exec say."""
    for flag, key in (("cwd", "cwd"), ("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if options.text(flag):
            process[key] = options.text(flag)
    # a terminal only when asked for, whatever the container's own process has
    process["terminal"] = options.bool("tty")
    if options.given("no-new-privs"):
        process["noNewPrivileges"] = options.bool("no-new-privs")
    if options.texts("env"):
        process["env"] = [*(process.get("env") or ()), *options.texts("env")]
    user = process.setdefault("user", {"uid": 0, "gid": 0})
    if options.text("user"):
        uid, colon, gid = options.text("user").partition(":")
        user["uid"] = _id(uid, "uid")
        if colon:
            user["gid"] = _id(gid, "gid")
    if options.texts("additional-gids"):
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *options.numbers("additional-gids")]
    if options.texts("cap"):
        _add_capabilities(process, options.texts("cap"))


def cgroups(arguments: list[str]) -> dict[str, str]:
    """`--cgroup`'s arguments as a map from controller to path; one path alone (cgroup v2) is at "".

    Raises:
        Error: for a missing, an empty or a repeated controller.
    """
    paths: dict[str, str] = {}
    for argument in arguments:
        controllers, colon, path = argument.partition(":")
        if not colon:
            if len(arguments) > 1:
                raise Error(f"invalid --cgroup {argument}: missing <controller>: prefix")
            return {"": argument}
        for controller in controllers.split(","):
            if not controller:
                raise Error(f"invalid --cgroup {argument}: empty <controller> prefix")
            if controller in paths:
                raise Error(f"invalid --cgroup {argument}: controller {controller} is given twice")
            paths[controller] = path
    return paths


def _id(word: str, what: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word) < 2**32 - 1):
        raise Error(f'invalid --user: bad {what} "{word}"')
    return int(word)


def _add_capabilities(process: dict[str, Any], names: list[str]) -> None:
    """Give the process capabilities; as ambient ones only where it has inheritable ones, which those need."""
    sets = process.setdefault("capabilities", {})
    keys = ["bounding", "effective", "permitted"] + (["ambient"] if sets.get("inheritable") else [])
    for key in keys:
        sets[key] = [*(sets.get(key) or ()), *(name for name in names if name not in (sets.get(key) or ()))]
