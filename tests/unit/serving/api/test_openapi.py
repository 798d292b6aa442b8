"""``/openapi.json`` names every route there is and none that is not, and its schemas hold."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jsonschema
import orjson
import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from serving import errors
from serving.access import KeyRing
from serving.api.body import BODIES
from serving.api.openapi import description
from serving.api.operations import OPERATIONS
from serving.batches.pages import BatchPages
from serving.errors import Conflict, EngineRefused, GatewayError, MethodNotAllowed
from serving.operations.drift_pages import DriftPages
from tests.unit.serving.conftest import CHAT, House

DOCUMENT: dict[str, Any] = orjson.loads(description())


def served(app: Any) -> Iterator[tuple[str, str]]:
    """(path, method) of every route, as the document writes them."""
    if isinstance(app, CORSMiddleware):
        app = app.app
    for path in app._endpoints:
        yield path, "post"
    pages = app._pages._app
    assert isinstance(pages, Starlette)
    for route in pages.routes:
        assert isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}:
            yield route.path.replace(":path}", "}"), method.lower()


def test_the_document_has_every_route_and_no_other() -> None:
    told = {(path, method) for path, operations in DOCUMENT["paths"].items() for method in operations}
    batches = BatchPages(SimpleNamespace(files=None), object(), object(), request_timeout_seconds=1.0).routes()  # type: ignore[arg-type]  # nothing is asked of them
    drift = DriftPages(KeyRing({}), None, list).routes()
    assert told == set(served(House(more_routes=[*batches, *drift]).app))


def test_every_name_is_told_once() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)


def test_every_status_that_an_inference_can_end_with_is_told() -> None:
    statuses = {
        str(kind.status)
        for kind in vars(errors).values()
        # a wrong method is another operation; the engine's own refusals are of these statuses too
        if isinstance(kind, type)
        and issubclass(kind, GatewayError)
        and kind not in (MethodNotAllowed, EngineRefused, Conflict)
    }
    for path in BODIES:
        assert set(DOCUMENT["paths"][path]["post"]["responses"]) == statuses | {"200"}


def test_every_error_has_the_envelope() -> None:
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status != "200":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorEnvelope"}


def validate(body: Any, name: str) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(schema).validate(body)


async def test_answers_and_errors_are_as_told(house: House) -> None:
    validate((await house.send(house.chat())).json, "ChatCompletion")
    validate((await house.send({"messages": []})).json, "ErrorEnvelope")
    validate((await house.get("/v1/models")).json, "ModelList")
    validate((await house.get("/v1/models/nothing")).json, "ErrorEnvelope")
    assert (await house.get("/openapi.json")).json == DOCUMENT


async def test_headers_of_an_answer_are_as_told(house: House) -> None:
    told = DOCUMENT["paths"][CHAT]["post"]["responses"]["200"]["headers"]
    seen = (await house.send(house.chat())).headers
    ours = {name for name in seen if name.startswith("x-") and name not in ("x-cache-id", "x-cache-tier")}
    assert ours <= set(told)
    assert {name for name, header in told.items() if header["required"]} <= set(seen)


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])
