"""Batches on disk: one folder each, a mark for those that are not at their end, a lock for whoever runs one."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from serving.batches.disk import is_id, locked, new_id, private_folder, tenant_folder, write_whole
from serving.batches.files import SECONDS_PER_DAY, FileStore, hold
from serving.batches.record import Batch

_RECORD, _INPUT, _CANCEL, _LOCK, _RUNNER = "batch.json", "input.jsonl", "cancel", "lock", "runner"


class Overtaken(Exception):
    """Another runs the batch now: a shared file system gives away the lock of one that it has not heard from."""


class Hold:
    """A batch that this process alone runs, until ``release`` or its end."""

    def __init__(self, folder: Path, active: Path, name: bytes, stack: contextlib.ExitStack) -> None:
        """``name``: of this hold alone, as its file says while nobody else has the batch."""
        self.folder = folder
        self._active = active
        self._name = name
        self._stack = stack

    def check(self) -> None:
        """Before anything is written. Raises ``Overtaken``, and ``OSError`` where that cannot be told."""
        try:
            runner = (self.folder / _RUNNER).read_bytes()
        except FileNotFoundError:
            raise Overtaken from None
        if runner != self._name:
            raise Overtaken

    @property
    def input(self) -> Path:
        return self.folder / _INPUT

    def read(self) -> Batch:
        """Raises ``OSError`` or ``ValidationError``."""
        return Batch.model_validate_json((self.folder / _RECORD).read_bytes())

    def save(self, batch: Batch) -> None:
        write_whole(self.folder / _RECORD, batch.model_dump_json().encode())

    def cancelled_at(self) -> int | None:
        return _cancelled_at(self.folder)

    def end(self) -> None:
        """Nobody looks for it any more; the input is let go."""
        self._active.unlink(missing_ok=True)
        self.input.unlink(missing_ok=True)

    def release(self) -> None:
        self._stack.close()


class BatchStore:
    """Every method blocks on the disk: call them off the event loop."""

    def __init__(
        self, root: Path, files: FileStore, *, keep_days: float, wall: Callable[[], float] = time.time
    ) -> None:
        self._root = root
        self.files = files
        self._keep_seconds = keep_days * SECONDS_PER_DAY
        self._wall = wall

    def create(
        self,
        tenant: str,
        *,
        input_file_id: str,
        endpoint: str,
        completion_window: str,
        window_seconds: float,
        metadata: dict[str, str] | None,
    ) -> Batch | None:
        """None where the tenant has no such file."""
        if self.files.get(tenant, input_file_id) is None:
            return None
        now = self._wall()
        batch = Batch(
            id=new_id("batch_", now),
            tenant=tenant,
            endpoint=endpoint,
            input_file_id=input_file_id,
            completion_window=completion_window,
            metadata=metadata,
            created_at=int(now),
            expires_at=int(now + window_seconds),
        )
        folder = private_folder(tenant_folder(self._root, tenant) / "batches" / batch.id)
        try:
            if not self._hold_input(tenant, input_file_id, folder):
                return None
            write_whole(folder / _RECORD, batch.model_dump_json().encode())
            # the mark last: whoever finds it finds the batch whole
            write_whole(private_folder(self._root / "active") / batch.id, folder.parents[1].name.encode())
        except OSError:
            # nobody would run it, and it would hold its input's bytes
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return batch

    def _hold_input(self, tenant: str, input_file_id: str, folder: Path) -> bool:
        """False where the file has been deleted in this moment."""
        try:
            hold(self.files.path(tenant, input_file_id), folder / _INPUT)
        except FileNotFoundError:
            shutil.rmtree(folder, ignore_errors=True)
            return False
        return True

    def get(self, tenant: str, batch_id: str) -> Batch | None:
        if not is_id(batch_id, "batch_"):
            return None
        return _read(tenant_folder(self._root, tenant) / "batches" / batch_id)

    def all_of(self, tenant: str) -> list[Batch]:
        """Newest first."""
        folder = tenant_folder(self._root, tenant) / "batches"
        found = [_read(path) for path in sorted(folder.glob("batch_*"), reverse=True)]
        return [batch for batch in found if batch is not None]

    def cancel(self, tenant: str, batch_id: str) -> Batch | None:
        """Wish for its end; whoever runs it sees the wish. The batch as it is then, None where there is none."""
        batch = self.get(tenant, batch_id)
        if batch is None or batch.ended:
            return batch
        folder = tenant_folder(self._root, tenant) / "batches" / batch_id
        if _cancelled_at(folder) is None:
            write_whole(folder / _CANCEL, str(int(self._wall())).encode())
        return self.get(tenant, batch_id)

    def waiting(self) -> list[tuple[str, str]]:
        """(tenant folder, id) of all batches that are not at their end, the oldest first."""
        found = []
        for mark in sorted((self._root / "active").glob("batch_*")):
            with contextlib.suppress(OSError):
                found.append((mark.read_text(), mark.name))
        return found

    def claim(self, tenant_folder_name: str, batch_id: str) -> Hold | None:
        """The right to run it; None where another has it, or it has ended."""
        active = self._root / "active" / batch_id
        folder = self._root / "tenants" / tenant_folder_name / "batches" / batch_id
        try:
            with contextlib.ExitStack() as stack:
                if not stack.enter_context(locked(folder / _LOCK, wait=False)) or not active.exists():
                    return None
                name = secrets.token_hex(16).encode()
                write_whole(folder / _RUNNER, name)
                return Hold(folder, active, name, stack.pop_all())
        except FileNotFoundError:
            active.unlink(missing_ok=True)
            return None

    def sweep(self) -> int:
        """Delete batches that ended long ago; how many."""
        swept = 0
        for path in self._root.glob("tenants/*/batches/batch_*"):
            batch = _read(path)
            if batch is not None and batch.ended and batch.created_at + self._keep_seconds <= self._wall():
                shutil.rmtree(path, ignore_errors=True)
                swept += 1
        return swept


def _read(folder: Path) -> Batch | None:
    """As it is told: with the wish to cancel it. None where it is not there or damaged."""
    try:
        batch = Batch.model_validate_json((folder / _RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
    wished = None if batch.ended else _cancelled_at(folder)
    return batch if wished is None else batch.with_(status="cancelling", cancelling_at=wished)


def _cancelled_at(folder: Path) -> int | None:
    try:
        return int((folder / _CANCEL).read_text())
    except FileNotFoundError:
        return None
