"""pyrunc.steps.hooks: what becomes of a hook when its runtime is interrupted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pyrunc.steps.context import Context
from pyrunc.steps.hooks import RunHook


def test_an_interrupt_right_after_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hook ends with it, and nothing stays open."""
    fork, hooks = os.fork, []

    def interrupted() -> int:
        pid = fork()
        if pid:
            hooks.append(pid)
            os.kill(os.getpid(), signal.SIGINT)
        return pid

    ctx = Context("c", str(tmp_path), {})
    step = RunHook("prestart", {"path": "/bin/sleep", "args": ["sleep", "1000"]}, "creating", "/hooks/prestart/0")
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", interrupted)
    with pytest.raises(KeyboardInterrupt):
        step.run(ctx)
    with pytest.raises(ChildProcessError):
        os.waitpid(hooks[0], os.WNOHANG)
    assert set(os.listdir("/proc/self/fd")) == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
