"""``/openapi.json``: every route, every status it answers with, its error envelope and its headers.

The schemas are made from the models that requests are judged by; a test holds the list of operations against the
routes that there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from metering.receipt import Receipt
from serving.api.answers import ErrorEnvelope
from serving.api.body import BODIES
from serving.api.operations import OPERATIONS, Operation, Schema
from serving.errors import (
    BodyTooLarge,
    Conflict,
    DeadlineExceeded,
    EngineUnavailable,
    Forbidden,
    GatewayError,
    InvalidRequest,
    NotFound,
    RateLimited,
    RequestTimeout,
    Unauthenticated,
)
from serving.tenancy.tenant import Priority

_REFERENCE = "#/components/schemas/{model}"
_TEXT: Schema = {"type": "string"}
_EVENTS: Schema = {"description": "Server-sent events: chunks of the answer, then `[DONE]`."}
"""No type: some readers take a stream for a text, others for its events."""

_REASONS: dict[type[GatewayError], str] = {
    InvalidRequest: "A field or header is wrong; `param` names it.",
    Unauthenticated: "No API key, or one that is not known here.",
    Forbidden: "The key may not do this.",
    NotFound: "There is no such model, endpoint or thing here.",
    Conflict: "What was asked for is too late.",
    RequestTimeout: "The request's body did not arrive in time.",
    BodyTooLarge: "The request's body is too large.",
    RateLimited: "A limit of the tenant or of the gateway is reached; `retry-after` is computed.",
    GatewayError: "The gateway or the engine failed on this request.",
    EngineUnavailable: "The engine or a store cannot answer now.",
    DeadlineExceeded: "The answer was not there by the request's deadline.",
}


_TOLD: dict[str, Schema] = {
    "x-cache": {"type": "string", "enum": ["HIT-EXACT", "HIT-SEMANTIC", "MISS", "BYPASS"]},
    "x-wattgate-receipt": {"type": "string", "description": "Id under `/v1/receipts`."},
    "x-wattgate-method": {"type": "string", "enum": ["measured", "modelled", "simulated"]},
    "x-wattgate-fallback": {"type": "string", "description": "The model that answered in place of the one asked for."},
    "x-wattgate-joules": {"type": "number"},
    "x-wattgate-grams": {"type": "number"},
    "x-wattgate-queue-ms": {"type": "number"},
    "x-wattgate-overhead-ms": {"type": "number"},
    "x-wattgate-ttft-ms": {"type": "number"},
    "x-ratelimit-limit-requests": {"type": "integer"},
    "x-ratelimit-remaining-requests": {"type": "integer"},
    "x-ratelimit-limit-tokens": {"type": "integer"},
    "x-ratelimit-remaining-tokens": {"type": "integer"},
    "x-carbon-budget-remaining-grams": {"type": "number"},
}
"""Of answers; those of a stream come before its figures are known, and limits are told where there are any."""
_ASKED_BY_HEADER: dict[str, Schema] = {
    "x-request-id": {"type": "string", "description": "Kept where it is 1 to 128 of A-Z a-z 0-9 _ . : -"},
    "x-request-timeout": {"type": "number", "exclusiveMinimum": 0, "description": "Seconds for the whole answer."},
    "x-wattgate-priority": {"type": "string", "enum": [priority.value for priority in Priority]},
    "cache-control": {"type": "string", "description": "no-store, no-cache, max-age, only-if-cached"},
}


def _header(schema: Schema, *, required: bool = False) -> Schema:
    return {"schema": schema, "required": required}


def _parameters(operation: Operation) -> list[Schema]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    out: list[Schema] = [{"name": n, "in": "path", "required": True, "schema": _TEXT} for n in names]
    out += [{"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()]
    if operation.body is not None and operation.path in BODIES:
        out += [{"name": name, "in": "header", "schema": schema} for name, schema in _ASKED_BY_HEADER.items()]
    return out


def _statuses(operation: Operation) -> Iterable[type[GatewayError]]:
    # the proxy's own refusals can come for any path: no HTTP, too slow, no replica
    yield from (GatewayError, InvalidRequest, RequestTimeout, EngineUnavailable)
    if not operation.open:
        yield Unauthenticated
        yield Forbidden
    yield from operation.errors


def _responses(operation: Operation, schemas: Mapping[Any, Schema]) -> Schema:
    answer = operation.answer if isinstance(operation.answer, dict) else schemas[operation.answer]
    content: Schema = {operation.content_type: {"schema": answer}}
    if operation.streams:
        content["text/event-stream"] = {"schema": _EVENTS}
    ok: Schema = {
        "description": "The answer.",
        "content": content,
        "headers": {"x-request-id": _header(_TEXT, required=True)},
    }
    if operation.path in BODIES:
        ok["headers"] |= {name: _header(schema) for name, schema in _TOLD.items()}
        ok["headers"]["x-cache"] = _header(_TEXT, required=True)
    out: Schema = {"200": ok}
    for error in _statuses(operation):
        told: Schema = {
            "description": _REASONS[error],
            "content": {"application/json": {"schema": schemas[ErrorEnvelope]}},
        }
        if error is RateLimited:
            told["headers"] = {"retry-after": _header({"type": "integer"}, required=True)}
        out[str(error.status)] = told
    return out


@cache
def description(operations: tuple[Operation, ...] = OPERATIONS) -> bytes:
    """The document."""
    models = {o.body for o in operations if o.body} | {ErrorEnvelope}
    models |= {o.answer for o in operations if isinstance(o.answer, type) and issubclass(o.answer, BaseModel)}
    ordered = sorted(models, key=lambda model: model.__name__)
    made, whole = models_json_schema([(model, "validation") for model in ordered], ref_template=_REFERENCE)
    components: Schema = whole["$defs"]
    schemas: dict[Any, Schema] = {model: made[model, "validation"] for model in ordered}
    receipt = TypeAdapter(Receipt).json_schema(ref_template=_REFERENCE)
    components |= receipt.pop("$defs", {})
    components["Receipt"] = receipt
    schemas[Receipt] = {"$ref": _REFERENCE.format(model="Receipt")}
    paths: Schema = {}
    for operation in operations:
        told: Schema = {
            "operationId": operation.name,
            "summary": operation.summary,
            "parameters": _parameters(operation),
            "responses": _responses(operation, schemas),
        }
        if operation.body is not None:
            content = {"application/json": {"schema": schemas[operation.body]}}
            told["requestBody"] = {"required": True, "content": content}
        if operation.form is not None:
            told["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": operation.form}}}
        if operation.open:
            told["security"] = []
        paths.setdefault(operation.path, {})[operation.method] = told
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "wattgate",
            "version": _version(),
            "description": "An OpenAI-compatible inference gateway; every answer says what it cost.",
        },
        # without configured keys any is accepted
        "security": [{"key": []}, {}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }
    return orjson.dumps(document)


def _version() -> str:
    try:
        return version("wattgate")
    except PackageNotFoundError:
        return "0"


async def _describe(request: Request) -> Response:
    return Response(description(), media_type="application/json")


def openapi_route() -> Route:
    return Route("/openapi.json", _describe)
