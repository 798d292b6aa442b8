"""Limits over HTTP: what is reserved is settled on every exit, before the client can know that it is over."""

from __future__ import annotations

from typing import Any

import pytest

from metering.power.base import Boundary
from metering.settlement import JOULES_PER_KWH, ComponentRate, IntensityStamp, Rates
from metering.weights import WeightKind
from serving.access import KeyRing
from serving.errors import EngineRefused
from serving.limits.book import Use
from serving.tenancy.tenant import LimitSettings, TenantSettings
from tests.unit.serving.conftest import House
from tests.unit.serving.engines.contract import until
from tests.unit.serving.fakes import broken_stream, chunk

KEY = {"authorization": "Bearer key"}


def house(*, cap: int = 4, **limits: Any) -> House:
    grants = {"acme": TenantSettings(limits=LimitSettings(**limits))}
    return House(keys=KeyRing({"acme": "key", "zeta": "z"}, admin_key="admin", tenants=grants), cap=cap)


async def used(there: House) -> Any:
    reply = await there.get("/v1/usage", **KEY)
    assert reply.status == 200
    return reply.json


async def test_one_after_the_other_needs_one_place_only() -> None:
    there = house(concurrent_requests=1)
    for number in range(6):
        reply = await there.send(there.chat(str(number), stream=bool(number % 2)), **KEY)
        assert reply.status == 200
    assert (await used(there))["day"]["requests"] == 6


async def test_a_stream_holds_its_place_until_its_last_frame() -> None:
    there = house(concurrent_requests=1)
    there.engine.gate.clear()
    first = there.begin(there.chat(stream=True), **KEY)
    await there.engine.entered.wait()
    refused = await there.send(there.chat("other"), **KEY)
    assert (refused.status, refused.error["code"]) == (429, "concurrent_requests_exceeded")
    assert refused.headers["retry-after"] == "1"
    other_tenant = there.begin(there.chat("other"), authorization="Bearer z")
    there.engine.gate.set()
    assert (await first.end()).done
    assert (await other_tenant.end()).status == 200
    assert (await there.send(there.chat("third"), **KEY)).status == 200


async def test_tokens_are_charged_as_used_and_hits_are_free() -> None:
    there = house(tokens_per_minute=1000, requests_per_minute=10)
    first = await there.send(there.chat(max_tokens=100), **KEY)
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    assert first.headers["x-ratelimit-remaining-tokens"] == "898"
    assert first.headers["x-ratelimit-remaining-requests"] == "9"
    again = await there.send(there.chat(max_tokens=100), **KEY)
    assert again.headers["x-cache"] == "HIT-EXACT"
    assert 893 <= int(again.headers["x-ratelimit-remaining-tokens"]) <= 898, "5 used, refilling; 102 reserved"
    page = await used(there)
    assert page["day"]["tokens"] == {"prompt": 3, "cached_prompt": 0, "output": 2, "total": 5}
    assert page["day"]["cache"]["hits"] == 1
    assert page["day"]["cache"]["avoided_tokens"] == 5
    assert page["limits"]["tokens_per_minute"] == 1000
    assert page["method"] == "measured"
    assert page["month"]["requests"] == 2


@pytest.mark.parametrize(
    ("path", "text", "odd"),
    [
        ("/v1/completions", "prompt", {"max_completion_tokens": -1_000_000}),
        ("/v1/responses", "input", {"n": -1000}),
        ("/v1/responses", "input", {"n": "abc"}),
        ("/v1/responses", "input", {"max_completion_tokens": 1}),
    ],
)
async def test_a_field_that_the_endpoint_does_not_know_changes_nothing_of_what_is_reserved(
    path: str, text: str, odd: dict[str, Any]
) -> None:
    plain, there = house(tokens_per_minute=1000), house(tokens_per_minute=1000)
    length = "max_output_tokens" if text == "input" else "max_tokens"
    body = {"model": "m", text: "Hi", length: 500, "temperature": 0}
    usual = await plain.send(body, path=path, **KEY)
    reply = await there.send(body | odd, path=path, **KEY)
    assert reply.status == usual.status < 500
    left = "x-ratelimit-remaining-tokens"
    assert int(reply.headers[left]) == int(usual.headers[left]) <= 500
    requests = "wattgate_requests_total"
    assert there.count(requests) == plain.count(requests) == 1


