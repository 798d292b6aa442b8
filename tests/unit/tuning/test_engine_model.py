import json
from dataclasses import replace

import numpy as np
import pytest

from metering.architecture import architecture_from_config
from metering.errors import BadInput
from metering.hardware.catalogue import find_device
from serving.tuning.engine_model import EngineModel, Plane, roofline_model
from serving.tuning.fitting import StepRecord, fit_plane, records_of
from serving.tuning.outcome import Outcome
from tests.unit.metering.model_configs import LLAMA_3_1_8B

LLAMA_8B = architecture_from_config(LLAMA_3_1_8B)
TRUE = Plane(0.02, 0.002, 0.0005, 2e-6)


def steps(count=400, noise=0.0, seed=0):
    random = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        batch = int(random.integers(1, 33))
        prompt = int(random.integers(1, 300)) if random.random() < 0.2 else 0
        context = batch * int(random.integers(20, 400))
        seconds = TRUE.seconds(batch, prompt, context, 0) * (1 + noise * abs(random.standard_normal()))
        out.append(StepRecord(batch, prompt, context, seconds))
    return out


def test_a_fit_finds_the_plane_that_made_the_steps():
    plane, quality = fit_plane(steps())
    assert plane.fixed == pytest.approx(0.02, rel=1e-3)
    assert plane.per_sequence == pytest.approx(0.002, rel=1e-3)
    assert plane.per_prompt_token == pytest.approx(0.0005, rel=1e-3)
    assert plane.per_context_token == pytest.approx(2e-6, rel=1e-2)
    assert quality.median_error < 1e-6


def test_interrupted_steps_do_not_spoil_the_fit():
    records = steps()
    records[::15] = [replace(record, seconds=record.seconds * 8) for record in records[::15]]
    plane, quality = fit_plane(records)
    assert plane.seconds(8, 0, 800, 0) == pytest.approx(TRUE.seconds(8, 0, 800, 0), rel=0.1)
    assert quality.held_out_median_error < 0.1


def test_sums_of_steps_fit_as_single_steps_do():
    singles = steps(2000)
    sums = [
        StepRecord(
            sum(r.sequence_steps for r in group),
            sum(r.prompt_tokens for r in group),
            sum(r.context_tokens for r in group),
            sum(r.seconds for r in group),
            len(group),
        )
        for group in (singles[i : i + 10] for i in range(0, 2000, 10))
    ]
    plane, _ = fit_plane(sums)
    assert plane.seconds(8, 0, 800, 0) == pytest.approx(TRUE.seconds(8, 0, 800, 0), rel=1e-3)


def test_too_few_steps_are_refused():
    with pytest.raises(BadInput, match="at least 20"):
        fit_plane(steps(5))


def test_steps_are_read_from_what_clients_saw():
    long = Outcome(
        0, 0, 4.0, first_token_seconds=1.0, token_gaps_seconds=(1.0, 1.0, 1.0), prompt_tokens=50, output_tokens=4
    )
    joins = Outcome(
        1.5, 1.5, 4.0, first_token_seconds=3.0, token_gaps_seconds=(1.0,), prompt_tokens=20, output_tokens=2
    )
    records = records_of([long, joins])
    assert [record.sequence_steps for record in records] == [1, 1, 2, 2]
    assert [record.prompt_tokens for record in records] == [0, 20, 0, 0]
    assert records[0].context_tokens == pytest.approx(50.5)
    assert records[2].context_tokens == pytest.approx(50 + 2.5 + 20 + 0.5)


def test_answers_whose_frames_hold_several_tokens_are_left_out():
    lumpy = Outcome(0, 0, 4.0, first_token_seconds=1.0, token_gaps_seconds=(3.0,), prompt_tokens=5, output_tokens=30)
    assert records_of([lumpy]) == []


def test_a_model_reads_back_as_written(tmp_path, engine_model):
    path = tmp_path / "m.json"
    engine_model.save(path)
    assert EngineModel.load(path) == engine_model


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "model": "m", "unknown": 1}'])
def test_a_damaged_model_is_refused_with_its_path(tmp_path, text):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"m\.json"):
        EngineModel.load(path)


def test_negative_coefficients_are_refused(tmp_path, engine_model):
    path = tmp_path / "m.json"
    engine_model.save(path)
    value = json.loads(path.read_text())
    value["planes"][0]["fixed"] = -1
    path.write_text(json.dumps(value))
    with pytest.raises(BadInput, match="at least 0"):
        EngineModel.load(path)


def test_on_the_roofline_one_sequence_is_bound_by_reading_the_weights_and_many_prompts_by_compute():
    model = roofline_model(LLAMA_8B, "llama-8b", find_device("H100 SXM5"), efficiency=1.0)
    # 7.5e9 matrix weights x 2 bytes / 3350 GB/s
    assert model.step_seconds(1, 0, 100) == pytest.approx(15.0e9 / 3350e9, rel=0.15)
    assert model.step_seconds(0, 8192) == pytest.approx(2 * 7.0e9 * 8192 / 989.5e12, rel=0.15)
    # 80 GB x 0.9 - 16 GB of weights, at 131072 bytes a token
    assert model.kv_tokens == pytest.approx((72e9 - 16.06e9) / 131072, rel=0.01)


def test_two_devices_are_twice_as_fast_and_draw_twice_the_power():
    device = find_device("A100 SXM 80GB")
    one, two = (roofline_model(LLAMA_8B, "m", device, count=count, efficiency=0.5) for count in (1, 2))
    assert two.step_seconds(0, 8192) == pytest.approx(one.step_seconds(0, 8192) / 2, rel=0.01)
    assert two.power.max_watts == 2 * one.power.max_watts


def test_weights_that_do_not_fit_are_said_so():
    with pytest.raises(BadInput, match="do not fit"):
        roofline_model(LLAMA_8B, "m", find_device("T4").overridden({"peak_flops": {"bf16": 65e12}}))


def test_a_device_without_a_peak_is_not_guessed():
    with pytest.raises(BadInput, match="peak at"):
        roofline_model(LLAMA_8B, "m", find_device("T4"))
