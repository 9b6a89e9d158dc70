"""The log's lines below an error's: warnings, and what --debug asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyrunc.cli.log import Log
from pyrunc.steps import Step


class _Mount(Step):
    def describe(self) -> str:
        return "mount proc on /proc"


def test_debug_tells_each_step_with_its_place(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), "json", verbose=True)
    log.trace(_Mount("/mounts/0"))
    log.trace(_Mount())
    entries = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [entry["level"] for entry in entries] == ["debug", "debug"]
    assert [entry["msg"] for entry in entries] == ["/mounts/0: mount proc on /proc", "mount proc on /proc"]


def test_without_debug_a_step_is_silent_and_a_warning_is_not(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"))
    log.trace(_Mount("/mounts/0"))
    log.debug("nothing")
    log.warn('half "done"\nas yet')
    assert (tmp_path / "log").read_text().endswith('Z" level=warning msg="half \\"done\\"\\nas yet"\n')
    assert (tmp_path / "log").read_text().count("\n") == 1


def test_without_a_file_debug_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    Log(verbose=True).trace(_Mount())
    assert 'level=debug msg="mount proc on /proc"' in capfd.readouterr().err


def test_the_log_does_not_leak_into_programs_that_are_started(tmp_path: Path) -> None:
    import os

    assert not os.get_inheritable(Log(str(tmp_path / "log")).fd)
