from dataclasses import replace

import pytest

from metering.errors import BadInput
from serving.config import ConfigError
from serving.config_sources import load_config
from serving.engines.settings import EngineSettings
from serving.engines.simulated import SimulatedEngine
from serving.tuning import engine_library
from serving.tuning.engine_fit import fit_engine_model
from serving.tuning.engine_library import find_engine_model, keep, library_name
from serving.tuning.engine_model import Plane
from serving.tuning.step_log import StepRecord


@pytest.fixture(autouse=True)
def _own_library(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_library.platformdirs, "user_data_dir", lambda name: str(tmp_path / "data"))


def test_a_kept_model_is_found_by_model_and_device(engine_model):
    path = keep(engine_model)
    assert path.stem == library_name(engine_model.model, engine_model.device)
    assert find_engine_model(path.stem) == find_engine_model(str(path)) == engine_model


def test_a_later_fit_takes_the_place_of_an_earlier_and_other_devices_keep_theirs(engine_model):
    keep(engine_model)
    keep(replace(engine_model, device="other"))
    path = keep(replace(engine_model, overhead_seconds=0.5))
    assert len(list(path.parent.iterdir())) == 2
    assert find_engine_model(path.stem).overhead_seconds == 0.5


def test_names_are_of_letters_that_files_and_commands_take():
    assert library_name("Org/Model 7B", "NVIDIA H100 80GB (SXM5)") == "org-model-7b@nvidia-h100-80gb-sxm5"


def test_an_unknown_name_tells_which_are_kept(engine_model):
    with pytest.raises(BadInput, match="`wattgate tune` makes one"):
        find_engine_model("nothing@nowhere")
    name = keep(engine_model).stem
    with pytest.raises(BadInput, match=f"kept: {name}|nearest: {name}"):
        find_engine_model("nothing@nowhere")
    with pytest.raises(BadInput, match="cannot read"):
        find_engine_model("gone/model.json")


def test_the_simulated_engine_takes_the_step_times_of_a_fitted_model(engine_model):
    name = keep(replace(engine_model, planes=(Plane(0.05, 0.004, 0.003, 0.00001),))).stem
    engine = SimulatedEngine(EngineSettings(kind="simulated", simulated={"engine_model": name}), lambda steps: None)
    assert engine._batch is not None
    assert engine._batch.model.step_seconds(8, 0, 800) == pytest.approx(0.05 + 8 * 0.004 + 800 * 0.00001)


def test_a_config_with_an_unknown_engine_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no engine model 'gone'"):
        load_config(None, {"engine.kind": "simulated", "engine.simulated.engine_model": "gone"}, environment={})


def steps(fixed, each, prompt, context):
    return [
        StepRecord(batch, tokens, 50 * batch, fixed + each * batch + prompt * tokens + context * 50 * batch)
        for batch in range(1, 33)
        for tokens in (0, 0, 0, 40)
    ]


def test_a_fit_finds_the_plane_and_the_metered_watts_of_its_runs():
    runs = [
        {"clients": 8, "joules": 30.0, "seconds": 2.0},
        {"clients": 8, "joules": 32.0, "seconds": 2.0},
        {"clients": None, "joules": 1.0, "seconds": 2.0},
        {"clients": 1, "completed": 4, "prompt_tokens": 160, "ttft_p50_seconds": 0.05 + 40 * 0.003 + 0.02},
    ]
    records = steps(0.05, 0.004, 0.003, 0.0)
    model = fit_engine_model(records, model="m", hardware=None, precision="float32", runs=runs)
    assert model.planes[0].fixed == pytest.approx(0.05, rel=1e-3)
    assert model.planes[0].per_prompt_token == pytest.approx(0.003, rel=1e-3)
    assert model.overhead_seconds == pytest.approx(0.02, rel=1e-2)
    assert model.power.max_watts == 15.5
    assert model.method == "fitted"


def test_without_metered_runs_or_a_known_device_there_are_no_watts():
    model = fit_engine_model(steps(0.05, 0.004, 0.003, 0.0), model="m", hardware=None, precision="float32")
    assert model.power is None
    assert model.overhead_seconds == 0.0
