"""schema/: itself in order, complete, described, and what the fast check's table is made from."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from config_samples import EVERYTHING

from pyrunc.config.explain import schema
from pyrunc.config.texts import PATTERNS

TOP = Path(__file__).resolve().parents[2]
NAMES = ("config", "state", "features")


def schemas(value: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All schemas within one, by pointer (not the words of a condition)."""
    yield at, value
    for key in ("properties", "$defs"):
        for name, inner in value.get(key, {}).items():
            yield from schemas(inner, f"{at}/{key}/{name}")
    for key in ("items", "additionalProperties"):
        if key in value:
            yield from schemas(value[key], f"{at}/{key}")


@pytest.mark.parametrize("name", NAMES)
def test_is_a_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_property_and_definition_has_a_description(name: str) -> None:
    parts = [(at, part) for at, part in schemas(schema(name)) if at.split("/")[-2:-1] != []]
    named = [(at, part) for at, part in parts if at.split("/")[-2] in ("properties", "$defs")]
    assert len(named) > 5
    assert [at for at, part in named if len(part.get("description", "")) < 5] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_schema_forbids_properties_that_it_does_not_know(name: str) -> None:
    assert [at for at, part in schemas(schema(name)) if part.get("additionalProperties") is False] == []


def test_the_sample_names_every_property() -> None:
    """So the mutations in test_config_check.py come to every place of the schema."""
    whole = schema("config")

    def missing(part: dict[str, Any], value: Any, at: str) -> Iterator[str]:
        if "$ref" in part:
            part = whole["$defs"][part["$ref"].removeprefix("#/$defs/")]
        for name, inner in part.get("properties", {}).items():
            if not any(name in one for one in value):
                yield f"{at}/{name}"
            else:
                yield from missing(inner, [one[name] for one in value if name in one], f"{at}/{name}")
        if "items" in part:
            yield from missing(part["items"], [item for one in value for item in one], f"{at}/0")
        if "additionalProperties" in part:
            yield from missing(part["additionalProperties"], [v for one in value for v in one.values()], f"{at}/*")

    assert list(missing(whole, [EVERYTHING], "")) == []


def test_every_pattern_has_a_function_and_is_used() -> None:
    assert {part["pattern"] for _, part in schemas(schema("config")) if "pattern" in part} == set(PATTERNS)


def test_the_table_is_up_to_date() -> None:
    made = subprocess.run([sys.executable, TOP / "scripts/make-check", "--check"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


def test_an_installed_package_finds_its_schema(tmp_path: Path) -> None:
    """pyproject.toml puts schema/ into the package as pyrunc.schema."""
    shutil.copytree(TOP / "pyrunc", tmp_path / "pyrunc")
    shutil.copytree(TOP / "schema", tmp_path / "pyrunc" / "schema")
    code = "from pyrunc.config import explain; print(explain.schema('config')['title'], explain.__file__)"
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "config.json" in out
    assert str(tmp_path) in out


STATE = {
    "ociVersion": "1.3.0",
    "id": "web",
    "pid": 4422,
    "status": "running",
    "bundle": "/run/containers/web",
    "rootfs": "/run/containers/web/rootfs",
    "created": "2025-11-23T05:21:50.5Z",
    "annotations": {"com.example.key": "value"},
    "owner": "",
}


@pytest.mark.parametrize(
    "change",
    [{}, {"annotations": {}}, {"annotations": None}, {"status": "stopped", "pid": 0}, {"status": "paused"}],
)
def test_state_takes(change: dict[str, Any]) -> None:
    jsonschema.validate(STATE | change, schema("state"))


@pytest.mark.parametrize(
    "change", [{"bundle": "web"}, {"pid": "4422"}, {"id": ""}, {"annotations": {"a": 1}}, {"status": None}]
)
def test_state_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(STATE | change, schema("state"))


@pytest.mark.parametrize("name", ["ociVersion", "id", "status", "bundle", "pid"])
def test_state_requires(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({key: value for key, value in STATE.items() if key != name}, schema("state"))


def test_state_of_a_stopped_container_needs_no_pid() -> None:
    stopped = {key: value for key, value in STATE.items() if key != "pid"} | {"status": "stopped"}
    jsonschema.validate(stopped, schema("state"))


FEATURES: dict[str, Any] = {
    "ociVersionMin": "1.0.0",
    "ociVersionMax": "1.3.0",
    "hooks": ["prestart", "createRuntime"],
    "mountOptions": ["bind", "ro"],
    "linux": {
        "namespaces": ["pid", "user"],
        "capabilities": ["CAP_CHOWN"],
        "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": None, "rdma": True},
        "seccomp": {
            "enabled": True,
            "actions": ["SCMP_ACT_ALLOW"],
            "operators": ["SCMP_CMP_EQ"],
            "archs": ["SCMP_ARCH_X86_64"],
            "knownFlags": ["SECCOMP_FILTER_FLAG_LOG"],
            "supportedFlags": [],
        },
        "apparmor": {"enabled": False},
        "selinux": {"enabled": False},
        "memoryPolicy": {"modes": [], "flags": []},
        "intelRdt": {"enabled": False, "schemata": False, "monitoring": False},
        "mountExtensions": {"idmap": {"enabled": False}},
        "netDevices": {"enabled": False},
    },
    "annotations": {"org.example.version": "1"},
    "potentiallyUnsafeConfigAnnotations": ["org.systemd.property."],
}


@pytest.mark.parametrize("change", [{}, {"linux": None}, {"hooks": None}, {"hooks": []}, {"annotations": None}])
def test_features_takes(change: dict[str, Any]) -> None:
    jsonschema.validate(FEATURES | change, schema("features"))


@pytest.mark.parametrize(
    "change",
    [
        {"ociVersionMin": None},
        {"ociVersionMax": 1},
        {"hooks": "prestart"},
        {"linux": {"cgroup": {"v1": "yes"}}},
        {"linux": {"seccomp": {"actions": [None]}}},
        {"linux": {"mountExtensions": {"idmap": True}}},
        {"annotations": {"": "x"}},
    ],
)
def test_features_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(FEATURES | change, schema("features"))
