"""Scale to zero: an engine that is unloaded after idle time, and loaded again by the next request.

While it sleeps, the gateway still answers from its cache. What a sleep saved is metered, not assumed: the node's watts
of the idle time before it, against what the node took while the engine was away and to load it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from metering.work import Method
from serving.engines.base import (
    Engine,
    EngineAnswer,
    EngineModel,
    EngineRequest,
    EngineStartError,
    EngineStatus,
    WorkSink,
)
from serving.errors import EngineUnavailable

State = Literal["awake", "asleep", "waking"]


@dataclass(frozen=True, slots=True)
class Sleep:
    """One sleep, from unloading to ready again. Joules are the node's, None where it is not metered."""

    asleep_seconds: float
    wake_seconds: float
    expected_joules: float | None
    """What the node would have taken meanwhile, idle with the engine loaded: its watts of the idle time before."""
    asleep_joules: float | None
    wake_joules: float | None

    @property
    def saved_joules(self) -> float | None:
        """Negative where loading took more than the sleep saved."""
        if self.expected_joules is None or self.asleep_joules is None or self.wake_joules is None:
            return None
        return self.expected_joules - self.asleep_joules - self.wake_joules


@dataclass(slots=True)
class _Mark:
    seconds: float
    joules: float | None


class SleepingEngine:
    """See ``Engine``. ``metered_joules`` tells the node's energy so far; ``tick`` is called about once a second."""

    def __init__(
        self,
        build: Callable[[], Engine],
        *,
        idle_seconds: float,
        wake_timeout_seconds: float,
        metered_joules: Callable[[], Awaitable[float | None]],
        on_asleep: Callable[[], None] = lambda: None,
        on_awake: Callable[[Sleep], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build = build
        self._engine = build()
        self.kind = self._engine.kind
        self.method: Method = self._engine.method
        self._idle_seconds = idle_seconds
        self._wake_timeout_seconds = wake_timeout_seconds
        self._metered_joules = metered_joules
        self._on_asleep = on_asleep
        self._on_awake = on_awake
        self._clock = clock
        self._models: tuple[EngineModel, ...] = ()
        self.state: State = "awake"
        self._users = 0
        self._idle_since: _Mark | None = None
        self._unloaded: _Mark | None = None
        self._idle_watts: float | None = None
        self._waking: asyncio.Task[None] | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._failure: str | None = None
        self._typical_wake_seconds = wake_timeout_seconds / 2

    async def start(self) -> None:
        await self._engine.start()
        self._models = self._engine.models()

    def models(self) -> tuple[EngineModel, ...]:
        return self._models

    def status(self) -> EngineStatus:
        if self._failure is not None:
            return EngineStatus(ready=False, reason=self._failure, fatal=True)
        if self.state == "awake":
            return self._engine.status()
        # ready: a request is answered, later than usual; unready would send it away, and nobody would wake the engine
        return EngineStatus(ready=True, state=self.state)

    def flush(self) -> float | None:
        return self._engine.flush() if self.state == "awake" else None

    @contextlib.asynccontextmanager
    async def run(self, request: EngineRequest, work: WorkSink) -> AsyncIterator[EngineAnswer]:
        self._users += 1
        self._idle_since = None
        try:
            await self._awake()
            async with self._engine.run(request, work) as answer:
                yield answer
        finally:
            self._users -= 1

    async def tick(self) -> None:
        """Unload where nothing has run for long enough; a request that comes meanwhile waits, and wakes it again."""
        if self.state != "awake" or self._users or not self._engine.status().ready:
            return
        now = self._clock()
        if self._idle_since is None:
            self._idle_since = _Mark(now, await self._metered_joules())
        elif now - self._idle_since.seconds >= self._idle_seconds:
            await self._unload(self._idle_since)

    async def _unload(self, idle_since: _Mark) -> None:
        joules = await self._metered_joules()
        if self._users:
            return
        self._unloaded = _Mark(self._clock(), joules)
        idle_seconds = self._unloaded.seconds - idle_since.seconds
        known = joules is not None and idle_since.joules is not None and idle_seconds > 0
        self._idle_watts = (joules - idle_since.joules) / idle_seconds if known else None  # type: ignore[operator]
        self.state, self._waking = "asleep", None
        self._engine.flush()
        engine, self._engine = self._engine, self._build()
        # a task: a request that comes now waits for its end, so that there are never two engines
        self._unloading = asyncio.create_task(engine.close(), name="unload-engine")
        self._on_asleep()
        await asyncio.wait([self._unloading])

    async def _awake(self) -> None:
        if self._failure is not None:
            raise EngineUnavailable(f"The engine cannot answer now: {self._failure}.")
        if self.state == "awake":
            return
        if self._waking is None:
            self.state = "waking"
            self._waking = asyncio.create_task(self._wake(), name="wake-engine")
        try:
            async with asyncio.timeout(self._wake_timeout_seconds):
                # others wait for it too: the one who goes does not take it along
                await asyncio.shield(self._waking)
        except TimeoutError:
            raise EngineUnavailable(
                f"The engine is being loaded again and was not ready within {self._wake_timeout_seconds:.0f} s.",
                code="engine_waking",
                headers={"retry-after": str(max(1, round(self._typical_wake_seconds)))},
            ) from None
        except EngineStartError as error:
            raise EngineUnavailable("The engine could not be loaded again.") from error

    async def _wake(self) -> None:
        began = _Mark(self._clock(), await self._metered_joules())
        try:
            if self._unloading is not None:
                await asyncio.wait([self._unloading])
            await self._engine.start()
        except Exception as error:
            self._failure = f"it could not be loaded again: {error}"
            raise EngineStartError(str(error)) from error
        ended = _Mark(self._clock(), await self._metered_joules())
        assert self._unloaded is not None
        self.state, self._idle_since = "awake", None
        self._typical_wake_seconds = ended.seconds - began.seconds
        watts = self._idle_watts
        self._on_awake(
            Sleep(
                asleep_seconds=began.seconds - self._unloaded.seconds,
                wake_seconds=ended.seconds - began.seconds,
                expected_joules=None if watts is None else watts * (ended.seconds - self._unloaded.seconds),
                asleep_joules=_between(self._unloaded, began),
                wake_joules=_between(began, ended),
            )
        )

    async def close(self) -> None:
        if self._waking is not None and not self._waking.done():
            self._waking.cancel()
            with contextlib.suppress(asyncio.CancelledError, EngineStartError):
                await self._waking
        await self._engine.close()


def _between(start: _Mark, end: _Mark) -> float | None:
    return None if start.joules is None or end.joules is None else end.joules - start.joules
