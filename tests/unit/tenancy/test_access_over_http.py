"""What a key opens and what it does not, and that it is never told to anybody."""

from __future__ import annotations

import logging

import pytest

from serving.access import KeyRing
from serving.tenancy.tenant import TenantSettings
from tests.unit.serving.conftest import CHAT, House

SECRETS = {"acme": "wg-aaaa-very-secret-of-acme", "zeta": "wg-zzzz-very-secret-of-zeta"}
ADMIN = "wg-admin-very-secret"


def house(**tenants: TenantSettings) -> House:
    return House(keys=KeyRing(SECRETS, admin_key=ADMIN, tenants=tenants))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_a_model_that_is_not_the_tenants_is_403_and_spends_nothing() -> None:
    there = house(acme=TenantSettings(models=("other",)))
    refused = await there.send(there.chat(), **bearer(SECRETS["acme"]))
    assert (refused.status, refused.error["param"], refused.error["code"]) == (403, "model", "model_forbidden")
    missing = await there.send(there.chat(model="nowhere"), **bearer(SECRETS["acme"]))
    assert (missing.status, missing.error) == (403, refused.error), "whether a model exists is not told"
    assert there.engine.requests == []
    assert (await there.send(there.chat(), **bearer(SECRETS["zeta"]))).status == 200


async def test_a_tenant_sees_its_own_models_only() -> None:
    there = house(acme=TenantSettings(models=("other",)))
    assert (await there.get("/v1/models", **bearer(SECRETS["acme"]))).json["data"] == []
    assert (await there.get("/v1/models/m", **bearer(SECRETS["acme"]))).status == 403
    assert [m["id"] for m in (await there.get("/v1/models", **bearer(SECRETS["zeta"]))).json["data"]] == ["m"]


async def test_the_admin_key_opens_metrics_and_a_tenants_does_not() -> None:
    there = house()
    assert (await there.get("/metrics", **bearer(ADMIN))).status == 200
    refused = await there.get("/metrics", **bearer(SECRETS["acme"]))
    assert (refused.status, refused.error["code"]) == (403, "admin_only")
    assert (await there.get("/metrics")).status == 401
    asked = await there.send(there.chat(), **bearer(ADMIN))
    assert (asked.status, asked.error["code"]) == (403, "admin_key")


async def test_keys_are_never_in_answers_logs_or_metrics(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    there = house(acme=TenantSettings(models=("other",)))
    wrong = "wg-wrong-very-secret"
    exchanges = [
        await there.send(payload, path=path, **bearer(key))
        for key in (*SECRETS.values(), ADMIN, wrong, wrong + "\xff")
        for payload in (there.chat(), there.chat(model="nowhere"), {"model": 5})
        for path in (CHAT, "/v1/completions", "/v1/nowhere")
    ]
    exchanges += [await there.get("/metrics", **bearer(key)) for key in (ADMIN, wrong)]
    told = "".join(repr(exchange.messages) for exchange in exchanges) + caplog.text
    assert "very-secret" not in told
    assert "wattgate_requests_total" in told
