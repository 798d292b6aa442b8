"""Events outlive the run: what changed last Tuesday, or at the restart itself, is still told. So do the references of
drift, with which the traffic after a restart is compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from serving.config import GatewayConfig
from serving.operations.drift_references import DRIFT
from serving.operations.events import EVENTS, EventLog, changes
from serving.without_secrets import without_secrets

_MOST_BYTES = 4 * 1024 * 1024
_KEPT_BYTES = 1024 * 1024
"""Some eight thousand events of 120 bytes."""


def keep_events(run_folder: Path, data_folder: Path, config: GatewayConfig) -> None:
    """The run's events go to a file of this port in the user's data folder, and what the configuration has become since
    the last run on it is their next one. Raises OSError.
    """
    kept = data_folder / f"events-{config.server.port}.jsonl"
    data_folder.mkdir(parents=True, exist_ok=True)
    kept.touch(mode=0o600)
    _shorten(kept)
    (run_folder / EVENTS).symlink_to(kept)
    references = data_folder / f"drift-{config.server.port}"
    references.mkdir(mode=0o700, exist_ok=True)
    (run_folder / DRIFT).symlink_to(references)
    last = data_folder / f"configuration-{config.server.port}.json"
    now = to_jsonable_python(without_secrets(config.model_dump())[0])
    before = _read(last)
    if before is not None:
        log = EventLog(run_folder / EVENTS)
        for change in changes("config", before, now):
            log.record("config", f"at the restart: {change}")
    last.touch(mode=0o600)
    last.write_text(json.dumps(now))


def _shorten(file: Path) -> None:
    content = file.read_bytes() if file.stat().st_size > _MOST_BYTES else b""
    if content:
        file.write_bytes(content[-_KEPT_BYTES:].partition(b"\n")[2])


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
