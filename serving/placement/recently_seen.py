"""What was there a while ago still counts, so that its absence can be told: whoever of the replicas is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

REMEMBERED_SECONDS = 900.0
_RENEWED_SECONDS = 30.0
"""How old what is noted may be before it is noted again: not at each question."""
_LEAVING_SECONDS = 30.0
"""For how long one that has left on purpose may still be met alive without being noted again."""
_NAMESPACE = b"wattgate"
_PREFIX = b"seen:"


class SeenBoard(Protocol):
    """What all replicas of the cluster noted: Unix time by name, below 0 for one that left on purpose then."""

    def read(self) -> Mapping[str, float]: ...

    def write(self, name: str, seconds: float) -> None: ...

    def forget(self, name: str) -> None: ...


class MemoryBoard:
    """Of one process, or of several objects in it."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def read(self) -> Mapping[str, float]:
        return dict(self._seen)

    def write(self, name: str, seconds: float) -> None:
        self._seen[name] = seconds

    def forget(self, name: str) -> None:
        self._seen.pop(name, None)


class RaySeenBoard:
    """In the key-value store of Ray's control service, under a topic: it outlives replicas and nodes. Blocks."""

    def __init__(self, topic: str) -> None:
        self._prefix = _PREFIX + topic.encode() + b":"

    def read(self) -> Mapping[str, float]:
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

        keys = _internal_kv_list(self._prefix, namespace=_NAMESPACE)
        found = {key: _internal_kv_get(key, namespace=_NAMESPACE) for key in keys}
        # another replica may forget one meanwhile
        return {key[len(self._prefix) :].decode(): float(value) for key, value in found.items() if value}

    def write(self, name: str, seconds: float) -> None:
        from ray.experimental.internal_kv import _internal_kv_put

        key, value = self._prefix + name.encode(), repr(seconds).encode()
        _internal_kv_put(key, value, overwrite=True, namespace=_NAMESPACE)

    def forget(self, name: str) -> None:
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(self._prefix + name.encode(), namespace=_NAMESPACE)


def note_left(board: SeenBoard, name: str, now_seconds: float) -> None:
    """It ends on purpose: nobody shall miss it, and whoever still meets it alive shall not note it again."""
    board.write(name, -now_seconds)


def target_board() -> RaySeenBoard:
    """Of the addresses that Prometheus is told."""
    return RaySeenBoard("targets")


def node_board() -> RaySeenBoard:
    """Of the nodes that records are asked of."""
    return RaySeenBoard("nodes")


def forget_all() -> None:
    """At the gateway's end: the cluster may outlive it."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(_PREFIX, del_by_prefix=True, namespace=_NAMESPACE)


class RecentlySeen:
    """``clock``: Unix time, which the machines of a cluster share well enough for minutes."""

    def __init__(self, board: SeenBoard | None = None, clock: Callable[[], float] = time.time) -> None:
        self._board = board or MemoryBoard()
        self._clock = clock

    def __call__(self, present: Iterable[str]) -> list[str]:
        """Those present now, and those that anybody has seen in the last ``REMEMBERED_SECONDS``."""
        now, noted, here = self._clock(), self._board.read(), set(present)
        left = {name for name, at in noted.items() if at < 0 and now + at < _LEAVING_SECONDS}
        for name in here - left:
            if now - noted.get(name, 0.0) > _RENEWED_SECONDS:
                self._board.write(name, now)
        gone = {
            name for name, at in noted.items() if name not in here | left and (at < 0 or now - at > REMEMBERED_SECONDS)
        }
        for name in gone:
            self._board.forget(name)
        return sorted(here | (set(noted) - gone - left))
