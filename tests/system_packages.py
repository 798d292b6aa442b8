"""Programs that come from the system's packages: a test that needs one is skipped where it is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

LISTED = Path(__file__).parent.parent / "deploy" / "system-packages.txt"
PROGRAMS = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
}


def packages() -> list[str]:
    """The packages of ``deploy/system-packages.txt``."""
    lines = (line.partition("#")[0].strip() for line in LISTED.read_text().splitlines())
    return [line for line in lines if line]


def program(name: str) -> str:
    """Path of a program; skips the test where it is not installed, naming the package that has it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {PROGRAMS[name]}")
    return found
