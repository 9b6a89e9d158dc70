"""SELinux labels: what is written where, and what is done without SELinux. The kernel's part is played here."""

from __future__ import annotations

import errno
import os
import pathlib
from typing import Any

import pytest

from pyrunc import birth, steps
from pyrunc import plan as planner
from pyrunc.errors import Error
from pyrunc.linux import selinux as kernel
from pyrunc.steps import Step, selinux
from pyrunc.steps.context import Context
from pyrunc.steps.mounts import FilesystemMount, MaskPath
from pyrunc.steps.process import NewKeyring
from pyrunc.steps.runtime import StartInit
from pyrunc.steps.selinux import LabelMount, SetLabel

PROGRAM = "system_u:system_r:container_t:s0:c1,c2"
FILES = "system_u:object_r:container_file_t:s0:c1,c2"


class Log:
    """A log that remembers."""

    fd = -1
    verbose = False

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def debug(self, message: str) -> None:
        raise AssertionError(message)

    trace = None


def config() -> dict[str, Any]:
    return {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "selinuxLabel": PROGRAM},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["bind"]},
        ],
        "linux": {
            "mountLabel": FILES,
            "maskedPaths": ["/proc/acpi"],
            "namespaces": [{"type": "mount"}, {"type": "ipc"}],
        },
    }


def init_of(config: dict[str, Any], **options: Any) -> list[Step]:
    manager: Any = type("Manager", (), {"settings": lambda self, resources: [], "unit": None})()
    found = planner.create(config, "/bundle", "c", manager, planner.Options(**options), None)
    (start,) = (step for step in found if isinstance(step, StartInit))
    return start.init


def test_mounts_get_the_label_as_their_file_system_takes_it() -> None:
    init = init_of(config())
    context = ("context", FILES)
    made = {step.type: context in step.options.filesystem for step in init if isinstance(step, FilesystemMount)}
    assert made == {"proc": False, "sysfs": False, "tmpfs": True, "mqueue": False}
    kinds = [type(step) for step in init]
    (labelled,) = (step for step in init if isinstance(step, LabelMount))
    assert (labelled.destination, labelled.label) == ("/dev/mqueue", FILES)
    assert kinds.index(LabelMount) > max(i for i, step in enumerate(init) if isinstance(step, FilesystemMount))
    assert [step.label for step in init if isinstance(step, MaskPath)] == [FILES]


def test_the_program_and_its_keys_get_the_label() -> None:
    init = init_of(config())
    set_labels = [(i, step.attribute, step.label) for i, step in enumerate(init) if isinstance(step, SetLabel)]
    keyring = next(i for i, step in enumerate(init) if isinstance(step, NewKeyring))
    assert [label for _, *label in set_labels] == [["keycreate", PROGRAM], ["exec", PROGRAM]]
    assert set_labels[0][0] == keyring - 1
    assert not [
        step
        for step in init_of(config(), new_keyring=False)
        if isinstance(step, SetLabel) and step.attribute == "keycreate"
    ]


def test_without_labels_there_are_none() -> None:
    plain = config()
    del plain["process"]["selinuxLabel"], plain["linux"]["mountLabel"]
    init = init_of(plain)
    assert not [step for step in init if isinstance(step, SetLabel | LabelMount)]
    assert not [
        step
        for step in init
        if isinstance(step, FilesystemMount) and any(key == "context" for key, _ in step.options.filesystem)
    ]


@pytest.mark.parametrize(("enabled", "left"), [(True, [FILES]), (False, [])])
def test_where_selinux_is_off_mounts_go_without(
    enabled: bool, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "enabled", lambda: enabled)
    asked, log = config(), Log()
    birth.check_labels(asked, {}, log)  # type: ignore[arg-type]
    assert [value for key, value in asked["linux"].items() if key == "mountLabel"] == left
    assert [line.partition(":")[0] for line in log.warnings] == ([] if enabled else ["/linux/mountLabel"])


def test_where_selinux_is_off_a_confined_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "enabled", lambda: False)
    with pytest.raises(Error, match="/process/selinuxLabel: selinux label is specified in config, but selinux is dis"):
        birth.check_labels(config(), config()["process"], None)
    monkeypatch.setattr(kernel, "enabled", lambda: True)
    birth.check_labels(config(), config()["process"], None)


@pytest.mark.parametrize(
    ("magic", "current", "enabled"),
    [
        (kernel.SELINUX_MAGIC, "system_u:system_r:init_t:s0\0", True),
        (kernel.SELINUX_MAGIC, "kernel\0", False),
        (0x01021994, "unconfined\n", False),
    ],
)
def test_enabled(
    magic: int, current: str, enabled: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "SELINUXFS", str(tmp_path))
    monkeypatch.setattr(kernel, "filesystem_magic", lambda fd: magic)
    monkeypatch.setattr(kernel, "read_text", lambda path: current)
    assert kernel.enabled() is enabled
    monkeypatch.setattr(kernel, "SELINUXFS", str(tmp_path / "none"))
    assert kernel.enabled() is False


@pytest.mark.parametrize("attribute", ["exec", "keycreate"])
def test_the_label_is_written_as_it_is(attribute: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def open_proc(path: str, flags: int) -> int:
        asked.append(path)
        return os.open(tmp_path / "attribute", flags | os.O_CREAT)

    monkeypatch.setattr(selinux, "open_proc", open_proc)
    steps.run([SetLabel(attribute, PROGRAM)], Context("c", "/", {}))
    assert asked == [f"thread-self/attr/{attribute}"]
    assert (tmp_path / "attribute").read_text() == PROGRAM


def test_a_mount_is_labelled_by_its_attribute(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev" / "mqueue").mkdir(parents=True)
    found = []

    def setxattr(path: str, name: str, value: bytes) -> None:
        found.append((os.path.realpath(path), name, value))

    monkeypatch.setattr(os, "setxattr", setxattr)
    ctx = Context("c", "/", {})
    ctx.root_fd = os.open(tmp_path, os.O_PATH)
    steps.run([LabelMount("/dev/mqueue", FILES)], ctx)
    os.close(ctx.root_fd)
    assert found == [(str(tmp_path / "dev" / "mqueue"), "security.selinux", FILES.encode())]


def test_a_label_that_the_policy_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_proc(path: str, flags: int) -> int:
        return os.open("/dev/null", flags)

    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(selinux, "open_proc", open_proc)
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(Error, match=r"/process/selinuxLabel.*the policy has no such label"):
        steps.run([SetLabel("exec", "nonsense")], Context("c", "/", {}))
