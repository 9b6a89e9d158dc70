"""Many at once: creates of one ID, start against kill against delete, readers all the while."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from pyrunc import Error
from pyrunc.container import containers
from robustness.lab import Lab, in_lab, wait_for

#: What the loser of a race may be told; anything else is a fault.
EXPECTED = (
    "a container with this ID exists already",
    "container does not exist",
    "container not running",
    "cannot start",
    "cannot delete container c that is not stopped",
    "init has ended",
    "init ended before it could execute the program",
    "the other process ended unexpectedly",
    "init was killed",
)


def _worker(lab: Lab, number: int, seconds: float, acts: list[Callable[[], object]]) -> int:
    """A child that does random things for a while; what it was told goes into a file."""

    def work() -> None:
        chance = random.Random(number)
        end = time.monotonic() + seconds
        with open(lab.path / f"{number}.keep", "w") as said:
            while time.monotonic() < end:
                act = chance.choice(acts)
                try:
                    act()
                    print(act.__name__, file=said)
                except Error as e:
                    if not any(words in str(e) for words in EXPECTED):
                        raise
                    print(act.__name__, e, file=said)

    return lab.forked(work)


def _finish(lab: Lab, workers: list[int], what: str) -> None:
    for pid in workers:
        if (status := wait_for(pid, 60)) != 0:
            lab.fault(f"{what}: a worker ended with {status}: {lab.said()}")


@in_lab
def test_one_id(lab: Lab) -> None:
    """Create, start, kill, delete and questions about one container, all at once."""
    bundle = lab.bundle("plain")

    def create() -> object:
        return lab.create(bundle)

    def start() -> None:
        lab.load().start()

    def kill() -> None:
        lab.load().kill(signal.SIGKILL)

    def delete() -> None:
        lab.load().delete()

    def force() -> None:
        lab.load().delete(force=True)

    def state() -> object:
        return lab.load().state()["status"]

    def everything() -> object:
        return containers(str(lab.root))

    changers: list[Callable[[], object]] = [create, create, start, kill, delete, force]
    workers = [_worker(lab, n, 6, changers) for n in range(4)] + [_worker(lab, 9, 6, [state, everything])]
    _finish(lab, workers, "race")
    done = "".join(p.read_text() for p in lab.path.glob("[0-9].keep")).splitlines()
    for word in ("create", "start", "kill", "delete", "force", "state", "everything"):
        if word not in done:
            lab.fault(f"nobody ever succeeded with {word}")
    try:
        lab.load().delete(force=True)
    except Error:
        pass
    lab.expect_clean("race", orphans=True)
    if (lab.root / ".~").exists():
        lab.fault(f"left: {list((lab.root / '.~').iterdir())}")


@in_lab
def test_one_create_wins(lab: Lab) -> None:
    bundle = lab.bundle("plain")
    for turn in range(15):
        pids = [lab.forked(lambda: lab.create(bundle)) for _ in range(4)]
        results = sorted(wait_for(pid) or 0 for pid in pids)
        said = lab.said()
        if results != [0, 1, 1, 1] or said != "a container with this ID exists already":
            lab.fault(f"turn {turn}: {results}, {said}")
        lab.load().delete(force=True)
        lab.expect_clean(f"turn {turn}", orphans=True)


@in_lab
def test_fifty_at_once(lab: Lab) -> None:
    bundles = [lab.bundle(f"b{n}") for n in range(50)]

    def live(n: int) -> None:
        container = lab.create(bundles[n], f"c{n}")
        container.start()

    pids = [lab.forked(lambda n=n: live(n)) for n in range(50)]  # type: ignore[misc]
    _finish(lab, pids, "create and start")
    found = containers(str(lab.root))
    if len(found) != 50 or {entry["status"] for entry in found} != {"running"}:
        lab.fault(f"{len(found)} containers: {[entry['status'] for entry in found]}")
    pids = [lab.forked(lambda n=n: lab.load(f"c{n}").delete(force=True)) for n in range(50)]  # type: ignore[misc]
    _finish(lab, pids, "delete")
    lab.expect_clean("fifty", orphans=True)


@in_lab
def test_two_hundred_in_a_row(lab: Lab) -> None:
    """One program, one ID, two hundred lives: nothing adds up."""
    bundle = lab.bundle("plain")
    for _ in range(200):
        lab.create(bundle).delete()
    lab.expect_clean("two hundred")
