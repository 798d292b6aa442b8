"""Stand-ins for what surrounds the serving modules."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import orjson

from metering.receipt import Receipt
from metering.settlement import Acknowledgement, Rates
from metering.work import Method, WorkBatch, WorkRecord
from serving.engines.base import EngineAnswer, EngineModel, EngineRequest, EngineStatus, WorkSink
from serving.errors import EngineUnavailable
from serving.telemetry.ended import Ended


class ManualClock:
    """Monotonic seconds, moved by hand or by the delays asked of it."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


class HeldEngine:
    """An engine whose answers are given frame by frame, by hand.

    ``gate`` closed: a run waits before its first byte. ``script`` makes the frames of a request.
    """

    kind = "held"
    method = Method.MEASURED

    def __init__(self, model: str = "m", max_context_tokens: int | None = 1000) -> None:
        self.model = EngineModel(model, max_context_tokens=max_context_tokens)
        self.now = EngineStatus(ready=True)
        self.gate = asyncio.Event()
        self.gate.set()
        self.requests: list[EngineRequest] = []
        self.running = 0
        self.entered = asyncio.Event()
        self.refuse: BaseException | None = None
        self.script: Callable[[EngineRequest], AsyncIterator[bytes]] = self.words

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def models(self) -> tuple[EngineModel, ...]:
        return (self.model,)

    def status(self) -> EngineStatus:
        return self.now

    @contextlib.asynccontextmanager
    async def run(self, request: EngineRequest, work: WorkSink) -> AsyncIterator[EngineAnswer]:
        self.requests.append(request)
        self.running += 1
        self.entered.set()
        try:
            await self.gate.wait()
            if self.refuse is not None:
                raise self.refuse
            work(WorkRecord(request.request_id, request.model, request.tenant, 1.0, 2.0, prefill_tokens=3))
            yield EngineAnswer(self.script(request))
        finally:
            self.running -= 1

    async def words(self, request: EngineRequest) -> AsyncIterator[bytes]:
        for frame in answer_frames(request):
            yield frame


def usage_body(prompt: int = 3, completion: int = 2) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def chunk(content: str | None = None, finish: str | None = None, **fields: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    payload = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        **fields,
    }
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def answer_frames(request: EngineRequest) -> list[bytes]:
    """``Hello there`` in the form asked for."""
    head = {"id": "c", "created": 1, "model": request.model}
    if not request.stream:
        message = {"role": "assistant", "content": "Hello there"}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return [orjson.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": usage_body()})]
    frames = [chunk("Hello"), chunk(" there"), chunk(finish="stop")]
    if (request.payload.get("stream_options") or {}).get("include_usage"):
        frames.append(chunk(choices=[], usage=usage_body()))
    return [*frames, b"data: [DONE]\n\n"]


class Steps:
    """Answers an engine's requests with frames that are let go one by one, by hand; or breaks off after the first."""

    def __init__(self, engine: HeldEngine, *, breaks: bool = False) -> None:
        self.allowed = asyncio.Semaphore(0)
        self._breaks = breaks
        engine.script = self._script

    async def _script(self, request: EngineRequest) -> AsyncIterator[bytes]:
        for number, frame in enumerate(answer_frames(request)):
            await self.allowed.acquire()
            if self._breaks and number == 1:
                raise OSError("the engine's process is gone")
            yield frame

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.allowed.release()

    def rest(self) -> None:
        self.step(100)


class Books:
    """``NodeMeterClient`` that keeps what it is sent and fails when told to."""

    def __init__(self) -> None:
        self.batches: list[WorkBatch] = []
        self.broken = False
        self.lose_answer = False
        self.receipts: dict[tuple[str, str], Receipt] = {}

    async def submit(self, batch: WorkBatch) -> Acknowledgement:
        if self.broken:
            raise ConnectionError("the meter is away")
        self.batches.append(batch)
        if self.lose_answer:
            raise ConnectionError("the answer was lost")
        return Acknowledgement(batch.source, batch.sequence, True, Rates(power="scripted"))

    async def receipt(self, tenant: str, request_id: str) -> Receipt | None:
        return self.receipts.get((tenant, request_id))

    async def finals(self, keys: Sequence[tuple[str, str]]) -> list[Receipt | None]:
        if self.broken:
            raise ConnectionError("the meter is away")
        return [self.receipts.get(key) for key in keys]


def broken_stream(
    *frames: bytes, error: BaseException | None = None
) -> Callable[[EngineRequest], AsyncIterator[bytes]]:
    """Frames, then an error."""

    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        for frame in frames:
            yield frame
        raise error or EngineUnavailable("The engine died.")

    return script


class Told:
    """A sink that keeps what it is told of requests that have ended."""

    def __init__(self) -> None:
        self.requests: list[Ended] = []

    def ended(self, request: Ended) -> None:
        self.requests.append(request)

    def close(self) -> None:
        pass
