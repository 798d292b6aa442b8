from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from serving.config import GatewayConfig, is_loopback, walk


@pytest.mark.parametrize("key", ["schlüssel", " key", "key ", "a\nb", ""])
def test_a_key_that_cannot_be_sent_is_refused_with_its_name(key: str) -> None:
    for access in ({"api_keys": {"acme": key}}, {"admin_key": key}):
        with pytest.raises(ValidationError, match=r"(api_keys\.acme|admin_key) cannot be sent in a header"):
            GatewayConfig.model_validate({"access": access})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.test", "")),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_every_field_is_documented_and_every_model_refuses_unknown_keys() -> None:
    keys = list(walk(GatewayConfig()))
    assert len(keys) > 40
    assert [key for key, _, text in keys if len(text) < 10] == []

    def models(model: type[BaseModel]) -> list[type[BaseModel]]:
        inner = [field.annotation for field in model.model_fields.values()]
        nested = [each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)]
        return [model, *(found for each in nested for found in models(each))]

    assert all(model.model_config.get("extra") == "forbid" for model in models(GatewayConfig))


def test_the_walk_over_the_class_gives_the_defaults() -> None:
    assert [(key, value) for key, value, _ in walk(GatewayConfig)] == [
        (key, value) for key, value, _ in walk(GatewayConfig())
    ]


def test_vcache_without_a_share_to_verify_is_refused_with_the_reason() -> None:
    with pytest.raises(ValidationError, match=r"shadow_share is 0"):
        GatewayConfig.model_validate({"cache": {"tier": "semantic", "policy": "vcache"}})
    allowed = {"tier": "semantic", "policy": "vcache", "shadow_share": 0.1}
    assert GatewayConfig.model_validate({"cache": allowed}).cache.policy == "vcache"
