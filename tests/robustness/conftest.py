"""What the robustness tests need: root, cgroups and a static busybox."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.skipif(os.geteuid() != 0, reason="not root"))
            missing = shutil.which("busybox") is None
            item.add_marker(pytest.mark.skipif(missing, reason="no busybox (Debian package busybox-static)"))
