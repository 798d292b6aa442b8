"""Every operation of the HTTP interface, as `/openapi.json` tells it; a test holds the list against the routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from metering.receipt import Receipt
from serving.api.answers import (
    ChatCompletion,
    EmbeddingList,
    Feedback,
    ModelCard,
    ModelList,
    ResponseObject,
    TextCompletion,
)
from serving.api.body import BODIES
from serving.batches.pages import BatchBody
from serving.errors import (
    BodyTooLarge,
    Conflict,
    DeadlineExceeded,
    EngineUnavailable,
    GatewayError,
    InvalidRequest,
    NotFound,
    RateLimited,
    RequestTimeout,
)
from serving.operations.cap_pages import CapHold, CapList, CapState
from serving.operations.drift_pages import DriftReferenceList

Method = Literal["get", "post", "put", "delete"]
Schema = dict[str, Any]
_ANY_OBJECT: Schema = {"type": "object"}
_TEXT: Schema = {"type": "string"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    path: str
    method: Method
    name: str
    summary: str
    answer: Schema | type[BaseModel] | Any = field(default_factory=lambda: _ANY_OBJECT)
    content_type: str = "application/json"
    body: type[BaseModel] | None = None
    streams: bool = False
    """Answers with server-sent events where the body says ``stream``."""
    form: Schema | None = None
    """Of a multipart body."""
    query: Mapping[str, Schema] = field(default_factory=dict)
    errors: tuple[type[GatewayError], ...] = ()
    """Beyond those that every operation has."""
    open: bool = False
    """Asks for no key."""


_PAGE: dict[str, Schema] = {"after": _TEXT, "limit": {"type": "integer", "minimum": 1}}
_STORED = (NotFound, EngineUnavailable)
_ASKED = (InvalidRequest, NotFound, RequestTimeout, BodyTooLarge, RateLimited, EngineUnavailable, DeadlineExceeded)


def _inference(path: str, name: str, summary: str, answer: type[BaseModel], *, streams: bool = True) -> Operation:
    return Operation(path, "post", name, summary, answer, body=BODIES[path], streams=streams, errors=_ASKED)


OPERATIONS: tuple[Operation, ...] = (
    _inference("/v1/chat/completions", "createChatCompletion", "Answer a conversation.", ChatCompletion),
    _inference("/v1/completions", "createCompletion", "Continue a prompt.", TextCompletion),
    _inference("/v1/responses", "createResponse", "Answer an input; nothing is kept between requests.", ResponseObject),
    _inference("/v1/embeddings", "createEmbedding", "Vectors of texts.", EmbeddingList, streams=False),
    Operation("/v1/models", "get", "listModels", "The models that this key may use.", ModelList),
    Operation("/v1/models/{model}", "get", "getModel", "One of them.", ModelCard, errors=(NotFound,)),
    Operation("/v1/responses/{response_id}", "get", "getResponse", "Always 404: none is kept.", errors=(NotFound,)),
    Operation(
        "/v1/responses/{response_id}", "delete", "deleteResponse", "Always 404: none is kept.", errors=(NotFound,)
    ),
    Operation(
        "/v1/responses/{response_id}/{of}", "get", "getPartOfResponse", "Always 404: none is kept.", errors=(NotFound,)
    ),
    Operation(
        "/v1/responses/{response_id}/{of}", "post", "changeResponse", "Always 404: none is kept.", errors=(NotFound,)
    ),
    Operation(
        "/v1/receipts",
        "get",
        "listReceipts",
        "The tenant's last final receipts, newest first; everybody's for the admin.",
        query={"limit": {"type": "integer", "minimum": 0, "maximum": 200}},
        errors=(InvalidRequest, EngineUnavailable),
    ),
    Operation(
        "/v1/receipts/{receipt_id}",
        "get",
        "getReceipt",
        "A request's receipt, final when its windows have closed.",
        Receipt,
        errors=(NotFound,),
    ),
    Operation(
        "/v1/usage",
        "get",
        "getUsage",
        "The tenant's requests, tokens, joules, grams, budgets and savings.",
        query={"tenant": {"type": "string", "description": "With the admin key: whose."}},
        errors=(InvalidRequest, EngineUnavailable),
    ),
    Operation("/v1/cache", "get", "getCacheStatistics", "State of the response cache.", errors=(NotFound,)),
    Operation(
        "/v1/cache",
        "delete",
        "clearCache",
        "Forget answers: of a tenant, of a model, or all.",
        query={"tenant": _TEXT, "model": _TEXT, "all": {"type": "string", "enum": ["true"]}},
        errors=(InvalidRequest, NotFound, EngineUnavailable),
    ),
    Operation(
        "/v1/cache/{cache_id}",
        "get",
        "inspectCacheEntry",
        "One kept answer.",
        errors=(InvalidRequest, NotFound, EngineUnavailable),
    ),
    Operation(
        "/v1/cache/{cache_id}",
        "delete",
        "removeCacheEntry",
        "Forget one answer.",
        errors=(InvalidRequest, NotFound, EngineUnavailable),
    ),
    Operation(
        "/v1/cache/{cache_id}/feedback",
        "post",
        "judgeCacheEntry",
        "Say whether an answer from the cache was right.",
        body=Feedback,
        errors=(InvalidRequest, NotFound, EngineUnavailable),
    ),
    Operation(
        "/v1/files",
        "post",
        "uploadFile",
        "Keep a file of requests for a batch.",
        form={
            "type": "object",
            "required": ["file", "purpose"],
            "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"const": "batch"}},
        },
        errors=(InvalidRequest, BodyTooLarge, EngineUnavailable),
    ),
    Operation(
        "/v1/files",
        "get",
        "listFiles",
        "The tenant's files.",
        query={**_PAGE, "purpose": _TEXT, "order": {"type": "string", "enum": ["asc", "desc"]}},
        errors=(InvalidRequest, EngineUnavailable),
    ),
    Operation("/v1/files/{file_id}", "get", "getFile", "What a file is.", errors=_STORED),
    Operation("/v1/files/{file_id}", "delete", "deleteFile", "Delete a file.", errors=_STORED),
    Operation(
        "/v1/files/{file_id}/content",
        "get",
        "getFileContent",
        "A file's bytes.",
        {"type": "string"},
        "application/octet-stream",
        errors=_STORED,
    ),
    Operation(
        "/v1/batches",
        "post",
        "createBatch",
        "Run a file's requests behind everybody else's.",
        body=BatchBody,
        errors=(*_STORED, InvalidRequest, BodyTooLarge),
    ),
    Operation(
        "/v1/batches", "get", "listBatches", "The tenant's batches.", query=_PAGE, errors=(InvalidRequest, *_STORED)
    ),
    Operation("/v1/batches/{batch_id}", "get", "getBatch", "How far a batch has come.", errors=_STORED),
    Operation(
        "/v1/batches/{batch_id}/cancel", "post", "cancelBatch", "End a batch early.", errors=(*_STORED, Conflict)
    ),
    Operation(
        "/v1/events",
        "get",
        "listEvents",
        "What has changed: configuration, caps, models; in a cluster on all nodes, and `unanswered_nodes` are missing.",
        query={"since": {"type": "number", "description": "Unix seconds."}},
        errors=(InvalidRequest,),
    ),
    Operation(
        "/v1/intensity",
        "get",
        "getIntensity",
        "The grid's carbon intensity in use, and its source's forecast.",
        errors=(EngineUnavailable,),
    ),
    Operation(
        "/metrics/cluster",
        "get",
        "getClusterMetrics",
        "The series of all nodes, each under its address; of a single machine, its own.",
        _TEXT,
        "text/plain",
    ),
    Operation(
        "/v1/control",
        "get",
        "getControl",
        "What moved the live cap, and why; in a cluster as for events.",
        query={"since": {"type": "number", "description": "Unix seconds."}},
        errors=(InvalidRequest,),
    ),
    Operation("/v1/control/caps", "get", "listCaps", "The live cap of each model, and who holds it.", CapList),
    Operation(
        "/v1/control/caps",
        "put",
        "holdCap",
        "Hold a model's live cap for a time, in every replica.",
        CapState,
        body=CapHold,
        errors=(*_STORED, InvalidRequest, BodyTooLarge, Conflict),
    ),
    Operation(
        "/v1/control/caps",
        "delete",
        "releaseCap",
        "Let a held cap go: it is again what the configuration or the controller says.",
        CapState,
        query={"model": _TEXT},
        errors=(*_STORED, InvalidRequest),
    ),
    Operation(
        "/v1/drift/references",
        "get",
        "listDriftReferences",
        "The windows that each model's traffic is compared with, on this node.",
        DriftReferenceList,
    ),
    Operation(
        "/v1/drift/references",
        "delete",
        "rebaseDrift",
        "After a change that was meant: the next full window becomes the reference, in every replica.",
        DriftReferenceList,
        query={"model": _TEXT},
        errors=_STORED,
    ),
    Operation("/healthz", "get", "isAlive", "The process answers.", open=True),
    Operation("/readyz", "get", "isReady", "The engine answers.", open=True, errors=(EngineUnavailable,)),
    Operation("/metrics", "get", "getMetrics", "Prometheus exposition of the node.", _TEXT, "text/plain"),
    Operation(
        "/metrics/targets",
        "get",
        "getMetricsTargets",
        "Prometheus HTTP service discovery.",
        {"type": "array", "items": _ANY_OBJECT},
        errors=(InvalidRequest,),
    ),
    Operation("/console", "get", "getConsole", "The operators' page.", _TEXT, "text/html", open=True),
    Operation("/openapi.json", "get", "getDescription", "This document.", open=True),
)
