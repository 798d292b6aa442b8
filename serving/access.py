"""Who asks: a bearer key to a tenant, and what that tenant may do."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from serving.errors import Forbidden, Unauthenticated
from serving.tenancy.keys import StoredKey, digest_of
from serving.tenancy.tenant import TenantSettings

ANONYMOUS = "default"
"""The tenant of everybody where no keys are configured (loopback only)."""

TENANT_INSIDE = "wattgate.tenant"
"""Key of an ASGI scope: who a request of the gateway's own making is from. Clients have no hand in a scope's keys."""


@dataclass(frozen=True, slots=True)
class _Known:
    tenant: str
    digest: bytes
    expires: datetime | None


class KeyRing:
    """Keys are held as digests only. A key is found by a digest blinded with a secret of this process, then
    compared in constant time: how long either takes tells nothing about the keys there are.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        *,
        stored: Iterable[StoredKey] = (),
        closed: bool = False,
        admin_key: str | None = None,
        tenants: Mapping[str, TenantSettings] | None = None,
        default: TenantSettings | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``closed``: keys are required although there are none yet (a key file is configured)."""
        self._blind = secrets.token_bytes(32)
        self._closed = closed or admin_key is not None
        self._admin = None if admin_key is None else digest_of(admin_key)
        self._configured = tuple(_Known(tenant, digest_of(key), None) for tenant, key in keys.items())
        self._tenants = dict(tenants or {})
        self._default = default or TenantSettings()
        self._now = now
        self._digests: dict[bytes, _Known] = {}
        self.load(stored)

    def load(self, stored: Iterable[StoredKey]) -> None:
        """Take over the key file's present content; the configured keys stay."""
        known = list(self._configured)
        self._named = {key.tenant for key in known} | set(self._tenants)
        for key in stored:
            self._named.add(key.tenant)
            if key.revoked is None:
                expires = None if key.expires is None else datetime.fromisoformat(key.expires)
                known.append(_Known(key.tenant, bytes.fromhex(key.digest), expires))
        self._digests = {self._blinded(entry.digest): entry for entry in known}

    def grant(self, tenants: Mapping[str, TenantSettings], default: TenantSettings) -> None:
        """Replace what the tenants may do, live."""
        self._tenants, self._default = dict(tenants), default
        self._named |= set(tenants)

    @property
    def open(self) -> bool:
        return not self._closed and not self._configured

    def names(self, tenant: str) -> bool:
        """Whether a key or a setting names this tenant, be it a revoked key; True where nothing names any."""
        return not self._named or self.open or tenant in self._named

    def tenant(self, authorization: str | None) -> str:
        """Raises ``Unauthenticated`` for a missing, unknown, expired or revoked key, ``Forbidden`` for the admin's."""
        if self.open:
            return ANONYMOUS
        digest = self._sent(authorization)
        found = self._digests.get(self._blinded(digest))
        if found is not None and hmac.compare_digest(digest, found.digest):
            if found.expires is None or found.expires > self._now():
                return found.tenant
        elif self._admin is not None and hmac.compare_digest(digest, self._admin):
            raise Forbidden("The admin key asks for no answers: use a tenant's key.", code="admin_key")
        raise Unauthenticated("The API key is not known here.")

    def is_admin(self, authorization: str | None) -> bool:
        """Never raises; always False where no admin key is configured."""
        try:
            return self._admin is not None and hmac.compare_digest(self._sent(authorization), self._admin)
        except Unauthenticated:
            return False

    def reader(self, authorization: str | None) -> str | None:
        """Whose receipts this key opens: a tenant's; everybody's (None) for the admin, and where there are no keys."""
        return None if self.open or self.is_admin(authorization) else self.tenant(authorization)

    def see_figures(self, authorization: str | None) -> None:
        """Raises where this key may not see the node's figures, which are every tenant's: the admin's may; where there
        is no admin, the key of the only tenant.
        """
        if self.open or self.is_admin(authorization):
            return
        self.tenant(authorization)
        if self._admin is not None:
            raise Forbidden("This page needs the admin key.", code="admin_only")
        if len({known.tenant for known in self._digests.values()}) > 1:
            raise Forbidden(
                "This page shows the figures of every tenant: it needs the admin key, and none is configured here "
                "(access.admin_key).",
                code="admin_only",
            )

    def operate(self, authorization: str | None) -> None:
        """Raises where this key may not change the gateway: the admin's may, and anybody where there are no keys."""
        if self.open or self.is_admin(authorization):
            return
        self.tenant(authorization)
        none = "" if self._admin is not None else ", and none is configured here (access.admin_key)"
        raise Forbidden(f"Changing the gateway needs the admin key{none}.", code="admin_only")

    def settings(self, tenant: str) -> TenantSettings:
        return self._tenants.get(tenant, self._default)

    def check_model(self, tenant: str, model: str) -> None:
        """Raises ``Forbidden`` for a model that is not the tenant's, whether or not it exists."""
        if not self.settings(tenant).may_use(model):
            raise Forbidden(
                "This API key may not use the model that was asked for.", param="model", code="model_forbidden"
            )

    @staticmethod
    def _sent(authorization: str | None) -> bytes:
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthenticated("No API key was sent: expected an 'Authorization: Bearer ...' header.")
        if not key.isascii():
            # what bytes a client makes of other letters is its own choice: such a key could not be known again
            raise Unauthenticated("The API key has letters outside ASCII in it; no key here has.")
        return digest_of(key.strip())

    def _blinded(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._blind, digest_size=32).digest()
