"""Fixtures: a box with podman, a box with containerd."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from conformance import harness
from conformance.engines.box import Box, need, needs_hiding
from conformance.engines.containerd import Containerd
from conformance.engines.podman import Podman


@pytest.fixture(scope="session")
def engine_runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the runtime under test."""
    directory = tmp_path_factory.mktemp("runtime")
    os.chmod(directory, 0o755)
    return harness.find_runtime(request.config.getoption("--runtime"), str(directory))


@pytest.fixture(scope="session")
def podman_in_box(engine_runtime: str) -> Iterator[Podman]:
    why = need("podman", "conmon")
    if why:
        pytest.skip(why)
    # Health checks are systemd timers; without systemd they are run by hand.
    environment = {"CONTAINERS_CONF": "/run/containers.conf", "DISABLE_HC_SYSTEMD": "true"}
    box = Box(needs_hiding(engine_runtime), environment)
    try:
        yield Podman(box, engine_runtime)
    finally:
        box.close()


@pytest.fixture
def podman(podman_in_box: Podman) -> Iterator[Podman]:
    """podman, with no container in it; at the test's end, nothing may be left."""
    yield podman_in_box
    podman_in_box.clean()


@pytest.fixture(scope="session")
def containerd_in_box(engine_runtime: str) -> Iterator[Containerd]:
    why = need("containerd", "ctr")
    if why:
        pytest.skip(why)
    box = Box(needs_hiding(engine_runtime), {})
    made = None
    try:
        made = Containerd(box, engine_runtime)
        yield made
    finally:
        box.close()
        if made:
            made.close()


@pytest.fixture
def containerd(containerd_in_box: Containerd) -> Iterator[Containerd]:
    """containerd, with no container in it; at the test's end, nothing may be left."""
    yield containerd_in_box
    containerd_in_box.clean()
