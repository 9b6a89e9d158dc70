"""Fixtures: boxes with podman and with containerd, each without systemd and with it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from conformance import harness
from conformance.engines.box import Box, need, need_systemd, needs_hiding, retry
from conformance.engines.containerd import Containerd
from conformance.engines.cri import Cri
from conformance.engines.podman import OrdinaryPodman, Podman


@pytest.fixture(scope="session")
def engine_runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the runtime under test."""
    directory = tmp_path_factory.mktemp("runtime")
    os.chmod(directory, 0o755)
    return harness.find_runtime(request.config.getoption("--runtime"), str(directory))


def podmans_box(runtime: str, *, systemd: bool, make: type[Podman] = Podman) -> Iterator[Podman]:
    why = need("podman", "conmon", *(["newuidmap", "slirp4netns"] if make is OrdinaryPodman else [])) or (
        need_systemd() if systemd else ""
    )
    if why:
        pytest.skip(why)
    # Health checks are systemd timers, which would run outside of the box: they are run by hand.
    environment = {"CONTAINERS_CONF": "/run/containers.conf", "DISABLE_HC_SYSTEMD": "true"}
    box = Box(needs_hiding(runtime), environment, systemd=systemd)
    try:
        yield make(box, runtime)
    finally:
        box.close()


@pytest.fixture(scope="session")
def podman_in_box(engine_runtime: str) -> Iterator[Podman]:
    yield from podmans_box(engine_runtime, systemd=False)


@pytest.fixture(scope="session")
def podman_with_systemd(engine_runtime: str) -> Iterator[Podman]:
    """podman with its default cgroup manager."""
    yield from podmans_box(engine_runtime, systemd=True)


@pytest.fixture(scope="session")
def ordinary_podman_in_box(engine_runtime: str) -> Iterator[Podman]:
    yield from podmans_box(engine_runtime, systemd=False, make=OrdinaryPodman)


@pytest.fixture
def ordinary_podman(ordinary_podman_in_box: Podman) -> Iterator[Podman]:
    """podman as an ordinary user, with no container in it; at the test's end, nothing may be left."""
    yield ordinary_podman_in_box
    ordinary_podman_in_box.clean()


@pytest.fixture
def podman(podman_in_box: Podman) -> Iterator[Podman]:
    """podman, with no container in it; at the test's end, nothing may be left."""
    yield podman_in_box
    podman_in_box.clean()


def containerds_box(runtime: str, *, systemd: bool) -> Iterator[Containerd]:
    why = need("containerd", "ctr") or (need_systemd() if systemd else "")
    if why:
        pytest.skip(why)
    box = Box(needs_hiding(runtime), {}, systemd=systemd)
    made = None
    try:
        made = Containerd(box, runtime)
        yield made
    finally:
        box.close()
        if made:
            made.close()


@pytest.fixture(scope="session")
def containerd_in_box(engine_runtime: str) -> Iterator[Containerd]:
    yield from containerds_box(engine_runtime, systemd=False)


@pytest.fixture(scope="session")
def containerd_with_systemd(engine_runtime: str) -> Iterator[Containerd]:
    """containerd with SystemdCgroup = true."""
    yield from containerds_box(engine_runtime, systemd=True)


@pytest.fixture
def containerd(containerd_in_box: Containerd) -> Iterator[Containerd]:
    """containerd, with no container in it; at the test's end, nothing may be left."""
    yield containerd_in_box
    containerd_in_box.clean()


@pytest.fixture(params=["cgroupfs", "systemd"])
def cri(request: pytest.FixtureRequest) -> Iterator[Cri]:
    """A pod to be, by containerd's CRI; at the test's end nothing of it may be left."""
    why = need("curl")
    if why:
        pytest.skip(why)
    box = "containerd_in_box" if request.param == "cgroupfs" else "containerd_with_systemd"
    containerd: Containerd = request.getfixturevalue(box)
    made = Cri(containerd)
    retry(made.has_images, "containerd's CRI has no images")
    try:
        yield made
    finally:
        made.close()
    containerd.nothing_left()
