"""The gateway before the embedding model: the same path as every request's, with a queue and a meter of its own."""

from __future__ import annotations

from serving.admission.queue import AdmissionQueue
from serving.config import GatewayConfig
from serving.embeddings.encoding import RemoteEncoder
from serving.embeddings.engine import EncoderEngine
from serving.embeddings.meter import WitnessedWork
from serving.gateway import Gateway
from serving.meter_link import MeterLink
from serving.metrics import Metrics


async def build_embeddings(config: GatewayConfig, remote: RemoteEncoder, main: MeterLink, metrics: Metrics) -> Gateway:
    """Waits until an encoder is ready. Embeddings are not kept in the response cache."""
    witness = WitnessedWork(main)
    engine = EncoderEngine(remote, witness.learn, matryoshka=config.embeddings.matryoshka)
    await engine.start()
    witness.know(engine.models())
    queue = AdmissionQueue(config.embeddings.max_concurrency, policy=config.admission.policy())
    return Gateway(engine=engine, cap=queue, meter=witness, metrics=metrics)
