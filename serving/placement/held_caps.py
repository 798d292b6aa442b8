"""Live caps held by hand or by `wattgate tune`: for a time, in every gateway replica of the cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import orjson

from serving.admission.held_cap import HoldableCap
from serving.config import GatewayConfig
from serving.errors import Conflict, EngineUnavailable, InvalidRequest, NotFound
from serving.operations.decisions import DecisionLog
from serving.operations.events import EventLog
from serving.placement.caps import configured_cap, highest_cap, part_of

_NAMESPACE = b"wattgate"
_PREFIX = b"held-cap:"


@dataclass(frozen=True, slots=True)
class Hold:
    """A lease: whoever dies while holding a cap gives it back by that."""

    cap: int
    """In the terms of `admission.max_concurrency`."""
    until_seconds: float
    """Unix time."""
    by: str


class HoldBoard(Protocol):
    """What all replicas of the cluster see."""

    async def read(self, models: Iterable[str]) -> Mapping[str, Hold]: ...

    async def write(self, model: str, hold: Hold | None) -> None: ...


class RayBoard:
    """In the key-value store of Ray's control service: it outlives replicas and nodes, and ends with the
    gateway."""

    async def read(self, models: Iterable[str]) -> Mapping[str, Hold]:
        return await asyncio.to_thread(self._read, tuple(models))

    async def write(self, model: str, hold: Hold | None) -> None:
        from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

        if hold is None:
            await asyncio.to_thread(_internal_kv_del, _key(model), namespace=_NAMESPACE)
        else:
            await asyncio.to_thread(
                _internal_kv_put, _key(model), orjson.dumps(asdict(hold)), overwrite=True, namespace=_NAMESPACE
            )

    def clear(self) -> None:
        """At the gateway's end: the cluster may outlive it, and the next gateway's caps are its own."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(_PREFIX, del_by_prefix=True, namespace=_NAMESPACE)

    def _read(self, models: tuple[str, ...]) -> Mapping[str, Hold]:
        from ray.experimental.internal_kv import _internal_kv_get

        found = {model: _internal_kv_get(_key(model), namespace=_NAMESPACE) for model in models}
        return {model: Hold(**orjson.loads(value)) for model, value in found.items() if value}


def _key(model: str) -> bytes:
    return _PREFIX + model.encode()


