"""``pyrunc features``: the structure of features.md, and true."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from pyrunc.cli.features import mount_options, structure
from pyrunc.cli.program import run
from pyrunc.config.explain import schema
from pyrunc.linux.process import last_capability
from pyrunc.plan.mountopts import MountOptions


def test_it_follows_the_schema_and_tells_the_truth(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["features"]) == 0
    found = json.loads(capfd.readouterr().out)
    jsonschema.validate(found, schema("features"))
    assert found["ociVersionMin"] == "1.0.0"
    assert found["ociVersionMax"] == "1.3.0"
    assert len(found["hooks"]) == 6
    assert found["linux"]["namespaces"] == [
        "cgroup",
        "ipc",
        "mount",
        "network",
        "pid",
        "time",
        "user",
        "uts",
    ]
    assert found["linux"]["cgroup"] == dict.fromkeys(("v1", "v2", "systemd", "systemdUser", "rdma"), True)
    assert found["linux"]["apparmor"] == {"enabled": True}
    assert found["potentiallyUnsafeConfigAnnotations"] == ["org.systemd.property.", "org.criu.config"]
    # every capability that this kernel knows, or more
    assert len(found["linux"]["capabilities"]) > last_capability()


def test_a_mount_option_is_one_that_no_filesystem_is_asked_about() -> None:
    options = mount_options()
    assert {"ro", "rbind", "rro", "rprivate", "tmpcopyup", "nosymfollow", "defaults", "idmap", "ridmap"} <= set(options)
    assert not {"size", "mode"} & set(options)
    for option in options:
        assert all(value is None for _, value in MountOptions([option]).filesystem)


def test_every_property_of_the_structure_is_told() -> None:
    """features.md: what is absent or null says nothing, and engines then guess."""

    def told(properties: dict[str, Any], value: dict[str, Any], at: str) -> None:
        for name, rule in properties.items():
            assert value.get(name) is not None, f"{at}/{name}"
            if rule.get("$ref", "").startswith("#/$defs/"):
                rule = definitions[rule["$ref"].removeprefix("#/$defs/")]
            if "properties" in rule:
                told(rule["properties"], value[name], f"{at}/{name}")

    form = schema("features")
    definitions = form["$defs"]
    told(form["properties"], structure(), "")
