"""config.json, and its relatives process.json and resources.json: read, and held to the specification.

What comes out of here is a plain dict in which every known property has the shape that the specification
gives it, none is null, and no rule of the specification is broken: later code need not look again.
"""

from __future__ import annotations

from pyrunc.config import rules
from pyrunc.config._table import CONFIG, PROCESS, RESOURCES
from pyrunc.config.check import go_decoded, unknown, valid
from pyrunc.config.files import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["check", "check_process", "check_resources", "load", "load_process", "load_resources", "notes"]


def load(bundle: str) -> dict[str, Any]:
    """The configuration of a bundle, ready to be planned.

    Args:
        bundle: path of the bundle's directory.

    Raises:
        Error: config.json can't be read, isn't JSON, or isn't a configuration that `check` takes.
    """
    config: dict[str, Any] = _shaped(read(f"{bundle}/config.json"), "config", CONFIG)
    _check_rules(config, bundle)
    return config


def load_process(path: str) -> dict[str, Any]:
    """A process for exec, from a file of its own: config.json's process.

    Args:
        path: a file, a FIFO such as a shell's <(command), or "-" for standard input.

    Raises:
        Error: as `load`; pointers are into this file.
    """
    return check_process(read(path, pipe=True))


def check_process(value: Any) -> dict[str, Any]:
    """Hold a process for exec to schema and rules.

    Args:
        value: a parsed process.json.

    Raises:
        Error: with the pointer, into the process, of the value that is wrong.
    """
    process: dict[str, Any] = _shaped(value, "process", PROCESS)
    rules.check_process(process, "")
    return process


def load_resources(path: str) -> dict[str, Any]:
    """Resources for update: config.json's linux.resources.

    Args:
        path: as for `load_process`.

    Raises:
        Error: as `load`; pointers are into this file.
    """
    return check_resources(read(path, pipe=True))


def check_resources(value: Any) -> dict[str, Any]:
    """Hold resources for update to the schema.

    Args:
        value: parsed JSON, as config.json's linux.resources.

    Raises:
        Error: with the pointer, into the resources, of the value that is wrong.
    """
    resources: dict[str, Any] = _shaped(value, "resources", RESOURCES)
    return resources


def check(config: dict[str, Any], bundle: str) -> list[str]:
    """Hold a configuration to schema, rules and bundle.

    Args:
        config: a parsed config.json.
        bundle: path of the bundle's directory, where a relative root.path starts.

    Returns:
        what `notes` says of it.

    Raises:
        Error: with the pointer of the value that is wrong.
    """
    config = _shaped(config, "config", CONFIG)
    _check_rules(config, bundle)
    return notes(config)


def notes(config: dict[str, Any]) -> list[str]:
    """JSON pointers of the properties in a valid configuration that the specification doesn't know.

    It asks to ignore them; this is for --debug.
    """
    return unknown(config, CONFIG)


def _shaped(value: Any, what: str, node: Any) -> Any:
    """The value as Go's decoder takes it, if it has the shape that schema/ gives to a config, process or resources."""
    if not valid(value, node):
        value = go_decoded(value, node)
        if not valid(value, node):
            from pyrunc.config.explain import explain

            raise explain(value, what)
    return value


def _check_rules(config: dict[str, Any], bundle: str) -> None:
    for rule in rules.RULES:
        rule(config)
    rules.check_host(config, bundle)
