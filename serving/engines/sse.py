"""Server-sent events out of bytes that come cut anywhere."""

from __future__ import annotations

DONE = b"data: [DONE]\n\n"
_DATA = b"data: "
_LONGEST_BYTES = 16 * 1024 * 1024
"""An event that has not ended by then is no token stream; nobody should have to hold it."""


class EventTooLong(Exception):
    """An event did not end within the longest size."""


class SseSplitter:
    """Splits a stream into frames, each ``data: ...\\n\\n``.

    A well-formed event passes as the bytes it came in. Comments (keep-alives), other fields and events
    without data are left out; CR and CRLF line ends, ``data:`` without a space and data over several
    lines (lines of one JSON text) become the plain form.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._after_cr = False
        self._first = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Frames completed by this chunk.

        Raises:
            EventTooLong: the event under way is above 16 MiB.
        """
        if self._first and (self._rest or chunk):
            chunk = bytes(self._rest) + chunk
            self._rest.clear()
            if len(chunk) < 3 and b"\xef\xbb\xbf".startswith(chunk):
                self._rest += chunk
                return []
            chunk = chunk.removeprefix(b"\xef\xbb\xbf")
            self._first = False
        if self._after_cr or b"\r" in chunk:
            chunk = self._plain_line_ends(chunk)
        searched = max(0, len(self._rest) - 1)
        self._rest += chunk
        frames: list[bytes] = []
        begin = 0
        while (end := self._rest.find(b"\n\n", searched)) >= 0:
            frame = _frame(bytes(self._rest[begin : end + 2]))
            if frame is not None:
                frames.append(frame)
            begin = searched = end + 2
        del self._rest[:begin]
        if len(self._rest) > _LONGEST_BYTES:
            raise EventTooLong
        return frames

    def end(self) -> list[bytes]:
        """What the end of the stream completes: a ``[DONE]`` without its blank line. Half an event is dropped."""
        frame = _frame(bytes(self._rest).rstrip(b"\n") + b"\n\n")
        self._rest.clear()
        return [DONE] if frame == DONE else []

    def _plain_line_ends(self, chunk: bytes) -> bytes:
        # the LF of a CRLF that was cut in two has been given already
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _frame(event: bytes) -> bytes | None:
    if event.startswith(_DATA) and event.find(b"\n") == len(event) - 2:
        return event
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    # a line end within one JSON text is white space, and a frame is one line
    data = b" ".join(lines)
    return _DATA + data + b"\n\n" if data.strip() else None
