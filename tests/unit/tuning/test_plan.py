import json

import pytest
import typer
from typer.testing import CliRunner

from metering.errors import BadInput
from metering.intensity.static import StaticIntensity
from metering.site import Prices, Site
from serving.cli import plan as command
from serving.tuning.lengths import Lengths
from serving.tuning.plan import Option, plan, predict, smallest
from serving.tuning.simulation import Limits
from serving.tuning.slo import Slo
from serving.tuning.synthetic import Synthetic
from tests.unit.metering.model_configs import LLAMA_3_1_8B

SLO = Slo.parse(["ttft_p95<=300ms", "itl_p95<=50ms"])


def site(zone="FRA"):
    return Site(StaticIntensity(zone).reading, 1.1, prices=Prices(per_device_hour=1.0))


def workload(rate=40.0, count=800):
    return Synthetic(count, rate, Lengths("fixed", 100), Lengths("fixed", 40)).workload()


def option(engine, zone="FRA", cap=16):
    return Option(engine, site(zone), Limits(cap))


def test_the_smallest_fleet_meets_the_slo_and_one_replica_less_does_not(engine_model):
    asked = workload()
    found = smallest(asked, option(engine_model), SLO)
    assert found.meets
    assert found.replicas > 1
    assert not predict(asked, option(engine_model), found.replicas - 1, SLO).meets


def test_a_light_load_needs_one_replica(engine_model):
    assert smallest(workload(rate=0.5, count=50), option(engine_model), SLO).replicas == 1


def test_a_promise_that_no_size_keeps_is_said_so(engine_model):
    found = smallest(workload(), option(engine_model), Slo.parse(["ttft_p95<=1ms"]))
    assert not found.meets
    assert "even with a replica for each request" in found.reason


def test_the_best_is_the_one_with_the_least_grams(engine_model):
    found = plan(workload(), [option(engine_model, "USA"), option(engine_model, "FRA")], SLO)
    assert found["best"]["zone"] == "FRA"
    assert found["method"] == "simulated"
    grams = {one["zone"]: one["operational_grams"] for one in found["options"]}
    assert grams["FRA"] < grams["USA"] / 5


def test_an_infeasible_plan_shows_the_closest(engine_model):
    found = plan(workload(), [option(engine_model)], Slo.parse(["itl_p95<=1ms"]))
    assert not found["feasible"]
    assert found["best"] is None
    assert found["closest"]["reason"]
    assert any("closest" in note for note in found["notes"])


def test_a_plan_of_a_given_size_is_taken_as_it_is(engine_model):
    found = plan(workload(), [option(engine_model)], SLO, replicas=1)
    assert found["options"][0]["replicas"] == 1
    assert not found["feasible"]


def test_a_plan_of_nothing_is_refused():
    with pytest.raises(BadInput):
        plan(workload(), [], SLO)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_3_1_8B))
    return path


def invoke(*arguments):
    app = typer.Typer()
    app.command()(command.plan)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_plans_for_devices_nobody_here_has(config):
    devices = ("--device", "H100 SXM5", "--device", "L4")
    ran = invoke(
        "--model", config, *devices, "--zone", "FRA", "--rate", 20, "--requests", 400, "--slo", "ttft_p95<=2s", "--json"
    )
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert found["feasible"]
    assert [one["device"] for one in found["options"]] == ["H100 SXM5", "L4"]
    assert 0 < found["best"]["mfu_ratio"] < 0.5
    assert found["options"][0]["replicas"] <= found["options"][1]["replicas"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say what the fleet must keep"),
        (("--slo", "fast"), "SLO 'fast'"),
        (("--replicas", "1"), "name what serves"),
        (("--replicas", "1", "--device", "L4"), "needs a --device"),
        (("--replicas", "1", "--engine-model", "absent.json"), r"absent.json"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, words):
    ran = invoke(*arguments)
    assert ran.exit_code == 2
    assert words in ran.stderr


def test_the_command_shows_people_a_table(tmp_path, engine_model):
    path = tmp_path / "fitted.json"
    engine_model.save(path)
    ran = invoke("--engine-model", path, "--replicas", 2, "--rate", 5, "--requests", 50)
    assert ran.exit_code == 0, ran.output
    assert "Simulated plan" in ran.stdout


def test_the_command_ends_with_status_1_where_no_fleet_keeps_the_slo(tmp_path, engine_model):
    path = tmp_path / "fitted.json"
    engine_model.save(path)
    ran = invoke("--engine-model", path, "--slo", "itl_p95<=1ms", "--rate", 5, "--requests", 50)
    assert ran.exit_code == 1, ran.output
    assert "the closest is" in ran.stdout
