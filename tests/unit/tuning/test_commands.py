import json
import warnings

import pytest
import typer
from typer.testing import CliRunner

from metering.intensity.static import StaticIntensity
from metering.site import Site
from serving.cli import load as load_command
from serving.cli import tune as tune_command
from serving.config_sources import load_config
from serving.tuning import attached, measure
from serving.tuning.bench import CannotStart, SimulatedBench
from serving.tuning.goal import Goal
from serving.tuning.outcome import Outcome
from serving.tuning.slo import Slo


@pytest.fixture(autouse=True)
def _others_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def invoke(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def fitted(tmp_path, engine_model):
    path = tmp_path / "fitted.json"
    engine_model.save(path)
    return path


def test_tune_writes_a_config_pictures_and_says_why(fitted, tmp_path):
    folder = tmp_path / "out"
    arguments = ("--simulate", fitted, "--slo", "itl_p95<=30ms", "--rate", 500, "--trials", 8, "--out", folder)
    study = tmp_path / "study"
    ran = invoke(tune_command.tune, *arguments, "--study", study, "--json")
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert found["method"] == "simulated"
    assert found["feasible"]
    assert len(found["trials"]) == 8
    read = load_config(folder / "recommended.yaml", environment={}).config
    assert read.admission.max_concurrency == found["recommended"]["cap"]
    assert {path.name for path in folder.iterdir()} == {
        "frontier.html", "frontier.png", "frontier.md", "recommended.yaml",
    }  # fmt: skip
    again = invoke(tune_command.tune, *arguments, "--study", study, "--objective", "tokens")
    assert again.exit_code == 2
    assert "of another objective" in again.stderr


def test_tune_draws_latency_against_offered_load_where_it_is_asked_to(fitted, tmp_path):
    config = tmp_path / "gateway.yaml"
    config.write_text("admission: {max_concurrency: 1}")
    arguments = ("--simulate", fitted, "--config", config, "--rate", 500, "--trials", 4, "--json", "--out", tmp_path)
    found = json.loads(invoke(tune_command.tune, *arguments, "--load-curve").stdout)
    assert {curve["name"] for curve in found["load_curves"]} == {"current", "recommended"}
    assert {"load_curve.html", "load_curve.md"} <= {path.name for path in tmp_path.iterdir()}
    assert str(tmp_path / "load_curve.md") in found["files"]


def test_tune_ends_with_status_1_where_nothing_keeps_the_slo(fitted, tmp_path):
    ran = invoke(
        tune_command.tune, "--simulate", fitted, "--slo", "itl_p95<=1ms", "--trials", 3, "--out", tmp_path / "out"
    )
    assert ran.exit_code == 1
    assert "No setting that was tried meets the SLO" in ran.stdout
    assert not (tmp_path / "out" / "recommended.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--slo", "fast"), "SLO 'fast'"),
        (("--caps", "many"), "--caps 'many'"),
        (("--caps", "0-4"), "caps go from"),
        (("--objective", "cost"), "--price-per-device-hour"),
        (("--minutes", "0"), "--minutes"),
        (("--prompt-tokens", "long"), "--prompt-tokens 'long'"),
        (("--workload", "absent.jsonl"), "absent.jsonl"),
    ],
)
def test_tune_refuses_in_one_line(fitted, arguments, words):
    ran = invoke(tune_command.tune, "--simulate", fitted, *arguments)
    assert ran.exit_code == 2
    assert words in ran.stderr


SEVERAL = "models: {a: {engine: {kind: simulated}}, b: {engine: {kind: simulated}}}"


@pytest.mark.parametrize(
    ("config", "arguments", "words"),
    [
        (SEVERAL, (), "several (a, b)"),
        ("engine: {kind: simulated}", ("--dtype", "bfloat16"), "--dtype turns vLLM's own options"),
        ("engine: {kind: upstream}", ("--try-prefix-caching",), "--try-prefix-caching turns vLLM's own options"),
    ],
)
def test_tune_refuses_knobs_that_turn_nothing(tmp_path, config, arguments, words):
    path = tmp_path / "gateway.yaml"
    path.write_text(config)
    ran = invoke(tune_command.tune, "--config", path, *arguments)
    assert ran.exit_code == 2
    assert words in " ".join(ran.stderr.split())


