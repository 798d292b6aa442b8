from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from serving.config import GatewayConfig
from serving.reload import differences, is_live, told, with_live

ALPHA = {"engine": {"kind": "simulated"}}


def config(**sections: Any) -> GatewayConfig:
    return GatewayConfig.model_validate(sections)


def models(**more: Any) -> GatewayConfig:
    return config(models={"alpha": ALPHA, "org/beta-1.5": ALPHA} | more)


def test_the_same_again_changes_nothing() -> None:
    assert told(models(), models()) == ["nothing has changed"]


def test_a_live_setting_is_applied_and_told_with_both_values() -> None:
    before, asked = config(admission={"max_concurrency": 32}), config(admission={"max_concurrency": 5})
    assert told(before, asked) == ["applied: admission.max_concurrency 32 -> 5"]
    assert with_live(before, asked) == asked


def test_the_queue_of_one_model_is_live() -> None:
    asked = models(alpha=ALPHA | {"admission": {"max_concurrency": 3}})
    assert told(models(), asked) == ["applied: models.alpha.admission.max_concurrency 32 -> 3"]
    assert with_live(models(), asked) == asked


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (models(gamma=ALPHA), "models.gamma is new"),
        (config(models={"alpha": ALPHA}), "models.org/beta-1.5 is gone"),
        (models(alpha=ALPHA | {"replicas": 2}), "models.alpha.replicas 1 -> 2"),
    ],
)
def test_models_that_come_go_or_change_are_told_to_wait_and_nothing_is_changed(asked: GatewayConfig, says: str) -> None:
    (line,) = told(models(), asked)
    assert line.startswith(f"not applied: {says}: ")
    assert "restart" in line
    assert with_live(models(), asked) == models()


def test_what_is_live_is_applied_beside_what_waits() -> None:
    before, asked = config(), config(admission={"max_queue": 7}, cache={"tier": "off"}, server={"port": 9000})
    lines = told(before, asked)
    assert [line.split(":")[0] for line in lines] == ["applied", "not applied", "not applied"]
    assert with_live(before, asked).admission.max_queue == 7
    assert with_live(before, asked).server.port == before.server.port
    # what waits is told again by the next reload; what was applied is not
    assert told(with_live(before, asked), asked) == lines[1:]


def test_a_changed_secret_is_told_without_it() -> None:
    before, asked = (config(access={"api_keys": {"alice": SecretStr(f"key-{name}")}}) for name in "ab")
    (line,) = told(before, asked)
    assert "access.api_keys.alice is another" in line
    assert "key-" not in line


def test_a_new_tenant_is_live_and_told_by_name() -> None:
    asked = config(access={"tenants": {"alice": {"priority": "batch"}}})
    assert told(config(), asked) == ["applied: access.tenants.alice is new"]


def test_limits_that_no_redis_counts_are_said_to_be_each_replicas_own() -> None:
    limited = config(access={"tenants": {"alice": {"limits": {"requests_per_minute": 5}}}})
    applied, each = told(config(), limited, accounts_shared=False)
    assert applied == "applied: access.tenants.alice is new"
    assert "each replica counts the tenants' limits for itself" in each
    assert "restart" in each
    assert told(config(), limited, accounts_shared=True) == [applied]
    grants = config(access={"tenants": {"alice": {"priority": "batch"}}})
    assert told(config(), grants, accounts_shared=False) == [applied]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (config(server={"cors_origins": ("https://app.example.org",)}), "server.cors_origins "),
        (config(access={"admin_key": "boss"}), "access.admin_key is another"),
        (config(access={"api_keys": {"alice": "key"}}), "access.api_keys.alice is new"),
        (config(limits={"strict": True}), "limits.strict False -> True"),
    ],
)
def test_who_may_ask_and_how_limits_are_kept_waits_for_a_restart_and_is_said_so(
    asked: GatewayConfig, says: str
) -> None:
    (line,) = told(config(), asked)
    assert line.startswith(f"not applied: {says}")
    assert line.endswith("it takes a restart")
    assert with_live(config(), asked) == config()


def test_every_setting_that_is_not_named_live_waits() -> None:
    assert is_live(("control", "mode"))
    assert is_live(("models", "a", "admission", "max_queue"))
    assert not is_live(("models", "admission", "engine"))
    assert not is_live(("access", "api_keys", "alice"))
    assert list(differences(config(), config())) == []