async def test_a_refusal_is_counted_and_spends_nothing() -> None:
    there = house(requests_per_minute=1)
    assert (await there.send(there.chat("1"), **KEY)).status == 200
    refused = await there.send(there.chat("2"), **KEY)
    assert (refused.status, refused.error["type"]) == (429, "rate_limit_error")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(there.engine.requests) == 1
    assert there.count("wattgate_requests_total", status="429", tenant="acme") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_gives_its_place_back(stream: bool) -> None:
    there = house(concurrent_requests=1)
    there.engine.gate.clear()
    first = there.begin(there.chat(stream=stream), **KEY)
    await there.engine.entered.wait()
    first.leave()
    await first.end()
    there.engine.gate.set()
    assert (await there.send(there.chat("next"), **KEY)).status == 200
    day = (await used(there))["day"]
    assert (day["requests"], day["failed"]) == (2, 1)


@pytest.mark.parametrize("follower_stays", [True, False])
async def test_a_run_whose_leader_goes_while_it_waits_is_charged_to_the_leader_when_it_ends(
    follower_stays: bool,
) -> None:
    there = house(cap=1, concurrent_requests=2)
    there.engine.gate.clear()
    other = there.begin(there.chat("other"), authorization="Bearer z")
    await there.engine.entered.wait()
    leader = there.begin(there.chat(), **KEY)
    follower = there.begin(there.chat(), **KEY)
    await until(lambda: there.cap.waiting == 1 and there.count("wattgate_cache_lookups_total") == 3)
    leader.leave()
    await leader.end()
    refused = await there.send(there.chat("third"), **KEY)
    assert refused.error["code"] == "concurrent_requests_exceeded", "the run that waits keeps its leader's place"
    if not follower_stays:
        follower.leave()
        await follower.end()
    there.engine.gate.set()
    assert (await other.end()).status == 200
    if follower_stays:
        assert (await follower.end()).headers["x-cache"] == "HIT-EXACT"
    day = (await used(there))["day"]
    assert day["requests"] == 2
    assert day["tokens"]["prompt"] == (3 if follower_stays else 0), "the run's, once"
    assert there.cap.running == there.cap.waiting == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_fails_gives_the_place_back(stream: bool) -> None:
    there = house(concurrent_requests=1)
    there.engine.refuse = EngineRefused(400, {"error": {"message": "no"}})
    for _ in range(2):
        assert (await there.send(there.chat(stream=stream), **KEY)).status == 400
    there.engine.refuse = None
    there.engine.script = broken_stream(chunk("Hel"))
    broken = await there.send(there.chat(stream=stream), **KEY)
    assert not broken.done
    there.engine.script = there.engine.words
    assert (await there.send(there.chat(), **KEY)).status == 200
    day = (await used(there))["day"]
    assert (day["requests"], day["failed"]) == (4, 3)
    assert day["tokens"]["prompt"] >= 6, "what a broken answer computed is charged"


async def test_a_first_burst_is_held_against_the_carbon_budget_before_anything_is_settled() -> None:
    there = house(grams_per_day=20.0)
    there.meter.rates = Rates(
        # a gram a token
        components=(
            ComponentRate("gpu", Boundary.ACCELERATOR, WeightKind.TOKENS, JOULES_PER_KWH, None, 0.0, None, None),
        ),
        wanted=WeightKind.TOKENS,
        intensity=IntensityStamp(1.0, "Z", "given"),
    )
    there.engine.gate.clear()
    first = there.begin(there.chat("1", max_tokens=10), **KEY)
    await there.engine.entered.wait()
    refused = await there.send(there.chat("2", max_tokens=10), **KEY)
    assert refused.error["code"] == "carbon_budget_exceeded"
    there.engine.gate.set()
    assert (await first.end()).status == 200
    spent = (await used(there))["carbon_budget"]["day"]["spent_grams"]
    assert 0 < spent < 10, "what was used, not what was held"
    assert (await there.send(there.chat("3", max_tokens=10), **KEY)).status == 200


async def test_usage_is_the_tenants_own_and_the_admins_to_see() -> None:
    there = house(grams_per_day=5.0)
    await there.send(there.chat(), **KEY)
    assert (await there.get("/v1/usage", authorization="Bearer z")).json["day"]["requests"] == 0
    assert (await there.get("/v1/usage")).status == 401
    page = (await used(there))["carbon_budget"]
    assert page == {"day": {"limit_grams": 5.0, "spent_grams": 0.0, "remaining_grams": 5.0}, "month": None}
    admin = {"authorization": "Bearer admin"}
    assert (await there.get("/v1/usage", **admin)).status == 400


def test_sums_of_use_are_exact() -> None:
    assert Use(output_tokens=1) + Use(requests=0, output_tokens=2**60) == Use(output_tokens=2**60 + 1)