def test_tune_refuses_to_simulate_what_an_engine_model_does_not_know(fitted):
    ran = invoke(tune_command.tune, "--simulate", fitted, "--dtype", "bfloat16")
    assert ran.exit_code == 2
    assert "does not know --dtype" in ran.stderr


OTHERS = [
    (("--caps", "1-9"), "of another space (cap 1-64"),
    (("--replicas", 2), "of another space"),
    (("--output-tokens", "7"), "of another workload (output lengths"),
    (("--prefix-tokens", 20, "--prefix-ratio", 0.5), "shared prefixes"),
    (("--arrivals", "gamma", "--burstiness", 4), "of another workload (arrival times"),
    (("--repeat-ratio", 0.5), "repeats"),
    (("--clients", 4), "of another loop (open, now closed, 4 clients)"),
    (("--price-per-device-hour", 2), "of another configuration (metering.price_per_device_hour None, now 2.0)"),
]


def test_a_study_is_gone_on_with_for_the_same_question_only_and_the_refusal_says_what_differs(fitted, tmp_path):
    out = ("--out", tmp_path / "out", "--objective", "grams")
    common = ("--simulate", fitted, "--trials", 2, *out)
    assert invoke(tune_command.tune, *common).exit_code == 0
    for changed, words in OTHERS:
        ran = invoke(tune_command.tune, *common, *changed)
        assert ran.exit_code == 2
        assert words in " ".join(ran.stderr.split())
    config = tmp_path / "gateway.yaml"
    config.write_text("{metering: {pue: 1.3, zone: FRA}, admission: {max_concurrency: 5}}")
    ran = invoke(tune_command.tune, *common, "--config", config)
    told = " ".join(ran.stderr.split())
    assert "metering.zone WORLD, now FRA; metering.pue 1.0, now 1.3" in told
    # the current setting is no part of it: what is current now is tried now
    config.write_text("{admission: {max_concurrency: 5}, access: {api_keys: {t: secret}}, limits: {folder: /tmp/a}}")
    ran = invoke(tune_command.tune, *common, "--config", config, "--trials", 3, "--json")
    assert ran.exit_code == 0, ran.output
    assert [trial["setting"]["cap"] for trial in json.loads(ran.stdout)["trials"]][2] == 5


def test_tune_cut_short_in_its_repeats_writes_what_there_is_and_goes_on_from_there(engine_model, tmp_path, monkeypatch):
    class Interrupted(SimulatedBench):
        """Stops before its run of this number; a run of the repeats has a seed of their own."""

        left, repeated = 3, 0

        def run(self, setting, workload, *, seed, hopeless):
            if seed >= 10_000:
                type(self).repeated += 1
                if self.repeated > self.left:
                    raise KeyboardInterrupt
            return super().run(setting, workload, seed=seed, hopeless=hopeless)

    site = Site(StaticIntensity("WORLD").reading)
    monkeypatch.setattr(tune_command, "own_bench", lambda *arguments: Interrupted(engine_model, site, Slo()))
    config = tmp_path / "gateway.yaml"
    config.write_text("admission: {max_concurrency: 1}")
    common = ("--config", config, "--objective", "tokens", "--caps", "1-4", "--rate", 500, "--json", "--out", tmp_path)
    ran = invoke(tune_command.tune, *common)
    assert ran.exit_code == 130
    assert f"the same command goes on from {tmp_path}/study.journal" in "".join(ran.stderr.splitlines())
    found = json.loads(ran.stdout)
    assert found["interrupted"] == "interrupted"
    assert "Repeated 1 times only: interrupted" in found["why"]
    assert found["gain"]["low"] is None
    assert (tmp_path / "frontier.md").exists()
    assert (tmp_path / "recommended.yaml").exists()
    Interrupted.left = 100
    whole = invoke(tune_command.tune, *common)
    assert whole.exit_code == 0, whole.output
    found = json.loads(whole.stdout)
    assert found["interrupted"] is None
    assert len(found["trials"]) == 4
    assert len(found["repeats"]) == 6
    # three of the first sitting, one of which began a pair, the one that was cut, and the two other pairs
    assert Interrupted.repeated == 4 + 4
    again = invoke(tune_command.tune, *common)
    assert json.loads(again.stdout)["gain"] == found["gain"]
    assert Interrupted.repeated == 8


