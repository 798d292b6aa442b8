"""Identical streams through two gateways on one store: one run, its frames read in both as it goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from cache.memory import MemoryStore
from cache.observer import Loss
from cache.relay_store import RelayStore
from cache.store import StoreUnavailable
from serving.access import KeyRing
from serving.engines.base import EngineAnswer, EngineRequest, WorkSink
from serving.tenancy.tenant import Priority, TenantSettings
from tests.unit.serving.conftest import Exchange, House
from tests.unit.serving.engines.contract import until
from tests.unit.serving.fakes import HeldEngine, Steps, chunk

NewHouse = Callable[..., House]


def _said(exchange: Exchange) -> str:
    return "".join(choice["delta"].get("content") or "" for each in exchange.chunks for choice in each["choices"])


@pytest.fixture
def leading(new_house: NewHouse) -> House:
    return new_house()


@pytest.fixture
def following(new_house: NewHouse, leading: House) -> House:
    return new_house(store=leading.store)


async def both(leading: House, following: House, steps: Steps, **asked: Any) -> tuple[Exchange, Exchange]:
    """A stream that has given its first frame, and a follower in the other gateway that has read it."""
    leader = leading.begin(leading.chat(stream=True))
    steps.step()
    await leader.frames(1)
    follower = following.begin(following.chat(stream=True, **asked))
    assert b"Hello" in (await follower.frames(1))[0]
    return leader, follower


async def test_a_followers_frames_come_while_the_run_goes_on(leading: House, following: House) -> None:
    steps = Steps(leading.engine)
    leader, follower = await both(leading, following, steps, stream_options={"include_usage": True})
    assert leading.engine.running == 1
    steps.step()
    assert b" there" in (await follower.frames(2))[1]
    assert leading.engine.running == 1
    steps.rest()
    replies = [await exchange.end() for exchange in (leader, follower)]
    assert [(_said(reply), reply.done) for reply in replies] == 2 * [("Hello there", True)]
    assert [reply.headers["x-cache"] for reply in replies] == ["MISS", "HIT-EXACT"]
    assert len(leading.engine.requests) + len(following.engine.requests) == 1
    receipt = replies[1].chunks[-1]["usage"]["wattgate"]
    assert receipt["cache"] == "HIT-EXACT"
    assert receipt["notes"][-1].endswith("in another replica.")
    assert following.count("wattgate_cache_shared_total", reason="replica") == 1
    assert following.count("wattgate_tokens_total", kind="avoided") == 5


async def test_one_who_joins_late_gets_every_frame_and_so_do_those_who_join_it(
    leading: House, following: House, new_house: NewHouse
) -> None:
    steps = Steps(leading.engine)
    leader, follower = await both(leading, following, steps)
    steps.step()
    await follower.frames(2)
    third = new_house(store=leading.store)
    late, beside = third.begin(third.chat(stream=True)), following.begin(following.chat(stream=True))
    await late.frames(1)
    steps.rest()
    replies = [await exchange.end() for exchange in (leader, follower, late, beside)]
    assert [(_said(reply), reply.done) for reply in replies] == 4 * [("Hello there", True)]
    assert following.count("wattgate_cache_shared_total", reason="flight") == 1


@pytest.mark.parametrize("where", ["following", "third"])
async def test_a_run_that_is_followed_is_shared_by_the_more_urgent_too(new_house: NewHouse, where: str) -> None:
    keys = KeyRing({"t": "key"}, tenants={"t": TenantSettings(priority=Priority.INTERACTIVE)})
    leading = new_house(keys=keys)
    houses = {name: new_house(keys=keys, store=leading.store) for name in ("following", "third")}
    steps = Steps(leading.engine)

    def begin(house: House, priority: str) -> Exchange:
        return house.begin(house.chat(stream=True), authorization="Bearer key", x_wattgate_priority=priority)

    leader = begin(leading, "batch")
    steps.step()
    await leader.frames(1)
    follower = begin(houses["following"], "batch")
    await follower.frames(1)
    urgent = begin(houses[where], "interactive")
    await urgent.frames(1)
    if where == "following":
        assert houses[where].count("wattgate_cache_shared_total", reason="flight") == 1
    steps.rest()
    replies = [await exchange.end() for exchange in (leader, follower, urgent)]
    assert [(_said(reply), reply.done) for reply in replies] == 3 * [("Hello there", True)]
    assert [house.engine.requests for house in houses.values()] == [[], []]


async def test_an_answer_that_may_not_be_stored_is_shared_all_the_same(leading: House, following: House) -> None:
    go = asyncio.Event()

    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        yield chunk("Hello")
        await go.wait()
        yield chunk(finish="length")
        yield b"data: [DONE]\n\n"

    leading.engine.script = script
    leader = leading.begin(leading.chat(stream=True))
    await leader.frames(1)
    follower = following.begin(following.chat(stream=True))
    await follower.frames(1)
    go.set()
    assert all([(await exchange.end()).done for exchange in (leader, follower)])
    assert following.engine.requests == []


async def test_clients_that_leave_the_leading_replica_do_not_end_the_others_stream(
    leading: House, following: House
) -> None:
    steps = Steps(leading.engine)
    leader, follower = await both(leading, following, steps)
    leader.leave()
    await leader.end()
    assert leading.engine.running == 1
    steps.rest()
    reply = await follower.end()
    assert (_said(reply), reply.done) == ("Hello there", True)
    assert following.engine.requests == []


async def test_when_the_followers_have_left_too_the_run_is_aborted(leading: House, following: House) -> None:
    steps = Steps(leading.engine)
    for exchange in await both(leading, following, steps):
        exchange.leave()
        await exchange.end()
    await until(lambda: leading.engine.running == 0)


async def test_a_run_that_breaks_off_before_its_first_frame_is_taken_over(leading: House, following: House) -> None:
    leading.engine.gate.clear()
    leader = leading.begin(leading.chat(stream=True))
    await leading.engine.entered.wait()
    follower = following.begin(following.chat(stream=True))
    await until(lambda: following.count("wattgate_cache_lookups_total") == 1)
    leader.leave()
    await leader.end()
    reply = await follower.end()
    assert (_said(reply), reply.headers["x-cache"]) == ("Hello there", "MISS")


async def test_a_run_that_breaks_off_after_it_is_an_error_at_the_streams_end(leading: House, following: House) -> None:
    steps = Steps(leading.engine, breaks=True)
    exchanges = await both(leading, following, steps)
    steps.rest()
    for exchange in exchanges:
        reply = await exchange.end()
        assert not reply.done
        assert reply.chunks[-1]["error"]["code"] == "engine_error"
    assert following.engine.requests == []


async def test_a_run_elsewhere_that_breaks_off_is_run_here_for_who_has_read_nothing_of_it(
    leading: House, following: House
) -> None:
    steps = Steps(leading.engine, breaks=True)
    exchanges = await both(leading, following, steps)
    whole = following.begin(following.chat())
    await until(lambda: following.count("wattgate_cache_lookups_total") == 2)
    steps.rest()
    reply = await whole.end()
    assert (reply.status, reply.headers["x-cache"]) == (200, "MISS")
    assert reply.json["choices"][0]["message"]["content"] == "Hello there"
    assert len(following.engine.requests) == 1
    for exchange in exchanges:
        assert not (await exchange.end()).done


async def test_a_follower_keeps_its_own_deadline(
    leading: House, following: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(leading.engine)
    leader = leading.begin(leading.chat(stream=True))
    steps.step()
    await leader.frames(1)
    follower = following.begin(following.chat(stream=True), x_request_timeout="10")
    await follower.frames(1)
    # beyond the follower's deadline, well before the leader's
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda now=loop.time: now() + 15.0)
    reply = await follower.end()
    assert not reply.done
    assert reply.chunks[-1]["error"]["code"] == "deadline_exceeded"
    steps.rest()
    assert (await leader.end()).done


async def test_tenants_never_follow_each_other(new_house: NewHouse) -> None:
    keys = {"a": "key-a", "b": "key-b"}
    first = new_house(keys=keys)
    second = new_house(keys=keys, store=first.store)
    steps = Steps(first.engine)
    leader = first.begin(first.chat(stream=True), authorization="Bearer key-a")
    steps.step()
    await leader.frames(1)
    reply = await second.send(second.chat(stream=True), authorization="Bearer key-b")
    assert (reply.headers["x-cache"], len(second.engine.requests)) == ("MISS", 1)
    steps.rest()
    await leader.end()


class Looks:
    """Counts a relay's followers' looks."""

    def __init__(self, relay: RelayStore) -> None:
        self._relay = relay
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        self.count += name == "follow"
        return getattr(self._relay, name)


class Fallen(HeldEngine):
    """Another model answers in the place of its own."""

    @contextlib.asynccontextmanager
    async def run(self, request: EngineRequest, work: WorkSink) -> AsyncIterator[EngineAnswer]:
        async with super().run(request, work) as answer:
            yield replace(answer, fallback="another")


async def test_another_models_answer_is_not_followed_as_this_ones(new_house: NewHouse) -> None:
    leading = new_house(engine=Fallen())
    looks = Looks(leading.store.relay)
    leading.store.relay = looks  # type: ignore[assignment]
    following = new_house(store=leading.store)
    steps = Steps(leading.engine)
    leader = leading.begin(leading.chat(stream=True))
    steps.step()
    await leader.frames(1)
    follower = following.begin(following.chat(stream=True))
    # more than lie between two looks of a replica for wishes
    await until(lambda: looks.count >= 8)
    steps.rest()
    assert (await leader.end()).headers["x-wattgate-fallback"] == "another"
    reply = await follower.end()
    assert (reply.headers["x-cache"], len(following.engine.requests)) == ("MISS", 1)


class Lossy:
    """A relay that loses the calls named."""

    def __init__(self, relay: RelayStore, *losing: str) -> None:
        self._relay = relay
        self._losing = losing

    def __getattr__(self, name: str) -> Any:
        if name not in self._losing:
            return getattr(self._relay, name)

        async def lose(*_: Any) -> Any:
            raise StoreUnavailable(Loss.TIMEOUT)

        return lose


@pytest.mark.parametrize("losing", ["wish", "wishes", "push", "follow"])
async def test_where_the_relay_is_lost_the_answer_is_waited_for(new_house: NewHouse, losing: str) -> None:
    store = MemoryStore()
    store.relay = Lossy(store.relay, losing)  # type: ignore[assignment]
    houses = leading, following = new_house(store=store), new_house(store=store)
    steps = Steps(leading.engine)
    leader = leading.begin(leading.chat(stream=True))
    steps.step()
    await leader.frames(1)
    follower = following.begin(following.chat(stream=True))

    def faults() -> float:
        return sum(house.count("wattgate_cache_faults_total", operation="relay", fault="timeout") for house in houses)

    await until(lambda: faults() > 0)
    steps.rest()
    for exchange in (leader, follower):
        reply = await exchange.end()
        assert (_said(reply), reply.done) == ("Hello there", True)
    assert following.engine.requests == []
