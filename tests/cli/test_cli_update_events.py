"""The forms of values: sizes, numbers and durations, as runc's users write them."""

from __future__ import annotations

import pytest

from pyrunc.cli.events import duration
from pyrunc.cli.parse import find, parse_command
from pyrunc.cli.update import resources, size
from pyrunc.errors import Error


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0), ("-1", -1), ("5", 5), ("5b", 5), ("5B", 5), ("1k", 1024), ("1KiB", 1024), ("1 kb", 1024),
        ("64M", 64 << 20), ("1.5g", 3 << 29), ("2T", 2 << 40), ("1p", 1 << 50),
        ("9223372036854771712", 9223372036854771712),
    ],
)  # fmt: skip
def test_sizes(text: str, count: int) -> None:
    assert size(text, "--memory") == count


@pytest.mark.parametrize("text", ["x", "-2", "1x", "1kk", "1ibb", "1.2.3", ".", "M", "1e3", "5 5", "٣", "--1", "1i"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(Error) as e:
        size(text, "--memory")
    assert str(e.value) == f"--memory: {text!r} is not a size such as 64M, nor -1"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5.0), ("500ms", 0.5), ("1m30s", 90.0), ("1.5h", 5400.0), (".5s", 0.5), ("+1s", 1.0), ("100us", 1e-4),
     ("100µs", 1e-4), ("1h2m3s4ms", 3723.004)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "1s1", "1 s", "--1s", "1,5s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(Error, match="not a duration"):
        duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "-1s", "-0"])
def test_intervals_that_are_none(text: str) -> None:
    with pytest.raises(Error, match="greater than 0"):
        duration(text)


def test_flags_are_resources() -> None:
    argv = (
        "--blkio-weight 500 --cpu-period 100000 --cpu-quota -1 --cpu-burst 0 --cpu-share 7 --cpu-rt-period 9"
        " --cpu-rt-runtime 8 --cpu-idle 1 --cpuset-cpus 0-1 --cpuset-mems 0 --memory 1M --memory-reservation 1k"
        " --memory-swap -1 --pids-limit 0 web"
    )
    options, arguments = parse_command(find("update"), argv.split())
    assert arguments == ["web"]
    assert resources(options) == {
        "blockIO": {"weight": 500},
        "cpu": {
            "period": 100000, "quota": -1, "burst": 0, "shares": 7, "realtimePeriod": 9, "realtimeRuntime": 8,
            "idle": 1, "cpus": "0-1", "mems": "0",
        },
        "memory": {"limit": 1 << 20, "reservation": 1024, "swap": -1},
        "pids": {"limit": 0},
    }  # fmt: skip
    assert resources(parse_command(find("update"), ["web"])[0]) == {}


@pytest.mark.parametrize("flag", ["--cpu-share", "--pids-limit", "--blkio-weight", "--cpu-idle"])
def test_no_numbers(flag: str) -> None:
    options, _ = parse_command(find("update"), [flag, "1.5", "web"])
    with pytest.raises(Error) as e:
        resources(options)
    assert str(e.value) == f"{flag}: '1.5' is not a number"