def test_tune_says_that_an_open_loops_throughput_is_its_arrival_rate_and_how_grams_are_counted(fitted, tmp_path):
    common = ("--simulate", fitted, "--trials", 3, "--json", "--out")
    notes = json.loads(invoke(tune_command.tune, *common, tmp_path / "a", "--objective", "tokens").stdout)["notes"]
    assert any("tokens/s are those that arrive" in note for note in notes)
    assert any(note.startswith("grams are operational (embodied are unknown), at 475") for note in notes)
    busy = ("--objective", "tokens", "--rate", 500)
    notes = json.loads(invoke(tune_command.tune, *common, tmp_path / "b", *busy).stdout)["notes"]
    assert not any("tokens/s are those that arrive" in note for note in notes)


def test_the_configurations_prices_make_the_cost_electricity_included(fitted, tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text("metering: {price_per_kwh: 0.3}")
    common = ("--simulate", fitted, "--config", path, "--objective", "cost", "--trials", 2, "--json", "--out")
    electricity, both = (
        json.loads(invoke(tune_command.tune, *common, tmp_path / out, *option).stdout)["trials"][0]["figures"]
        for out, option in (("one", ()), ("other", ("--price-per-device-hour", 2)))
    )
    assert electricity["cost"]["total"] == electricity["cost"]["electricity"] > 0
    assert both["cost"]["total"] == pytest.approx(both["cost"]["devices"] + electricity["cost"]["total"])
    per_token = 1000 * both["cost"]["total"] / both["output_tokens"]
    assert both["cost_per_1k_output_tokens"] == pytest.approx(per_token)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dtype", "bfloat16", "--replicas", 2), "--dtype, --replicas restarts the engine"),
        (("--simulate", "m@d"), "--simulate is for a gateway that tune starts"),
        (("--engine", "vllm"), "--engine is for a gateway that tune starts"),
        (("--price-per-device-hour", 2), "leave --price-per-device-hour away"),
    ],
)
def test_tune_refuses_for_a_running_gateway_what_only_its_own_can(arguments, words):
    ran = invoke(tune_command.tune, "--url", "http://127.0.0.1:9", *arguments)
    assert ran.exit_code == 2
    assert words in " ".join(ran.stderr.split())


def test_tune_says_that_no_gateway_runs_there(tmp_path):
    ran = invoke(tune_command.tune, "--url", "http://127.0.0.1:9", "--out", tmp_path / "out")
    assert ran.exit_code == 1
    assert "no gateway answers at http://127.0.0.1:9" in " ".join(ran.stderr.split())


def test_tune_names_the_values_that_did_not_start(engine_model, tmp_path, monkeypatch):
    class Picky(SimulatedBench):
        def run(self, setting, workload, *, seed, hopeless):
            if setting.dtype == "bfloat16":
                raise CannotStart("no such precision here")
            return super().run(setting, workload, seed=seed, hopeless=hopeless)

    bench = Picky(engine_model, Site(StaticIntensity("WORLD").reading), Slo())
    monkeypatch.setattr(tune_command, "own_bench", lambda *arguments: bench)
    common = ("--dtype", "bfloat16", "--caps", "4-6", "--trials", 9, "--repeats", 0, "--out", tmp_path, "--json")
    ran = invoke(tune_command.tune, *common)
    assert " ".join(ran.stderr.split()).count("does not start, and is left out at any cap") == 1
    found = json.loads(ran.stdout)
    # the caps asked for, and the current one of 32
    assert len(found["trials"]) == 4
    assert any("Did not start" in note and "dtype bfloat16" in note for note in found["notes"])


def test_tune_says_that_it_did_not_look_at_how_a_variant_answers(engine_model, tmp_path, monkeypatch):
    bench = SimulatedBench(engine_model, Site(StaticIntensity("WORLD").reading), Slo())
    monkeypatch.setattr(tune_command, "own_bench", lambda *arguments: bench)
    common = ("--objective", "tokens", "--caps", "4-4", "--requests", 8, "--repeats", 0, "--out", tmp_path)
    monkeypatch.setattr(Goal, "value", lambda goal, figures: 0.0 if figures["ignored"] else 1.0)
    config = tmp_path / "gateway.yaml"
    config.write_text("admission: {max_concurrency: 4}")
    ran = invoke(tune_command.tune, "--config", config, "--variant", "org/quantised", *common, "--json")
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert "how well the variants answer was not looked at" in found["answers"]
    assert found["recommended"]["model"] == "org/quantised"
    written = (tmp_path / "recommended.yaml").read_text()
    assert "how well the variants answer was not looked at" in written
    assert load_config(tmp_path / "recommended.yaml", environment={}).config.engine.model == "org/quantised"
    study = ("--study", tmp_path / "another.journal")
    alone = json.loads(invoke(tune_command.tune, "--config", config, *common, *study, "--json").stdout)
    assert "answers" not in alone


