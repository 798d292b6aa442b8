from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest

from metering.errors import BadInput
from serving.config import GatewayConfig
from serving.config_sources import load_config
from serving.tuning.attached import LEASE_SECONDS, AttachedGateway, attach
from serving.tuning.bench import CannotStart
from serving.tuning.measure import GatewayAway


class Gateway:
    """``/v1/control/caps`` of a gateway."""

    def __init__(self) -> None:
        self.states = [self.state("m")]
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refusal: httpx.Response | None = None
        self.away = False
        self.interrupts = False
        """Ctrl-C while a hold that has arrived is answered."""
        self.lags = False
        """Its other replica answers what is looked at, and does not know of a hold before ``look``."""
        self._known: list[dict[str, Any]] | None = None

    @staticmethod
    def state(model: str, controller: str = "off") -> dict[str, Any]:
        return {
            "model": model, "configured_cap": 16, "highest_cap": 32, "replica_cap": 16, "controller": controller,
            "held": None,
        }  # fmt: skip

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused", request=request)
        if self.refusal is not None:
            return self.refusal
        if request.method == "GET":
            return httpx.Response(200, json={"object": "list", "data": self._known or self.states})
        if self.lags and self._known is None:
            self._known = deepcopy(self.states)
        body = json.loads(request.content or b"{}")
        self.asked.append((request.method, body))
        held = {"cap": body["cap"], "until_seconds": 0.0, "by": body["by"]} if request.method == "PUT" else None
        self.states[0]["held"] = held
        if self.interrupts and held is not None:
            raise KeyboardInterrupt
        return httpx.Response(200, json=self.states[0])

    def look(self) -> None:
        self._known = None

    @property
    def caps(self) -> list[int | None]:
        """Held one after another; None: released."""
        return [body.get("cap") for _, body in self.asked]


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    gateway = Gateway()
    made: list[httpx.Client] = []
    real = httpx.Client

    def client(**arguments: Any) -> httpx.Client:
        made.append(real(transport=httpx.MockTransport(gateway), **arguments))
        return made[-1]

    monkeypatch.setattr(httpx, "Client", client)
    yield gateway
    for one in made:
        one.close()


def attached(
    told: list[str] | None = None, model: str | None = None, wait: Callable[[float], None] = lambda seconds: None
) -> AttachedGateway:
    tell = (lambda text: None) if told is None else told.append
    return attach("http://gateway:8000/v1/", model, "admin", tell, wait=wait)


def capped(cap: int) -> GatewayConfig:
    return load_config(None, {"admission.max_concurrency": cap}, environment={}).config


def test_the_cap_is_held_for_a_lease_and_given_back(there: Gateway) -> None:
    gateway = attached()
    assert (gateway.url, gateway.model, gateway.configured_cap, gateway.highest_cap) == (
        "http://gateway:8000", "m", 16, 32,
    )  # fmt: skip
    gateway.begin(capped(4))
    gateway.apply(capped(8))
    gateway.close()
    gateway.close()
    assert [cap for cap, before in zip(there.caps, [0, *there.caps], strict=False) if cap != before] == [4, 8, None]
    assert {body["seconds"] for method, body in there.asked if method == "PUT"} == {LEASE_SECONDS}
    assert there.states[0]["held"] is None


def test_a_renewal_holds_the_same_cap_again(there: Gateway) -> None:
    gateway = attached().begin(capped(4))
    before = len(there.asked)
    gateway.renew()
    gateway.close()
    assert there.caps[before:] == [4, None]


@pytest.mark.parametrize("held", [None, {"cap": 4, "by": "an operator", "until_seconds": 0.0}])
def test_a_hold_that_another_ended_is_not_taken_back_and_what_was_measured_does_not_count(
    there: Gateway, held: dict[str, Any] | None
) -> None:
    gateway = attached().begin(capped(4))
    there.states[0]["held"] = held
    with pytest.raises(GatewayAway, match="no longer held by tune"):
        gateway.confirm()
    with pytest.raises(GatewayAway, match="no longer held by tune"):
        gateway.apply(capped(8))
    gateway.close()
    assert there.caps == [4]


def test_a_replica_that_has_not_looked_yet_does_not_end_the_hold(there: Gateway) -> None:
    there.lags = True

    def meanwhile(seconds: float) -> None:
        # the thread's renewal is due now, and comes unless it is kept waiting
        if not gateway._renewing.locked():
            gateway.renew()
        there.look()

    gateway = attached(wait=meanwhile)
    gateway.begin(capped(4))
    gateway.apply(capped(8))
    gateway.confirm()
    gateway.close()
    assert there.caps[-1] is None


