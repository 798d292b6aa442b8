"""The embedding model as a Ray Serve deployment, and the gateway's way to it."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from prometheus_client import CollectorRegistry

from cache.embedders.bundled import minilm_folder
from cache.embedders.encoder import Matrix, SentenceTransformerEncoder
from serving.config import GatewayConfig
from serving.embeddings.batching import Done, Piece, pieces_of, run_pass, texts_in
from serving.embeddings.encoding import Encoded, EncodeRequest, EncoderGone, EncoderModel, TooLong
from serving.embeddings.profile import encoder_profile
from serving.embeddings.settings import BUNDLED_ENCODER, EmbeddingsSettings
from serving.engines.base import EngineStartError
from serving.meter_link import MeterLink
from serving.metrics import Metrics
from serving.placement.deployment import node_folder, our_deployment
from serving.placement.metering_setup import node_hardware
from serving.placement.node_link import meter_link, node_meter_handle
from serving.placement.notices import Notices

NOT_STORED = "BYPASS"
"""Embeddings are not looked up in the response cache."""


class LoadedEncoder(Protocol):
    dimension: int
    window_tokens: int

    @property
    def config(self) -> dict[str, Any] | None: ...

    def tokens(self, texts: Sequence[str]) -> list[int]: ...

    def encode(self, texts: Sequence[str]) -> Matrix: ...


def load_encoder(settings: EmbeddingsSettings) -> LoadedEncoder:
    """Blocks: loads.

    Raises:
        EngineStartError: the model is not here; names it and the mend.
    """
    try:
        if settings.model == BUNDLED_ENCODER:
            return SentenceTransformerEncoder(minilm_folder())
        return SentenceTransformerEncoder(settings.model)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineStartError(
            f"embeddings.model {settings.model!r} cannot be loaded ({first}): name a sentence-transformers folder, a "
            f"model in the local Hugging Face cache or {BUNDLED_ENCODER}, or set embeddings.enabled: false"
        ) from None


def keep_off(engine_cores: Sequence[int]) -> None:
    """Compute beside the engine, not on its cores: they are its own, and so is their power."""
    others = os.sched_getaffinity(0) - set(engine_cores)
    if others:
        os.sched_setaffinity(0, others)


class EncoderWorker:
    """An encoder on a thread of its own, with its line to the node's books."""

    def __init__(self, encoder: LoadedEncoder, model: EncoderModel, link: MeterLink, metrics: Metrics) -> None:
        self._encoder = encoder
        self.model = model
        self._link = link
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._encoding: set[float] = set()
        link.flush_engine = lambda: min(self._encoding, default=None)

    async def lengths(self, texts: Sequence[str]) -> list[int]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._encoder.tokens, texts)

    async def one_pass(self, pieces: list[Piece]) -> list[Done]:
        began = time.monotonic()
        self._encoding.add(began)
        try:
            done, steps = await asyncio.get_running_loop().run_in_executor(
                self._thread, run_pass, self._encoder, pieces, self.model.name
            )
            # also of requests whose clients have gone meanwhile
            for piece, got in zip(pieces, done, strict=True):
                trace = self._link.trace(piece.request.request_id, piece.request.tenant, self.model.name)
                for record in got.records:
                    trace.record(record)
            self._link.steps(steps)
        finally:
            self._encoding.discard(began)
        self._metrics.observe("wattgate_embedding_batch_texts", texts_in(pieces), self.model.name)
        return done

    def too_long(self, tokens: Sequence[int]) -> TooLong | None:
        window = self.model.window_tokens
        return next((TooLong(index, count, window) for index, count in enumerate(tokens) if count > window), None)

    def encoded(self, done: Sequence[Done]) -> Encoded:
        return Encoded(
            np.concatenate([each.vectors for each in done]),
            tuple(record for each in done for record in each.records),
            self._link.rates,
        )

    def finished(self, request_id: str) -> None:
        self._link.finished(request_id, NOT_STORED)

    async def close(self) -> None:
        await self._link.close()
        self._thread.shutdown(wait=False, cancel_futures=True)


async def start_worker(config: GatewayConfig, run_folder: Path) -> EncoderWorker:
    """Load the model and announce it to the node's meter; a failure is told to whoever waits for the start."""
    with Notices(run_folder / "notices.jsonl").of_failure("the embedding model"):
        keep_off(node_hardware(config).engine_cores)
        encoder = await asyncio.to_thread(load_encoder, config.embeddings)
        model = EncoderModel(config.embeddings.name, encoder.dimension, encoder.window_tokens, encoder.config)
        metrics = Metrics(CollectorRegistry())
        source = f"encoder-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        actor = node_meter_handle(config, os.environ["PROMETHEUS_MULTIPROC_DIR"], source)
        link = meter_link(actor, config, source, metrics, None)
        await actor.attach.remote(source, [encoder_profile(model.name, model.config)], host_only=True)
        link.start()
    return EncoderWorker(encoder, model, link, metrics)


def encoder_deployment(config: GatewayConfig) -> Any:
    """The bound deployment; the gateway's takes it as an argument."""
    from ray import serve

    settings = config.embeddings

    class EncoderReplica:
        async def __init__(self, config: GatewayConfig) -> None:  # type: ignore[misc]  # Ray awaits it
            self.worker = await start_worker(config, node_folder())

        async def describe(self) -> EncoderModel:
            return self.worker.model

        async def encode(self, request: EncodeRequest) -> Encoded | TooLong:
            tokens = await self.worker.lengths(request.texts)
            if (refused := self.worker.too_long(tokens)) is not None:
                return refused
            try:
                # one after the other: between the passes of a large request others have their turn
                done = [await self.one_pass(piece) for piece in pieces_of(request, tokens, settings.max_batch)]
                return self.worker.encoded(done)
            finally:
                self.worker.finished(request.request_id)

        @serve.batch(  # type: ignore[untyped-decorator]
            max_batch_size=settings.max_batch,
            batch_wait_timeout_s=settings.batch_wait_seconds,
            batch_size_fn=texts_in,
        )
        async def one_pass(self, pieces: list[Piece]) -> list[Done]:
            return await self.worker.one_pass(pieces)

        async def __del__(self) -> None:
            if hasattr(self, "worker"):
                await self.worker.close()

    deployment = our_deployment(EncoderReplica, config, name="encoder", replicas=settings.replicas)
    return deployment.bind(config)


class HandleEncoder:
    """``RemoteEncoder`` over the deployment's handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def describe(self) -> EncoderModel:
        answer: EncoderModel = await self._call("describe")
        return answer

    async def encode(self, request: EncodeRequest) -> Encoded | TooLong:
        answer: Encoded | TooLong = await self._call("encode", request)
        return answer

    async def _call(self, method: str, *arguments: Any) -> Any:
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

        response = getattr(self._handle, method).remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except (RayActorError, BackPressureError, DeploymentUnavailableError) as error:
            raise EncoderGone(type(error).__name__) from None
