"""A model in replicas of its own, behind the engine seam: the ``upstream`` engine over an internal route.

The replica that does the work books it and tells its receipt with the answer's last bytes (see ``api.engine_app``),
so nothing is modelled again here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import orjson
from pydantic import SecretStr

from metering.receipt import EnergyJoules, Receipt, receipt_of
from metering.work import Method
from serving.engines.base import BookedElsewhere, EngineAnswer, EngineModel, EngineRequest, EngineStatus, WorkSink
from serving.engines.settings import EngineSettings, UpstreamSettings
from serving.engines.upstream import PROBE_SECONDS, UpstreamEngine

TENANT_HEADER = "x-wattgate-tenant"
_CONNECTIONS = 65_536
"""No limit of its own: admission is the limit."""
_METHODS = {"vllm": Method.MEASURED, "simulated": Method.SIMULATED}
_FRAME = b'data: {"wattgate_receipt":'
_FIELD = b',"wattgate_receipt":'


def receipt_frame(receipt: Receipt) -> bytes:
    """For a stream, before its ``[DONE]``."""
    return _FRAME + orjson.dumps(receipt.as_dict()) + b"}\n\n"


def with_receipt(body: bytes, receipt: Receipt) -> bytes:
    """For a unary answer: the last field of its object."""
    if not body.endswith(b"}"):
        return body
    return body[:-1] + _FIELD + orjson.dumps(receipt.as_dict()) + b"}"


class SeparateEngine:
    """See ``Engine``.

    Args:
        settings: of the engine in the model's replicas.
        names: served there, the model's own first.
        url: of the internal route.
        token: opens it.
    """

    def __init__(
        self,
        settings: EngineSettings,
        names: tuple[str, ...],
        *,
        url: str,
        token: SecretStr,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self.kind: str = settings.kind
        self.method = _METHODS[settings.kind]
        upstream = UpstreamSettings(url=url, api_key=token, max_connections=_CONNECTIONS)
        self._upstream = UpstreamEngine(
            EngineSettings(kind="upstream", upstream=upstream),
            lambda _: None,
            headers=lambda request: {TENANT_HEADER: request.tenant},
            expected=names,
            probe_seconds=probe_seconds,
        )
        self._last: tuple[Receipt, int] | None = None
        """Of the last run that was finished, and its tokens."""

    async def start(self) -> None:
        await self._upstream.start()

    async def close(self) -> None:
        await self._upstream.close()

    def models(self) -> tuple[EngineModel, ...]:
        return self._upstream.models()

    def status(self) -> EngineStatus:
        return self._upstream.status()

    async def probe(self) -> EngineStatus:
        """Look for the replicas now."""
        return await self._upstream.probe()

    def flush(self) -> float | None:
        return None

    @contextlib.asynccontextmanager
    async def run(self, request: EngineRequest, work: WorkSink) -> AsyncIterator[EngineAnswer]:
        told = BookedElsewhere()
        try:
            async with self._upstream.run(request, told.records.append) as answer:
                frames = self._stream(answer.frames, told) if request.stream else self._unary(answer.frames, told)
                async with contextlib.aclosing(frames):
                    yield EngineAnswer(frames, first_token_seconds=answer.first_token_seconds, elsewhere=told)
        finally:
            tokens = sum(record.prefill_tokens + record.decode_tokens for record in told.records)
            if told.receipt is not None:
                self._last = told.receipt, tokens
            elif self._last is not None:
                told.receipt = _estimated(request.request_id, tokens, *self._last)

    async def _stream(self, frames: AsyncIterator[bytes], told: BookedElsewhere) -> AsyncGenerator[bytes, None]:
        async for frame in frames:
            if frame.startswith(_FRAME):
                told.receipt = receipt_of(orjson.loads(frame[len(_FRAME) : -3]))
            else:
                yield frame

    async def _unary(self, frames: AsyncIterator[bytes], told: BookedElsewhere) -> AsyncGenerator[bytes, None]:
        async for body in frames:
            at = body.rfind(_FIELD)
            if at >= 0:
                told.receipt = receipt_of(orjson.loads(body[at + len(_FIELD) : -1]))
                body = body[:at] + b"}"
            yield body


def _estimated(request_id: str, tokens: int, last: Receipt, last_tokens: int) -> Receipt:
    """Of a run that was broken off: its tokens at what a token of the last finished run cost."""
    share = tokens / last_tokens if last_tokens else 0.0
    energy = last.energy_joules
    if energy is not None:
        parts = (energy.accelerator, energy.host, energy.idle, energy.overhead)
        energy = EnergyJoules(*(share * part for part in parts))
    return replace(
        last,
        receipt_id=request_id,
        flops_prefill=None,
        flops_decode=None,
        mfu_ratio=None,
        energy_joules=energy,
        operational_grams=None if last.operational_grams is None else share * last.operational_grams,
        embodied_grams=None if last.embodied_grams is None else share * last.embodied_grams,
        cost=None if last.cost is None else {cause: share * amount for cause, amount in last.cost.items()},
        notes=("Broken off: estimated at the cost per token of the model's last finished request.",),
    )
