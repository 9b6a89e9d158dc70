"""What a create, a kill and a delete load: an import costs more there than all else that this package does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

V1 = "31 23 0:28 / /c/pids rw - cgroup cgroup rw,pids\n"
V2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"

CREATE = """
from pyrunc.cgroups import detect, manager
found = manager("/web", "web", detect({text!r}), "0::/")
assert found.settings({{"memory": {{"limit": 1}}, "cpu": {{"shares": 1024, "quota": 1}}, "pids": {{"limit": 3}}}})
"""
RESTORE = """
from pyrunc.cgroups import restore
assert not restore({{"version": {version!r}, "paths": {{}}, "unified": None, "rootless": False}}).exists()
"""


def loaded(code: str) -> set[str]:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules)\n{code}\n"
    script += "print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


DEAR = {"re", "json", "enum", "typing", "dataclasses", "pathlib", "subprocess", "logging", "collections", "functools"}
OWN = {"pyrunc.cgroups", "pyrunc.cgroups.base"}


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        (CREATE.format(text=V1), {"v1", "v1_settings", "devices"}),
        (CREATE.format(text=V2), {"v2", "v1_settings", "v2_settings", "devices"}),
        (RESTORE.format(version="v1"), {"v1"}),
        (RESTORE.format(version="v2"), {"v2"}),
    ],
)
def test_only_what_is_needed_is_loaded(code: str, modules: set[str]) -> None:
    expected = OWN | {f"pyrunc.cgroups.{m}" for m in modules}
    found = loaded(code)
    assert {name for name in found if name.startswith("pyrunc.cgroups")} == expected
    assert not found & DEAR
