"""A tenant's files on disk: uploaded inputs and the results of batches."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from serving.batches.disk import is_id, locked, new_id, private_folder, tenant_folder, write_whole
from serving.errors import BodyTooLarge

SECONDS_PER_DAY = 86_400.0
_DRAFT_SECONDS = SECONDS_PER_DAY
"""An upload that has not become a file by then never will."""


class StoredFile(BaseModel):
    """What is known of a file beside its bytes."""

    model_config = ConfigDict(frozen=True)

    id: str
    filename: str
    purpose: Literal["batch", "batch_output"]
    bytes: int
    created_at: int
    """Seconds since the epoch; so is the next."""
    expires_at: int

    def as_dict(self) -> dict[str, Any]:
        """OpenAI's file object."""
        return {**self.model_dump(), "object": "file", "status": "processed"}


class FileStore:
    """Every method blocks on the disk: call them off the event loop."""

    def __init__(
        self, root: Path, *, max_tenant_bytes: int, keep_days: float, wall: Callable[[], float] = time.time
    ) -> None:
        self._root = root
        self._max_tenant_bytes = max_tenant_bytes
        self._keep_seconds = keep_days * SECONDS_PER_DAY
        self._wall = wall

    def add(self, tenant: str, filename: str, content: BinaryIO) -> StoredFile:
        """Keep an upload.

        Raises:
            BodyTooLarge: the tenant's files would take more than they may.
        """
        draft = self._draft(content)
        try:
            folder = self._folder(tenant)
            # counted and taken in one step, over all replicas
            with locked(folder.parent / "lock"):
                size = draft.stat().st_size
                taken = self.taken_bytes(tenant)
                if taken + size > self._max_tenant_bytes:
                    raise BodyTooLarge(
                        f"Your files take {taken} bytes, this one {size}; together at most {self._max_tenant_bytes}: "
                        "delete some.",
                        param="file",
                        code="storage_exceeded",
                    )
                return self._publish(folder, new_id("file-", self._wall()), filename, "batch", draft)
        finally:
            draft.unlink(missing_ok=True)

    def publish(self, tenant: str, file_id: str, filename: str, content: Path) -> StoredFile:
        """Make a batch's result a file, under an id drawn before; doing it again changes nothing."""
        found = self.get(tenant, file_id)
        if found is not None:
            return found
        return self._publish(self._folder(tenant), file_id, filename, "batch_output", content)

    def get(self, tenant: str, file_id: str) -> StoredFile | None:
        if not is_id(file_id, "file-"):
            return None
        return _read(tenant_folder(self._root, tenant) / "files" / f"{file_id}.json")

    def all_of(self, tenant: str) -> list[StoredFile]:
        """Newest first."""
        folder = tenant_folder(self._root, tenant) / "files"
        found = [_read(path) for path in sorted(folder.glob("file-*.json"), reverse=True)]
        return [file for file in found if file is not None]

    def path(self, tenant: str, file_id: str) -> Path:
        """Of the content of a file that there is."""
        return tenant_folder(self._root, tenant) / "files" / f"{file_id}.jsonl"

    def delete(self, tenant: str, file_id: str) -> bool:
        """False where there was none. Batches that read it keep their own hold on it."""
        if self.get(tenant, file_id) is None:
            return False
        content = self.path(tenant, file_id)
        content.with_suffix(".json").unlink(missing_ok=True)
        content.unlink(missing_ok=True)
        return True

    def taken_bytes(self, tenant: str) -> int:
        return sum(file.bytes for file in self.all_of(tenant))

    def sweep(self) -> int:
        """Delete what has expired; how many."""
        swept = 0
        now = self._wall()
        for path in self._root.glob("tenants/*/files/file-*.json"):
            file = _read(path)
            if file is not None and file.expires_at <= now:
                path.unlink(missing_ok=True)
                path.with_suffix(".jsonl").unlink(missing_ok=True)
                swept += 1
        for draft in self._root.glob("drafts/*"):
            with contextlib.suppress(OSError):
                if draft.stat().st_mtime < now - _DRAFT_SECONDS:
                    draft.unlink()
        return swept

    def _draft(self, content: BinaryIO) -> Path:
        descriptor, name = tempfile.mkstemp(dir=private_folder(self._root / "drafts"))
        try:
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(content, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            os.unlink(name)
            raise
        return Path(name)

    def _folder(self, tenant: str) -> Path:
        return private_folder(tenant_folder(self._root, tenant) / "files")

    def _publish(
        self, folder: Path, file_id: str, filename: str, purpose: Literal["batch", "batch_output"], content: Path
    ) -> StoredFile:
        now = int(self._wall())
        file = StoredFile(
            id=file_id,
            filename=filename,
            purpose=purpose,
            bytes=content.stat().st_size,
            created_at=now,
            expires_at=now + int(self._keep_seconds),
        )
        name = folder / f"{file_id}.jsonl"
        hold(content, name)
        try:
            # the description last: a file is there when it is
            write_whole(name.with_suffix(".json"), file.model_dump_json().encode())
        except OSError:
            # bytes that no description tells of are never counted and never swept
            name.unlink(missing_ok=True)
            raise
        return file


def hold(content: Path, name: Path) -> None:
    """Another name for the same bytes, which lives on when the first is deleted; a copy where links are not known."""
    name.unlink(missing_ok=True)
    try:
        os.link(content, name)
    except OSError:
        draft = name.with_suffix(".draft")
        try:
            shutil.copyfile(content, draft)
            os.replace(draft, name)
        except OSError:
            # half a copy is no file, and would be swept by nobody
            draft.unlink(missing_ok=True)
            raise


def page(found: Iterable[Any], after: str | None, limit: int) -> tuple[list[Any], bool]:
    """The objects that follow ``after``, at most ``limit``, and whether there are more."""
    rest = list(found)
    if after is not None:
        at = next((index for index, one in enumerate(rest) if one.id == after), None)
        rest = [] if at is None else rest[at + 1 :]
    return rest[:limit], len(rest) > limit


def _read(path: Path) -> StoredFile | None:
    """None where it is not there or damaged."""
    try:
        return StoredFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
