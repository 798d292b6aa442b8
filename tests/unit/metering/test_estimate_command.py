"""``wattgate estimate`` and ``wattgate hardware`` as a user meets them: keys, units, tables, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serving.cli import estimate, hardware
from tests.unit.metering.model_configs import LLAMA_3_1_8B

RUNNER = CliRunner()


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_3_1_8B))
    return str(tmp_path)


def figures(*arguments: str, app: Any = estimate.app) -> dict[str, Any]:
    result = RUNNER.invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def refused(*arguments: str, app: Any = estimate.app) -> str:
    """The one line on stderr."""
    result = RUNNER.invoke(app, list(arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("wattgate: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


REQUEST = ("--prompt-tokens", "1023", "--output-tokens", "2")
ALWAYS = {"flops_prefill", "flops_decode", "flops_total", "parameters_total", "parameters_active", "kv_bytes_per_token"}
WITH_DEVICE = {"time_seconds", "energy_joules", "operational_grams", "embodied_grams"}


def test_inference_without_a_device(model: str) -> None:
    told = figures("inference", "--model", model, *REQUEST)
    assert told.keys() >= ALWAYS
    assert not told.keys() & WITH_DEVICE
    assert told["flops_decode"] == 15_546_187_776
    assert told["flops_total"] == told["flops_prefill"] + told["flops_decode"]
    assert (told["parameters_total"], told["kv_bytes_per_token"]) == (8_030_261_248, 131_072)


def test_inference_with_a_device_and_a_zone(model: str) -> None:
    told = figures("inference", "--model", model, *REQUEST, "--device", "H100 SXM5", "--zone", "USA")
    assert told.keys() >= ALWAYS | WITH_DEVICE
    assert all(told[key] > 0 for key in WITH_DEVICE)
    assert told["operational_grams"] == pytest.approx(told["energy_joules"] / 3.6e6 * 369.473)
    assert told["source"] == "codecarbon 3.3.2 global_energy_mix (2023)"


def test_the_bundled_model_is_known_by_its_name(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.bundled_model.prepare_bundled_model", lambda tell: Path(model))
    options = ("--prompt-tokens", "100", "--output-tokens", "10")
    bundled = figures("inference", "--model", "bundled:smollm2-135m-instruct", *options)
    assert bundled["flops_total"] == figures("inference", "--model", model, *options)["flops_total"]


def test_a_config_file_is_as_good_as_its_directory(model: str) -> None:
    assert figures("inference", "--model", f"{model}/config.json", *REQUEST) == figures(
        "inference", "--model", model, *REQUEST
    )


def test_cached_tokens_and_convention(model: str) -> None:
    cold = figures("inference", "--model", model, *REQUEST)
    warm = figures("inference", "--model", model, *REQUEST, "--cached-tokens", "1000")
    full = figures("inference", "--model", model, *REQUEST, "--attention", "full")
    assert warm["flops_prefill"] < cold["flops_prefill"] < full["flops_prefill"]
    assert full["flops_decode"] == cold["flops_decode"]
    attention = full["flops_by_part"]["prefill"]["attention"]
    assert attention == 4 * 32 * 32 * 128 * 1023 * 1023


def test_overrides_fill_what_is_unknown_with_units(model: str) -> None:
    told = figures(
        "inference", "--model", model, *REQUEST, "--device", "TPU v5e", "--max-watts", "0.2kW", "--embodied", "100kg",
        "--bandwidth", "819GB/s", "--peak", "197TFLOP/s", "--intensity", "0.4kg/kWh", "--price-per-kwh", "0.25",
    )  # fmt: skip
    assert told["energy_joules"] == pytest.approx(200 * told["time_seconds"])
    assert told["intensity_grams_per_kwh"] == 400
    assert told["cost"]["total"] > 0


def test_a_table_for_people(model: str) -> None:
    result = RUNNER.invoke(estimate.app, ["inference", "--model", model, *REQUEST, "--device", "TPU v5e"])
    assert result.exit_code == 0
    assert "15,546,187,776" in result.stdout
    assert "unknown" in result.stdout
    assert "note:" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--prompt-tokens", "-5", "--output-tokens", "2"), "prompt tokens must be at least 1, got -5"),
        (("--prompt-tokens", "5", "--output-tokens", "-2"), "output tokens must be at least 0, got -2"),
        ((*REQUEST, "--cached-tokens", "1023"), "cached tokens must be at most 1022"),
        ((*REQUEST, "--device", "H1000"), "no device 'H1000'; nearest: H100"),
        ((*REQUEST, "--device", "H100", "--zone", "Frnace"), "unknown zone 'Frnace'; nearest: France"),
        ((*REQUEST, "--device", "H100", "--max-watts", "700kWh"), "'kWh' is a unit of energy, not of power"),
        ((*REQUEST, "--device", "H100", "--pue", "0.5"), "PUE"),
        ((*REQUEST, "--device", "H100", "--price-per-kwh", "-1"), "--price-per-kwh must be at least 0"),
    ],
)
def test_inference_refuses_in_one_line(model: str, arguments: tuple[str, ...], says: str) -> None:
    assert says in refused("inference", "--model", model, *arguments)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": None}, "the config has no num_hidden_layers"),
        ({"model_type": "lama"}, "unknown architecture 'lama'; nearest: llama"),
    ],
)
def test_a_config_that_cannot_be_counted(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA_3_1_8B, **change}))
    assert says in refused("inference", "--model", str(tmp_path), *REQUEST)


def test_unknown_architecture_may_be_assumed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA_3_1_8B, "model_type": "novel"}))
    told = figures("inference", "--model", str(tmp_path), *REQUEST, "--assume", "llama")
    assert told["parameters_total"] == 8_030_261_248
    assert "counted as llama" in told["notes"][0]


def test_missing_model() -> None:
    assert "no model at" in refused("inference", "--model", "/no/such/model", *REQUEST)


GPT3 = (
    "training", "--params", "175e9", "--tokens", "300e9", "--device-peak", "125e12", "--efficiency", "0.197",
    "--chips", "10000", "--watts", "330", "--pue", "1.1", "--intensity", "429",
)  # fmt: skip


def test_training_gives_the_paper_s_figures() -> None:
    told = figures(*GPT3)
    assert told["zettaflops"] == pytest.approx(315)
    assert told["days"] == pytest.approx(14.805, abs=5e-4)
    assert told["energy_mwh"] == pytest.approx(1289.85, abs=5e-3)
    assert told["carbon_tonnes"] == pytest.approx(553.345, abs=5e-4)


def test_training_takes_units_and_catalogue_devices() -> None:
    plain = figures(*GPT3)
    spelt = figures(
        "training", "--params", "175B", "--tokens", "300B", "--device-peak", "125TFLOP/s", "--efficiency", "0.197",
        "--chips", "10000", "--watts", "330W", "--pue", "1.1", "--intensity", "0.429kg/kWh",
    )  # fmt: skip
    assert spelt["carbon_tonnes"] == pytest.approx(plain["carbon_tonnes"])
    listed = figures("training", "--params", "1B", "--tokens", "1B", "--device", "A100", "--zone", "FRA")
    assert listed["embodied_tonnes"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--params", "lots", "--tokens", "1"), "--params: 'lots' is not a number"),
        (("--params", "-1", "--tokens", "1", "--device", "A100"), "--params must be at least 0"),
        (("--params", "1", "--tokens", "1"), "give --device-peak"),
        (("--params", "1", "--tokens", "1", "--device-peak", "1e12"), "give --watts"),
        ((*GPT3[1:], "--efficiency", "1.5"), "efficiency"),
        ((*GPT3[1:], "--watts", "5kWh"), "unit of energy, not of power"),
    ],
)
def test_training_refuses_in_one_line(arguments: tuple[str, ...], says: str) -> None:
    assert says in refused("training", *arguments)


def test_an_adapter_is_counted_beside_its_model(model: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 16, "target_modules": ["q_proj", "v_proj"]}))
    plain = figures("inference", "--model", model, *REQUEST)
    tuned = figures("inference", "--model", model, *REQUEST, "--lora", str(tmp_path))
    assert tuned["flops_decode"] - plain["flops_decode"] == 2 * 32 * 16 * (4096 + 4096 + 4096 + 1024)
    assert "adapter_config.json" in refused("inference", "--model", model, *REQUEST, "--lora", str(tmp_path / "none"))


def test_inference_by_the_other_named_estimators(model: str) -> None:
    request = ("inference", "--model", model, *REQUEST, "--device", "A100 SXM 80GB", "--zone", "USA")
    paper = figures(*request, "--estimator", "llmcarbon", "--watts", "330W")
    assert paper["estimator"] == "llmcarbon"
    assert paper["energy_joules"] == pytest.approx(330 * paper["time_seconds"])
    nameplate = figures(*request, "--estimator", "nameplate")
    assert nameplate["energy_joules"] == pytest.approx(407 * nameplate["mfu_ratio"] * nameplate["time_seconds"])
    assert "idle_aware" in refused(*request, "--watts", "330W")


def test_training_by_the_other_named_estimators() -> None:
    base = figures(*GPT3)
    nameplate = figures(*GPT3, "--estimator", "nameplate")
    assert nameplate["carbon_tonnes"] == pytest.approx(base["carbon_tonnes"] * 0.197)
    aware = figures(*GPT3, "--estimator", "idle_aware", "--idle-watts", "35W")
    assert aware["estimator"] == "idle_aware"
    assert aware["energy_mwh"] == pytest.approx(base["energy_mwh"] * (35 + 295 * 0.197) / 330)
    assert "--idle-watts" in refused(*GPT3, "--estimator", "idle_aware")


def test_training_says_what_it_assumed() -> None:
    assert figures(*GPT3)["notes"] == []
    assumed = ("training", "--params", "1B", "--tokens", "1B", "--device", "A100")
    efficiency, watts = figures(*assumed)["notes"]
    assert "No --efficiency" in efficiency
    assert "maximal board power of 407 W" in watts
    assert len(figures(*assumed, "--efficiency", "0.4", "--estimator", "nameplate")["notes"]) == 0


def test_embodied_from_a_file(tmp_path: Path) -> None:
    spec = tmp_path / "r740.yaml"
    spec.write_text(
        "parts:\n"
        "  - {kind: logic, area_mm2: 698, node_nm: 28, fab: coal, gas_abatement: 95, yield: 0.875, ics: 2, count: 2}\n"
        "  - {kind: dram, gb: 32, technology: ddr4_10nm, ics: 18, count: 12}\n"
    )
    told = figures("embodied", "--spec", str(spec))
    assert round(told["parts"][0]["embodied_kilograms"], 9) == 23.143405714
    assert told["embodied_kilograms"] == pytest.approx(sum(part["embodied_kilograms"] for part in told["parts"]))
    assert told["parts"][1]["embodied_kilograms"] == pytest.approx(12 * (65 * 32 / 0.875 + 18 * 150) / 1000)


def test_embodied_refuses_a_bad_part_by_number(tmp_path: Path) -> None:
    spec = tmp_path / "bad.yaml"
    spec.write_text("parts:\n  - {kind: logic, area_mm2: 698, node_nm: 28, fab: atlantis}\n")
    assert "part 1 (logic): unknown fab 'atlantis'" in refused("embodied", "--spec", str(spec))


PALM = (
    "mfu", "--params", "540e9", "--layers", "118", "--heads", "48", "--head-dim", "256", "--sequence", "2048",
    "--tokens-per-second", "238.3e3", "--chips", "6144", "--device-peak", "275e12",
)  # fmt: skip


def test_mfu_of_palm_and_of_inference() -> None:
    told = figures(*PALM)
    assert told["mfu_ratio"] == pytest.approx(0.462, abs=1e-3)
    assert told["mfu_without_attention_ratio"] == pytest.approx(0.457, abs=1e-3)
    assert figures(*PALM, "--phase", "inference")["mfu_ratio"] == pytest.approx(told["mfu_ratio"] / 3)


def test_mfu_above_one_is_told_as_wrong() -> None:
    told = figures(*PALM, "--chips", "1000")
    assert told["mfu_ratio"] > 1
    assert "wrong" in told["notes"][0]


@pytest.mark.parametrize("name", ["--layers", "--heads", "--head-dim", "--sequence"])
def test_mfu_refuses_a_model_without_extent(name: str) -> None:
    arguments = list(PALM)
    arguments[arguments.index(name) + 1] = "0"
    assert "must be positive, got 0" in refused(*arguments)


def test_mfu_refuses_no_chips() -> None:
    assert "chips must be positive" in refused(*PALM, "--chips", "0")


def test_hardware_shows_sources_and_unknowns() -> None:
    told = figures("--device", "H100", app=hardware.app)
    assert told["peak_flops"]["bf16"] == {
        "value": pytest.approx(989.5e12),
        "source": "NVIDIA H100 data sheet, sparse figures halved",
    }
    assert told["unknown"] == []
    table = RUNNER.invoke(hardware.app, ["--device", "H100"]).stdout
    assert "989.5 TFLOP/s" in table
    assert figures("--device", "H200", app=hardware.app)["unknown"] == ["idle_watts"]
    assert "unknown: idle_watts" in RUNNER.invoke(hardware.app, ["--device", "H200"]).stdout


def test_hardware_lists_the_catalogue() -> None:
    told = figures("--catalogue", app=hardware.app)
    assert "H100 SXM5" in told["devices"]
    assert "AMD EPYC 3rd Gen" in told["cpus"]


def test_hardware_refuses() -> None:
    assert "no device 'H1000'" in refused("--device", "H1000", app=hardware.app)
    assert "leave --device away" in refused("--device", "H100", "--calibrate", app=hardware.app)


def test_hardware_detects_this_machine() -> None:
    assert figures(app=hardware.app)["count"] >= 1


def test_hardware_says_how_power_is_read_and_why_not_better() -> None:
    told = figures("--device", "cpu", app=hardware.app)["power"]
    assert told[0].startswith("power of cpu: ")
    if told[0] != "power of cpu: rapl":
        (refused_meter,) = [line for line in told if line.startswith("power of cpu not by rapl: ")]
        shown = RUNNER.invoke(hardware.app, ["--device", "cpu"], env={"COLUMNS": "1000"}).stdout
        assert refused_meter in shown
    assert figures("--device", "H100 SXM5", app=hardware.app)["power"] == []
