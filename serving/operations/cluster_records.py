"""What each node of a cluster records, as one list: events, the controller's decisions, receipts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Record = dict[str, Any]
Kind = Literal["events", "decisions", "recent"]


@dataclass(frozen=True, slots=True)
class ClusterRecords:
    records: list[Record]
    """Oldest first; ``at_seconds`` is Unix time by the clock of the node that ``node`` names."""
    unanswered: list[str]
    """Addresses of nodes whose records are missing, for they did not answer."""


class NodesAsked(Protocol):
    async def __call__(self, kind: Kind, asked: float | str | None) -> ClusterRecords:
        """``asked``: since when, in Unix seconds; of ``recent``: whose, None for everybody's."""
        ...


def merged(answers: dict[str, list[Record] | None]) -> ClusterRecords:
    """``answers`` by the nodes' addresses, None for one that gave none."""
    records = [{**record, "node": node} for node, found in answers.items() for record in found or ()]
    records.sort(key=lambda record: float(record["at_seconds"]))
    return ClusterRecords(records, sorted(node for node, found in answers.items() if found is None))
