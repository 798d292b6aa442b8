"""Tenants as a client of the stock SDK meets them, over two replicas that share one Redis."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import openai
import pytest

from serving.tenancy.keys import KeyFile
from tests.integration.api.conftest import Opener

pytestmark = pytest.mark.redis


def ask(text: str) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 4}


async def test_limits_hold_over_replicas_and_usage_adds_up(front: Opener, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    stored, key = file.create("acme", datetime.now(UTC))
    _, other = file.create("narrow", datetime.now(UTC))
    access = {
        "key_file": str(file.path),
        "admin_key": "the-admin",
        "tenants": {"acme": {"limits": {"requests_per_minute": 6, "grams_per_day": 5}}, "narrow": {"models": ["x"]}},
    }
    log = tmp_path / "requests.jsonl"
    async with front(access=access, telemetry={"request_log": str(log)}) as one, front(access=access) as two:
        clients = [
            openai.AsyncOpenAI(base_url=f"{replica.url}/v1", api_key=key, max_retries=0) for replica in (one, two)
        ]
        answers = await asyncio.gather(
            *(clients[number % 2].chat.completions.create(**ask(str(number))) for number in range(10)),  # type: ignore[call-overload]
            return_exceptions=True,
        )
        refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
        served = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert (len(served), len(refused)) == (6, 4)
        assert 1 <= int(refused[0].response.headers["retry-after"]) <= 60
        assert refused[0].response.headers["x-ratelimit-limit-requests"] == "6"
        assert refused[0].response.headers["x-carbon-budget-remaining-grams"] == "5"
        async with httpx.AsyncClient() as http:
            mine = {"authorization": f"Bearer {key}"}
            day = (await http.get(f"{two.url}/v1/usage", headers=mine)).json()["day"]
            assert day["requests"] == 6
            assert day["tokens"]["output"] == sum(answer.usage.completion_tokens for answer in served)
            assert day["tokens"]["prompt"] == sum(answer.usage.prompt_tokens for answer in served)
            admin = {"authorization": "Bearer the-admin"}
            seen = (await http.get(f"{one.url}/v1/usage?tenant=acme", headers=admin)).json()
            assert (seen["day"], seen["scope"]) == (day, "gateway")
        async with openai.AsyncOpenAI(base_url=f"{one.url}/v1", api_key=other) as narrow:
            with pytest.raises(openai.PermissionDeniedError):
                await narrow.chat.completions.create(**ask("x"))  # type: ignore[call-overload]
        file.revoke(stored.id, datetime.now(UTC))
        await one.keys.refresh()
        with pytest.raises(openai.AuthenticationError):
            await clients[0].models.list()
        assert one.settled()
        for client in clients:
            await client.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["status"] for line in lines[:-1]} <= {200, 429, 403}
    assert len(lines) == 6 + 1
    assert (lines[-1]["method"], lines[-1]["path"], lines[-1]["status"]) == ("GET", "/v1/models", 401)
    assert key not in log.read_text()
