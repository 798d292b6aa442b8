"""Settings of files and batches. Each field is documented beneath it: meaning, unit, effect, how to size it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator


class BatchSettings(BaseModel):
    """`/v1/files` and `/v1/batches`: requests from a file, run behind everybody else's at the batch priority."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    folder: Path | None = None
    """Where files and batches are kept, prompts and answers in clear, readable by the gateway's user only. Replicas on
    several nodes need one folder that all of them mount, with working `flock` (NFSv4, CephFS). None: one of this port
    under the user's data folder, so a gateway started again on its port goes on; with port 0 it ends with the run."""
    max_file_bytes: int = Field(default=100 * 1024 * 1024, ge=1024)
    """Larger uploads get 413."""
    max_tenant_bytes: int = Field(default=2 * 1024**3, ge=1024)
    """What a tenant's files may take together, results included; above it uploads get 413 until it deletes some."""
    max_lines: int = Field(default=50_000, ge=1)
    """Requests in one batch; above it the batch fails its validation."""
    concurrent_lines: int = Field(default=8, ge=1)
    """Requests of batches that one replica has under way, queued ones included. At the engine's cap
    (`admission.max_concurrency`) batches alone can fill it; more only waits in the queue. A tenant with a limit of
    concurrent requests keeps half of it for its other requests."""
    concurrent_batches: int = Field(default=4, ge=1)
    """Batches that one replica works on at once; the others wait, shared fairly between tenants."""
    poll_seconds: float = Field(default=1.0, gt=0)
    """Between two looks for new batches, cancellations and those whose replica died; also how stale the counts
    of a running batch are."""
    keep_days: float = Field(default=30.0, gt=0)
    """Then files, and batches that have ended, are deleted."""

    @field_validator("folder")
    @classmethod
    def _from_here(cls, path: Path | None) -> Path | None:
        # the replicas' working folder is not the command's
        return None if path is None else path.expanduser().absolute()
