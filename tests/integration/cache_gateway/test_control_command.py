"""``wattgate cache stats | inspect | invalidate`` on the Redis that a gateway uses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from typer.testing import CliRunner, Result

from serving.cli.cache import app
from tests.integration.cache_gateway.conftest import SECRET
from tests.unit.serving.conftest import House

pytestmark = pytest.mark.redis


async def command(*arguments: str) -> Result:
    # it runs a loop of its own
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


async def test_an_operator_looks_and_removes(stacked: Callable[..., Awaitable[House]], redis_url: str) -> None:
    house = await stacked(redis_url, tier="exact", local_entries=0)
    cache_id = (await house.send(house.chat())).headers["x-cache-id"]
    figures = json.loads((await command("stats", "--url", redis_url, "--json")).stdout)
    assert figures["shared_keys"] >= 1
    sealed = ["--url", redis_url, "--secret", SECRET, "--json"]
    shown = json.loads((await command("inspect", cache_id, *sealed)).stdout)
    assert shown["id"] == cache_id
    for target in (["--id", cache_id], ["--tenant", "default"], ["--model", "m"], ["--all"]):
        assert (await house.send(house.chat())).headers["x-cache"] in ("MISS", "HIT-EXACT")
        current = (await house.send(house.chat())).headers
        assert current["x-cache"] == "HIT-EXACT"
        chosen = ["--id", current["x-cache-id"]] if target[0] == "--id" else target
        result = await command("invalidate", *chosen, *sealed)
        assert json.loads(result.stdout) == {"done": True}, result.stderr
        assert (await house.send(house.chat())).headers["x-cache"] == "MISS"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["stats", "--url", "http://127.0.0.1:9"], "is the gateway running"),
        (["stats", "--url", "redis://127.0.0.1:9"], "Redis cannot be asked"),
        (["inspect", "x", "--url", "redis://127.0.0.1:9"], "--secret"),
        (["invalidate"], "exactly one"),
        (["invalidate", "--tenant", "a", "--url", "redis://127.0.0.1:9"], "--secret"),
    ],
)
async def test_what_cannot_be_done_is_one_line(arguments: list[str], named: str) -> None:
    result = await command(*arguments)
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stderr.count("\n") == 1
