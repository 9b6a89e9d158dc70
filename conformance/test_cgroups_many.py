"""Many containers, one after the other and at once: the cgroup trees are afterwards as they were before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from conformance.harness import SCALE, Bundle, Container, Runtime, Test, spec, until

GONE = "Deleting a container MUST delete the resources that were created during the create step."

#: How many in a row, and at once; a tenth of them where everything takes many times as long.
ROW, CROWD = (int(n) for n in os.environ.get("CONFORMANCE_MANY", "200,50" if SCALE == 1 else "20,5").split(","))

TIMEOUT = 120.0


@pytest.fixture
def tree(test: Test, bundle: Bundle) -> Iterator[Callable[[], list[str]]]:
    """What there is of cgroups: below one made for all of the test's containers, and of its token elsewhere."""
    cgroups = test.runtime.cgroups
    above = [f"{top}/{test.token}-above" for top in cgroups.mountpoints]
    for path in above:
        os.mkdir(path)
    yield lambda: sorted(set(cgroups.having(test.token)) - set(above))
    for path in above:
        os.rmdir(path)


def named(container: Container) -> Container:
    """The container, with a cgroup below the test's own."""
    container.bundle.linux["cgroupsPath"] = f"/{container.runtime.token}-above/{container.id}"
    return container


@spec("runtime.md#delete", GONE)
def test_in_a_row(container: Container, runtime: Runtime, tree: Callable[[], list[str]]) -> None:
    """Half of them by `run`, half of them created, killed and deleted; every tenth with cgroups that it made below."""
    named(container).bundle.args("sleep", "1000")
    container.bundle.linux["resources"]["pids"] = {"limit": 100}
    for n in range(ROW // 2):
        container.create()
        if n % 10 == 0:
            for path in tree():
                os.makedirs(f"{path}/below/deeper")
        container.delete("--force")
        until(lambda: not tree(), f"no cgroup after container {n}")
    container.bundle.args("true")
    for _ in range(ROW // 2):
        assert container.run().status == 0
    assert not tree()
    assert os.listdir(runtime.root) in ([], [".~seccomp"]) or runtime.name != "pyrunc"


@spec("runtime.md#delete", GONE)
def test_at_once(
    new_container: Callable[..., Container],
    new_bundle: Callable[[], Bundle],
    runtime: Runtime,
    tree: Callable[[], list[str]],
) -> None:
    """Created, started, and deleted by so many runtimes at the same time, which all work on the same parent."""
    bundles = [new_bundle() for _ in range(CROWD)]
    crowd = [named(new_container(bundle)) for bundle in bundles]
    for bundle in bundles:
        bundle.write()

    def all_do(*argv: Callable[[Container], list[str]]) -> None:
        for one in argv:
            calls = [runtime.start(*one(container)) for container in crowd]
            for call in calls:
                result = call.wait(TIMEOUT, reaping_but=[other.pid for other in calls])
                assert result.status == 0, result

    all_do(
        lambda c: ["create", "--bundle", c.bundle.path, "--pid-file", c.pid_file, c.id],
        lambda c: ["start", c.id],
    )
    mine = [runtime.cgroups.of(container.pid) for container in crowd]
    assert len({tuple(sorted(paths.items())) for paths in mine}) == CROWD
    all_do(lambda c: ["delete", "--force", c.id])
    until(lambda: not tree(), "no cgroup after all are deleted")
