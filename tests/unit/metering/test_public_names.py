"""``import metering`` is light, and every public name can be had from it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import metering


@pytest.mark.parametrize("name", metering.__all__)
def test_public_name_is_there(name: str) -> None:
    assert getattr(metering, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'flop'"):
        _ = metering.flop


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'transformers', 'ray', 'vllm', 'redis', 'httpx', 'serving', 'cache'}"
    code = f"import sys, metering, metering.flops, metering.planner; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
