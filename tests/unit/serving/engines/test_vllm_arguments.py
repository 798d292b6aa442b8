"""What vLLM is told, without vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.engines.base import EngineStartError
from serving.engines.settings import EngineSettings, VllmSettings
from serving.engines.vllm import VllmEngine, adapter_revision, engine_cores, model_context_limit, vllm_arguments
from serving.errors import EngineUnavailable
from tests.unit.serving.engines.contract import EngineKit


def flags(gpu: bool = False, bf16: bool = False, revision: str | None = None, **settings: Any) -> dict[str, str | bool]:
    arguments = vllm_arguments(VllmSettings(**settings), "org/model", "name", revision=revision, gpu=gpu, bf16=bf16)
    out: dict[str, str | bool] = {}
    for argument in arguments:
        if argument.startswith("--"):
            key = argument[2:]
            out[key] = True
        else:
            out[key] = argument
    return out


def test_a_cpu_gets_eager_mode_and_a_precision_that_it_has() -> None:
    assert flags()["dtype"] == "float32"
    assert flags(bf16=True)["dtype"] == "bfloat16"
    assert flags(dtype="float16")["dtype"] == "float16"
    assert flags()["enforce-eager"] is True
    assert "gpu-memory-utilization" not in flags()


def test_a_gpu_compiles_and_keeps_the_checkpoints_precision() -> None:
    told = flags(gpu=True)
    assert told["dtype"] == "auto"
    assert "enforce-eager" not in told
    assert told["gpu-memory-utilization"] == "0.9"
    assert "max-num-batched-tokens" not in told
    assert flags(gpu=True, enforce_eager=True)["enforce-eager"] is True


def test_settings_become_options() -> None:
    told = flags(max_batch=7, max_context_tokens=512, max_batched_tokens=99, tensor_parallel_size=2, revision="abc")
    assert (told["max-num-seqs"], told["max-model-len"], told["max-num-batched-tokens"]) == ("7", "512", "99")
    assert (told["tensor-parallel-size"], told["revision"]) == ("2", "abc")
    assert (told["model"], told["served-model-name"]) == ("org/model", "name")
    assert "no-enable-prefix-caching" not in told
    assert flags(enable_prefix_caching=False)["no-enable-prefix-caching"] is True


def test_a_step_has_room_for_the_batch() -> None:
    assert int(flags(max_batch=5000)["max-num-batched-tokens"]) >= 5000


def test_further_options_go_last_and_win() -> None:
    extra = {"tool_call_parser": "hermes", "--seed": 3, "enable-x": True, "enforce-eager": False, "limits": {"a": 1}}
    told = flags(extra=extra)
    assert (told["tool-call-parser"], told["seed"], told["enable-x"]) == ("hermes", "3", True)
    assert "enforce-eager" not in told
    assert json.loads(str(told["limits"])) == {"a": 1}


@pytest.mark.parametrize(
    ("configured", "available", "cores"),
    [(None, [3, 0, 1], (1, 3)), (None, [5], (5,)), ((2, 4), [0, 1], (2, 4))],
)
def test_the_first_core_is_left_to_the_gateway(
    configured: tuple[int, ...] | None, available: list[int], cores: tuple[int, ...]
) -> None:
    assert engine_cores(VllmSettings(cpu_cores=configured), available) == cores


@pytest.mark.parametrize(
    ("text", "limit"), [('{"max_position_embeddings": 2048}', 2048), ("{}", None), ("{", None), (None, None)]
)
def test_a_checkpoints_context(tmp_path: Path, text: str | None, limit: int | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert model_context_limit(tmp_path) == limit


def engine(**settings: Any) -> VllmEngine:
    return VllmEngine(EngineSettings(**settings), lambda _: None, lambda _: None)


async def test_a_folder_without_a_model_is_named() -> None:
    with pytest.raises(EngineStartError, match=r"no model in \./nowhere"):
        await engine(model="./nowhere").start()


def test_names_of_models(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert engine(model=str(tmp_path))._resolve_model() == (str(tmp_path), tmp_path.name)
    assert engine(model=str(tmp_path), served_model_name="x")._resolve_model() == (str(tmp_path), "x")
    assert engine(model="org/model")._resolve_model() == ("org/model", "org/model")


async def test_before_its_start_and_after_its_end_it_is_unavailable() -> None:
    unstarted = engine()
    assert unstarted.status().reason == "the model is loading"
    assert not unstarted.status().fatal
    unstarted.flush()
    with pytest.raises(EngineUnavailable):
        await EngineKit(unstarted, "m").ask({})
    await unstarted.close()
    assert unstarted.status().reason == "closed"


def adapter(folder: Path, name: str, **config: Any) -> str:
    path = folder / name
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps(config))
    (path / "adapter_model.safetensors").write_bytes(name.encode())
    return str(path)


def test_adapters_are_told_with_room_for_the_largest(tmp_path: Path) -> None:
    lora = {"small": adapter(tmp_path, "small", r=4), "large": adapter(tmp_path, "large", r=20)}
    arguments = vllm_arguments(VllmSettings(lora=lora), "org/model", "name", revision=None, gpu=False, bf16=False)
    at = arguments.index("--lora-modules")
    told = [json.loads(argument) for argument in arguments[at + 1 : at + 3]]
    assert told == [{"name": name, "path": path} for name, path in lora.items()]
    assert arguments[arguments.index("--max-lora-rank") + 1] == "32"
    assert arguments[arguments.index("--max-loras") + 1] == "2"
    assert "--enable-lora" in arguments
    assert "enable-lora" not in flags()


@pytest.mark.parametrize(("config", "reason"), [({}, "PEFT"), ({"r": "x"}, "PEFT"), ({"r": 1000}, "rank 1000")])
def test_what_is_no_adapter_is_named(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    with pytest.raises(EngineStartError, match=rf"engine.vllm.lora.mine: .*{reason}"):
        flags(lora={"mine": adapter(tmp_path, "mine", **config)})
    with pytest.raises(EngineStartError, match=r"engine.vllm.lora.mine: .*nowhere"):
        flags(lora={"mine": str(tmp_path / "nowhere")})


def test_another_adapter_under_the_same_name_is_another_revision(tmp_path: Path) -> None:
    path = Path(adapter(tmp_path, "mine", r=4))
    before = adapter_revision(path)
    assert adapter_revision(path) == before
    (path / "adapter_model.safetensors").write_bytes(b"trained anew")
    assert adapter_revision(path) != before
