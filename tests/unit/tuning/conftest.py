import pytest

from serving.tuning.engine_model import EngineModel, FlopCount, Plane, Power


@pytest.fixture
def engine_model():
    """A small engine: 10 ms a step, half a millisecond for each sequence, idle 40 W, full 100 W."""
    return EngineModel(
        "m", "d", (Plane(0.010, 0.0005, 0.0001, 1e-7, 1e-9),), power=Power(40, 100), peak_flops=1e12,
        flops=FlopCount(1e8, 1e4, 1e7),
    )  # fmt: skip
