from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.gpu_check import Figures, NotChecked, counters, difference, headers, read, verdicts
from serving.config import AccessSettings, GatewayConfig
from tests.unit.metering.power.test_nvml import FakeError, FakeGpu, FakeNvml

ROOT = Path(__file__).parents[3]
GOOD = Figures(
    counter_joules=20_000,
    metered_joules=20_300,
    methods=frozenset({"measured"}),
    mfu_ratio=0.3,
    flops=1e15,
    difference_joules=0,
    failures=0,
)


def failing(figures: Figures) -> list[str]:
    return [what for what, holds, _ in verdicts(figures) if not holds]


def test_a_run_that_is_as_it_should_be_passes() -> None:
    assert failing(GOOD) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"metered_joules": 22_000}, "metered as NVML counts"),
        ({"counter_joules": 0}, "metered as NVML counts"),
        ({"methods": frozenset({"modelled"})}, "power is measured"),
        ({"methods": frozenset()}, "power is measured"),
        ({"mfu_ratio": 1.2}, "MFU is possible"),
        ({"mfu_ratio": 0}, "MFU is possible"),
        ({"flops": 0}, "FLOPs are known"),
        ({"difference_joules": 1e-9}, "books balance"),
        ({"difference_joules": difference("")}, "books balance"),
        ({"failures": 1}, "requests answered"),
    ],
)
def test_each_fault_fails_by_its_name(change: dict[str, object], named: str) -> None:
    assert failing(replace(GOOD, **change)) == [named]  # type: ignore[arg-type]


def test_series_are_read_by_their_labels() -> None:
    text = 'a_total{boundary="host",x="1"} 5\na_total{boundary="accelerator",x="2"} 7.5\nb_total 1'
    assert read(text, "a_total", boundary="accelerator") == [({"boundary": "accelerator", "x": "2"}, 7.5)]


def test_without_a_gpu_nothing_is_claimed() -> None:
    # also where nvidia-ml-py is installed: the machine has no driver
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['pynvml'] = None; from deploy.gpu_check import main; main()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("nothing was checked: nvidia-ml-py is not installed")


class Driver(FakeNvml):
    """As ``pynvml`` with no more figures than are asked for."""

    def __getattr__(self, name: str) -> object:
        def refuse(*_: object) -> object:
            raise FakeError("Not Supported")

        return refuse

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:  # noqa: N802  (pynvml's name)
        return next(gpu for gpu in self.gpus if str(gpu.uuid) == uuid)

    def nvmlDeviceGetUUID(self, handle: FakeGpu) -> str:  # noqa: N802
        return handle.uuid


def test_the_engine_s_gpu_is_counted_and_its_neighbours_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = FakeGpu("GPU-1", 5_000), FakeGpu("GPU-2", 7_000)
    monkeypatch.setitem(sys.modules, "pynvml", Driver(first, second))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    count = counters()
    assert count() == 7.0
    second.millijoules += 1_500
    assert count() == 8.5
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(NotChecked, match="hides all"):
        counters()


def test_all_gpus_of_a_model_that_is_split_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [FakeGpu(f"GPU-{number}", 1_000 * number) for number in (1, 2, 4)]
    monkeypatch.setitem(sys.modules, "pynvml", Driver(*gpus))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert counters(2)() == 3.0
    with pytest.raises(NotChecked, match="takes 4 GPUs, and 3 are visible"):
        counters(4)


def config(**access: object) -> GatewayConfig:
    return GatewayConfig(access=AccessSettings.model_validate(access))


def test_a_gateway_with_keys_is_asked_with_them() -> None:
    assert headers(config()) == ({}, {})
    alone = headers(config(api_keys={"a": "key-of-a"}))
    assert alone == ({"authorization": "Bearer key-of-a"},) * 2
    several = headers(config(api_keys={"a": "key-of-a", "b": "key-of-b"}, admin_key="admin"))
    assert several == ({"authorization": "Bearer key-of-a"}, {"authorization": "Bearer admin"})
    for access in ({"key_file": "keys.json"}, {"api_keys": {"a": "key-of-a", "b": "key-of-b"}}):
        with pytest.raises(NotChecked, match="give WATTGATE_"):
            headers(config(**access))


def test_books_are_the_sum_of_every_component_s_difference() -> None:
    text = 'wattgate_books_difference_joules{component="a"} 1\nwattgate_books_difference_joules{component="b"} -1'
    assert difference(text) == 2
