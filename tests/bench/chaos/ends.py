"""How a request may end, seen from its client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp
import orjson

PATH = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"
_FIELDS = {"message", "type", "param", "code"}
PROPER = frozenset({408, 429, 503, 504})
"""Statuses that a client may be told while parts of the gateway die; 500 would be a defect of ours."""


class End(StrEnum):
    ANSWER = "answer"
    REFUSAL = "refusal"
    """An OpenAI error envelope with a proper status."""
    ERROR_FRAME = "error frame"
    """A stream that was told to have failed; no [DONE]."""
    CUT = "cut"
    """A stream that just ended, without [DONE]; or an unary answer shorter than it was said to be."""
    NO_ANSWER = "no answer"
    """The connection was refused or closed before a byte of an answer: only where the proxy itself was killed."""
    PROXY_PAGE = "proxy page"
    """The proxy's own text: only in the moments before it has read our page."""
    HUNG = "hung"
    MALFORMED = "malformed"
    """Anything else: never."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One request, from its sending to its end; times are monotonic seconds."""

    end: End
    started_seconds: float
    ended_seconds: float
    stream: bool
    status: int | None = None
    code: str | None = None
    detail: str = ""
    retry_after_seconds: float | None = None
    queue_seconds: float | None = None
    cache: str | None = None
    fallback: str | None = None

    @property
    def seconds(self) -> float:
        return self.ended_seconds - self.started_seconds


@dataclass(slots=True)
class _Seen:
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


async def ask(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], *, patience_seconds: float, deadline_seconds: float
) -> Ended:
    """Send one request and say how it ended. ``deadline_seconds`` goes with it, ``patience_seconds`` is our own."""
    started, seen = time.monotonic(), _Seen()
    try:
        async with asyncio.timeout(patience_seconds):
            end, code, detail = await _outcome(session, url, body, deadline_seconds, seen)
    except TimeoutError:
        end, code, detail = End.HUNG, None, f"no end after {patience_seconds} s"
    except aiohttp.ClientPayloadError as error:
        end, code, detail = End.CUT, None, str(error)[:200]
    except (aiohttp.ClientError, OSError) as error:
        end = End.CUT if seen.status == 200 else End.NO_ANSWER
        code, detail = None, f"{type(error).__name__}: {error}"[:200]
    headers = seen.headers
    return Ended(
        end,
        started,
        time.monotonic(),
        bool(body.get("stream")),
        status=seen.status,
        code=code,
        detail=detail,
        retry_after_seconds=_number(headers.get("retry-after")),
        queue_seconds=None if (ms := _number(headers.get("x-wattgate-queue-ms"))) is None else ms / 1000,
        cache=headers.get("x-cache"),
        fallback=headers.get("x-wattgate-fallback"),
    )


async def _outcome(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], deadline_seconds: float, seen: _Seen
) -> tuple[End, str | None, str]:
    headers = {"content-type": "application/json", "x-request-timeout": str(deadline_seconds)}
    async with session.post(url + PATH, data=orjson.dumps(body), headers=headers) as response:
        seen.status, seen.headers = response.status, {k.lower(): v for k, v in response.headers.items()}
        raw = await response.read()
    if response.status != 200:
        return refusal(response.status, raw)
    return stream_end(raw) if body.get("stream") else unary_end(raw)


def refusal(status: int, raw: bytes) -> tuple[End, str | None, str]:
    error = _error(raw)
    if error is None:
        page = status in (500, 502, 503, 504) and raw.startswith((b"Internal Server Error", b"<html>"))
        return (End.PROXY_PAGE if page else End.MALFORMED), None, f"{status}: {raw[:100]!r}"
    code = error["code"]
    return (End.REFUSAL if status in PROPER else End.MALFORMED), code, f"{status}: {error['message']}"


def stream_end(raw: bytes) -> tuple[End, str | None, str]:
    frames = raw.split(b"\n\n")
    whole = frames[-1] == b""
    frames = [frame for frame in frames if frame]
    if whole and frames and frames[-1] == DONE[:-2]:
        chunks = [_json(frame[6:]) for frame in frames[:-1]]
        finished = any(choice.get("finish_reason") for chunk in chunks if chunk for choice in chunk.get("choices", ()))
        return (End.ANSWER, None, "") if finished else (End.MALFORMED, None, "[DONE] without a finish_reason")
    last = _error(frames[-1].removeprefix(b"data: ")) if whole and frames else None
    if last is not None:
        return End.ERROR_FRAME, last["code"], str(last["message"])
    return End.CUT, None, f"{len(frames)} frames"


def unary_end(raw: bytes) -> tuple[End, str | None, str]:
    body = _json(raw)
    try:
        assert body is not None
        complete = bool(body["choices"][0]["finish_reason"]) and body["usage"]["completion_tokens"] > 0
    except (KeyError, IndexError, TypeError, AssertionError):
        complete = False
    return (End.ANSWER, None, "") if complete else (End.MALFORMED, None, f"{raw[:100]!r}")


def _json(raw: bytes) -> dict[str, Any] | None:
    try:
        payload = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return payload if isinstance(payload, dict) else None


def _error(raw: bytes) -> dict[str, Any] | None:
    payload = _json(raw)
    error = payload.get("error") if payload is not None else None
    return error if isinstance(error, dict) and set(error) == _FIELDS else None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Kill:
    what: str
    at_seconds: float
    recovered_seconds: float | None
    """When requests were answered again, from the kill; None: not by the next one."""
    pid: int


AROUND_A_KILL_SECONDS = 1.0
"""A request that ends so soon before a kill is noted may have been hit by it."""


def violations(ended: Iterable[Ended], kills: Iterable[Kill], *, proxy_seconds: float = 30.0) -> list[str]:
    """What no fault excuses. ``proxy_seconds``: how long a killed proxy may be missed."""
    kills = list(kills)

    def hit(one: Ended, *whats: str, within_seconds: float) -> bool:
        return any(
            kill.what in whats
            and kill.at_seconds - AROUND_A_KILL_SECONDS <= one.ended_seconds
            and one.started_seconds <= kill.at_seconds + within_seconds
            for kill in kills
        )

    out = []
    for one in ended:
        if one.end in (End.HUNG, End.MALFORMED):
            out.append(f"{one.end}: {one.detail}")
        elif one.end in (End.NO_ANSWER, End.PROXY_PAGE) and not hit(one, "proxy", within_seconds=proxy_seconds):
            out.append(f"{one.end} although the proxy lives: {one.detail}, {_after(one, kills)}")
        elif one.end is End.CUT and not hit(one, "proxy", "gateway replica", "model replica", within_seconds=5.0):
            out.append(f"{one.end} although no replica was killed: {one.detail}")
        elif one.end is End.CUT and not one.stream and not hit(one, "proxy", within_seconds=proxy_seconds):
            out.append(f"an unary answer was cut: {one.detail}")
    return out


def _after(one: Ended, kills: list[Kill]) -> str:
    """What was killed before, for who looks for the cause."""
    before = [kill for kill in kills if kill.at_seconds <= one.ended_seconds][-3:]
    took = f"after {one.ended_seconds - one.started_seconds:.1f} s"
    return ", ".join((took, *(f"{one.ended_seconds - kill.at_seconds:.0f} s after a {kill.what}" for kill in before)))
