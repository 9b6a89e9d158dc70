"""``pyrunc spec`` writes a configuration that pyrunc takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyrunc import config
from pyrunc.cli.program import run
from pyrunc.cli.spec import example, make_rootless


def _spec(bundle: Path, *flags: str) -> dict[str, Any]:
    (bundle / "rootfs").mkdir(exist_ok=True)
    assert run(["spec", "--bundle", str(bundle), *flags]) == 0
    value: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    return value


@pytest.mark.parametrize("flags", [[], ["--rootless"]])
def test_it_is_valid_and_has_nothing_unknown(tmp_path: Path, flags: list[str]) -> None:
    _spec(tmp_path, *flags)
    assert config.notes(config.load(str(tmp_path))) == []


def test_it_is_indented_with_tabs_and_ends_a_line(tmp_path: Path) -> None:
    _spec(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert text.startswith('{\n\t"ociVersion": "1.3.0",\n\t"process": {\n\t\t"terminal": true,\n')
    assert text.endswith("\n}\n")


def test_it_overwrites_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text("mine")
    assert run(["spec", "-b", str(tmp_path)]) == 1
    assert path.read_text() == "mine"
    assert capfd.readouterr().err == f"pyrunc: spec: File {path} exists. Remove it first\n"


def test_a_missing_bundle(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["spec", "-b", str(tmp_path / "none")]) == 1
    assert capfd.readouterr().err == f"pyrunc: spec: write {tmp_path}/none/config.json: does not exist\n"


def test_the_cgroup_namespace_is_for_cgroup_v2() -> None:
    for wanted in (False, True):
        types = [n["type"] for n in example(cgroup_namespace=wanted)["linux"]["namespaces"]]
        assert ("cgroup" in types) is wanted


def test_rootless_maps_the_user_and_asks_for_nothing_that_only_root_may_have() -> None:
    made = example(cgroup_namespace=False)
    make_rootless(made, 1000, 100)
    linux = made["linux"]
    types = [namespace["type"] for namespace in linux["namespaces"]]
    assert "user" in types
    assert "network" not in types
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 100, "size": 1}]
    assert "resources" not in linux
    options = [option for mount in made["mounts"] for option in mount.get("options", [])]
    assert not [option for option in options if option.startswith(("uid=", "gid="))]
    assert {mount["destination"]: mount["type"] for mount in made["mounts"]}["/sys"] == "none"
