import numpy as np
import pytest

from metering.intensity.static import StaticIntensity
from metering.site import Site
from serving.tuning.lengths import Lengths
from serving.tuning.load_curve import SHARES, load_curve, markdown, write_all
from serving.tuning.setting import Setting
from serving.tuning.slo import Slo
from serving.tuning.synthetic import Synthetic

SLO = Slo.parse(["ttft_p95<=500ms"])
WORKLOAD = Synthetic(64, 1.0, Lengths("fixed", 32), Lengths("fixed", 20), repeat_ratio=0.3).workload()


@pytest.fixture
def curves(engine_model):
    site = Site(StaticIntensity("WORLD").reading)
    return [
        load_curve(name, engine_model, Setting(cap), WORKLOAD, SLO, site)
        for name, cap in (("current", 4), ("recommended", 16))
    ]


def test_latency_grows_with_the_offered_load_and_without_bound_beyond_what_the_setting_can_do(curves):
    for curve in curves:
        offered = [point["offered_per_second"] for point in curve.points]
        waited = [point["e2e_p95_seconds"] for point in curve.points]
        assert np.allclose(np.array(offered) / offered[0], np.array(SHARES) / SHARES[0])
        assert waited == sorted(waited)
        assert waited[-1] > 3 * waited[0]
        assert curve.points[0]["goodput_ratio"] > 0.99
    # a larger cap can do more
    assert curves[1].points[0]["offered_per_second"] > 1.5 * curves[0].points[0]["offered_per_second"]


def test_the_curves_are_drawn_with_the_promise_and_written_as_a_table(curves, tmp_path):
    page, table = write_all(curves, SLO, tmp_path / "out")
    assert "ttft_p95" in page.read_text()
    assert table.read_text() == markdown(curves)
    assert table.read_text().count("recommended: cap 16") == len(SHARES)
    assert curves[0].as_dict()["method"] == "simulated"