class HeldCaps:
    """A replica's view of the holds: ``refresh`` is called about once a second. Tells of each hold that comes, changes
    or goes, as an event and as a line of the decision log.
    """

    def __init__(
        self,
        board: HoldBoard,
        caps: Mapping[str, HoldableCap],
        shown_as: Mapping[str, str],
        served_by: Mapping[str, str],
        config: Callable[[], GatewayConfig],
        *,
        source: str,
        events: EventLog,
        decisions: DecisionLog,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``caps`` by engine; ``shown_as``: an engine's name for people; ``served_by``: names that clients ask for, to
        their engine; ``config``: with the live settings as they are now.
        """
        self._board = board
        self._caps = caps
        self._shown_as = shown_as
        self._served_by = served_by
        self._config = config
        self._source = source
        self._events = events
        self._decisions = decisions
        self._wall = wall
        self._holds: dict[str, Hold] = {}

    @property
    def held(self) -> frozenset[str]:
        """Engines whose cap is held now."""
        return frozenset(self._holds)

    async def refresh(self) -> None:
        """Take over what is held now. A board that cannot be read keeps no hold beyond its time."""
        for engine, hold in tuple(self._holds.items()):
            if hold.until_seconds <= self._wall():
                self._take(engine, None)
        found = await self._board.read(self._caps)
        for engine in self._caps:
            lease = found.get(engine)
            self._take(engine, None if lease is None else self._valid(lease, engine))

    def _valid(self, lease: Hold, engine: str) -> Hold | None:
        if lease.until_seconds <= self._wall():
            return None
        # it may have been written under another configuration
        return replace(lease, cap=min(lease.cap, highest_cap(self._config(), engine)))

    def shown(self) -> list[dict[str, Any]]:
        config = self._config()
        return [self._entry(engine, config) for engine in self._caps]

    async def hold(
        self, model: str | None, cap: int, seconds: float, by: str, *, pause_controller: bool
    ) -> dict[str, Any]:
        """
        Raises:
            InvalidRequest: more than the engine takes at once; or no model named where there are several.
            NotFound: no such model.
            Conflict: another holds it, or the controller moves it and is not to be paused.
            EngineUnavailable: the board cannot be written.
        """
        engine, config = self._engine(model), self._config()
        most = highest_cap(config, engine)
        if cap > most:
            raise InvalidRequest(
                f"cap {cap} is above {most}, which the engine takes at once (engine.vllm.max_batch).",
                param="cap",
                code="invalid_value",
            )
        if config.control.mode == "on" and not pause_controller:
            raise Conflict(
                "The controller moves this cap (control.mode: on): say pause_controller, and it waits until the hold "
                "is over.",
                param="pause_controller",
                code="controller_on",
            )
        await self._refreshed()
        other = self._holds.get(engine)
        if other is not None and other.by != by:
            raise Conflict(
                f"The cap is held at {other.cap} by {other.by!r}: release it with DELETE /v1/control/caps, or wait "
                f"{other.until_seconds - self._wall():.0f} s.",
                param="by",
                code="cap_held",
            )
        await self._written(engine, Hold(cap, self._wall() + seconds, by))
        return self._entry(engine, config)

    async def release(self, model: str | None) -> dict[str, Any]:
        """Whoever holds it. Raises ``NotFound``, ``InvalidRequest`` and ``EngineUnavailable`` as ``hold`` does."""
        engine = self._engine(model)
        await self._written(engine, None)
        return self._entry(engine, self._config())

    async def _refreshed(self) -> None:
        try:
            await self.refresh()
        except Exception:
            raise _away() from None

    async def _written(self, engine: str, hold: Hold | None) -> None:
        try:
            await self._board.write(engine, hold)
        # whatever Ray's client raises: the replicas would not all have the same cap
        except Exception:
            raise _away() from None
        self._take(engine, hold)

    def _engine(self, model: str | None) -> str:
        names = ", ".join(self._shown_as[engine] for engine in self._caps)
        if model is None:
            if len(self._caps) > 1:
                raise InvalidRequest(f"Name the model: {names}.", param="model", code="missing_required_parameter")
            return next(iter(self._caps))
        engine = self._served_by.get(model)
        if engine is None:
            raise NotFound(f"The model {model!r} is not served here: {names}.", param="model", code="model_not_found")
        return engine

    def _take(self, engine: str, hold: Hold | None) -> None:
        before = self._holds.pop(engine, None)
        if hold is not None:
            self._holds[engine] = hold
        cap = self._caps[engine]
        previous = cap.in_force
        cap.hold(None if hold is None else part_of(hold.cap, self._config(), engine))
        if (before and (before.cap, before.by)) == (hold and (hold.cap, hold.by)):
            return
        why = f"held by {hold.by}" if hold is not None else "no longer held"
        model = self._shown_as[engine]
        self._events.record("cap", f"cap {previous} -> {cap.in_force}: {why} ({self._source})", model)
        self._decisions.record_hold(previous, cap.in_force, why, model=model, source=self._source)

    def _entry(self, engine: str, config: GatewayConfig) -> dict[str, Any]:
        hold = self._holds.get(engine)
        return {
            "model": self._shown_as[engine],
            "configured_cap": configured_cap(config, engine),
            "highest_cap": highest_cap(config, engine),
            "replica_cap": self._caps[engine].in_force,
            "controller": config.control.mode,
            "held": None if hold is None else asdict(hold),
        }


def _away() -> EngineUnavailable:
    return EngineUnavailable(
        "The cluster's store of held caps does not answer now; try again.", code="caps_unavailable"
    )
