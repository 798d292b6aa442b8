"""Labels that all replicas share: a Redis stream that each appends to and reads to its end.

A replica does not count its own label when it writes it but when it reads it back, so that all have seen the same
labels in the same order, and hold the same threshold.
"""

from __future__ import annotations

from cache.evidence import KEPT, KINDS, VerifiedLabel
from cache.observer import CacheObserver, SilentObserver
from cache.redis_link import Command, RedisLink, ok
from cache.store import Budget

_PAGE = 1000
_BUDGET_SECONDS = 5.0
"""Nobody waits for it: it is off every request's path."""


class SharedLabels:
    """One reader and writer of the stream. ``version``: of judge and embedder, whose scores cannot be mixed."""

    def __init__(
        self, url: str, *, version: str, prefix: str = "wattgate", observer: CacheObserver | None = None
    ) -> None:
        self._link = RedisLink(url, observer=observer or SilentObserver(), lanes=1)
        self._key = f"{_keys(prefix)}{version}"
        self._last = b"-"

    async def exchange(self, label: VerifiedLabel | None = None) -> list[VerifiedLabel]:
        """Append ``label``; everything that has come since the last time, it included, oldest first.

        Raises StoreUnavailable; what had been read by then comes with the next call.
        """
        commands: list[Command] = []
        if label is not None:
            fields = (label.kind, f"{label.score:.5f}", int(label.agreed))
            commands.append(
                ("XADD", self._key, "MAXLEN", "~", KEPT, "*", "k", fields[0], "s", fields[1], "a", fields[2])
            )
        out: list[VerifiedLabel] = []
        last = self._last
        while True:
            start: bytes = last if last == b"-" else b"(" + last
            commands.append(("XRANGE", self._key, start, "+", "COUNT", _PAGE))
            replies = [ok(reply) for reply in await self._link.execute(commands, Budget(_BUDGET_SECONDS))]
            page = replies[-1]
            out += [read for _, fields in page if (read := _parse(fields)) is not None]
            if page:
                last = bytes(page[-1][0])
            if len(page) < _PAGE:
                self._last = last
                return out
            commands = []

    async def close(self) -> None:
        await self._link.close()


async def versions(url: str, *, prefix: str = "wattgate") -> list[str]:
    """Of the judges and embedders that labels are held of. Raises StoreUnavailable."""
    link = RedisLink(url, observer=SilentObserver(), lanes=1)
    found: set[str] = set()
    cursor: bytes | int = 0
    try:
        while True:
            scan: Command = ("SCAN", cursor, "MATCH", f"{_keys(prefix)}*", "COUNT", _PAGE)
            (reply,) = await link.execute([scan], Budget(_BUDGET_SECONDS))
            cursor, keys = ok(reply)
            found.update(key.decode().removeprefix(_keys(prefix)) for key in keys)
            if int(cursor) == 0:
                return sorted(found)
    finally:
        await link.close()


def _keys(prefix: str) -> str:
    return f"{prefix}:labels:"


def _parse(fields: object) -> VerifiedLabel | None:
    """None for what this version did not write."""
    if isinstance(fields, list | tuple):
        fields = dict(zip(fields[::2], fields[1::2], strict=False))
    if not isinstance(fields, dict):
        return None
    values = fields
    kind = next((name for name in KINDS if name.encode() == values.get(b"k")), None)
    try:
        score, agreed = float(values[b"s"]), int(values[b"a"])
    except (KeyError, ValueError):
        return None
    return VerifiedLabel(kind, score, bool(agreed)) if kind is not None and 0.0 <= score <= 1.0 else None
