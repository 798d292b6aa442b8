from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ray.experimental import internal_kv

from serving.admission.held_cap import HoldableCap
from serving.admission.queue import AdmissionQueue
from serving.config import GatewayConfig
from serving.config_sources import load_config
from serving.errors import Conflict, EngineUnavailable, InvalidRequest, NotFound
from serving.operations.cap_pages import CapState
from serving.operations.decisions import DecisionLog
from serving.operations.events import EventLog
from serving.placement.caps import THE_ENGINE, highest_cap
from serving.placement.held_caps import HeldCaps, Hold, RayBoard
from tests.unit.serving.fakes import ManualClock


class Board:
    def __init__(self) -> None:
        self.holds: dict[str, Hold] = {}
        self.away = False

    async def read(self, models: Iterable[str]) -> Mapping[str, Hold]:
        if self.away:
            raise RuntimeError("the control service is away")
        return {model: self.holds[model] for model in models if model in self.holds}

    async def write(self, model: str, hold: Hold | None) -> None:
        if self.away:
            raise RuntimeError("the control service is away")
        self.holds.pop(model, None)
        if hold is not None:
            self.holds[model] = hold


def configuration(**flags: Any) -> GatewayConfig:
    return load_config(None, {"admission.max_concurrency": 16, **flags}, environment={}).config


class Node:
    """Replicas of one gateway, with one log of events and one board."""

    def __init__(self, folder: Path) -> None:
        self.board = Board()
        self.clock = ManualClock()
        self.events = EventLog(folder / "events.jsonl", wall=self.clock)
        self.decisions = DecisionLog(folder / "decisions.jsonl", wall=self.clock)
        self.config = configuration()

    def replica(self, name: str = "replica-1") -> tuple[AdmissionQueue, HeldCaps]:
        queue = AdmissionQueue(16)
        held = HeldCaps(
            self.board,
            {THE_ENGINE: HoldableCap(queue)},
            {THE_ENGINE: "m"},
            {"m": THE_ENGINE, "adapter": THE_ENGINE},
            lambda: self.config,
            source=name,
            events=self.events,
            decisions=self.decisions,
            wall=self.clock,
        )
        return queue, held


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def hold(held: HeldCaps, cap: int, by: str = "tune", **changes: Any) -> dict[str, Any]:
    values = {"model": None, "seconds": 60.0, "pause_controller": False} | changes
    return await held.hold(values["model"], cap, values["seconds"], by, pause_controller=values["pause_controller"])


async def test_a_hold_reaches_every_replica_and_one_that_comes_later_and_its_release_too(node: Node) -> None:
    first, asked = node.replica()
    second, other = node.replica("replica-2")
    CapState.model_validate(await hold(asked, 4))
    assert (first.cap, second.cap) == (4, 16)
    await other.refresh()
    third, late = node.replica("replica-3")
    await late.refresh()
    assert (second.cap, third.cap) == (4, 4)
    await other.release("m")
    for one in (asked, late):
        await one.refresh()
    assert (first.cap, second.cap, third.cap) == (16, 16, 16)
    assert asked.held == frozenset()


async def test_a_hold_ends_by_itself_also_where_the_board_is_away(node: Node) -> None:
    queue, held = node.replica()
    await hold(held, 4, seconds=60.0)
    node.clock.advance(59.0)
    await held.refresh()
    assert queue.cap == 4
    node.clock.advance(1.0)
    node.board.away = True
    with pytest.raises(RuntimeError):
        await held.refresh()
    assert queue.cap == 16


async def test_an_expired_hold_on_the_board_is_none(node: Node) -> None:
    node.board.holds[THE_ENGINE] = Hold(4, node.clock(), "tune")
    queue, held = node.replica()
    await held.refresh()
    assert queue.cap == 16


async def test_a_hold_on_the_board_is_at_most_what_the_engine_takes_at_once(node: Node) -> None:
    most = highest_cap(node.config, THE_ENGINE)
    node.board.holds[THE_ENGINE] = Hold(most + 1, node.clock() + 60.0, "tune")
    queue, held = node.replica()
    await held.refresh()
    assert queue.cap == most


