"""``/v1/drift/references``: what traffic is compared with, and to begin anew after a change that was meant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.access import KeyRing
from serving.errors import EngineUnavailable, NotFound
from serving.operations.drift_watch import DriftWatches

PATH = "/v1/drift/references"


class DriftReference(BaseModel):
    """A model's reference window on the node that answered."""

    model: str
    requests: int
    since_seconds: float | None
    """Unix time of its first request; None: there is none yet, the next full window becomes it."""


class DriftReferenceList(BaseModel):
    object: Literal["list"]
    data: list[DriftReference]


class DriftPages:
    """Whoever may see the figures sees this; only an operator changes it."""

    def __init__(self, keys: KeyRing, watches: DriftWatches | None, models: Callable[[], list[str]]) -> None:
        self._keys = keys
        self._watches = watches
        self._models = models

    async def look(self, request: Request) -> Response:
        self._keys.see_figures(request.headers.get("authorization"))
        return _json(await asyncio.to_thread(self._shown))

    async def rebase(self, request: Request) -> Response:
        """``?model=``: of one; otherwise of all."""
        self._keys.operate(request.headers.get("authorization"))
        if self._watches is None:
            raise NotFound("This gateway does not look for drift.", code="no_drift_watch")
        model = request.query_params.get("model")
        if model is not None and model not in self._models():
            known = ", ".join(self._models())
            raise NotFound(f"The model {model!r} is not served here: {known}.", param="model", code="model_not_found")
        try:
            await asyncio.to_thread(self._watches.references.rebase, model)
        # whatever Ray's client raises: the other nodes would go on as before
        except Exception:
            raise EngineUnavailable(
                "The cluster's store does not answer now; try again.", code="drift_unavailable"
            ) from None
        self._watches.clear(model)
        return _json(await asyncio.to_thread(self._shown))

    def _shown(self) -> dict[str, Any]:
        data = []
        for model in self._models() if self._watches is not None else ():
            reference = self._watches.references.shown(model) if self._watches is not None else None
            requests = 0 if reference is None else len(reference.window.requests)
            since = None if reference is None else reference.began_seconds
            data.append({"model": model, "requests": requests, "since_seconds": since})
        return {"object": "list", "data": data}

    def routes(self) -> list[Route]:
        return [Route(PATH, self.look, methods=["GET"]), Route(PATH, self.rebase, methods=["DELETE"])]


def _json(payload: dict[str, Any]) -> Response:
    return Response(orjson.dumps(payload), media_type="application/json")
