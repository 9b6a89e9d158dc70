"""All modules of the installed package in one file: a quarter of the time that importing them one by one takes.

The interpreter looks for each module in several directories by several names, and opens, measures and reads two files
for it: some 400 system calls for a `run`. `scripts/install` writes one file with the compiled modules behind an index,
and the launcher puts the importer below in front of the ordinary one, which still finds the libraries.

The file: the marshalled tuple (code of this module, index), then the modules' marshalled code. The index is
module name -> (offset from the end of the tuple, length, is a package).
"""

from __future__ import annotations

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType


class Importer:
    """A finder and loader (`importlib.abc`) of the modules in a bundle.

    Args:
        path: the bundle.
        start: where in it the modules begin.
        index: as described above.
        home: the directory that holds the package's files, too.
    """

    def __init__(self, path: str, start: int, index: dict[str, tuple[int, int, bool]], home: str) -> None:
        self.path = path
        self.start = start
        self.index = index
        self.home = home

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.index:
            return None
        is_package = self.index[name][2]
        file = f"{self.home}/{name.replace('.', '/')}{'/__init__' if is_package else ''}.py"
        spec = ModuleSpec(name, self, origin=file, is_package=is_package)  # type: ignore[arg-type]
        spec.has_location = True  # gives the module its __file__
        if is_package:
            spec.submodule_search_locations = [file.rpartition("/")[0]]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        return None  # the import system makes an ordinary one

    def exec_module(self, module: ModuleType) -> None:
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        offset, length, _ = self.index[name]
        # opened for each: a descriptor kept would be one that init has to know and to close
        fd = posix.open(self.path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            code: CodeType = marshal.loads(posix.pread(fd, length, self.start + offset))
        finally:
            posix.close(fd)
        return code


def install(path: str, start: int, index: dict[str, tuple[int, int, bool]], home: str) -> None:
    """Import from the bundle before all else."""
    sys.meta_path.insert(0, Importer(path, start, index, home))


def build(home: str, place: str) -> int:
    """Write ``home/pyrunc.bundle`` of all modules below ``home/pyrunc``.

    Args:
        home: the directory that holds the package.
        place: where that directory will be when the bundle is used; what tracebacks name.

    Returns:
        the length of the tuple at its beginning.
    """
    import os

    index: dict[str, tuple[int, int, bool]] = {}
    modules = b""
    own = None
    for directory, directories, files in os.walk(f"{home}/pyrunc"):
        directories.sort()
        for file in sorted(files):
            if not file.endswith(".py"):
                continue
            source = f"{directory}/{file}"
            inner = os.path.relpath(source, home)
            name = inner.removesuffix(".py").replace("/", ".")
            with open(source, encoding="utf-8") as f:
                code = compile(f.read(), f"{place}/{inner}", "exec", dont_inherit=True, optimize=2)
            if name == __name__:
                own = code
            blob = marshal.dumps(code)
            index[name.removesuffix(".__init__")] = (len(modules), len(blob), file == "__init__.py")
            modules += blob
    head = marshal.dumps((own, index))
    with open(f"{home}/pyrunc.bundle", "wb") as f:
        f.write(head + modules)
    return len(head)
