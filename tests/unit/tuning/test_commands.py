import json
import warnings

import pytest
import typer
from typer.testing import CliRunner

from serving.cli import load as load_command
from serving.cli import tune as tune_command
from serving.config_sources import load_config


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
