"""``/v1/control/caps``: the live caps, and one held by hand for a time."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal, Protocol

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.access import KeyRing
from serving.api.body import ClientGone, arriving_within, read_body
from serving.errors import InvalidRequest, NotFound

_MOST_BODY_BYTES = 4096
_DAY_SECONDS = 86_400.0

_Name = Annotated[str, Field(min_length=1, max_length=512)]


class CapHold(BaseModel):
    """A cap to be held."""

    model_config = ConfigDict(strict=True, extra="forbid")

    cap: Annotated[int, Field(ge=1, le=1_000_000)]
    """In the terms of `admission.max_concurrency`."""
    model: _Name | None = None
    """May be left out where there is one."""
    seconds: Annotated[float, Field(gt=0, le=_DAY_SECONDS)] = 3600.0
    """After so long it lets go by itself; asking again begins anew."""
    by: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:@-]{0,127}$")] = "an operator"
    """Who asks: another one is refused meanwhile."""
    pause_controller: bool = False
    """Needed where the controller moves the cap: it waits until the hold is over."""


class HeldNow(BaseModel):
    cap: int
    until_seconds: float
    """Unix time."""
    by: str


class CapState(BaseModel):
    """A model's live cap."""

    model: str
    configured_cap: int
    """`admission.max_concurrency`."""
    highest_cap: int
    """What may be held at most."""
    replica_cap: int
    """In force in the replica that answered."""
    controller: Literal["off", "dry_run", "on"]
    held: HeldNow | None


class CapList(BaseModel):
    object: Literal["list"]
    data: list[CapState]


class LiveCaps(Protocol):
    """``serving.placement.held_caps.HeldCaps`` is one."""

    def shown(self) -> list[dict[str, Any]]:
        """A ``CapState`` of each model."""

    async def refresh(self) -> None:
        """Take over what another replica was asked to hold."""

    async def hold(
        self, model: str | None, cap: int, seconds: float, by: str, *, pause_controller: bool
    ) -> dict[str, Any]: ...

    async def release(self, model: str | None) -> dict[str, Any]: ...


class CapPages:
    """Whoever may see the figures sees this; only an operator changes it."""

    def __init__(
        self,
        keys: KeyRing,
        caps: LiveCaps | None = None,
        *,
        request_timeout_seconds: float,
    ) -> None:
        self._keys = keys
        self._caps = caps
        self._request_timeout_seconds = request_timeout_seconds

    async def look(self, request: Request) -> Response:
        self._keys.see_figures(request.headers.get("authorization"))
        if self._caps is None:
            return _json({"object": "list", "data": []})
        # a board that cannot be read hides no cap: what this replica goes by is shown
        with suppress(Exception):
            await self._caps.refresh()
        return _json({"object": "list", "data": self._caps.shown()})

    async def hold(self, request: Request) -> Response:
        try:
            async with arriving_within(self._request_timeout_seconds):
                raw = await read_body(request.receive, _MOST_BODY_BYTES)
        except ClientGone:
            return Response(status_code=499)
        self._keys.operate(request.headers.get("authorization"))
        asked = _parsed(raw)
        held = await self._live().hold(
            asked.model, asked.cap, asked.seconds, asked.by, pause_controller=asked.pause_controller
        )
        return _json(held)

    async def release(self, request: Request) -> Response:
        self._keys.operate(request.headers.get("authorization"))
        return _json(await self._live().release(request.query_params.get("model")))

    def _live(self) -> LiveCaps:
        if self._caps is None:
            raise NotFound("This gateway has no live cap.", code="no_live_cap")
        return self._caps

    def routes(self) -> list[Route]:
        return [
            Route("/v1/control/caps", self.look, methods=["GET"]),
            Route("/v1/control/caps", self.hold, methods=["PUT"]),
            Route("/v1/control/caps", self.release, methods=["DELETE"]),
        ]


def _parsed(raw: bytes) -> CapHold:
    try:
        return CapHold.model_validate(orjson.loads(raw))
    except orjson.JSONDecodeError:
        raise InvalidRequest('The body must be JSON, as {"cap": 8}.', code="invalid_json") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidRequest(f"{field}: {first['msg']}.", param=field, code="invalid_value") from None


def _json(payload: dict[str, Any]) -> Response:
    return Response(orjson.dumps(payload), media_type="application/json")
