"""Scale to zero: an engine that is unloaded after idle time, and loaded again by the next request.

While it sleeps, the gateway still answers from its cache. What a sleep saved is metered, not assumed: the watts of its
devices in the idle time before it, against what they took while the engine was away and to load it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
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
from serving.errors import EngineUnavailable, EngineWaking

State = Literal["awake", "asleep", "waking"]
Joules = Mapping[str, float]
"""Energy so far of each component that the engine alone works on."""
_TELL_SECONDS = 10.0
"""Between two figures of a sleep that goes on."""
_LAST_FIGURE_SECONDS = 2.0
"""For the meter to answer when the engine is closed in its sleep."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """One sleep, from unloading to ready again, or a part of one. Joules are those of the engine's own devices, None
    where they are not metered or others work on them too."""

    asleep_seconds: float
    wake_seconds: float
    expected_joules: float | None
    """What they would have taken meanwhile, idle with the engine loaded: their watts of the idle time before."""
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
    joules: Joules | None


class SleepingEngine:
    """See ``Engine``. ``metered_joules`` tells the energy so far of what the engine alone works on; ``tick`` is called
    about once a second. ``on_slept`` gets each part of a sleep while it goes on, ``on_awake`` the whole at its end."""

    def __init__(
        self,
        build: Callable[[], Engine],
        *,
        idle_seconds: float,
        wake_timeout_seconds: float,
        metered_joules: Callable[[], Awaitable[Joules | None]],
        on_asleep: Callable[[], None] = lambda: None,
        on_slept: Callable[[Sleep], None] = lambda _: None,
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
        self._on_slept = on_slept
        self._on_awake = on_awake
        self._clock = clock
        self._models: tuple[EngineModel, ...] = ()
        self.state: State = "awake"
        self._users = 0
        self._idle_since: _Mark | None = None
        self._unloaded: _Mark | None = None
        self._told: _Mark | None = None
        """Up to where the energy of this sleep is told."""
        self._told_seconds = 0.0
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
        if self.state == "asleep" and self._clock() - self._told_seconds >= _TELL_SECONDS:
            await self._tell_so_far()
        if self.state != "awake" or self._users or not self._engine.status().ready:
            return
        now = self._clock()
        if self._idle_since is None:
            self._idle_since = await self._mark()
        elif now - self._idle_since.seconds >= self._idle_seconds:
            await self._unload(self._idle_since)

    async def _unload(self, idle_since: _Mark) -> None:
        unloaded = await self._mark()
        if self._users:
            return
        self._unloaded = self._told = unloaded
        self._told_seconds = unloaded.seconds
        idle_joules, idle_seconds = _between(idle_since, unloaded), unloaded.seconds - idle_since.seconds
        self._idle_watts = None if idle_joules is None or idle_seconds <= 0 else idle_joules / idle_seconds
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
            raise EngineWaking(
                f"The engine is being loaded again and was not ready within {self._wake_timeout_seconds:.0f} s.",
                headers={"retry-after": str(max(1, round(self._typical_wake_seconds)))},
            ) from None
        except EngineStartError as error:
            raise EngineUnavailable("The engine could not be loaded again.") from error

    async def _wake(self) -> None:
        began = await self._mark()
        try:
            if self._unloading is not None:
                await asyncio.wait([self._unloading])
            await self._engine.start()
        except Exception as error:
            self._failure = f"it could not be loaded again: {error}"
            raise EngineStartError(str(error)) from error
        ended = await self._mark()
        assert self._unloaded is not None
        self.state, self._idle_since = "awake", None
        self._typical_wake_seconds = ended.seconds - began.seconds
        self._tell(began, ended)
        self._on_awake(self._sleep(self._unloaded, began, ended))

    async def _mark(self) -> _Mark:
        joules = await self._metered_joules()
        return _Mark(self._clock(), joules)

    async def _tell_so_far(self) -> None:
        now = await self._mark()
        # a request may have come meanwhile: then what is left is told when the engine is loaded
        if self.state == "asleep":
            self._tell(now, now)

    def _tell(self, until: _Mark, awake: _Mark) -> None:
        """``awake`` is ``until`` while the sleep goes on."""
        assert self._told is not None
        part = self._sleep(self._told, until, awake)
        self._on_slept(replace(part, asleep_seconds=until.seconds - self._told_seconds))
        self._told_seconds = until.seconds
        if part.saved_joules is not None:
            # else it is told with the next part that is known
            self._told = until

    def _sleep(self, since: _Mark, until: _Mark, awake: _Mark) -> Sleep:
        watts = self._idle_watts
        return Sleep(
            asleep_seconds=until.seconds - since.seconds,
            wake_seconds=awake.seconds - until.seconds,
            expected_joules=None if watts is None else watts * (awake.seconds - since.seconds),
            asleep_joules=_between(since, until),
            wake_joules=_between(until, awake),
        )

    async def close(self) -> None:
        if self._waking is not None and not self._waking.done():
            self._waking.cancel()
            with contextlib.suppress(asyncio.CancelledError, EngineStartError):
                await self._waking
        if self.state == "asleep":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_FIGURE_SECONDS):
                    await self._tell_so_far()
        await self._engine.close()


def _between(start: _Mark, end: _Mark) -> float | None:
    """None also where it was not alone on the same devices at both ends."""
    if start.joules is None or end.joules is None or start.joules.keys() != end.joules.keys():
        return None
    return sum(end.joules.values()) - sum(start.joules.values())
