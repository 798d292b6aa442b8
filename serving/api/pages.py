"""The small GET endpoints of the gateway itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.access import KeyRing
from serving.api.body import ClientGone, arriving_within, drain
from serving.api.responses import NOT_KEPT
from serving.errors import EngineUnavailable, InvalidRequest, NotFound
from serving.gateway import Gateway
from serving.limits.limiter import TenantLimiter
from serving.tenancy.usage import usage_page


class Pages:
    """Models, receipts, usage, health and figures."""

    def __init__(
        self,
        gateways: Sequence[Gateway],
        keys: KeyRing,
        limiter: TenantLimiter,
        scrape: Callable[[], tuple[bytes, str]],
        started: int,
        *,
        request_timeout_seconds: float,
    ) -> None:
        """``gateways``: the one whose engine decides on readiness first."""
        self._gateways = tuple(gateways)
        self._gateway = self._gateways[0]
        self._limiter = limiter
        self._keys = keys
        self._scrape = scrape
        self._started = started
        self._request_timeout_seconds = request_timeout_seconds

    def _tenant(self, request: Request) -> str:
        return self._keys.tenant(request.headers.get("authorization"))

    async def healthz(self, request: Request) -> Response:
        return json_response({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        status = self._gateway.engine.status()
        if not status.ready:
            raise EngineUnavailable(f"Not ready: {status.reason}.")
        return json_response(
            {"status": "ready" if status.state == "awake" else status.state, "running": status.running}
        )

    async def models(self, request: Request) -> Response:
        grants = self._keys.settings(self._tenant(request))
        data = [entry for entry in self._served() if grants.may_use(entry["id"])]
        return json_response({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        self._keys.check_model(self._tenant(request), name)
        for entry in self._served():
            if entry["id"] == name:
                return json_response(entry)
        self._gateway.runs.model(name)
        raise AssertionError("a gateway's model is listed")

    def _served(self) -> list[dict[str, Any]]:
        return [
            {
                "id": model.name,
                "object": "model",
                "created": self._started,
                "owned_by": f"wattgate/{gateway.engine.kind}",
                "max_model_len": model.max_context_tokens,
                **({} if model.parent is None else {"parent": model.parent}),
            }
            for gateway in self._gateways
            for model in gateway.engine.models()
        ]

    async def no_responses(self, request: Request) -> Response:
        self._tenant(request)
        raise NotFound(f"There is no such response, because {NOT_KEPT}.", param="id", code="response_not_found")

    async def no_embeddings(self, request: Request) -> Response:
        # refused after the body has been read, like everything that has one: who still sends could not read it
        with contextlib.suppress(ClientGone):
            async with arriving_within(self._request_timeout_seconds):
                await drain(request.receive)
        self._tenant(request)
        raise NotFound("This gateway serves no embeddings: embeddings.enabled is off.", code="embeddings_off")

    async def receipt(self, request: Request) -> Response:
        tenant = self._tenant(request)
        receipt_id = request.path_params["receipt_id"]
        receipt = await self._gateway.meter.receipt(tenant, receipt_id)
        if receipt is None:
            raise NotFound(
                f"No final receipt '{receipt_id}': not settled yet (a few seconds), too old, or not yours.",
                param="receipt_id",
                code="receipt_not_found",
            )
        return json_response(receipt.as_dict())

    def see_figures(self, request: Request) -> None:
        """Raises where the request's key may not see the node's figures."""
        self._keys.see_figures(request.headers.get("authorization"))

    async def usage(self, request: Request) -> Response:
        """The tenant's own; the admin's key opens any tenant's (`?tenant=`)."""
        if self._keys.is_admin(request.headers.get("authorization")):
            tenant = request.query_params.get("tenant")
            if tenant is None:
                raise InvalidRequest("Name the tenant: /v1/usage?tenant=...", param="tenant")
        else:
            tenant = self._tenant(request)
        day, month, scope = await self._limiter.usage(tenant)
        limits, method = self._keys.settings(tenant).limits, self._gateway.engine.method.value
        return json_response(usage_page(tenant, day, month, limits, scope, method, time.time()))

    async def metrics(self, request: Request) -> Response:
        self.see_figures(request)
        body, content_type = await asyncio.to_thread(self._scrape)
        return Response(body, media_type=None, headers={"content-type": content_type})

    def routes(self) -> list[Route]:
        return [
            Route("/v1/embeddings", self.no_embeddings, methods=["POST"]),
            Route("/v1/responses/{response_id}", self.no_responses, methods=["GET", "DELETE"]),
            Route("/v1/responses/{response_id}/{of}", self.no_responses, methods=["GET", "POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{model:path}", self.model),
            Route("/v1/receipts/{receipt_id}", self.receipt),
            Route("/v1/usage", self.usage),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
        ]


def json_response(payload: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(payload), status, headers, media_type="application/json")
