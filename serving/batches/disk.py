"""How files and batches lie on disk: ids, whole writes, a folder for each tenant."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

_ID = re.compile(r"(?:file-|batch_)[0-9a-f]{28}")


def new_id(prefix: str, wall_seconds: float) -> str:
    """``file-`` or ``batch_`` and 28 hex digits: ids sort by the time they were made."""
    return f"{prefix}{int(wall_seconds * 1000):012x}{secrets.token_hex(8)}"


def is_id(text: str, prefix: str) -> bool:
    """Whether it can be one of ours; what cannot is never made a path of."""
    return text.startswith(prefix) and _ID.fullmatch(text) is not None


def write_whole(path: Path, text: bytes) -> None:
    """Readers see the old content or the new, never half; it is on the disk when this returns."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def private_folder(path: Path) -> Path:
    """Made where it is not there, with what is above it, open to its owner only."""
    if not path.exists():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def tenant_folder(root: Path, tenant: str) -> Path:
    """By a digest: a tenant's name may hold what a path may not."""
    return root / "tenants" / hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a path; False where another holds it and ``wait`` is False.

    The kernel gives it back when its holder's process ends, however it ends.
    """
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
