"""The fast check and jsonschema give the same verdict, everywhere; explanations point to the place."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from config_samples import ENGINES, EVERYTHING, PODMAN, changed

from pyrunc.config import rules
from pyrunc.config._table import CONFIG, PROCESS, RESOURCES
from pyrunc.config.check import go_decoded, pointer, unknown, valid
from pyrunc.config.explain import errors, explain, validator
from pyrunc.config.texts import PATTERNS
from pyrunc.errors import Error

#: Names and indices that lead to a place in a value.
Path = tuple[Any, ...]

#: Of every type, at the ends of every range and a step beyond.
WRONG: list[Any] = [
    *(None, True, False, 0, -1, -2, 1, 2**16, 2**32, 2**63, 2**64, -(2**31) - 1, -(2**63) - 1, 1.0, 0.5),
    *("", "x", "/x", "a\nb", "CAP_X", "SCMP_ACT_ALLOW", "RLIMIT_WORK"),
    *([], [None], [1], [{}], ["a"], {}, {"": "a"}, {"a": 1}, {"a": {}}),
]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from places(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def follow(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def sections() -> Iterator[tuple[dict[str, Any], Path]]:
    """The sample in valid parts, which are quicker to judge a thousand times, and the place of what is in each."""
    required = {name: EVERYTHING[name] for name in ("ociVersion", "root")}
    linux = EVERYTHING["linux"]
    for name, value in EVERYTHING.items():
        if name != "linux":
            yield required | {name: value}, (name,)
    for name, value in linux.items():
        if name != "resources":
            yield required | {"linux": {name: value}}, ("linux", name)
    for name, value in linux["resources"].items():
        yield required | {"linux": {"resources": {name: value}}}, ("linux", "resources", name)


def mutations() -> Iterator[tuple[Path, Any]]:
    """The sample with one place changed, in turn: replaced by each wrong value, removed, added to."""
    path: Path
    for path in ((), ("linux",), ("linux", "resources")):
        for wrong in WRONG:
            yield path, wrong if not path else changed(EVERYTHING, **{"__".join(path): wrong})
    for section, top in sections():
        for below in places(follow(section, top)):
            path = top + below
            config = copy.deepcopy(section)
            parent = follow(config, path[:-1])
            old = parent[path[-1]]
            for wrong in WRONG:
                parent[path[-1]] = wrong
                yield path, config
            parent[path[-1]] = old
            if isinstance(parent, dict):
                parent["of/a~later"] = {"version": None}
                yield path[:-1], config
                del parent["of/a~later"]
            del parent[path[-1]]
            yield path, config


def test_everything_is_valid() -> None:
    assert valid(EVERYTHING, CONFIG)
    assert list(validator("config").iter_errors(EVERYTHING)) == []


def test_the_fast_check_and_jsonschema_agree_on_every_mutation() -> None:
    judge = validator("config")
    accepted = refused = 0
    for path, config in mutations():
        fast = valid(config, CONFIG)
        assert fast == judge.is_valid(config), (path, config)
        accepted, refused = accepted + fast, refused + (not fast)
    assert refused > 3000
    assert accepted > 1000


def test_every_refusal_is_explained_at_its_place_in_a_line() -> None:
    seen = 0
    for number, (path, config) in enumerate(mutations()):
        if number % 5 or valid(config, CONFIG):  # one in five, to save time
            continue
        error = explain(config, "config")
        at = "".join(pointer("", part) for part in path)
        # a mutated container is told at the container or inside it; a removed alternative at its parent
        assert error.pointer.startswith(at) or at.startswith(error.pointer), (path, str(error))
        assert error.reason
        assert "\n" not in str(error)
        seen += 1
    assert seen > 600


def test_rules_take_whatever_the_schema_lets_through() -> None:
    """Rules rely on the shape; where a valid value surprises one, it is a traceback for a user."""
    passed = broken = 0
    for _, mutation in mutations():
        if not valid(mutation, CONFIG):
            continue
        config = PODMAN | mutation | {"linux": PODMAN["linux"] | mutation.get("linux", {})}
        try:
            for rule in rules.RULES:
                rule(config)
            passed += 1
        except Error:
            broken += 1
    assert passed > 100
    assert broken > 100


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        ("process__cwd", "tmp", '/process/cwd: "tmp" is not an absolute path'),
        ("process__args", [], "/process/args: needs at least 1 item"),
        ("process__args", "sh", '/process/args: "sh" is not an array'),
        ("process__env", ["A=b", 5], "/process/env/1: 5 is not a string"),
        ("linux__memoryPolicy", {}, "/linux/memoryPolicy/mode: invalid memory policy mode: is required"),
        ("process__rlimits", [{"type": "RLIMIT_AS", "soft": 1}], "/process/rlimits/0/hard: is required"),
        ("process__user__uid", -1, "/process/user/uid: -1 is less than 0"),
        ("process__user__uid", 2**32, "/process/user/uid: 4294967296 is more than 4294967295"),
        ("process__user__uid", 1.0, "/process/user/uid: 1.0 is not an integer"),
        ("ociVersion", "v1", '/ociVersion: "v1" is not a version like 1.3.0 (Semantic Versioning 2.0.0)'),
        ("annotations", {"": "x"}, "/annotations: has a name that is empty"),
        ("annotations", {"a/b~c": 1}, "/annotations/a~1b~0c: 1 is not a string"),
        (
            "linux__personality__domain",
            "BSD",
            '/linux/personality/domain: "BSD" is not one of LINUX, LINUX32',
        ),
        ("linux__devices", [{"type": "c", "path": "/d"}], "/linux/devices/0: needs major and minor"),
        ("linux__resources__rdma", {"m": {}}, "/linux/resources/rdma/m: needs hcaHandles or hcaObjects"),
        ("linux__cgroupsPath", ["x" * 200], '/linux/cgroupsPath: ["' + "x" * 75 + "... is not a string"),
    ],
)
def test_the_line_says_it(place: str, value: Any, line: str) -> None:
    assert str(explain(changed(EVERYTHING, **{place: value}), "config")) == line


def test_all_errors_are_told_to_who_asks() -> None:
    config = changed(EVERYTHING, process__cwd=1, hostname=2)
    del config["root"], config["ociVersion"]
    assert sorted(str(error) for error in errors(config, "config")) == [
        "/hostname: 2 is not a string",
        "/ociVersion: is required",
        "/process/cwd: 1 is not a string",
        "/root: is required",
    ]


def test_parts_have_verdicts_of_their_own() -> None:
    process, resources = EVERYTHING["process"], EVERYTHING["linux"]["resources"]
    for value, what, node in ((process, "process", PROCESS), (resources, "resources", RESOURCES)):
        assert valid(value, node)
        assert validator(what).is_valid(value)
        assert not valid([], node)
        assert str(explain([], what)) == "[] is not an object"


TEXTS = (
    *(
        "",
        "/",
        "/a",
        "a",
        "a/",
        "\n",
        "/\n",
        "a\n",
        "MB:",
        "MB:0=1",
        "MB:\n",
        "xMB:",
        "MB:a\nb",
        "r",
        "rwm",
        "rwmr",
    ),
    *(
        "rx",
        "rw\n",
        "2MB",
        "64KB",
        "1GB",
        "1TB",
        "02MB",
        "MB",
        "2MB\n",
        "2mb",
        "-1MB",
        "0KB",
        "2 MB",
        "\u0662MB",
    ),
    *(
        "1.0.0",
        "1.3.0",
        "1.0.2-dev",
        "1.1.0+dev",
        "1.0.0-rc.1+build.5",
        "0.2.0",
        "1.0",
        "1",
        "1.0.0.0",
        "v1.0.0",
    ),
    *(
        "1.0.0-",
        "1.0.0+",
        "1.0.0-01",
        "1.0.0-0",
        "1.0.0-0a",
        "1.0.0-a..b",
        "1.0.0+a..b",
        "1.0.0+01",
        "01.0.0",
    ),
    *(
        "1.0.0-a+b+c",
        "1.0.0-a-b",
        "1.0.0+a-b",
        "1.0.0\n",
        " 1.0.0",
        "1.0.0-é",
        "1..0",
        "1.0.0--",
        "\u0661.0.0",
    ),
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_functions_say_what_their_patterns_say(pattern: str) -> None:
    ecma = re.compile(pattern.replace("$", r"\Z"))
    function, _ = PATTERNS[pattern]
    assert {text: function(text) for text in TEXTS} == {text: bool(ecma.search(text)) for text in TEXTS}


def test_a_name_in_another_case_is_meant() -> None:
    """As Go's decoder has it: runc's own tests rely on it, and configurations that only runc has read may."""
    limits = [{"pagesize": "2MB", "limit": 1}, {"pageSize": "1GB", "pagesize": "2MB", "LIMIT": 2}]
    resources = {"hugepageLimits": limits, "CPU": {"Shares": 5, "cpus": "0", "CPUS": "1"}, "mine": {"CPU": 1}}
    assert not valid(resources, RESOURCES)  # there is something to decode
    found = go_decoded(resources, RESOURCES)
    assert found == {
        "hugepageLimits": [
            {"pageSize": "2MB", "limit": 1},
            {"pageSize": "2MB", "limit": 2},
        ],
        "cpu": {"shares": 5, "cpus": "1"},
        "mine": {"CPU": 1},
    }
    assert valid(found, RESOURCES)


def test_the_later_of_two_spellings_adds_to_the_earlier() -> None:
    found = go_decoded({"cpu": {"shares": 5, "cpus": "0"}, "CPU": {"Cpus": "1", "mems": "0"}}, RESOURCES)
    assert found == {"cpu": {"shares": 5, "cpus": "1", "mems": "0"}}
    assert go_decoded({"cpu": {"shares": 5}, "CPU": None, "pids": {"limit": 1}}, RESOURCES) == {"pids": {"limit": 1}}


def test_a_name_in_another_case_is_held_to_its_type() -> None:
    assert not valid(go_decoded({"CPU": {"Shares": "many"}}, RESOURCES), RESOURCES)


def test_nulls_of_known_properties_go() -> None:
    config = {
        "ociVersion": None,
        "hooks": None,
        "process": {"env": None, "args": ["a"], "capabilities": {"ambient": None}},
        "mounts": [{"options": None, "destination": "/x"}],
        "linux": {"sysctl": {"a": None}, "rdma": None, "resources": {"rdma": {"m": {"hcaObjects": None}}}},
        "mine": {"a": None},
        "windows": {"layerFolders": None},
    }
    assert go_decoded(config, CONFIG) == {
        "process": {"args": ["a"], "capabilities": {}},
        "mounts": [{"destination": "/x"}],
        "linux": {"sysctl": {"a": None}, "rdma": None, "resources": {"rdma": {"m": {}}}},
        "mine": {"a": None},
        "windows": {"layerFolders": None},
    }


@pytest.mark.parametrize("value", [None, 5, "x", [], [None], {"process": 5, "linux": [{}], "mounts": {"a": 1}}])
def test_nulls_are_looked_for_in_any_shape(value: Any) -> None:
    assert go_decoded(value, CONFIG) == value


def test_unknown_properties_are_found_at_any_depth() -> None:
    config = changed(EVERYTHING, new=1, process__user__shoe=2, linux__resources__memory__high={"a": 1})
    config["mounts"][0]["of/a~later"] = []
    config["linux"]["timeOffsets"]["monotonic"]["picosecs"] = 1
    assert sorted(unknown(config, CONFIG)) == [
        "/linux/resources/memory/high",
        "/linux/timeOffsets/monotonic/picosecs",
        "/mounts/0/of~1a~0later",
        "/new",
        "/process/user/shoe",
    ]
    assert unknown(EVERYTHING, CONFIG) == []


@pytest.mark.parametrize("name", ENGINES)
def test_what_engines_write_is_valid(name: str) -> None:
    assert valid(go_decoded(ENGINES[name], CONFIG), CONFIG)


def test_an_ordinary_config_takes_far_less_than_a_millisecond() -> None:
    def once() -> float:
        start = time.perf_counter()
        assert valid(PODMAN, CONFIG)
        return time.perf_counter() - start

    # 0.06 ms on the machine it was written on; the best of many, for a busy machine
    assert min(once() for _ in range(50)) < 0.001
