"""Every step of every plan fails once: one line tells it, and nothing is left."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from pyrunc import Error
from pyrunc.container import Container
from pyrunc.steps.process import WaitForStart
from robustness.lab import Lab, Tamper, in_lab, plan_of

INJECTED = "injected fault"


def _os_error(ctx: Any) -> None:
    raise OSError(errno.EDOM, INJECTED)


def _error(ctx: Any) -> None:
    raise Error(INJECTED)


def _says_it(e: Error, what: str) -> bool:
    """Whether an error is one line, about the injected fault and the step."""
    line = str(e)
    return "\n" not in line and (INJECTED in line or "Numerical argument out of domain" in line) and what in line


def _ways(process: str, length: int) -> list[tuple[int, dict[str, Any]]]:
    """Where and how the steps of a list fail. A step of the runtime also fails after it has done its work, so that
    its `undo` has something to do; init's work ends with init."""
    ways: list[tuple[int, dict[str, Any]]] = []
    for index in range(length):
        first, second = (_os_error, _error) if index % 2 else (_error, _os_error)
        ways.append((index, {"before": first}))
        if process == "runtime":
            ways.append((index, {"after": second}))
    return ways


@pytest.mark.parametrize("kind", ["full", "user", "joined", "threads", "host"])
@in_lab
def test_create_and_start(lab: Lab, kind: str) -> None:
    bundle = lab.full(kind)
    container = lab.create(bundle)
    container.start()
    container.delete(force=True)
    lab.poststops()
    lab.expect_clean("no fault at all")
    plan = plan_of(lambda: lab.create(bundle))
    lab.expect_clean("planning")
    start_init = next(i for i, s in enumerate(plan["runtime"]) if type(s).__name__ == "StartInit")
    waits = next(i for i, s in enumerate(plan["init"]) if isinstance(s, WaitForStart))
    for process, steps in plan.items():
        for index, way in _ways(process, len(steps)):
            step = steps[index].describe()
            what = f"{kind}, {process} step {index} ({step}) fails {'before' if 'before' in way else 'after'}"
            made: Container | None = None
            with Tamper(process, index, **way):
                try:
                    made = lab.create(bundle, pid_file=str(lab.path / "pid"))
                except Error as e:
                    if not _says_it(e, step):
                        lab.fault(f"{what}: said {e}")
            if process == "init" and index > waits:
                if made is None:
                    lab.fault(f"{what}: create failed")
                    continue
                (lab.path / "pid").unlink()
                try:
                    made.start()
                    lab.fault(f"{what}: start succeeded")
                except Error as e:
                    if not _says_it(e, step):
                        lab.fault(f"{what}: said {e}")
            elif made is not None:
                lab.fault(f"{what}: create succeeded")
                made.delete(force=True)
            # runtime.md, Lifecycle: poststop hooks run when the container is destroyed; before init there was none
            was_there = process == "init" or (process == "runtime" and (index, "after" in way) >= (start_init, True))
            if lab.poststops() != was_there:
                lab.fault(f"{what}: poststop hooks ran {'not' if was_there else 'for nothing'}")
            # without a PID namespace to end with init, its hooks become orphans; they must not live
            lab.expect_clean(what, orphans=kind == "host")


@in_lab
def test_run(lab: Lab) -> None:
    """The same for `run`, whose line to init is another one: pipes."""

    def run() -> int:
        return Container.run("c", str(bundle), root=str(lab.root), stdio=lab.quiet(), pid_file=str(lab.path / "pid"))

    bundle = lab.bundle("run", **lab.rich() | {"process/args": ["/bin/true"]})
    assert run() == 0
    lab.poststops()
    (lab.path / "pid").unlink()
    lab.expect_clean("no fault at all")
    plan = plan_of(run)
    for process, steps in plan.items():
        for index, way in _ways(process, len(steps)):
            step = steps[index].describe()
            what = f"{process} step {index} ({step}) fails {'before' if 'before' in way else 'after'}"
            with Tamper(process, index, **way):
                try:
                    run()
                    lab.fault(f"{what}: run succeeded")
                except Error as e:
                    if not _says_it(e, step):
                        lab.fault(f"{what}: said {e}")
            lab.poststops()
            (lab.path / "pid").unlink(missing_ok=True)
            lab.expect_clean(what)


@pytest.mark.parametrize("kind", ["full", "user"])
@in_lab
def test_exec(lab: Lab, kind: str) -> None:
    bundle = lab.full(kind)
    container = lab.create(bundle)
    container.start()
    process = lab.rich()["process"] | {"args": ["/bin/true"]}

    def execute() -> int:
        return container.exec(process, pid_file=str(lab.path / "pid"), stdio=lab.quiet())

    assert execute() == 0
    (lab.path / "pid").unlink()
    lab.before = lab.host()
    plan = plan_of(execute)
    lab.expect_clean("planning")
    for process_name, steps in plan.items():
        for index, way in _ways(process_name, len(steps)):
            step = steps[index].describe()
            what = f"{process_name} step {index} ({step}) fails {'before' if 'before' in way else 'after'}"
            with Tamper(process_name, index, **way):
                try:
                    execute()
                    lab.fault(f"{what}: exec succeeded")
                except Error as e:
                    if not _says_it(e, step):
                        lab.fault(f"{what}: said {e}")
            (lab.path / "pid").unlink(missing_ok=True)
            lab.expect_clean(what)
    if container.state()["status"] != "running" or len(container.pids()) != 1:
        lab.fault("the container did not survive the failures of exec")
    container.delete(force=True)
