"""Moving network devices into a container (config-linux.md, "Network Devices"). Loaded where there are any."""

from __future__ import annotations

import errno
import os

from pyrunc.errors import Error
from pyrunc.linux import process as p
from pyrunc.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.steps.context import Context

#: <linux/if_addr.h>, <linux/rtnetlink.h>
IFA_F_PERMANENT = 0x80
RT_SCOPE_UNIVERSE = 0


class MoveNetDevice(Step):
    """Move a network device from the runtime's network namespace into init's, rename it and bring it up.

    Its permanent addresses of global scope go with it, which the kernel would drop. It stays there when the container
    ends, or fails to be created: "The runtime MUST NOT attempt to move the interface out of the namespace".

    Attributes:
        name: what it is called here.
        new_name: what it is to be called there; "%d" in it is a number that the kernel chooses.
    """

    __slots__ = ("name", "new_name")

    def __init__(self, name: str, new_name: str, origin: str) -> None:
        super().__init__(origin)
        self.name = name
        self.new_name = new_name

    def describe(self) -> str:
        return f"move the network device {self.name} into the container" + (
            f" as {self.new_name}" if self.new_name != self.name else ""
        )

    def run(self, ctx: Context) -> None:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        theirs = os.open(f"/proc/{ctx.init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # What is done in the container's namespace is done there: only this thread enters it, and for that long.
            before = self._inside(theirs, ours, lambda: self._check(_links(IPRoute)))
            with IPRoute() as route:
                index = _links(IPRoute).get(self.name)
                if index is None:
                    raise Error("there is no such network device")
                # before it is down, which takes addresses of IPv6 away
                addresses = [found for found in route.get_addr(index=index) if _kept(found)]
                route.link("set", index=index, state="down")
                # in one message, so that a name that is taken there is no obstacle if it is not to be kept
                route.link("set", index=index, ifname=self.new_name, net_ns_fd=theirs)
            self._inside(theirs, ours, lambda: self._set_up(IPRoute, before, addresses))
        except NetlinkError as e:
            raise OSError(e.code, os.strerror(e.code)) from None
        finally:
            os.close(theirs)
            os.close(ours)

    def _inside(self, theirs: int, ours: int, act: Any) -> Any:
        p.setns(theirs, p.CLONE_NEWNET)
        try:
            return act()
        finally:
            p.setns(ours, p.CLONE_NEWNET)

    def _check(self, there: dict[str, int]) -> dict[str, int]:
        """The kernel would say so when the device has been moved already, and can't be moved back under its name."""
        if self.new_name in there:
            raise Error(f"the container has a network device {self.new_name} already", errno=errno.EEXIST)
        return there

    def _set_up(self, route_class: Any, before: dict[str, int], addresses: list[Any]) -> None:
        links = _links(route_class)
        name = self.new_name
        if "%d" in name:
            head, _, tail = name.partition("%d")
            new = [link for link in links if link not in before and link.startswith(head) and link.endswith(tail)]
            if len(new) != 1:
                raise Error(f"it is not to be told which of the container's network devices is the new {name}")
            name = new[0]
        with route_class() as route:
            for address in addresses:
                attributes = dict(address["attrs"])
                # beside IFA_LOCAL, which IPv6 does without, IFA_ADDRESS is the other end's on a point-to-point link
                kinds = ("IFA_LOCAL", "IFA_ADDRESS", "IFA_BROADCAST")
                given = {kind[4:].lower(): attributes[kind] for kind in kinds if kind in attributes}
                given |= {"family": address["family"], "prefixlen": address["prefixlen"]}
                route.addr("add", index=links[name], **given)
            route.link("set", index=links[name], state="up")


def _links(route_class: Any) -> dict[str, int]:
    """The network devices of this thread's network namespace: index by name."""
    with route_class() as route:
        return {link.get_attr("IFLA_IFNAME"): link["index"] for link in route.get_links()}


def _kept(address: Any) -> bool:
    """Whether an address is for good and for everywhere."""
    flags = address.get_attr("IFA_FLAGS") or address["flags"]
    return bool(flags & IFA_F_PERMANENT) and address["scope"] == RT_SCOPE_UNIVERSE