async def test_a_gateway_that_goes_takes_all_its_holds_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[bytes, bytes] = {b"another": b""}

    def delete(key: bytes, *, del_by_prefix: bool = False, namespace: bytes) -> None:
        for one in [one for one in stored if one == key or (del_by_prefix and one.startswith(key))]:
            del stored[one]

    def put(key: bytes, value: bytes, *, overwrite: bool, namespace: bytes) -> None:
        stored[key] = value

    board = RayBoard()
    monkeypatch.setattr(internal_kv, "_internal_kv_del", delete)
    monkeypatch.setattr(internal_kv, "_internal_kv_put", put)
    monkeypatch.setattr(internal_kv, "_internal_kv_get", lambda key, *, namespace: stored.get(key))
    for model in (THE_ENGINE, "m"):
        await board.write(model, Hold(4, 60.0, "tune"))
    assert set(await board.read([THE_ENGINE, "m"])) == {THE_ENGINE, "m"}
    board.clear()
    assert await board.read([THE_ENGINE, "m"]) == {}
    assert set(stored) == {b"another"}


async def test_each_change_is_told_once_and_a_renewal_is_none(node: Node) -> None:
    _, held = node.replica()
    await hold(held, 4)
    await hold(held, 4)
    await held.refresh()
    await held.release(None)
    assert [event.text for event in node.events.read()] == [
        "cap 16 -> 4: held by tune (replica-1)",
        "cap 4 -> 16: no longer held (replica-1)",
    ]
    assert [(line["from"], line["to"], line["why"]) for line in node.decisions.read()] == [
        (16, 4, "held by tune"),
        (4, 16, "no longer held"),
    ]


async def test_what_somebody_else_holds_is_refused_until_it_is_released(node: Node) -> None:
    _, first = node.replica()
    _, second = node.replica("replica-2")
    await hold(first, 4)
    # the second replica has not looked since
    with pytest.raises(Conflict, match=r"held at 4 by 'tune'.*DELETE"):
        await hold(second, 8, by="an operator")
    await second.release(None)
    assert (await hold(second, 8, by="an operator"))["held"]["cap"] == 8


async def test_the_controllers_cap_is_held_only_where_it_is_told_to_pause(node: Node) -> None:
    node.config = configuration(**{"control.mode": "on", "control.slo": ["itl_p95<=1s"]})
    queue, held = node.replica()
    with pytest.raises(Conflict, match="pause_controller"):
        await hold(held, 4)
    assert queue.cap == 16
    await hold(held, 4, pause_controller=True)
    assert queue.cap == 4
    assert held.held == {THE_ENGINE}


async def test_more_than_the_engine_takes_and_models_that_are_not_here_are_refused(node: Node) -> None:
    _, held = node.replica()
    with pytest.raises(InvalidRequest, match="cap 33 is above 32"):
        await hold(held, 33)
    with pytest.raises(NotFound, match="'other' is not served here: m"):
        await hold(held, 4, model="other")
    assert (await hold(held, 4, model="adapter"))["model"] == "m"


async def test_a_board_that_is_away_is_told_and_nothing_is_held(node: Node) -> None:
    queue, held = node.replica()
    node.board.away = True
    with pytest.raises(EngineUnavailable):
        await hold(held, 4)
    assert queue.cap == 16
    assert node.events.read() == []


async def test_of_a_model_with_replicas_of_its_own_each_gateway_replica_holds_its_part(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "models: {a: {engine: {kind: simulated}, replicas: 3}, b: {engine: {kind: simulated}}}\nserver: {replicas: 2}\n"
    )
    config = load_config(path, environment={}).config
    node = Node(tmp_path)
    queues = {"a": AdmissionQueue(48), "b": AdmissionQueue(16)}
    held = HeldCaps(
        node.board,
        {name: HoldableCap(queue) for name, queue in queues.items()},
        {"a": "a", "b": "b"},
        {"a": "a", "b": "b"},
        lambda: config,
        source="replica-1",
        events=node.events,
        decisions=node.decisions,
        wall=node.clock,
    )
    with pytest.raises(InvalidRequest, match="Name the model: a, b"):
        await hold(held, 4)
    state = await hold(held, 4, model="a")
    assert queues["a"].cap == 6
    assert queues["b"].cap == 16
    assert (state["held"]["cap"], state["replica_cap"]) == (4, 6)
