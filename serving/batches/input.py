"""A batch's input: one request a line, checked before anything of it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from serving.api.body import BODIES
from serving.batches.record import LineError

_WANTED = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
ENDPOINTS = tuple(path for path in _WANTED if path in BODIES)
"""What lines may ask for."""
_MOST_ERRORS = 100
"""Told of one input; who has so many has a fault in the program that made it."""
_LONGEST_CUSTOM_ID = 512


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch that passed its checks."""

    number: int
    """Counted from 1."""
    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checked:
    total: int
    errors: tuple[LineError, ...]


def check_input(path: Path, endpoint: str, max_lines: int) -> Checked:
    """Whether every line is a request, each with an id of its own. The bodies are judged when they run."""
    errors: list[LineError] = []
    seen: set[str] = set()
    total = 0
    for number, raw in _lines(path):
        total += 1
        if total > max_lines:
            return Checked(
                total,
                (LineError(code="too_many_lines", message=f"There are more than {max_lines} requests.", line=number),),
            )
        error = _fault(number, raw, endpoint, seen)
        if error is not None:
            errors.append(error)
            if len(errors) == _MOST_ERRORS:
                break
    if total == 0:
        errors.append(LineError(code="empty_file", message="The file has no requests in it."))
    return Checked(total, tuple(errors))


def read_lines(path: Path) -> Iterator[Line]:
    """Of an input that passed ``check_input``."""
    for number, raw in _lines(path):
        request = orjson.loads(raw)
        yield Line(number, request["custom_id"], request["body"])


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if raw.strip():
                yield number, raw


def _fault(number: int, raw: bytes, endpoint: str, seen: set[str]) -> LineError | None:
    def fault(code: str, message: str, param: str | None = None) -> LineError:
        return LineError(code=code, message=message, param=param, line=number)

    try:
        request = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return fault("invalid_json_line", f"Not valid JSON: {error}.")
    if not isinstance(request, dict):
        return fault("invalid_json_line", "Not a JSON object.")
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _LONGEST_CUSTOM_ID:
        return fault(
            "invalid_custom_id", f"custom_id must be a string of 1 to {_LONGEST_CUSTOM_ID} characters.", "custom_id"
        )
    if custom_id in seen:
        return fault("duplicate_custom_id", f"custom_id '{custom_id}' was used by a line before.", "custom_id")
    seen.add(custom_id)
    if request.get("method") != "POST":
        return fault("invalid_method", "method must be POST.", "method")
    if request.get("url") != endpoint:
        return fault("mismatched_url", f"url must be the batch's endpoint, {endpoint}.", "url")
    body = request.get("body")
    if not isinstance(body, dict):
        return fault("missing_body", "body must be a JSON object.", "body")
    if not isinstance(body.get("model"), str):
        return fault("missing_model", "body.model must name a model.", "body.model")
    if body.get("stream"):
        return fault("stream_unsupported", "A batch's answers are not streamed: leave stream out.", "body.stream")
    return None
