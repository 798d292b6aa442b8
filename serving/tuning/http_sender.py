"""One streamed chat completion over HTTP, timed frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import aiohttp
import orjson

from serving.tuning.load import Timer
from serving.tuning.outcome import Cost, Outcome
from serving.tuning.prompts import PromptMaker
from serving.tuning.workload import Workload

_FRAME = b"data: "


class HttpSender:
    """See ``Sender``. Lengths are exact (``ignore_eos``) unless ``natural``: servers that do not know the field
    need that.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        model: str,
        workload: Workload,
        prompts: PromptMaker,
        *,
        natural: bool = False,
        use_cache: bool = True,
        timeout_seconds: float = 600.0,
    ) -> None:
        self._session = session
        self._url = f"{url}/v1/chat/completions"
        self._model = model
        self._workload = workload
        self._prompts = prompts
        self._natural = natural
        self._headers = {"content-type": "application/json"}
        if not use_cache:
            self._headers["cache-control"] = "no-store, no-cache"
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)

    def body(self, index: int) -> bytes:
        payload: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": self._prompts.text(index)}],
            "max_tokens": int(self._workload.output_tokens[index]),
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not self._natural:
            payload["ignore_eos"] = True
        return orjson.dumps(payload)

    async def __call__(self, index: int, timer: Timer) -> Outcome:
        body = self.body(index)
        sent = timer.now()
        reading = _Reading(timer)
        try:
            async with self._session.post(
                self._url, data=body, headers=self._headers, timeout=self._timeout
            ) as response:
                if response.status != 200:
                    await response.read()
                    return Outcome(sent, sent, timer.now(), error=f"HTTP {response.status}")
                async for line in response.content:
                    reading.line(line)
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            return reading.outcome(sent, type(error).__name__)
        return reading.outcome(sent, None if reading.done else (reading.error or "the stream broke off"))


class _Reading:
    """One stream as its lines arrive."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._first: float | None = None
        self._last = 0.0
        self._gaps: list[float] = []
        self._usage: dict[str, Any] = {}
        self.done = False
        self.error: str | None = None

    def line(self, line: bytes) -> None:
        if not line.startswith(_FRAME):
            return
        data = line[len(_FRAME) :].strip()
        if data == b"[DONE]":
            self.done = self.error is None
            return
        payload = orjson.loads(data)
        if "error" in payload:
            self.error = f"stream error {(payload['error'] or {}).get('code')}"
            return
        if payload.get("usage"):
            self._usage = payload["usage"]
        choices = payload.get("choices")
        if choices and (choices[0].get("delta") or {}).get("content"):
            now = self._timer.now()
            if self._first is None:
                self._first = now
            else:
                self._gaps.append(now - self._last)
            self._last = now

    def outcome(self, sent: float, error: str | None) -> Outcome:
        usage = self._usage
        return Outcome(
            intended_seconds=sent,
            sent_seconds=sent,
            ended_seconds=self._timer.now(),
            first_token_seconds=self._first,
            token_gaps_seconds=tuple(self._gaps),
            prompt_tokens=usage.get("prompt_tokens") or 0,
            cached_prompt_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            output_tokens=usage.get("completion_tokens") or 0,
            error=error,
            cost=Cost.of(usage.get("wattgate") or {}),
        )


async def settle(
    session: aiohttp.ClientSession, url: str, outcomes: Sequence[Outcome], *, at_once: int = 32
) -> list[Outcome]:
    """The outcomes with their final receipts where the gateway has them by now, provisional ones otherwise (their
    ``cost.status`` says which). ``at_once``: receipts asked for together.
    """
    permits = asyncio.Semaphore(at_once)

    async def one(outcome: Outcome) -> Outcome:
        if outcome.cost.receipt_id is None or outcome.cost.hit:
            return outcome
        try:
            async with permits, session.get(f"{url}/v1/receipts/{outcome.cost.receipt_id}") as response:
                if response.status != 200:
                    return outcome
                receipt = orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return outcome
        return replace(outcome, cost=replace(Cost.of(receipt), cache=outcome.cost.cache))

    return list(await asyncio.gather(*map(one, outcomes)))