class Running:
    """A gateway that runs, as ``attach`` gives it; its caps in order, None at the end."""

    url, shown_url, model, configured_cap, highest_cap, run_folder = "http://u:p@there", "http://there", "m", 4, 6, None

    def __init__(self):
        self.caps = []

    def begin(self, config):
        self.apply(config)
        return self

    def apply(self, config):
        self.caps.append(config.admission.max_concurrency)

    def confirm(self):
        return None

    def close(self):
        self.caps.append(None)


@pytest.fixture
def running(monkeypatch):
    """Answers come faster the larger the cap."""
    gateway = Running()

    async def measured(url, workload, drive, told, *, model, stop, watch):
        seconds = 1.0 / gateway.caps[-1]
        outcomes = [
            Outcome(at * seconds, at * seconds, (at + 1) * seconds, at * seconds, prompt_tokens=8, output_tokens=4)
            for at in range(len(workload))
        ]
        return model, outcomes

    monkeypatch.setattr(attached, "attach", lambda *arguments: gateway)
    monkeypatch.setattr(measure, "measure", measured)
    return gateway


def test_tune_of_a_running_gateway_turns_its_cap_gives_it_back_and_recommends_one(running, tmp_path):
    common = ("--url", "http://there", "--objective", "tokens", "--trials", 6, "--repeats", 1, "--requests", 16)
    ran = invoke(tune_command.tune, *common, "--out", tmp_path, "--json")
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert found["method"] == "measured"
    assert found["identity"]["engine"] == "running: m at http://there"
    assert found["trials"][0]["setting"]["cap"] == 4
    assert {trial["setting"]["cap"] for trial in found["trials"]} == set(range(1, 7))
    assert found["recommended"]["cap"] == 6
    assert running.caps[-1] is None
    assert load_config(tmp_path / "recommended.yaml", environment={}).config.admission.max_concurrency == 6
    assert not (tmp_path / "engine_model.json").exists()


def test_a_running_gateways_cap_is_given_back_where_tune_is_interrupted(running, tmp_path, monkeypatch):
    async def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "measure", interrupted)
    ran = invoke(tune_command.tune, "--url", "http://there", "--objective", "tokens", "--out", tmp_path)
    assert ran.exit_code == 130
    assert running.caps == [4, None]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    line = '{{"arrival_seconds": {}, "prompt_tokens": 8, "output_tokens": 4}}\n'
    path.write_text("".join(line.format(number / 500) for number in range(80)))
    return path


@pytest.mark.parametrize(("arguments", "asked"), [((), 80), (("--requests", 10), 10)])
def test_a_workload_file_is_taken_whole_unless_requests_says_less(fitted, log, tmp_path, arguments, asked):
    common = ("--simulate", fitted, "--workload", log, "--trials", 2, "--out", tmp_path / "out", "--json", *arguments)
    ran = invoke(tune_command.tune, *common)
    assert ran.exit_code == 0, ran.output
    assert {trial["figures"]["requests"] for trial in json.loads(ran.stdout)["trials"]} == {asked}
    assert ("took 10 of the 80 requests" in " ".join(ran.stderr.split())) == (asked == 10)


def test_load_says_that_nobody_is_there():
    ran = invoke(load_command.load, "--url", "http://127.0.0.1:9", "--requests", 1)
    assert ran.exit_code == 1
    assert "no gateway answers" in ran.stderr


def test_load_refuses_a_broken_workload_with_its_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"arrival_seconds": 0, "prompt_tokens": 1, "output_tokens": 1}\n{\n')
    ran = invoke(load_command.load, "--workload", path)
    assert ran.exit_code == 2
    assert "line 2: not JSON" in ran.stderr
