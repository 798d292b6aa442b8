from __future__ import annotations

from typing import Any

from serving.operations.cluster_records import ClusterRecords
from serving.placement.nodes_asked import AllNodes
from serving.placement.recently_seen import RecentlySeen
from tests.unit.serving.fakes import ManualClock


class Remote:
    def __init__(self, answer: list[dict[str, Any]] | Exception) -> None:
        self.answer = answer
        self.asked: list[object] = []

    async def remote(self, asked: object) -> list[dict[str, Any]]:
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Meter:
    def __init__(self, events: list[dict[str, Any]] | Exception) -> None:
        self.events = Remote(events)


async def test_what_all_nodes_recorded_is_one_list_by_time() -> None:
    one = Meter([{"at_seconds": 1.0, "text": "a"}, {"at_seconds": 3.0, "text": "c"}])
    other = Meter([{"at_seconds": 2.0, "text": "b"}])
    found = await AllNodes(lambda: {"10.0.0.1": one, "10.0.0.2": other})("events", 0.5)
    assert found == ClusterRecords(
        [
            {"at_seconds": 1.0, "text": "a", "node": "10.0.0.1"},
            {"at_seconds": 2.0, "text": "b", "node": "10.0.0.2"},
            {"at_seconds": 3.0, "text": "c", "node": "10.0.0.1"},
        ],
        unanswered=[],
    )
    assert one.events.asked == other.events.asked == [0.5]


async def test_a_node_that_does_not_answer_is_named_and_the_others_are_told() -> None:
    nodes = {"10.0.0.1": Meter([{"at_seconds": 1.0}]), "10.0.0.2": Meter(ConnectionError("gone"))}
    found = await AllNodes(lambda: nodes)("events", 0.0)
    assert [record["node"] for record in found.records] == ["10.0.0.1"]
    assert found.unanswered == ["10.0.0.2"]


async def test_a_node_that_went_is_missed_for_a_while() -> None:
    clock = ManualClock()
    nodes = {"10.0.0.1": Meter([]), "10.0.0.2": Meter([])}
    ask = AllNodes(lambda: nodes, RecentlySeen(clock=clock))
    assert (await ask("events", 0.0)).unanswered == []
    del nodes["10.0.0.2"]
    clock.advance(600)
    assert (await ask("events", 0.0)).unanswered == ["10.0.0.2"]
    clock.advance(400)
    assert (await ask("events", 0.0)).unanswered == []
