"""Control of the response cache over HTTP: look, remove, vote. A tenant reaches its own entries, an operator all."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cache.entry import CachedAnswer
from cache.lookup import Invalidated
from cache.store import StoreUnavailable
from cache.tiers import ResponseCache
from serving.access import KeyRing
from serving.api.pages import json_response
from serving.errors import EngineUnavailable, Forbidden, InvalidRequest, NotFound
from serving.gateway import Gateway
from serving.operations.events import EventLog

_LONGEST_FEEDBACK_BYTES = 4096


class CachePages:
    """``/v1/cache``: each method raises a ``GatewayError`` for what cannot be done."""

    def __init__(self, gateway: Gateway, keys: KeyRing, events: EventLog | None = None) -> None:
        self._gateway = gateway
        self._keys = keys
        self._events = events

    def routes(self) -> list[Route]:
        return [
            Route("/v1/cache", self.stats, methods=["GET"]),
            Route("/v1/cache", self.clear, methods=["DELETE"]),
            Route("/v1/cache/{cache_id}", self.inspect, methods=["GET"]),
            Route("/v1/cache/{cache_id}", self.remove, methods=["DELETE"]),
            Route("/v1/cache/{cache_id}/feedback", self.feedback, methods=["POST"]),
        ]

    def _who(self, request: Request) -> str | None:
        """The tenant, or None for an operator: the admin key, or anybody where no keys are configured."""
        authorization = request.headers.get("authorization")
        if self._keys.open or self._keys.is_admin(authorization):
            return None
        return self._keys.tenant(authorization)

    def _cache(self) -> ResponseCache:
        if self._gateway.cache is None:
            raise NotFound("This gateway has no cache: cache.tier is off.", code="cache_off")
        return self._gateway.cache

    async def stats(self, request: Request) -> Response:
        _operator_only(self._who(request))
        return json_response(await self._cache().stats())

    async def inspect(self, request: Request) -> Response:
        tenant, cache = self._who(request), self._cache()
        try:
            answer = await cache.upkeep.inspect(request.path_params["cache_id"])
        except ValueError as error:
            raise InvalidRequest(str(error), param="id") from None
        except StoreUnavailable as unavailable:
            raise _away(unavailable.loss.value) from None
        if answer is None or (tenant is not None and not cache.upkeep.owns(tenant, answer)):
            raise _absent()
        return json_response(described(answer))

    async def remove(self, request: Request) -> Response:
        tenant = self._who(request)
        try:
            result = await self._cache().upkeep.invalidate(cache_id=request.path_params["cache_id"], owner=tenant)
        except ValueError as error:
            raise InvalidRequest(str(error), param="id") from None
        return _done(result)

    async def clear(self, request: Request) -> Response:
        """``?tenant=``: a tenant its own, an operator any. ``?model=`` and ``?all=true``: an operator only."""
        asker, query = self._who(request), request.query_params
        tenant, model, everything = query.get("tenant"), query.get("model"), query.get("all") == "true"
        if sum((tenant is not None, model is not None, everything)) != 1:
            raise InvalidRequest("Name exactly one of ?tenant=, ?model= and ?all=true.", param="tenant")
        if asker is not None and tenant != asker:
            raise Forbidden("This key may clear its own tenant's answers only.", code="not_yours")
        cache = self._cache()
        self._check_names(tenant, model)
        result = await cache.upkeep.invalidate(tenant=tenant, model=model, everything=everything)
        if result.done and self._events is not None:
            cleared = "everything" if everything else f"model {model}" if model is not None else f"tenant {tenant}"
            who = "an operator" if asker is None else f"tenant {asker}"
            await asyncio.to_thread(self._events.record, "cache_epoch", f"cache cleared: {cleared}, by {who}", model)
        return _done(result)

    def _check_names(self, tenant: str | None, model: str | None) -> None:
        """A slip in a name would be answered as done, and everything would still be served."""
        if tenant is not None and not self._keys.names(tenant):
            raise NotFound(f"No key here is of tenant {tenant!r}.", param="tenant", code="tenant_not_found")
        served = sorted(each.name for each in self._gateway.engine.models())
        # an engine that is away serves none, and what it served may be cleared
        if model is not None and served and model not in served:
            raise NotFound(
                f"Model {model!r} is not served here; served: {', '.join(served)}.",
                param="model",
                code="model_not_found",
            )

    async def feedback(self, request: Request) -> Response:
        tenant = self._keys.tenant(request.headers.get("authorization"))
        raw = bytearray()
        async for part in request.stream():
            raw += part
            if len(raw) > _LONGEST_FEEDBACK_BYTES:
                break
        try:
            good = orjson.loads(bytes(raw))["good"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            good = None
        if not isinstance(good, bool):
            raise InvalidRequest('The body must be {"good": true} or {"good": false}.', param="good")
        try:
            result = await self._cache().upkeep.feedback(request.path_params["cache_id"], tenant=tenant, good=good)
        except ValueError as error:
            raise InvalidRequest(str(error), param="id") from None
        return _done(result)


def described(answer: CachedAnswer) -> dict[str, Any]:
    """What an entry is, for whoever may see it; the tenant stays a hash."""
    return {
        "id": answer.cache_id,
        "model": answer.model,
        "variant": answer.variant,
        "tenant_hash": answer.tenant,
        "created_seconds": answer.created_seconds,
        "expires_seconds": answer.expires_seconds,
        "age_seconds": max(0.0, time.time() - answer.created_seconds),
        "size_bytes": len(answer.body_bytes),
        "text": answer.text,
        "body": answer.body(),
        "receipt": answer.receipt,
    }


def _operator_only(tenant: str | None) -> None:
    if tenant is not None:
        raise Forbidden("This page needs the admin key.", code="admin_only")


def _done(result: Invalidated) -> Response:
    if result.done:
        return json_response({"done": True})
    # whether another tenant has such an entry is nobody's business
    raise _absent() if result.why in ("absent", "not_yours") else _away(result.why)


def _absent() -> NotFound:
    return NotFound(
        "There is no such entry in the cache, or it is not yours.", param="id", code="cache_entry_not_found"
    )


def _away(loss: str) -> EngineUnavailable:
    return EngineUnavailable(f"The cache's store cannot do it now ({loss}); try again.", code="cache_unavailable")
