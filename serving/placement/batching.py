"""From the configuration to files and batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from serving.access import KeyRing
from serving.batches.files import FileStore
from serving.batches.pages import BatchPages
from serving.batches.runner import BatchRunner
from serving.batches.store import BatchStore
from serving.config import GatewayConfig
from serving.metrics import Metrics


@dataclass(frozen=True, slots=True)
class BuiltBatches:
    pages: BatchPages
    runner: BatchRunner


def batches_folder(port: int) -> Path:
    """Where files and batches are unless configured otherwise: a gateway that comes back on its port finds its own."""
    return Path(platformdirs.user_data_dir("wattgate")) / f"batches-{port}"


def build_batches(config: GatewayConfig, keys: KeyRing, metrics: Metrics) -> BuiltBatches:
    """Nothing is touched on the disk before it is used."""
    settings = config.batches
    root = settings.folder or batches_folder(config.server.port)
    files = FileStore(root, max_tenant_bytes=settings.max_tenant_bytes, keep_days=settings.keep_days)
    store = BatchStore(root, files, keep_days=settings.keep_days)
    runner = BatchRunner(store, settings, metrics, keys.settings)
    timeout_seconds = config.server.request_timeout_seconds
    pages = BatchPages(store, keys, settings, runner.wake, request_timeout_seconds=timeout_seconds)
    return BuiltBatches(pages, runner)
