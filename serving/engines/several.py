"""Several engines behind one seam: a request goes to the one that serves its model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from metering.settlement import weakest
from serving.engines.base import Engine, EngineAnswer, EngineModel, EngineRequest, EngineStatus, WorkSink
from serving.errors import EngineUnavailable


class SeveralEngines:
    """See ``Engine``. Ready as long as one of them is; what is wrong with the others is in its status."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = tuple(engines)
        kinds = {engine.kind for engine in engines}
        self.kind: str = kinds.pop() if len(kinds) == 1 else "several"
        self.method = weakest(engine.method for engine in engines)

    @property
    def engines(self) -> tuple[Engine, ...]:
        return self._engines

    async def start(self) -> None:
        """All at once. Raises the first one's failure; those that had started are closed again."""
        started = await asyncio.gather(*(engine.start() for engine in self._engines), return_exceptions=True)
        failures = [failure for failure in started if failure is not None]
        if failures:
            await self.close()
            raise failures[0]

    def models(self) -> tuple[EngineModel, ...]:
        return tuple(model for engine in self._engines for model in engine.models())

    def status(self) -> EngineStatus:
        found = [(engine, engine.status()) for engine in self._engines]
        reasons = [
            f"{', '.join(model.name for model in engine.models()) or engine.kind}: {status.reason}"
            for engine, status in found
            if not status.ready
        ]
        return EngineStatus(
            ready=any(status.ready for _, status in found),
            reason="; ".join(reasons),
            fatal=any(status.fatal for _, status in found),
            running=sum(status.running for _, status in found),
        )

    def flush(self) -> float | None:
        starts = [engine.flush() for engine in self._engines]
        return min((start for start in starts if start is not None), default=None)

    def run(self, request: EngineRequest, work: WorkSink) -> AbstractAsyncContextManager[EngineAnswer]:
        for engine in self._engines:
            if any(model.name == request.model for model in engine.models()):
                return engine.run(request, work)
        raise EngineUnavailable("No engine serves this model now.")

    async def close(self) -> None:
        await asyncio.gather(*(engine.close() for engine in self._engines))
