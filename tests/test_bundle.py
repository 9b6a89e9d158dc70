"""The one-file form of the package that scripts/install makes."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import jeepney

import pyrunc
from pyrunc import bundle

PACKAGE = pathlib.Path(pyrunc.__file__).parent
#: Where the one library lives that a module imports at its top.
LIBRARIES = pathlib.Path(jeepney.__file__).parent.parent

LAUNCHER = """
import marshal, sys
with open({path!r}, "rb") as f:
    code, index = marshal.loads(f.read({head}))
space = dict(__name__="pyrunc.bundle")
exec(code, space)
space["install"]({path!r}, {head}, index, {home!r})
sys.path += [{home!r}, {libraries!r}]
"""


def run(home: pathlib.Path, head: int, program: str) -> str:
    launcher = LAUNCHER.format(path=str(home / "pyrunc.bundle"), head=head, home=str(home), libraries=str(LIBRARIES))
    command = [sys.executable, "-I", "-S", "-c", launcher + program]
    return subprocess.run(command, check=True, text=True, capture_output=True).stdout


def copied(tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copytree(PACKAGE, tmp_path / "pyrunc", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_module_is_in_it(tmp_path: pathlib.Path) -> None:
    home = copied(tmp_path)
    head = bundle.build(str(home), str(home))
    files = [file.relative_to(home) for file in (home / "pyrunc").rglob("*.py")]
    for file in files:
        (home / file).unlink()  # so that nothing can come from the files
    names = sorted(".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files)
    names.remove("pyrunc.__main__")
    printed = run(home, head, f"for name in {names!r}: __import__(name); print(name)\n")
    assert printed.split() == names


def test_modules_know_where_their_source_is(tmp_path: pathlib.Path) -> None:
    """Data files are found by `__file__`, subpackages by `__path__`; tracebacks name the place of installation."""
    home = copied(tmp_path)
    head = bundle.build(str(home), "/opt/elsewhere")
    program = "import pyrunc, pyrunc.steps as s; print(s.run.__code__.co_filename, s.__file__, pyrunc.__path__)\n"
    assert run(home, head, program).split() == [
        "/opt/elsewhere/pyrunc/steps/__init__.py",
        f"{home}/pyrunc/steps/__init__.py",
        f"['{home}/pyrunc']",
    ]


def test_no_descriptor_stays_open(tmp_path: pathlib.Path) -> None:
    home = copied(tmp_path)
    head = bundle.build(str(home), str(home))
    program = "import os, pyrunc.steps\nprint(sorted(os.listdir('/proc/self/fd'), key=int))\n"
    # 0, 1, 2 and the one that lists
    assert len(run(home, head, program).split(",")) == 4
