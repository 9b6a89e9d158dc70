"""AppArmor (apparmor(7)): the profile that the container's program runs under."""

from __future__ import annotations

import errno
import os

from pyrunc.errors import Error
from pyrunc.linux.procfs import open_proc
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.steps.context import Context

_NOT_ENABLED = "AppArmor is not enabled in this kernel"


class ChangeProfile(Step):
    """Have the next execve(2) of this process change to an AppArmor profile (aa_change_onexec(3)).

    A child inherits this order, so startContainer hooks run under the profile too, as with runc.

    Only AppArmor's own directory of attributes is used (Linux 5.8): attr/exec may be another security module's, to
    which the same words mean something else.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__("/process/apparmorProfile")
        self.name = name

    def describe(self) -> str:
        return f"change to the AppArmor profile {self.name} on exec"

    def run(self, ctx: Context) -> None:
        try:
            fd = open_proc("thread-self/attr/apparmor/exec", os.O_WRONLY)
        except FileNotFoundError:
            raise Error(_NOT_ENABLED) from None
        order = b"exec " + os.fsencode(self.name)
        try:
            written = os.write(fd, order)
        except FileNotFoundError:
            raise Error("no such profile is loaded") from None
        except OSError as e:
            if e.errno == errno.EINVAL and self.name.strip():
                raise Error(_NOT_ENABLED) from None  # no security module that would take it
            raise
        finally:
            os.close(fd)
        if written != len(order):  # the kernel reads no more than a page
            raise Error("the name of the profile is too long")
