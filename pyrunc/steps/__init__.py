"""Steps: the only code of pyrunc that changes the kernel's view of a container.

A step is one action, small enough to name in a line. The planner (pyrunc/plan) puts steps in order and never
runs one; the runner below walks a list and, when a step fails, takes back what has run.
"""

from __future__ import annotations

from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrunc.steps.context import Context


class Step:
    """One kernel-facing action.

    Attributes:
        origin: JSON pointer of the value in config.json that asked for it, "" for what every container gets.
    """

    __slots__ = ("origin",)

    #: True where an error is about the container's command or working directory (see pyrunc/errors.py).
    about_command = False

    def __init__(self, origin: str = "") -> None:
        self.origin = origin

    def describe(self) -> str:
        """What `run` does, as an imperative: ``mount proc on /proc (nosuid,noexec,nodev)``."""
        raise NotImplementedError

    def failed(self) -> str:
        """What the error of a failed `run` says was being done."""
        return self.describe()

    def failure(self, e: OSError) -> Error:
        """The error that a failed system call of `run` is."""
        return Error.from_os(e, pointer=self.origin, action=self.failed(), about_command=self.about_command)

    def run(self, ctx: Context) -> None:
        """Do it. May raise OSError (the runner adds place and action) or Error."""
        raise NotImplementedError

    def undo(self, ctx: Context) -> None:
        """Take it back; called only after `run` was entered, possibly in part. Most steps die with their process."""


def run(steps: Iterable[Step], ctx: Context) -> None:
    """Run steps in order; when one fails undo, in reverse, all that were entered, and raise what failed.

    Raises:
        Error: with the failing step's origin and description.
    """
    entered: list[Step] = []
    for step in steps:
        entered.append(step)
        if ctx.trace is not None:
            ctx.trace(step)
        try:
            step.run(ctx)
        except BaseException as e:  # noqa: BLE001  undone whatever it is, and raised again
            undo(entered, ctx)
            raise explain(e, step) if isinstance(e, OSError | Error) else e from None


def undo(steps: list[Step], ctx: Context) -> None:
    """Undo steps in reverse. A failing undo does not keep the others from running; it is logged."""
    for step in reversed(steps):
        try:
            step.undo(ctx)
        except (OSError, Error) as e:
            ctx.warn(f"undo {step.describe()}: {explain(e, step).reason}")


def explain(e: OSError | Error, step: Step) -> Error:
    """The error of a failed step, with the step's place and action where it had none of its own."""
    if isinstance(e, OSError):
        return step.failure(e)
    e.pointer = e.pointer or step.origin
    e.action = e.action or step.failed()
    return e
