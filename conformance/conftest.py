"""pytest's side of the harness: options, fixtures, the rules for tests, and the results as JSON."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conformance import harness
from conformance.harness import Bundle, ConsoleSocket, Container, Runtime, RuntimeUnderTest, Template, Test

pytest_plugins: list[str] = []

_MARKERS = (
    "spec(section, sentence): the specification's section, or runc's man page, that the test holds",
    "requires(what): what the runtime or the host must have; otherwise the test is not applicable",
    "xfail_on(runtime, reason): a runtime that is known to disagree with the quoted sentence",
    "pyrunc_promise: beyond the specification; not applicable to other runtimes",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--runtime", default="pyrunc", help="the runtime: a path or a name on PATH (default: pyrunc)")
    group.addoption(
        "--runtime-arg",
        action="append",
        default=[],
        help="a global option for every call of it; may be repeated",
    )
    group.addoption("--results", metavar="FILE", help="write the results as JSON")
    group.addoption(
        "--spec-texts",
        metavar="DIR",
        action="append",
        default=[],
        help="check quotations against these *.md files",
    )
    group.addoption("--keep-directories", action="store_true", help="keep the tests' directories (bundles, output)")


class Session:
    """What a pytest process holds for the time of its run."""

    def __init__(self, config: pytest.Config) -> None:
        self.notes: list[str] = []
        self.keep = bool(config.getoption("--keep-directories"))
        self.directory = tempfile.mkdtemp(prefix="conformance-")
        os.chmod(self.directory, 0o711)  # users of a user namespace must pass through
        harness.settle_session()
        path = harness.find_runtime(config.getoption("--runtime"), self.directory)
        self.runtime = RuntimeUnderTest(path, config.getoption("--runtime-arg"), self.notes)
        self.template = Template(self.directory)

    def close(self) -> None:
        if not self.keep:
            shutil.rmtree(self.directory)


_session = pytest.StashKey[Session]()
_results = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_configure(config: pytest.Config) -> None:
    for line in _MARKERS:
        config.addinivalue_line("markers", line)
    config.stash[_results] = {}


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if config.option.collectonly:
        return
    if os.geteuid() != 0:
        raise pytest.UsageError("the conformance tests need root: they look at cgroups, mounts and namespaces")
    config.stash[_session] = Session(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    made = config.stash.get(_session, None)
    if made is None:
        return []
    runtime = made.runtime
    return [
        f"runtime: {runtime.name} {runtime.version} ({runtime.path}), cgroups: {runtime.cgroups.mode}",
        *made.notes,
    ]


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    made = config.stash.get(_session, None)
    path = config.getoption("--results")
    if path and not hasattr(config, "workerinput") and made is not None:
        runtime = made.runtime
        about = {"name": runtime.name, "version": runtime.version, "path": runtime.path, "notes": made.notes}
        pathlib.Path(path).write_text(json.dumps({"runtime": about, "tests": config.stash[_results]}, indent=1))
    if made is not None:
        made.close()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    texts = {
        str(file.relative_to(top)).removeprefix("man/"): file.read_text()
        for top in map(pathlib.Path, config.getoption("--spec-texts"))
        for file in top.rglob("*.md")
    }
    wrong = []
    here = pathlib.Path(__file__).parent
    for item in items:
        if here not in item.path.parents:
            continue
        marks = list(item.iter_markers("spec"))
        if not marks:
            wrong.append(f"{item.nodeid}: names no section of the specification (@spec)")
        for mark in marks:
            fault = harness.check_quotation(mark.args[0], mark.args[1], texts) if texts else None
            if fault:
                wrong.append(f"{item.nodeid}: @spec{mark.args!r}: {fault}")
        if item.get_closest_marker("xfail_on") and not any(mark.args[1] for mark in marks):
            wrong.append(f"{item.nodeid}: @xfail_on without the sentence quoted in @spec")
        item.user_properties.append(("spec", [list(mark.args) for mark in marks]))
    if wrong:
        raise pytest.UsageError("\n".join(["", *wrong]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    made = item.config.stash[_session]
    for mark in item.iter_markers("xfail_on"):
        case = item.callspec.id if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ""
        if mark.args[0] == made.runtime.name and (not mark.args[2] or case in mark.args[2]):
            # a failed claim is what is known; a fault of the test itself stays a failure
            claims = (AssertionError, pytest.fail.Exception)
            item.add_marker(pytest.mark.xfail(reason=mark.args[1], raises=claims, strict=False))
    if item.get_closest_marker("pyrunc_promise") and made.runtime.name != "pyrunc":
        pytest.skip("a promise of pyrunc's, beyond the specification")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep each test's worst outcome; a known disagreement (xfail) is a failure in the table."""
    results = _current.stash[_results]
    entry = results.setdefault(report.nodeid, {"outcome": "passed", "reason": "", "seconds": 0.0})
    entry["seconds"] += report.duration
    entry["spec"] = dict(report.user_properties).get("spec", [])
    if hasattr(report, "wasxfail"):
        if report.outcome == "skipped":
            entry.update(outcome="failed", reason=f"known: {report.wasxfail}")
    elif report.outcome == "skipped" and entry["outcome"] == "passed":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        entry.update(outcome="not applicable", reason=reason.removeprefix("Skipped: "))
    elif report.outcome == "failed":
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else str(report.longrepr)
        lines = text.strip().splitlines() or ["?"]
        where = "" if report.when == "call" else f"{report.when}: "
        entry.update(outcome="failed", reason=where + " | ".join(lines[:3]))


class _Current:
    """pytest_runtest_logreport gets no config."""

    stash: pytest.Stash


_current = _Current()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    _current.stash = session.config.stash


# -------------------------------------------------------------------------------------------- fixtures


@pytest.fixture
def test(request: pytest.FixtureRequest) -> Iterator[Test]:
    """Everything that belongs to one test; at its end what is left is deleted, and leftovers fail it."""
    made: Session = request.config.stash[_session]
    it = Test(made.runtime, made.template, made.directory)
    for mark in request.node.iter_markers("requires"):
        why = harness.missing(mark.args[0], it.runtime)
        if why:
            shutil.rmtree(it.directory)
            pytest.skip(why)
    yield it
    trouble = it.finish()
    if not made.keep:
        shutil.rmtree(it.directory)
    if trouble:
        pytest.fail("left behind:\n  " + "\n  ".join(trouble), pytrace=False)


@pytest.fixture
def runtime(test: Test) -> Runtime:
    """The runtime under test, with a ``--root`` of this test's own."""
    return test.runtime


@pytest.fixture
def bundle(test: Test) -> Bundle:
    """A bundle with a busybox rootfs and an ordinary config to edit."""
    return test.bundle()


@pytest.fixture
def user(bundle: Bundle) -> Bundle:
    """`bundle` with a user namespace."""
    return bundle.user_namespace()


@pytest.fixture
def new_bundle(test: Test) -> Callable[[], Bundle]:
    """A function that makes one more bundle."""
    return test.bundle


@pytest.fixture
def new_container(test: Test, bundle: Bundle) -> Callable[..., Container]:
    """A function ``(bundle=…, id=…)`` that names one more container (it makes none)."""

    def new(bundle: Bundle = bundle, id: str | None = None) -> Container:
        return test.container(bundle, id)

    return new


@pytest.fixture
def container(new_container: Callable[..., Container]) -> Container:
    """A container of `bundle` that does not exist yet."""
    return new_container()


@pytest.fixture
def console(test: Test) -> Iterator[ConsoleSocket]:
    """A console socket, listening."""
    made = ConsoleSocket(os.path.join(test.directory, "console"))
    yield made
    made.close()
