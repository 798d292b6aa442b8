"""The in-process exact tier: a few thousand answers, for about a minute."""

from __future__ import annotations

from collections import OrderedDict

from cache.entry import CachedAnswer


class LocalTier:
    """Bounded in entries and in bytes, least recently used first out, short absolute time to live."""

    def __init__(self, *, entries: int, size_bytes: int, ttl_seconds: float) -> None:
        self._entries = entries
        self._size_bytes = size_bytes
        self._ttl_seconds = ttl_seconds
        self._kept: OrderedDict[str, tuple[CachedAnswer, float]] = OrderedDict()
        self.bytes_used = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, exact: str, now_seconds: float) -> CachedAnswer | None:
        kept = self._kept.get(exact)
        if kept is None:
            return None
        answer, until_seconds = kept
        if now_seconds >= until_seconds:
            self.drop(exact)
            return None
        self._kept.move_to_end(exact)
        return answer

    def put(self, answer: CachedAnswer, now_seconds: float) -> None:
        self.drop(answer.address.exact)
        if self._entries == 0 or answer.size_bytes > self._size_bytes:
            return
        until_seconds = min(now_seconds + self._ttl_seconds, answer.expires_seconds)
        self._kept[answer.address.exact] = (answer, until_seconds)
        self.bytes_used += answer.size_bytes
        while len(self._kept) > self._entries or self.bytes_used > self._size_bytes:
            self.drop(next(iter(self._kept)))

    def drop(self, exact: str) -> None:
        kept = self._kept.pop(exact, None)
        if kept is not None:
            self.bytes_used -= kept[0].size_bytes

    def clear(self) -> None:
        self._kept.clear()
        self.bytes_used = 0
