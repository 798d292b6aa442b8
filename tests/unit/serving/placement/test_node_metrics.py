from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry

from metering.booking import EngineWindow
from metering.books import ClosedWindow
from metering.windows import Window
from serving.metrics import Metrics
from serving.placement.node_metrics import NodeMetrics


def closed(*engines: EngineWindow) -> ClosedWindow:
    return ClosedWindow(Window(0.0, 1.0), 0.0, (), engines, {}, (), None, False)


def engine(mfu: float | None, mbu: float | None = None, model: str = "m") -> EngineWindow:
    return EngineWindow(model, 1.0, 0.0, 1.0, 0.5, 1.0, 1, 0.5, mfu, mbu)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def exported(registry: CollectorRegistry) -> NodeMetrics:
    return NodeMetrics(Metrics(registry))


def test_utilisation_is_zero_in_a_window_without_work(registry: CollectorRegistry, exported: NodeMetrics) -> None:
    exported.window(closed(engine(0.3, 0.6), engine(0.2, model="n")))
    exported.window(closed(engine(0.1, 0.2, model="n")))
    assert registry.get_sample_value("wattgate_mfu_ratio", {"model": "m"}) == 0.0
    assert registry.get_sample_value("wattgate_mbu_ratio", {"model": "m"}) == 0.0
    assert registry.get_sample_value("wattgate_mfu_ratio", {"model": "n"}) == 0.1
    exported.window(closed(engine(0.4, 0.5)))
    assert registry.get_sample_value("wattgate_mfu_ratio", {"model": "m"}) == 0.4
    assert registry.get_sample_value("wattgate_mfu_ratio", {"model": "n"}) == 0.0


def test_utilisation_that_is_unknown_is_neither_the_last_nor_zero(
    registry: CollectorRegistry, exported: NodeMetrics
) -> None:
    exported.window(closed(engine(None)))
    assert registry.get_sample_value("wattgate_mfu_ratio", {"model": "m"}) is None
    exported.window(closed(engine(0.3)))
    exported.window(closed(engine(None)))
    value = registry.get_sample_value("wattgate_mfu_ratio", {"model": "m"})
    assert value is not None
    assert math.isnan(value)
