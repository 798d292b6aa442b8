"""A multipart upload, bounded while it comes."""

from __future__ import annotations

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from serving.api.body import ClientGone, drain
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
    """Raises ``BodyTooLarge``, ``InvalidRequest``, ``ClientGone``, or ``OSError`` where there is no room for it."""
    body = _Bounded(request.receive, max_bytes + _FORM_BYTES, max_bytes)
    try:
        form = await Request(request.scope, body).form(max_files=1, max_fields=_MOST_FIELDS)
    except ClientDisconnect:
        raise ClientGone from None
    except OSError:
        await body.drain()
        raise
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


class _Bounded:
    """A body as it comes, up to so many bytes."""

    def __init__(self, receive: Receive, most: int, told: int) -> None:
        """``told``: the limit that a refusal names."""
        self._receive = receive
        self._most = most
        self._told = told
        self._size = 0
        self._more = True

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self._more = message.get("more_body", False)
        if self._size > self._most:
            await self.drain()
            raise _too_large(self._told)
        return message

    async def drain(self) -> None:
        """Drop what is still to come: who still sends could not read a refusal."""
        if self._more:
            await drain(self._receive)
            self._more = False


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The file is larger than {max_bytes} bytes.", param="file")
