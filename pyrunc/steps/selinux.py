"""SELinux (selinux(8)): the labels of the container's program, its keys and its message queues.

Other mounts get theirs by the option `context` (mount(8)); plan/rootfs.py sees to that.
"""

from __future__ import annotations

import errno
import os

from pyrunc.errors import Error
from pyrunc.linux.path import fd_path, open_in_root
from pyrunc.linux.procfs import open_proc
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.steps.context import Context

#: The extended attribute that holds a file's label.
XATTR = "security.selinux"


class SetLabel(Step):
    """Have what this process makes next get a label: the program that it executes, or the keys.

    Attributes:
        attribute: ``exec`` (setexeccon(3)) or ``keycreate`` (setkeycreatecon(3)).
    """

    __slots__ = ("attribute", "label")

    def __init__(self, attribute: str, label: str) -> None:
        super().__init__("/process/selinuxLabel")
        self.attribute = attribute
        self.label = label

    def describe(self) -> str:
        return f"set the SELinux label {self.label} for {'the program' if self.attribute == 'exec' else 'new keys'}"

    def run(self, ctx: Context) -> None:
        fd = open_proc(f"thread-self/attr/{self.attribute}", os.O_WRONLY)
        try:
            os.write(fd, os.fsencode(self.label))
        except OSError as e:
            raise _explained(e) from None
        finally:
            os.close(fd)


class LabelMount(Step):
    """Label the root of a mount whose file system takes no `context`."""

    __slots__ = ("destination", "label")

    def __init__(self, destination: str, label: str) -> None:
        super().__init__("/linux/mountLabel")
        self.destination = destination
        self.label = label

    def describe(self) -> str:
        return f"set the SELinux label {self.label} on {self.destination}"

    def run(self, ctx: Context) -> None:
        fd = open_in_root(ctx.root_fd, self.destination)
        try:
            os.setxattr(fd_path(fd), XATTR, os.fsencode(self.label))
        except OSError as e:
            raise _explained(e) from None
        finally:
            os.close(fd)


def _explained(e: OSError) -> Error:
    return Error("the policy has no such label") if e.errno == errno.EINVAL else Error.from_os(e)
