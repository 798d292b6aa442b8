"""The pages: an id in and out, a count, and a line for what changes something or fails."""

from __future__ import annotations

import re

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.telemetry.request_log import line
from tests.unit.serving.conftest import House
from tests.unit.serving.fakes import Told

KEYS = {"acme": "key-a"}
ACME = {"authorization": "Bearer key-a"}


async def thing(request: Request) -> Response:
    if request.path_params["thing_id"] == "broken":
        raise ZeroDivisionError("secret")
    return Response(b"done")


THINGS = [Route("/v1/things/{thing_id}", thing, methods=["GET", "DELETE"])]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def there(told: Told) -> House:
    return House(keys=KEYS, sinks=[told], more_routes=THINGS)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/usage", "/healthz", "/nowhere", "/v1/things/a"])
async def test_every_answer_has_the_clients_id_or_one_of_ours(there: House, path: str) -> None:
    theirs = await there.get(path, x_request_id="mine-1", **ACME)
    ours = await there.get(path, x_request_id="not harmless", **ACME)
    assert theirs.headers["x-request-id"] == "mine-1"
    assert re.fullmatch("[0-9a-f]{32}", ours.headers["x-request-id"])


async def test_what_changes_something_is_told_with_its_tenant_and_what_it_changed(there: House, told: Told) -> None:
    await there.send(raw=b"", path="/v1/things/a", method="DELETE", x_request_id="mine-1", **ACME)
    (ended,) = told.requests
    fields = line(ended)
    assert (fields["method"], fields["path"], fields["status"]) == ("DELETE", "/v1/things/a", 200)
    assert (fields["tenant"], fields["client_request_id"]) == ("acme", "mine-1")
    assert (ended.page, ended.model, "cache" in fields) == ("/v1/things/{thing_id}", None, False)


async def test_what_only_reads_is_counted_and_not_told(there: House, told: Told) -> None:
    for _ in range(2):
        await there.get("/v1/models", **ACME)
    assert told.requests == []
    assert there.count("wattgate_page_requests_total", endpoint="models", method="GET", status="200") == 2
    assert there.count("wattgate_requests_total") == 0, "the ratio of errors is of answers"


async def test_what_fails_is_told_with_its_code_and_without_a_word_of_the_client(there: House, told: Told) -> None:
    await there.get("/v1/receipts/secret", **ACME)
    await there.get("/v1/models", authorization="Bearer secret")
    await there.get("/secret", **ACME)
    await there.send(raw=b"", path="/v1/models", method="SECRET", **ACME)
    assert [(ended.path, ended.status, ended.error, ended.tenant) for ended in told.requests] == [
        ("/v1/receipts/{receipt_id}", 404, "receipt_not_found", "acme"),
        ("/v1/models", 401, "invalid_api_key", None),
        ("unknown", 404, None, "acme"),
        ("/v1/models", 405, None, "acme"),
    ]
    assert [ended.method for ended in told.requests] == ["GET", "GET", "GET", "other"]
    assert "secret" not in repr(told.requests).lower()


async def test_a_crash_is_told_and_counted_too(there: House, told: Told) -> None:
    exchange = there.begin(raw=b"", path="/v1/things/broken", method="GET", **ACME)
    with pytest.raises(ZeroDivisionError):
        await exchange.end()
    assert (exchange.status, "x-request-id" in exchange.headers) == (500, True)
    assert [(ended.path, ended.status) for ended in told.requests] == [("/v1/things/{thing_id}", 500)]
    assert there.count("wattgate_page_requests_total", endpoint="things/{thing_id}", status="500") == 1
