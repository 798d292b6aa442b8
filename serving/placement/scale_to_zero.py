"""From the configuration to an engine that sleeps, and its sleeps to metrics and events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from serving.engines.base import Engine
from serving.engines.settings import EngineSettings
from serving.engines.sleeping import Joules, Sleep, SleepingEngine
from serving.metrics import Metrics
from serving.operations.events import EventLog

log = logging.getLogger("wattgate")

_METER_SECONDS = 2.0
"""For the node's meter to answer; on one node it takes milliseconds."""


def sleeper(
    settings: EngineSettings,
    build: Callable[[], Engine],
    metered_joules: Callable[[], Awaitable[Joules | None]],
    metrics: Metrics,
    events: EventLog,
) -> SleepingEngine | None:
    """What stands for the engine where it is unloaded after idle time; None where it stays loaded.

    ``metered_joules``: of what the engine alone works on.
    """
    if settings.unload_after_seconds is None:
        return None

    async def joules() -> Joules | None:
        try:
            # a wake-up waits for it, and the replica's watch
            async with asyncio.timeout(_METER_SECONDS):
                return await metered_joules()
        except Exception:
            # the meter is being restarted: this sleep's energy stays unknown
            log.warning("the node's meter did not answer: what this sleep saves is not known", exc_info=True)
            return None

    def asleep() -> None:
        for model in engine.models():
            text = f"{model.name} was unloaded after {settings.unload_after_seconds:g} s without a request"
            events.record("model", text, model.name)

    def slept(part: Sleep) -> None:
        for model in engine.models():
            report(model.name, part, metrics)

    def awake(sleep: Sleep) -> None:
        for model in engine.models():
            metrics.observe("wattgate_engine_wake_seconds", sleep.wake_seconds, model.name)
            events.record("model", f"{model.name} is loaded again {told(sleep)}", model.name)

    engine = SleepingEngine(
        build,
        idle_seconds=settings.unload_after_seconds,
        wake_timeout_seconds=settings.wake_timeout_seconds,
        metered_joules=joules,
        on_asleep=asleep,
        on_slept=slept,
        on_awake=awake,
    )
    return engine


def report(model: str, part: Sleep, metrics: Metrics) -> None:
    """Add a part of a sleep."""
    metrics.add("wattgate_engine_asleep_seconds_total", part.asleep_seconds, model)
    if part.saved_joules is not None:
        parts = (("expected", part.expected_joules), ("metered", part.asleep_joules), ("wake", part.wake_joules))
        for kind, amount in parts:
            metrics.add("wattgate_engine_asleep_joules_total", max(0.0, amount or 0.0), model, kind)


def told(sleep: Sleep) -> str:
    """One line for a person."""
    text = f"after {sleep.asleep_seconds:.0f} s; loading took {sleep.wake_seconds:.1f} s"
    if sleep.saved_joules is None:
        return f"{text}; what it saved is not known: its devices are not metered, or others work on them too"
    return (
        f"{text} and {sleep.wake_joules:.0f} J; saved {sleep.saved_joules:.0f} J of the {sleep.expected_joules:.0f} J "
        "that idling would have taken"
    )
