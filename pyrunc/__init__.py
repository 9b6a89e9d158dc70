"""pyrunc: an OCI container runtime, as a library.

    from pyrunc import Container

    status = Container.run("web", "/bundles/web")

`Container` has the operations of the runtime specification (create, start, kill, delete, state) and of runc's command
line (run, exec, pause, resume, ps). Errors are `pyrunc.Error`.
"""

from __future__ import annotations

from pyrunc.version import OCI_VERSION, __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.container import Container as Container
    from pyrunc.container import containers as containers
    from pyrunc.errors import Error as Error

__all__ = ["OCI_VERSION", "Container", "Error", "__version__", "containers"]


def __getattr__(name: str) -> object:
    """Load what is asked for: `import pyrunc` alone costs next to nothing."""
    if name in ("Container", "containers"):
        from pyrunc import container

        return getattr(container, name)
    if name == "Error":
        from pyrunc.errors import Error

        return Error
    raise AttributeError(f"module 'pyrunc' has no attribute {name!r}")
