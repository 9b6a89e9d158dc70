"""Steps that change this very process, run in a child, judged by other code than ours: python-prctl and pyroute2."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

import prctl
import pytest
from pyroute2 import IPRoute

from pyrunc.linux import process as p
from pyrunc.plan.process import capability_mask
from pyrunc.steps import Step
from pyrunc.steps.context import Context
from pyrunc.steps.namespaces import LoopbackUp
from pyrunc.steps.process import DropBoundingSet, NoNewPrivileges, SetCapabilities, SetUser, Undumpable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it drops privileges and makes namespaces"),
]

KEPT = ["CAP_CHOWN", "CAP_KILL", "CAP_SETPCAP", "CAP_SETUID", "CAP_SETGID"]


def in_child(act: Callable[[], None]) -> None:
    """Run `act` in a child process; its failure is ours."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:  # noqa: BLE001  the parent is told
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as f:
        failure = f.read()
    os.waitpid(pid, 0)
    assert not failure, failure


def take(*steps: Step) -> None:
    ctx = Context("witness", "/", {})
    for step in steps:
        step.run(ctx)


def names(capabilities: object) -> set[str]:
    """The names in one of prctl's sets: cap_effective, cap_permitted, cap_inheritable, capbset."""
    return {f"CAP_{name.upper()}" for name in prctl.ALL_CAP_NAMES if getattr(capabilities, name, False)}


def test_bounding_set_is_what_was_kept() -> None:
    def act() -> None:
        take(DropBoundingSet(capability_mask(KEPT)))
        assert names(prctl.capbset) == set(KEPT)

    in_child(act)


def test_capabilities_survive_the_change_of_user() -> None:
    mask = capability_mask(["CAP_KILL", "CAP_CHOWN"])

    def act() -> None:
        everything = (1 << 41) - 1
        capabilities = SetCapabilities(mask, mask, 0, 0, wanted=mask, bounding=everything, unknown=[])
        take(SetUser(1234, 2345, [7, 8], 0o027), capabilities)
        assert names(prctl.cap_effective) == names(prctl.cap_permitted) == {"CAP_KILL", "CAP_CHOWN"}
        assert names(prctl.cap_inheritable) == set()
        assert (os.getresuid(), os.getresgid(), sorted(os.getgroups())) == ((1234,) * 3, (2345,) * 3, [7, 8])
        assert not prctl.get_keepcaps()

    in_child(act)


def test_no_new_privs_and_undumpable() -> None:
    def act() -> None:
        assert not prctl.get_no_new_privs()
        take(NoNewPrivileges(), Undumpable())
        assert prctl.get_no_new_privs()
        assert not prctl.get_dumpable()

    in_child(act)


def test_loopback_is_up_in_a_new_network_namespace() -> None:
    def act() -> None:
        p.unshare(p.CLONE_NEWNET)
        with IPRoute() as kernel:
            (before,) = kernel.get_links()
            assert before.get_attr("IFLA_IFNAME") == "lo"
            assert before["state"] == "down"
            take(LoopbackUp())
            (after,) = kernel.get_links()
            assert after["state"] == "up"
            addresses = {address.get_attr("IFA_ADDRESS") for address in kernel.get_addr()}
            assert "127.0.0.1" in addresses

    in_child(act)
