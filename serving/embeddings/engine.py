"""The encoders behind the engine seam: one embeddings request in, one JSON body and its work records out."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from metering.settlement import Rates
from metering.work import Method
from serving.embeddings.answer import answer_body, shortened
from serving.embeddings.encoding import Encoded, EncodeRequest, EncoderGone, EncoderModel, RemoteEncoder, TooLong
from serving.embeddings.profile import ENCODER_DTYPE, ENCODER_WEIGHT_BYTES
from serving.engines.base import EngineAnswer, EngineModel, EngineRequest, EngineStatus, WorkSink
from serving.errors import EngineUnavailable, InvalidRequest

log = logging.getLogger("wattgate")


class EncoderEngine:
    """See ``Engine``. ``on_rates`` gets what the books last charged, for the receipt that follows."""

    kind = "encoder"
    method = Method.MEASURED

    def __init__(self, remote: RemoteEncoder, on_rates: Callable[[Rates], None], *, matryoshka: bool = False) -> None:
        self._remote = remote
        self._on_rates = on_rates
        self._matryoshka = matryoshka
        self._known: EncoderModel | None = None
        self._running = 0

    async def start(self) -> None:
        self._known = await self._remote.describe()

    def models(self) -> tuple[EngineModel, ...]:
        if self._known is None:
            return ()
        return (
            EngineModel(
                name=self._known.name,
                max_context_tokens=self._known.window_tokens,
                config=self._known.config,
                weight_bytes_each=ENCODER_WEIGHT_BYTES,
                dtype=ENCODER_DTYPE,
            ),
        )

    def status(self) -> EngineStatus:
        return EngineStatus(
            ready=self._known is not None,
            reason="" if self._known is not None else "the encoder is loading",
            running=self._running,
        )

    def flush(self) -> float | None:
        # the encoders report to the node's books themselves
        return None

    @contextlib.asynccontextmanager
    async def run(self, request: EngineRequest, work: WorkSink) -> AsyncIterator[EngineAnswer]:
        if self._known is None:
            raise EngineUnavailable("The embedding model is not loaded yet.")
        dimensions = self._dimensions(request, self._known)
        given = request.payload["input"]
        texts = (given,) if isinstance(given, str) else tuple(given)
        self._running += 1
        try:
            encoded = await self._encoded(EncodeRequest(request.request_id, request.tenant, texts))
        finally:
            self._running -= 1
        self._on_rates(encoded.rates)
        for record in encoded.records:
            work(record)
        vectors = encoded.vectors if dimensions is None else shortened(encoded.vectors, dimensions)
        body = answer_body(
            vectors,
            model=request.model,
            prompt_tokens=sum(record.prefill_tokens for record in encoded.records),
            base64_vectors=request.payload.get("encoding_format") == "base64",
        )
        yield EngineAnswer(_one(body))

    def _dimensions(self, request: EngineRequest, known: EncoderModel) -> int | None:
        asked = request.payload.get("dimensions")
        if asked is None or asked == known.dimension:
            return None
        if asked > known.dimension or not self._matryoshka:
            most = "at most" if self._matryoshka else "always"
            raise InvalidRequest(
                f"dimensions is {asked}, and the embeddings of '{known.name}' have {most} {known.dimension}.",
                param="dimensions",
                code="invalid_value",
            )
        return int(asked)

    async def _encoded(self, request: EncodeRequest) -> Encoded:
        try:
            try:
                answer = await self._remote.encode(request)
            except EncoderGone:
                # nothing has been sent to the client: another replica, or the one that takes its place, may do it
                answer = await self._remote.encode(request)
        except EncoderGone as gone:
            log.warning("request %s: the encoder is gone: %s", request.request_id, gone)
            raise EngineUnavailable("The embedding model cannot answer now; try again in a few seconds.") from None
        if isinstance(answer, TooLong):
            raise InvalidRequest(
                f"input[{answer.index}] has {answer.tokens} tokens, and this model reads {answer.window_tokens}: "
                "split the text.",
                param="input",
                code="context_length_exceeded",
            )
        return answer

    async def close(self) -> None:
        self._known = None


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body
