"""features: what it tells is true, asked with one profile, capability or namespace after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from conformance.harness import Bundle, Container, Json, Runtime, not_applicable, spec

RECOGNIZE = "The runtime MUST recognize the elements in this array"


def lists(runtime: Runtime, name: str) -> list[str]:
    """A list of linux.seccomp."""
    told: Json = runtime.features()["linux"].get("seccomp") or {}
    if not told.get("enabled"):
        not_applicable(f"{runtime.name} tells of no seccomp")
    if name not in told:
        not_applicable(f"{runtime.name} {runtime.version} does not tell")
    return list(told[name])


def takes(bundle: Bundle, new_container: Callable[..., Container], profile: Json) -> bool:
    container = new_container()
    bundle.args("true")
    bundle.linux["seccomp"] = profile
    return container.run(timeout=15).status == 0


def rule(action: str = "SCMP_ACT_ERRNO", **more: object) -> Json:
    return {"names": ["getsid"], "action": action, **more}


@spec("features-linux.md#seccomp", RECOGNIZE)
@pytest.mark.parametrize("which", ["actions", "operators", "archs", "supportedFlags"])
def test_seccomp(runtime: Runtime, bundle: Bundle, new_container: Callable[..., Container], which: str) -> None:
    """Each is taken in a profile. An architecture of the other byte order can't be in one filter with this machine's,
    nor an agent be asked that isn't there."""
    for name in lists(runtime, which):
        profile: Json = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule()]}
        if which == "actions":
            if name == "SCMP_ACT_NOTIFY":
                continue
            default = "SCMP_ACT_LOG" if name == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
            profile |= {"defaultAction": default, "syscalls": [rule(name)]}
        elif which == "operators":
            profile["syscalls"] = [rule(args=[{"index": 0, "value": 1, "valueTwo": 1, "op": name}])]
        elif which == "archs":
            profile["architectures"] = [name]
        else:
            profile["flags"] = [name]
        taken = takes(bundle, new_container, profile)
        assert taken or (which == "archs" and name in OTHER_ORDER), name


#: of SCMP_ARCH_*: big-endian where this machine is not
_BIG = {"MIPS", "MIPS64", "MIPS64N32", "PARISC", "PARISC64", "PPC", "PPC64", "S390", "S390X", "M68K", "SHEB"}
OTHER_ORDER = {f"SCMP_ARCH_{name}" for name in _BIG} if sys.byteorder == "little" else set()


@spec("features-linux.md#seccomp", "This list may be a subset of knownFlags")
def test_supported_flags_are_known(runtime: Runtime) -> None:
    assert set(lists(runtime, "supportedFlags")) <= set(lists(runtime, "knownFlags"))
