"""``/v1/files`` and ``/v1/batches``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from serving.access import KeyRing
from serving.api.body import ClientGone, arriving_within, drain, read_body
from serving.batches.files import FileStore, StoredFile, page
from serving.batches.input import ENDPOINTS
from serving.batches.record import Batch
from serving.batches.settings import BatchSettings
from serving.batches.store import BatchStore
from serving.batches.upload import Upload, read_upload
from serving.errors import Conflict, EngineUnavailable, GatewayError, InvalidRequest, NotFound

T = TypeVar("T")

_WINDOW = re.compile(r"([1-9]\d{0,5})([mhd])")
_UNIT_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_WINDOW_SECONDS = 30 * 86400.0
_MOST_BODY_BYTES = 64 * 1024
_LONGEST_PAGE = {"files": 10_000, "batches": 100}
"""As OpenAI's."""

Metadata = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]]


class BatchBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: Annotated[Metadata, Field(max_length=16)] | None = None


class BatchPages:
    """``wake`` tells the runner of a new batch."""

    def __init__(
        self,
        store: BatchStore,
        keys: KeyRing,
        settings: BatchSettings,
        wake: Callable[[], None] = lambda: None,
        *,
        request_timeout_seconds: float,
    ) -> None:
        self._store = store
        self._files: FileStore = store.files
        self._keys = keys
        self._settings = settings
        self._wake = wake
        self._request_timeout_seconds = request_timeout_seconds

    def routes(self) -> list[Route]:
        return [
            Route("/v1/files", self.upload, methods=["POST"]),
            Route("/v1/files", self.files, methods=["GET"]),
            Route("/v1/files/{file_id}", self.file, methods=["GET"]),
            Route("/v1/files/{file_id}", self.delete, methods=["DELETE"]),
            Route("/v1/files/{file_id}/content", self.content, methods=["GET"]),
            Route("/v1/batches", self.create, methods=["POST"]),
            Route("/v1/batches", self.batches, methods=["GET"]),
            Route("/v1/batches/{batch_id}", self.batch, methods=["GET"]),
            Route("/v1/batches/{batch_id}/cancel", self.cancel, methods=["POST"]),
        ]

    def _tenant(self, request: Request) -> str:
        return self._keys.tenant(request.headers.get("authorization"))

    async def upload(self, request: Request) -> Response:
        try:
            async with arriving_within(self._request_timeout_seconds):
                tenant, upload = await self._received(request)
        except ClientGone:
            return Response(status_code=499)
        try:
            if upload.purpose != "batch":
                raise InvalidRequest("'purpose' must be 'batch'.", param="purpose", code="invalid_value")
            added = await _on_disk(lambda: self._files.add(tenant, upload.filename, upload.content))
        finally:
            await upload.close()
        return _json(added.as_dict())

    async def _received(self, request: Request) -> tuple[str, Upload]:
        """A file and whose it is."""
        try:
            tenant = self._tenant(request)
        except GatewayError:
            await drain(request.receive)
            raise
        try:
            return tenant, await read_upload(request, self._settings.max_file_bytes)
        except OSError:
            raise _store_is_away() from None

    async def files(self, request: Request) -> Response:
        tenant = self._tenant(request)
        found = await _on_disk(lambda: self._files.all_of(tenant))
        purpose, order = request.query_params.get("purpose"), request.query_params.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidRequest("order must be asc or desc.", param="order", code="invalid_value")
        if order == "asc":
            found.reverse()
        return _list([file for file in found if purpose in (None, file.purpose)], request, "files")

    async def file(self, request: Request) -> Response:
        return _json((await self._found(request)).as_dict())

    async def content(self, request: Request) -> Response:
        file = await self._found(request)
        path = self._files.path(self._tenant(request), file.id)
        return FileResponse(path, media_type="application/octet-stream")

    async def delete(self, request: Request) -> Response:
        file = await self._found(request)
        await _on_disk(lambda: self._files.delete(self._tenant(request), file.id))
        return _json({"id": file.id, "object": "file", "deleted": True})

    async def create(self, request: Request) -> Response:
        try:
            async with arriving_within(self._request_timeout_seconds):
                raw = await read_body(request.receive, _MOST_BODY_BYTES)
        except ClientGone:
            return Response(status_code=499)
        tenant = self._tenant(request)
        asked = _parsed(raw)
        if asked.endpoint not in ENDPOINTS:
            raise InvalidRequest(
                f"'endpoint' must be one of {', '.join(ENDPOINTS)}.", param="endpoint", code="invalid_value"
            )
        batch = await _on_disk(
            lambda: self._store.create(
                tenant,
                input_file_id=asked.input_file_id,
                endpoint=asked.endpoint,
                completion_window=asked.completion_window,
                window_seconds=_window_seconds(asked.completion_window),
                metadata=asked.metadata,
            )
        )
        if batch is None:
            raise NotFound(f"You have no file '{asked.input_file_id}'.", param="input_file_id", code="file_not_found")
        self._wake()
        return _json(batch.as_dict())

    async def batches(self, request: Request) -> Response:
        tenant = self._tenant(request)
        return _list(await _on_disk(lambda: self._store.all_of(tenant)), request, "batches")

    async def batch(self, request: Request) -> Response:
        tenant, batch_id = self._tenant(request), request.path_params["batch_id"]
        return _json(_there(await _on_disk(lambda: self._store.get(tenant, batch_id)), batch_id).as_dict())

    async def cancel(self, request: Request) -> Response:
        tenant, batch_id = self._tenant(request), request.path_params["batch_id"]
        batch = _there(await _on_disk(lambda: self._store.get(tenant, batch_id)), batch_id)
        if not batch.ended:
            batch = _there(await _on_disk(lambda: self._store.cancel(tenant, batch_id)), batch_id)
        elif batch.status != "cancelled":
            raise Conflict(f"The batch cannot be cancelled: it is {batch.status}.", code="batch_ended")
        self._wake()
        return _json(batch.as_dict())

    async def _found(self, request: Request) -> StoredFile:
        tenant, file_id = self._tenant(request), request.path_params["file_id"]
        file = await _on_disk(lambda: self._files.get(tenant, file_id))
        if file is None:
            raise NotFound(f"You have no file '{file_id}'.", param="file_id", code="file_not_found")
        return file


