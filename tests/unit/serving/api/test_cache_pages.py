"""Control of the cache over HTTP: own entries for a tenant, all for the operator, nothing for anyone else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.access import KeyRing
from serving.operations.events import EventLog
from tests.unit.serving.conftest import Exchange, House

NewHouse = Callable[..., House]
A = {"authorization": "Bearer key-a"}
B = {"authorization": "Bearer key-b"}
ADMIN = {"authorization": "Bearer boss"}


@pytest.fixture
def shared(new_house: NewHouse) -> House:
    return new_house(keys=KeyRing({"a": "key-a", "b": "key-b"}, admin_key="boss"))


async def stored(house: House, **headers: str) -> str:
    return (await house.send(house.chat(), **headers)).headers["x-cache-id"]


async def verdict(house: House, **headers: str) -> str:
    return (await house.send(house.chat(), **headers)).headers["x-cache"]


async def delete(house: House, path: str, query: str = "", **headers: str) -> Exchange:
    return await house.send(raw=b"", path=path, query=query, method="DELETE", **headers)


async def test_an_entry_is_removed_by_its_owner_only(shared: House) -> None:
    cache_id = await stored(shared, **A)
    refused = await delete(shared, f"/v1/cache/{cache_id}", **B)
    assert (refused.status, refused.error["code"]) == (404, "cache_entry_not_found")
    assert await verdict(shared, **A) == "HIT-EXACT"
    assert (await delete(shared, f"/v1/cache/{cache_id}", **A)).json == {"done": True}
    assert await verdict(shared, **A) == "MISS"


async def test_the_operator_removes_any_entry(shared: House) -> None:
    cache_id = await stored(shared, **A)
    assert (await delete(shared, f"/v1/cache/{cache_id}", **ADMIN)).status == 200
    assert await verdict(shared, **A) == "MISS"


async def test_a_tenant_clears_its_own_answers_and_no_others(shared: House) -> None:
    await stored(shared, **A)
    await stored(shared, **B)
    assert (await delete(shared, "/v1/cache", "tenant=b", **A)).status == 403
    assert (await delete(shared, "/v1/cache", "model=m", **A)).status == 403
    assert (await delete(shared, "/v1/cache", "tenant=a", **A)).status == 200
    assert (await verdict(shared, **A), await verdict(shared, **B)) == ("MISS", "HIT-EXACT")


@pytest.mark.parametrize("query", ["model=m", "all=true"])
async def test_the_operator_clears_a_model_or_all(shared: House, query: str) -> None:
    await stored(shared, **A)
    assert (await delete(shared, "/v1/cache", query, **ADMIN)).status == 200
    assert await verdict(shared, **A) == "MISS"


@pytest.mark.parametrize(("query", "param"), [("tenant=typo", "tenant"), ("model=typo", "model")])
async def test_a_name_that_is_not_known_is_404_and_clears_nothing(shared: House, query: str, param: str) -> None:
    await stored(shared, **A)
    refused = await delete(shared, "/v1/cache", query, **ADMIN)
    assert (refused.status, refused.error["param"]) == (404, param)
    assert "typo" in refused.error["message"]
    assert await verdict(shared, **A) == "HIT-EXACT"


async def test_without_keys_any_tenant_may_be_named(house: House) -> None:
    assert (await delete(house, "/v1/cache", "tenant=anybody")).status == 200
    assert (await delete(house, "/v1/cache", "model=typo")).status == 404


async def test_clearing_is_an_event_that_names_who_and_what(new_house: NewHouse, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    house = new_house(keys=KeyRing({"a": "key-a"}, admin_key="boss"), events=log)
    await delete(house, "/v1/cache", "tenant=b", **A)
    assert log.read() == []
    await delete(house, "/v1/cache", "tenant=a", **A)
    await delete(house, "/v1/cache", "model=m", **ADMIN)
    first, second = log.read()
    assert (first.kind, first.text) == ("cache_epoch", "cache cleared: tenant a, by tenant a")
    assert (second.text, second.model) == ("cache cleared: model m, by an operator", "m")


async def test_a_thumbs_down_leaves_a_tombstone(shared: House) -> None:
    cache_id = await stored(shared, **A)
    path = f"/v1/cache/{cache_id}/feedback"
    assert (await shared.send({"good": True}, path=path, **A)).status == 200
    assert await verdict(shared, **A) == "HIT-EXACT"
    assert (await shared.send({"good": False}, path=path, **B)).status == 404
    assert (await shared.send({"good": False}, path=path, **A)).status == 200
    # nothing is stored in its place, either
    assert [await verdict(shared, **A) for _ in range(2)] == ["MISS", "MISS"]


async def test_bad_input_is_400(shared: House) -> None:
    cache_id = await stored(shared, **A)
    for payload in ({"good": "yes"}, {}, [], "x"):
        reply = await shared.send(payload, path=f"/v1/cache/{cache_id}/feedback", **A)
        assert (reply.status, reply.error["param"]) == (400, "good")
    assert (await delete(shared, "/v1/cache/nonsense", **A)).status == 400
    assert (await delete(shared, "/v1/cache", **ADMIN)).status == 400


async def test_an_entry_is_shown_to_its_owner(shared: House) -> None:
    cache_id = await stored(shared, **A)
    shown = (await shared.get(f"/v1/cache/{cache_id}", **A)).json
    assert shown["id"] == cache_id
    assert shown["body"]["choices"][0]["message"]["content"] == "Hello there"
    assert (await shared.get(f"/v1/cache/{cache_id}", **B)).status == 404


async def test_figures_are_the_operators(shared: House) -> None:
    assert (await shared.get("/v1/cache", **A)).status == 403
    assert (await shared.get("/v1/cache")).status == 401
    assert "local_entries" in (await shared.get("/v1/cache", **ADMIN)).json


async def test_without_a_cache_it_is_404(house: House) -> None:
    house.gateway.cache = None
    assert (await house.get("/v1/cache")).error["code"] == "cache_off"
