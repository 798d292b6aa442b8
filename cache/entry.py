"""A stored answer, and its bytes in a store: authenticated, so that nobody without the secret can plant one."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any

import orjson

from cache.identity import Address

_VERSION = 1
_TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """One answer of one question of one tenant. Immutable; ``body()`` gives each caller a dict of its own."""

    address: Address
    tenant: str
    """Keyed hash."""
    model: str
    variant: str
    """The variant, with revision, that answered."""
    created_seconds: float
    """Unix time."""
    expires_seconds: float
    """Unix time; absolute, reading does not move it."""
    body_bytes: bytes
    """The unary OpenAI body, JSON."""
    text: str = ""
    """Last user text, NFC; empty for entries of the exact tier only."""
    receipt: dict[str, Any] | None = None
    """The receipt of the run that made it."""

    @property
    def cache_id(self) -> str:
        return self.address.cache_id

    @property
    def size_bytes(self) -> int:
        return len(self.body_bytes) + 4 * len(self.text) + 1024

    def body(self) -> dict[str, Any]:
        """Parsed anew on each call: callers may change it."""
        body: dict[str, Any] = orjson.loads(self.body_bytes)
        return body

    def usage(self) -> dict[str, Any]:
        """The ``usage`` object of the original run; empty where it had none."""
        usage = self.body().get("usage")
        return usage if isinstance(usage, dict) else {}

    def fresh(self, now_seconds: float, max_age_seconds: int | None = None) -> bool:
        if now_seconds >= self.expires_seconds:
            return False
        return max_age_seconds is None or now_seconds - self.created_seconds <= max_age_seconds


@dataclass(frozen=True, slots=True)
class EntryCodec:
    """tag (16 bytes) | metadata, JSON | newline | body. The tag is HMAC-SHA256 over the rest."""

    secret: bytes = field(repr=False)

    def encode(self, answer: CachedAnswer) -> bytes:
        metadata = {
            "v": _VERSION,
            "p": answer.address.partition,
            "x": answer.address.exact,
            "tenant": answer.tenant,
            "model": answer.model,
            "variant": answer.variant,
            "created": answer.created_seconds,
            "expires": answer.expires_seconds,
            "text": answer.text,
            "receipt": answer.receipt,
        }
        content = orjson.dumps(metadata) + b"\n" + answer.body_bytes
        return self._tag(content) + content

    def decode(self, value: bytes, address: Address) -> CachedAnswer | None:
        """None where the bytes are not an entry written with this secret for this very address."""
        tag, content = value[:_TAG_BYTES], value[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(content)):
            return None
        head, _, body = content.partition(b"\n")
        metadata = orjson.loads(head)
        if metadata["v"] != _VERSION or (metadata["p"], metadata["x"]) != (address.partition, address.exact):
            return None
        return CachedAnswer(
            address=address,
            tenant=metadata["tenant"],
            model=metadata["model"],
            variant=metadata["variant"],
            created_seconds=metadata["created"],
            expires_seconds=metadata["expires"],
            body_bytes=body,
            text=metadata["text"],
            receipt=metadata["receipt"],
        )

    def _tag(self, content: bytes) -> bytes:
        return hmac.digest(self.secret, b"entry\0" + content, "sha256")[:_TAG_BYTES]


def secret_for(purpose: str, secret: bytes) -> bytes:
    """A key of its own for each use of the one configured secret."""
    return hmac.new(secret, purpose.encode(), hashlib.sha256).digest()
