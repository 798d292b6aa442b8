"""Who asks: a bearer key to a tenant."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from serving.errors import Unauthenticated

ANONYMOUS = "default"
"""The tenant of everybody where no keys are configured (loopback only)."""


class KeyRing:
    """Keys are held as digests only; comparison takes the same time for every key."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._digests = {tenant: _digest(key) for tenant, key in keys.items()}

    @property
    def open(self) -> bool:
        return not self._digests

    def tenant(self, authorization: str | None) -> str:
        """Raises ``Unauthenticated`` for a missing or unknown key."""
        if self.open:
            return ANONYMOUS
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated("No API key was sent: expected an 'Authorization: Bearer ...' header.")
        digest = _digest(key.strip())
        found = None
        for tenant, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = tenant
        if found is None:
            raise Unauthenticated("The API key is not known here.")
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
