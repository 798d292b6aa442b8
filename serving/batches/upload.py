"""A multipart upload, bounded while it comes."""

from __future__ import annotations

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from serving.api.body import DRAINED_BYTES, ClientGone
from serving.errors import BodyTooLarge, InvalidRequest

_FORM_BYTES = 64 * 1024
"""Room for the form around the file: its boundaries and small fields."""
_MOST_FIELDS = 16
_LONGEST_NAME = 256


class Upload:
    """A file and its purpose, as they were sent; close it."""

    def __init__(self, file: UploadFile, purpose: str) -> None:
        self._file = file
        self.content = file.file
        self.purpose = purpose
        # the name is for people: no folders, no control characters
        name = (file.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
        self.filename = "".join(letter for letter in name if letter.isprintable())[:_LONGEST_NAME] or "upload"

    async def close(self) -> None:
        await self._file.close()


async def read_upload(request: Request, max_bytes: int) -> Upload:
    """Raises ``BodyTooLarge``, ``InvalidRequest``, or ``ClientGone``."""
    bounded = Request(request.scope, _bounded(request.receive, max_bytes + _FORM_BYTES, max_bytes))
    try:
        form = await bounded.form(max_files=1, max_fields=_MOST_FIELDS)
    except ClientDisconnect:
        raise ClientGone from None
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile):
        await form.close()
        raise InvalidRequest(
            "Missing required parameter: 'file', as multipart/form-data.",
            param="file",
            code="missing_required_parameter",
        )
    if file.size is not None and file.size > max_bytes:
        await form.close()
        raise _too_large(max_bytes)
    return Upload(file, purpose if isinstance(purpose, str) else "")


async def drain(request: Request) -> None:
    """Read what a refused sender still sends, as far as that is bearable: it could not read the refusal else."""
    size = 0
    while size <= DRAINED_BYTES:
        message = await request.receive()
        size += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def _bounded(receive: Receive, most: int, told: int) -> Receive:
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size <= most:
            return message
        while message.get("more_body", False) and size <= DRAINED_BYTES:
            message = await receive()
            size += len(message.get("body", b""))
        raise _too_large(told)

    return bounded


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The file is larger than {max_bytes} bytes.", param="file")
