from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.config import ConfigError, GatewayConfig
from serving.config_sources import load_config
from serving.placement.caps import build_caps, by_served_name, cap_settings, with_live_admission
from serving.placement.metering_setup import node_power
from serving.placement.placed import engine_config, placed_models
from serving.placement.replica import live_settings


def config(**values: Any) -> GatewayConfig:
    return GatewayConfig.model_validate(values)


SIMULATED = {"engine": {"kind": "simulated"}}
TWO = {"models": {"a": SIMULATED, "org/B": SIMULATED | {"replicas": 3, "admission": {"max_concurrency": 10}}}}


def test_one_model_stays_with_the_gateway() -> None:
    assert placed_models(config()) == ()
    assert placed_models(config(**SIMULATED)) == ()
    upstream = {"engine": {"kind": "upstream"}, "fallback": {"upstream": {"url": "http://there"}}}
    assert placed_models(config(**upstream)) == ()


def test_a_model_with_a_fallback_does_not_share_its_process_with_the_gateway() -> None:
    chosen = config(fallback={"upstream": {"url": "http://there"}}, server={"replicas": 2})
    (placed,) = placed_models(chosen)
    assert (placed.name, placed.settings.replicas, placed.apart) == ("smollm2-135m-instruct", 2, True)
    named = config(engine={"served_model_name": "ours"}, fallback={"upstream": {"url": "http://there"}})
    assert placed_models(named)[0].engine.served_model_name == "ours"


def test_each_model_has_a_route_and_an_application_of_its_own() -> None:
    names = ("a", "A", "org/b", "org-b", "ü")
    placed = placed_models(config(models=dict.fromkeys(names, SIMULATED)))
    assert len({one.route for one in placed}) == len({one.application for one in placed}) == len(names)
    for one in placed:
        assert one.route.startswith("/internal/")
        assert one.route.isascii()
        assert one.route.count("/") == 2


def test_a_replica_sees_its_own_model_as_the_engine() -> None:
    chosen = config(**TWO)
    own = engine_config(chosen, placed_models(chosen)[1])
    assert (own.engine.kind, own.engine.served_model_name, own.models) == ("simulated", "org/B", {})
    assert placed_models(own) == ()


def test_the_caps_of_all_gateway_replicas_fill_the_engines() -> None:
    chosen = config(**TWO, server={"replicas": 2})
    assert {name: cap.requests for name, cap in cap_settings(chosen).items()} == {"a": 16, "org/B": 15}
    alone = config(**SIMULATED, admission={"max_concurrency": 7})
    assert [cap.requests for cap in cap_settings(alone).values()] == [7]


def test_adapters_wait_in_their_models_queue(tmp_path: Path) -> None:
    engine = {"engine": {"kind": "vllm", "vllm": {"lora": {"tuned": str(tmp_path)}}}}
    chosen = config(models={"base": engine})
    caps = build_caps(chosen)
    assert by_served_name(chosen, caps) == {"base": caps["base"], "tuned": caps["base"]}


def test_the_live_settings_carry_each_models_admission_and_no_secret() -> None:
    chosen = config(**TWO, access={"api_keys": {"t": "secret-key"}})
    live = live_settings(chosen)
    assert "secret-key" not in str(live)
    live["models"]["org/B"]["admission"]["max_concurrency"] = 2
    changed = with_live_admission(chosen, live)
    assert {name: cap.requests for name, cap in cap_settings(changed).items()} == {"a": 32, "org/B": 6}


def test_two_simulated_devices_are_metered_apart() -> None:
    power = node_power(config(**TWO))
    names = [model.component.name for model in power.load_models]
    assert len(set(names)) == 2
    assert power.devices == {name: frozenset({own}) for name, own in zip(("a", "org/B"), names, strict=True)}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("engine: {kind: simulated}\nmodels: {a: {engine: {kind: simulated}}}\n", ["engine", "models"]),
        ("models:\n  a:\n    engine: {kind: simulated, served_model_name: b}\n", ["served_model_name", "key"]),
        (
            "models:\n  a:\n    engine: {kind: simulated}\n    fallback: {model: b}\n",
            ["models.a.fallback.model b", "none"],
        ),
        ("models:\n  a:\n    engine: {kind: simulated}\n    fallback: {}\n", ["models.a.fallback", "upstream"]),
        ("models:\n  a:\n    admission: {max_concurrency: 99}\n", ["99", "max_batch"]),
        ("fallback: {model: b}\n", ["fallback.model b", "fallback.upstream"]),
        ("models:\n  a: {engine: {vllm: {lora: {b: x}}}}\n  b: {engine: {kind: simulated}}\n", ["b", "two models"]),
    ],
)
def test_contradictions_are_named_with_the_mend(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as wrong:
        load_config(file, environment={})
    assert all(part in str(wrong.value) for part in parts), str(wrong.value)