def interrupted(seconds: float) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("while_asked", [True, False])
def test_a_cap_is_given_back_where_its_first_hold_is_interrupted(there: Gateway, while_asked: bool) -> None:
    there.interrupts = while_asked
    with pytest.raises(KeyboardInterrupt):
        attached(wait=interrupted).begin(capped(4))
    assert there.caps == [4, None]


@pytest.mark.parametrize("held", [None, {"cap": 4, "by": "an operator", "until_seconds": 0.0}])
def test_what_is_not_held_by_tune_any_more_is_not_released(there: Gateway, held: dict[str, Any] | None) -> None:
    gateway = attached().begin(capped(4))
    there.states[0]["held"] = held
    gateway.close()
    assert there.caps == [4]
    assert there.states[0]["held"] == held


def test_a_gateway_that_serves_another_model_by_now_ends_nothing_with_a_fault(there: Gateway) -> None:
    told: list[str] = []
    gateway = attached(told).begin(capped(4))
    there.states = [Gateway.state("n")]
    gateway.renew()
    gateway.close()
    assert ["does not serve 'm'" in text for text in told] == [True, True]


def test_a_controller_is_paused_and_that_is_told(there: Gateway) -> None:
    there.states = [Gateway.state("m", "on")]
    told: list[str] = []
    attached(told).begin(capped(4)).close()
    assert there.asked[0][1]["pause_controller"] is True
    assert told == ["the gateway's controller pauses until tune is done"]


def test_a_gateway_that_is_gone_at_the_end_is_told_when_its_cap_comes_back(there: Gateway) -> None:
    told: list[str] = []
    gateway = attached(told).begin(capped(4))
    there.away = True
    gateway.close()
    assert "goes back by itself within 120 s" in told[-1]


def test_a_refusal_is_told_in_the_gateways_words(there: Gateway) -> None:
    gateway = attached()
    there.refusal = httpx.Response(403, json={"error": {"message": "Changing the gateway needs the admin key."}})
    with pytest.raises(CannotStart, match=r"needs the admin key\. \(WATTGATE_ADMIN_KEY"):
        gateway.begin(capped(4))
    gateway.close()
    assert there.asked == []


def test_where_nobody_answers_or_no_gateway_is_that_is_told(there: Gateway) -> None:
    there.refusal = httpx.Response(200, text="<html>")
    with pytest.raises(GatewayAway, match="no page of a wattgate gateway"):
        attached()
    there.away = True
    with pytest.raises(GatewayAway, match="no gateway answers at http://gateway:8000"):
        attached()


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "ok",
        None,
        {"data": None},
        {"data": {"m": 1}},
        {"data": ["m"]},
        {"object": "list", "data": [{"id": "m"}]},
    ],
)
def test_a_page_of_another_server_is_told_as_one(there: Gateway, body: Any) -> None:
    there.refusal = httpx.Response(200, json=body)
    with pytest.raises(GatewayAway, match="no page of a wattgate gateway"):
        attached()


@pytest.mark.parametrize(
    ("body", "words"),
    [({"error": "no such page"}, "no such page"), ({"error": {"message": {}}}, "HTTP 404"), ([], "HTTP 404")],
)
def test_a_refusal_of_another_server_is_told_too(there: Gateway, body: Any, words: str) -> None:
    there.refusal = httpx.Response(404, json=body)
    with pytest.raises(GatewayAway, match=f"http://gateway:8000: {words}"):
        attached()


def test_several_models_are_named_and_one_is_chosen(there: Gateway) -> None:
    there.states = [Gateway.state("m"), Gateway.state("n")]
    with pytest.raises(BadInput, match=r"--model \(m, n\)"):
        attached()
    with pytest.raises(BadInput, match="does not serve 'x': it has m, n"):
        attached(model="x")
    assert attached(model="n").model == "n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [("gateway:8000", "gateway:8000"), ("http://h:12x", "http://h:12x"), ("http://u:secret@h:12x", "http://h:12x")],
)
def test_an_address_is_one_of_http(url: str, shown: str) -> None:
    with pytest.raises(BadInput, match=f"--url {shown} is no address"):
        attach(url, None, None, lambda text: None)


def test_no_password_of_the_address_is_shown(there: Gateway) -> None:
    gateway = attach("http://u:secret@gateway:8000", None, None, lambda text: None, wait=lambda seconds: None)
    assert gateway.shown_url == "http://gateway:8000"
    there.away = True
    with pytest.raises(GatewayAway) as away:
        gateway.apply(capped(4))
    assert "secret" not in str(away.value)