def _there(batch: Batch | None, batch_id: str) -> Batch:
    if batch is None:
        raise NotFound(f"You have no batch '{batch_id}'.", param="batch_id", code="batch_not_found")
    return batch


def _parsed(raw: bytes) -> BatchBody:
    try:
        return BatchBody.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = str(first["loc"][0]) if first["loc"] else None
        if first["type"] == "missing":
            raise InvalidRequest(
                f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
            ) from None
        code = "invalid_value" if param else "invalid_json"
        raise InvalidRequest(f"Invalid '{param or 'body'}': {first['msg']}.", param=param, code=code) from None


def _window_seconds(text: str) -> float:
    found = _WINDOW.fullmatch(text)
    seconds = float(found[1]) * _UNIT_SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= _LONGEST_WINDOW_SECONDS:
        raise InvalidRequest(
            "'completion_window' must be a time up to 30d, as 24h, 90m or 2d.",
            param="completion_window",
            code="invalid_value",
        )
    return seconds


async def _on_disk(action: Callable[[], T]) -> T:
    """Raises ``EngineUnavailable`` where the folder cannot be used."""
    try:
        return await asyncio.to_thread(action)
    except OSError:
        raise _store_is_away() from None


def _store_is_away() -> EngineUnavailable:
    return EngineUnavailable("The gateway's store of files cannot be used now.", code="file_store_unavailable")


def _list(found: list[Any], request: Request, kind: str) -> Response:
    raw, most = request.query_params.get("limit"), _LONGEST_PAGE[kind]
    limit = min(20, most) if kind == "batches" else most
    if raw is not None:
        if not (raw.isascii() and raw.isdigit() and 1 <= int(raw) <= most):
            raise InvalidRequest(f"limit must be a whole number from 1 to {most}.", param="limit", code="invalid_value")
        limit = int(raw)
    shown, more = page(found, request.query_params.get("after"), limit)
    return _json(
        {
            "object": "list",
            "data": [one.as_dict() for one in shown],
            "first_id": shown[0].id if shown else None,
            "last_id": shown[-1].id if shown else None,
            "has_more": more,
        }
    )


def _json(payload: Any) -> Response:
    return Response(orjson.dumps(payload), media_type="application/json")
