from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

from serving.access import KeyRing
from serving.errors import GatewayError
from serving.operations.cap_pages import CapList, CapPages

STATE = {"model": "m", "configured_cap": 16, "highest_cap": 32, "replica_cap": 16, "controller": "off", "held": None}
ADMIN = {"authorization": "Bearer admin"}


class Caps:
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.elsewhere: dict[str, Any] | None = None
        """What another replica was asked to hold."""
        self.away = False
        self._held: dict[str, Any] | None = None

    def shown(self) -> list[dict[str, Any]]:
        return [{**STATE, "held": self._held}]

    async def refresh(self) -> None:
        if self.away:
            raise RuntimeError("the control service is away")
        self._held = self.elsewhere

    async def hold(
        self, model: str | None, cap: int, seconds: float, by: str, *, pause_controller: bool
    ) -> dict[str, Any]:
        self.asked.append((model, cap, seconds, by, pause_controller))
        return STATE

    async def release(self, model: str | None) -> dict[str, Any]:
        self.asked.append(model)
        return STATE


async def envelope(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return JSONResponse(error.envelope(), status_code=error.status)


def client(keys: KeyRing, caps: Caps | None = None) -> TestClient:
    pages = CapPages(keys, caps, request_timeout_seconds=5.0)
    return TestClient(Starlette(routes=pages.routes(), exception_handlers={GatewayError: envelope}))


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing({"a": "tenant"}, admin_key="admin")


def test_whoever_may_see_the_figures_sees_the_caps(keys: KeyRing) -> None:
    http = client(keys, Caps())
    seen = http.get("/v1/control/caps", headers=ADMIN).json()
    assert CapList.model_validate(seen).data[0].configured_cap == 16
    assert http.get("/v1/control/caps", headers={"authorization": "Bearer tenant"}).status_code == 403


def test_a_look_shows_what_another_replica_was_asked_to_hold_also_where_the_board_is_away_since(keys: KeyRing) -> None:
    caps = Caps()
    http = client(keys, caps)
    caps.elsewhere = {"cap": 4, "until_seconds": 0.0, "by": "tune"}
    for caps.away in (False, True):
        assert http.get("/v1/control/caps", headers=ADMIN).json()["data"][0]["held"] == caps.elsewhere


def test_an_operator_holds_and_releases(keys: KeyRing) -> None:
    caps = Caps()
    http = client(keys, caps)
    assert http.put("/v1/control/caps", json={"cap": 8}, headers=ADMIN).json() == STATE
    body = {"cap": 4, "model": "m", "seconds": 30, "by": "tune 7", "pause_controller": True}
    assert http.put("/v1/control/caps", json=body, headers=ADMIN).status_code == 200
    assert http.delete("/v1/control/caps?model=m", headers=ADMIN).json() == STATE
    assert caps.asked == [(None, 8, 3600.0, "an operator", False), ("m", 4, 30.0, "tune 7", True), "m"]


def test_a_tenants_key_changes_nothing_not_even_the_only_one(keys: KeyRing) -> None:
    for ring in (keys, KeyRing({"a": "tenant"})):
        caps = Caps()
        http = client(ring, caps)
        for authorization, status in (("Bearer tenant", 403), ("Bearer wrong", 401)):
            headers = {"authorization": authorization}
            assert http.put("/v1/control/caps", json={"cap": 8}, headers=headers).status_code == status
            assert http.delete("/v1/control/caps", headers=headers).status_code == status
        assert caps.asked == []


def test_where_there_are_no_keys_anybody_is_the_operator() -> None:
    caps = Caps()
    assert client(KeyRing({}), caps).put("/v1/control/caps", json={"cap": 8}).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("{", None),
        ("[]", "body"),
        ("{}", "cap"),
        ('{"cap": 0}', "cap"),
        ('{"cap": "8"}', "cap"),
        ('{"cap": 8, "seconds": 0}', "seconds"),
        ('{"cap": 8, "by": "\\u0000"}', "by"),
        ('{"cap": 8, "capp": 9}', "capp"),
    ],
)
def test_a_wrong_body_is_refused_by_the_name_of_its_field(keys: KeyRing, body: str, param: str | None) -> None:
    caps = Caps()
    answer = client(keys, caps).put("/v1/control/caps", content=body, headers=ADMIN)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert caps.asked == []
