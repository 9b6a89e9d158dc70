"""pyrunc.steps.hooks: what becomes of a hook when its runtime is interrupted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]

#: A program of one thread, as the runtime is: a signal can't come to another.
PROGRAM = """
import os, signal
from pyrunc.steps.context import Context
from pyrunc.steps.hooks import RunHook

fork, hooks = os.fork, []

def interrupted():
    pid = fork()
    if pid:
        hooks.append(pid)
        os.kill(os.getpid(), signal.SIGINT)
    return pid

step = RunHook("prestart", {"path": "/bin/sleep", "args": ["sleep", "1000"]}, "creating", "/hooks/prestart/0")
before = set(os.listdir("/proc/self/fd"))
os.fork = interrupted
try:
    step.run(Context("c", "/tmp", {}))
except KeyboardInterrupt:
    print("interrupted")
try:
    os.waitpid(hooks[0], os.WNOHANG)
except ChildProcessError:
    print("no child")
print(set(os.listdir("/proc/self/fd")) == before, list(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
for pid in hooks:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


def test_an_interrupt_right_after_the_start() -> None:
    """The hook ends with it, and nothing stays open."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=TOP, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\nno child\nTrue []\n"), done.stderr
