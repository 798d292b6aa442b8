from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.config import ConfigError, GatewayConfig
from serving.config_sources import LoadedConfig, load_config

Load = Callable[..., LoadedConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a text as the config file, with nothing from the real environment."""

    def load(
        text: str | bytes | None = None,
        flags: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> LoadedConfig:
        path = None
        if text is not None:
            path = tmp_path / "gateway.yaml"
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_config(path, flags, environment or {})

    return load


def refusal(load: Load, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        load(*args, **kwargs)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_everything_is_optional(load: Load) -> None:
    assert load().config == GatewayConfig()
    assert load("").config == GatewayConfig()
    assert load("# nothing\n").config == GatewayConfig()
    assert load().sources == {}


def test_flags_go_before_environment_before_file_before_defaults(load: Load) -> None:
    text = "cache:\n  redis: redis://file:1\n  ttl_seconds: 5\nserver:\n  port: 1\n"
    loaded = load(text, {"server.port": 3, "server.host": None}, {"WATTGATE_REDIS_URL": "redis://env:2"})
    assert loaded.config.server.port == 3
    assert loaded.config.cache.redis == "redis://env:2"
    assert loaded.config.cache.ttl_seconds == 5.0
    assert loaded.sources["server.port"] == "command line"
    assert loaded.sources["cache.redis"] == "environment WATTGATE_REDIS_URL"
    assert loaded.sources["cache.ttl_seconds"].endswith("gateway.yaml:3")
    assert "server.host" not in loaded.sources


def test_secrets_come_from_the_environment_and_are_not_shown(load: Load) -> None:
    environment = {
        "WATTGATE_API_KEYS": "acme=key-1, zeta=key=2",
        "WATTGATE_CACHE_SECRET": "hush, hush, hush",
        "UNRELATED": "x",
    }
    config = load(environment=environment).config
    assert {t: k.get_secret_value() for t, k in config.access.api_keys.items()} == {"acme": "key-1", "zeta": "key=2"}
    assert config.cache.tenant_secret is not None
    assert config.cache.tenant_secret.get_secret_value() == "hush, hush, hush"
    assert "hush" not in repr(config)
    assert "key-1" not in repr(config)


@pytest.mark.parametrize("raw", ["acme", "=key", "acme=", "acme=key,", ","])
def test_keys_that_cannot_be_read_are_told_their_form(load: Load, raw: str) -> None:
    message = refusal(load, environment={"WATTGATE_API_KEYS": raw})
    assert "tenant=key" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server:\n  prot: 1\n", ["gateway.yaml:2", "server.prot", "did you mean port?"]),
        ("sever:\n  port: 1\n", ["gateway.yaml:1", "sever", "did you mean server?"]),
        ("engine:\n  vllm:\n    zzz: 1\n", ["gateway.yaml:3", "engine.vllm.zzz", "known: dtype"]),
        ("zzz: 1\nserver:\n  zzz: 1\n", ["zzz", "1 more"]),
        ("server:\n  tls_cert: x.pem\n", ["gateway.yaml:2: unknown key server.tls_cert", "ingress", "plain HTTP"]),
        ("server:\n  ssl_keyfile: x.pem\n", ["server.ssl_keyfile", "ingress"]),
        ("tls: {}\n", ["unknown key tls", "ingress"]),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known(load: Load, text: str, words: list[str]) -> None:
    message = refusal(load, text)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server:\n  port: many\n", ["gateway.yaml:2", "server.port", "integer"]),
        ("server:\n  port: 70000\n", ["gateway.yaml:2", "server.port", "65535"]),
        ("admission:\n  max_concurrency: 0\n", ["gateway.yaml:2", "admission.max_concurrency"]),
        ("cache:\n\n  tier: big\n", ["gateway.yaml:3", "cache.tier", "'semantic'"]),
        ("cache: exact\n", ["gateway.yaml:1", "cache"]),
        ("engine:\n  kind: tgi\n", ["gateway.yaml:2", "engine.kind", "'upstream'"]),
        ("metering:\n  pue: 0.9\n", ["gateway.yaml:2", "metering.pue"]),
        ("metering:\n  zone: ATLANTIS\n", ["gateway.yaml:1", "ATLANTIS"]),
        ("metering:\n  device: warp-core\n", ["gateway.yaml:1", "warp-core"]),
        ("- a\n", ["gateway.yaml:1", "sections", "server"]),
        ("server: {\n", ["gateway.yaml:", "not YAML"]),
        ("a: b: c\n", ["gateway.yaml:1", "not YAML"]),
        (b"\xff\xfe\x00", ["UTF-8"]),
        ("server:\n  host: \x07\n", ["gateway.yaml:2", "not YAML", "0x7"]),
        ("server: !!python/object/apply:os.system ['x']\n", ["gateway.yaml:1", "not YAML"]),
    ],
)
def test_a_wrong_value_is_named_with_its_line(load: Load, text: str | bytes, words: list[str]) -> None:
    message = refusal(load, text)
    assert all(word in message for word in words), message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            load_config(path, environment={})


def test_a_flag_that_is_wrong_is_named(load: Load) -> None:
    assert "server.port" in refusal(load, flags={"server.port": -1})


def test_another_address_needs_keys(load: Load) -> None:
    message = refusal(load, flags={"server.host": "0.0.0.0"})
    assert "WATTGATE_API_KEYS" in message
    assert "127.0.0.1" in message
    load(flags={"server.host": "0.0.0.0"}, environment={"WATTGATE_API_KEYS": "a=b"})


def test_a_cap_above_the_engines_batch_is_a_contradiction(load: Load) -> None:
    text = "admission:\n  max_concurrency: 64\n"
    message = refusal(load, text)
    assert "engine.vllm.max_batch" in message
    load(text + "engine:\n  vllm:\n    max_batch: 64\n")
    load(text, {"engine.kind": "simulated"})


def test_a_bare_off_in_yaml_is_the_word_not_a_boolean(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("cache: {tier: off}\n")
    assert load_config(file, environment={}).config.cache.tier == "off"
    file.write_text("telemetry: {log_prompts: off}\n")
    assert load_config(file, environment={}).config.telemetry.log_prompts == "off"


def test_prompts_to_be_logged_need_a_log(load: Load) -> None:
    text = "telemetry:\n  log_prompts: redacted\n"
    message = refusal(load, text)
    assert "telemetry.request_log" in message
    load(text + "  request_log: requests.jsonl\n")
