"""A second engine for when the first is away: it answers as long as no byte of the answer has left."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from serving.admission.queue import AdmissionQueue
from serving.engines.base import Engine, EngineAnswer, EngineModel, EngineRequest, EngineStatus, WorkSink
from serving.errors import EngineUnavailable


class FallbackEngine:
    """See ``Engine``; its models are the main engine's.

    Args:
        main: asked first, where it is ready.
        spare: asked when the main one is not, or says so before an answer exists.
        model: name of the spare's model, for the request and for whoever reads the answer's marks; None: its first.
        queue: before the spare, where others use it too.
        owned: whether the spare starts and ends with this engine.
    """

    def __init__(
        self,
        main: Engine,
        spare: Engine,
        model: str | None = None,
        *,
        queue: AdmissionQueue | None = None,
        owned: bool = True,
    ) -> None:
        self.kind = main.kind
        self.method = main.method
        self._main = main
        self._spare = spare
        self._model = model
        self._queue = queue
        self._owned = owned

    async def start(self) -> None:
        await self._main.start()
        if self._owned:
            try:
                await self._spare.start()
            except BaseException:
                await self._main.close()
                raise

    def models(self) -> tuple[EngineModel, ...]:
        return self._main.models()

    def status(self) -> EngineStatus:
        """The main engine's, but ready while the spare can answer."""
        status = self._main.status()
        return status if status.ready or not self._spare.status().ready else replace(status, ready=True)

    def main_status(self) -> EngineStatus:
        """The main engine's alone."""
        return self._main.status()

    def flush(self) -> float | None:
        starts = [self._main.flush(), self._spare.flush() if self._owned else None]
        return min((start for start in starts if start is not None), default=None)

    @contextlib.asynccontextmanager
    async def run(self, request: EngineRequest, work: WorkSink) -> AsyncIterator[EngineAnswer]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                if not self._main.status().ready and self._spare.status().ready:
                    raise EngineUnavailable("The engine cannot answer now.")
                answer = await stack.enter_async_context(self._main.run(request, work))
            except EngineUnavailable as away:
                answer = await self._instead(stack, request, work, away)
            yield answer

    async def _instead(
        self, stack: contextlib.AsyncExitStack, request: EngineRequest, work: WorkSink, away: EngineUnavailable
    ) -> EngineAnswer:
        model = self._model or next((model.name for model in self._spare.models()), None)
        if model is None or not self._spare.status().ready:
            raise away
        if self._queue is not None:
            permit = self._queue.permit(
                request.deadline_seconds,
                tenant=request.tenant,
                priority=request.priority,
                prefill_tokens=request.prompt_tokens,
            )
            await stack.enter_async_context(permit)
        asked = replace(request, model=model, payload=request.payload | {"model": model})
        answer = await stack.enter_async_context(self._spare.run(asked, work))
        answer.fallback = model
        return answer

    async def close(self) -> None:
        await self._main.close()
        if self._owned:
            await self._spare.close()
