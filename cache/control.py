"""What a client may ask of the cache, and what the cache tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    HIT_EXACT = "HIT-EXACT"
    HIT_SEMANTIC = "HIT-SEMANTIC"
    MISS = "MISS"
    BYPASS = "BYPASS"

    @property
    def hit(self) -> bool:
        return self in (Outcome.HIT_EXACT, Outcome.HIT_SEMANTIC)


@dataclass(frozen=True, slots=True)
class CacheControl:
    """Request directives of RFC 9111, section 5.2.1, that this cache honours. Unknown ones are ignored, as it asks."""

    no_cache: bool = False
    """Do not serve a stored answer; the fresh one may be stored."""
    no_store: bool = False
    """Neither look up nor store."""
    only_if_cached: bool = False
    """A miss is an error (504), never a run."""
    max_age_seconds: int | None = None
    """Serve nothing older."""

    @classmethod
    def parse(cls, header: str | None) -> CacheControl:
        """Never raises: a max-age that cannot be read is taken as 0, the strict reading."""
        if not header:
            return cls()
        names = {}
        for directive in header.split(","):
            name, _, value = directive.partition("=")
            names[name.strip().lower()] = value.strip().strip('"')
        max_age = None
        if "max-age" in names:
            value = names["max-age"]
            max_age = min(int(value), 2**31) if re.fullmatch(r"[0-9]{1,18}", value) else 0
        return cls(
            no_cache="no-cache" in names,
            no_store="no-store" in names,
            only_if_cached="only-if-cached" in names,
            max_age_seconds=max_age,
        )


def response_headers(
    outcome: Outcome,
    *,
    age_seconds: float | None = None,
    cache_id: str | None = None,
    similarity: float | None = None,
    authorised: bool = False,
) -> dict[str, str]:
    """Headers of an answer. The similarity is a side channel on what others asked: only for authorised callers."""
    headers = {"x-cache": outcome.value}
    if outcome.hit:
        headers["age"] = str(int(max(0.0, age_seconds or 0.0)))
    if cache_id is not None and outcome is not Outcome.BYPASS:
        headers["x-cache-id"] = cache_id
    if authorised and similarity is not None and outcome is Outcome.HIT_SEMANTIC:
        headers["x-cache-similarity"] = f"{similarity:.4f}"
    return headers
