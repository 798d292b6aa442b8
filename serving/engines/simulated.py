"""A seeded latency model that answers in OpenAI's form and says in every answer that it is one.

Time to first token grows with the prompt, inter-token time with the batch; by a fitted engine model, all requests are
one batch and take the simulator's time. For planning, fast tests and the gateway's own overhead (all delays zero). Its
work is booked as ``simulated`` on a declared device.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import orjson

from metering.work import EngineSteps, Method, WorkRecord
from serving.engines.asked import asked_choices, asked_tokens
from serving.engines.base import (
    EngineAnswer,
    EngineModel,
    EngineRequest,
    EngineStatus,
    StepSink,
    WorkSink,
)
from serving.engines.settings import EngineSettings
from serving.engines.simulated_prefix import PrefixCache
from serving.engines.simulated_shape import shape_with
from serving.engines.simulated_steps import StepLoop
from serving.errors import EngineRefused, EngineUnavailable
from serving.tuning.engine_library import find_engine_model

FINGERPRINT = "wattgate-simulated"
BOOK_SECONDS = 0.5
"""Longest time that simulated work stays unreported; half a metering window."""
SIMULATED_NAME = "simulated-1b"
SIMULATED_CONFIG: dict[str, Any] = {
    # Llama-3.2-1B's published shape, so that the FLOPs are those of a model that exists
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
_WORDS = (
    *("the", "a", "grid", "clean", "power", "model", "token", "batch", "cache", "watt", "joule", "gram"),
    *("carbon", "serves", "answers", "holds", "runs", "waits", "now"),
)

_ANSWERED = ("/v1/chat/completions", "/v1/completions")

Sleep = Callable[[float], Awaitable[None]]


class SimulatedEngine:
    """See ``Engine``. ``sleep`` is injected: tests hold and release it by hand."""

    kind = "simulated"
    method = Method.SIMULATED

    def __init__(
        self,
        settings: EngineSettings,
        steps: StepSink,
        *,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings.simulated
        name = settings.simulated.engine_model
        fitted = None if name is None else find_engine_model(name)
        self._batch = None if fitted is None else StepLoop(fitted, sleep, clock)
        self._config = SIMULATED_CONFIG if fitted is None or fitted.flops is None else shape_with(fitted.flops)
        self._name = settings.served_model_name or SIMULATED_NAME
        self._step_sink = steps
        self._sleep = sleep
        self._clock = clock
        self._wall = wall
        self._running = 0
        self._sequences = 0
        self._runs: set[_Run] = set()
        self._prefixes = PrefixCache(self._settings.prefix_cache_tokens)
        self._started = False

    async def start(self) -> None:
        self._started = True

    def models(self) -> tuple[EngineModel, ...]:
        if not self._started:
            return ()
        return (
            EngineModel(
                name=self._name,
                max_context_tokens=self._settings.max_context_tokens,
                config=self._config,
                weight_bytes_each=2.0,
                dtype="bfloat16",
            ),
        )

    def status(self) -> EngineStatus:
        return EngineStatus(ready=self._started, reason="" if self._started else "not started", running=self._running)

    @contextlib.asynccontextmanager
    async def run(self, request: EngineRequest, work: WorkSink) -> AsyncIterator[EngineAnswer]:
        if not self._started:
            raise EngineUnavailable("The engine cannot answer now: it is not started.")
        run = _Run(self, request, work)
        self._running += 1
        self._sequences += run.sequences
        self._runs.add(run)
        try:
            frames = run.stream() if request.stream else run.unary()
            async with contextlib.aclosing(frames):
                yield EngineAnswer(frames, first_token_seconds=lambda: run.first_token_seconds)
        finally:
            if self._batch is not None:
                self._batch.leave(run)
            self._running -= 1
            self._sequences -= run.sequences
            self._runs.discard(run)
            run.book()

    def flush(self) -> float | None:
        pending = [run.pending_since for run in self._runs if run.pending_since is not None]
        return min(pending, default=None)

    async def close(self) -> None:
        self._started = False
        if self._batch is not None:
            await self._batch.close()

    def step_seconds(self) -> float:
        """Of one more token, without a fitted model."""
        settings = self._settings
        return settings.step_seconds + settings.step_seconds_per_sequence * max(0, self._sequences - 1)

    def prefill_seconds(self, prompt_tokens: int) -> float:
        return self._settings.prefill_seconds_per_token * prompt_tokens


class _Run:
    """One request in the simulation; its sequences (``n``) advance together and are equally long."""

    def __init__(self, engine: SimulatedEngine, request: EngineRequest, work: WorkSink) -> None:
        self._engine = engine
        self._request = request
        self._work = work
        settings = engine._settings
        payload = request.payload
        if request.path not in _ANSWERED:
            raise EngineRefused(
                404,
                {
                    "error": {
                        "message": f"The simulated engine does not answer {request.path}: it has no model.",
                        "code": "endpoint_not_served",
                    }
                },
            )
        text = _prompt_text(payload)
        self._prompt = text.split() or [""]
        self._prompt_tokens = len(self._prompt)
        asked = asked_tokens(request.path, payload)
        room = settings.max_context_tokens - self._prompt_tokens
        if room < 1 or (asked or 0) > room:
            raise EngineRefused(
                400,
                {
                    "error": {
                        "message": f"The context is {settings.max_context_tokens} tokens; the prompt has "
                        f"{self._prompt_tokens} and {asked or 1} were asked for.",
                        "param": "messages" if "messages" in payload else "prompt",
                        "code": "context_length_exceeded",
                    }
                },
            )
        draw = random.Random(zlib.crc32(text.encode("utf-8", "surrogatepass")) ^ settings.seed)
        natural = max(1, round(draw.gauss(settings.answer_tokens, settings.answer_tokens / 4)))
        self._tokens = (
            min(room, asked or natural) if payload.get("ignore_eos") else min(natural, room, asked or natural)
        )
        self._finish = "stop" if self._tokens == natural and (asked is None or natural <= asked) else "length"
        self.sequences = asked_choices(request.path, payload)
        self._words = [["simulated", *draw.choices(_WORDS, k=self._tokens - 1)] for _ in range(self.sequences)]
        self._cached = engine._prefixes.reuse(self._prompt)
        self._started_seconds = engine._clock()
        self.first_token_seconds: float | None = None
        self._last_seconds = self._started_seconds
        self._made = 0
        self._joined = False
        self._taken = 0
        """Of those made, by the answer."""
        self._token = asyncio.Event()
        self._booked = 0
        self._booked_seconds = self._started_seconds
        self._batch_sum = 0
        self._chat = request.path.endswith("chat/completions")
        self._id = f"{'chatcmpl' if self._chat else 'cmpl'}-{request.request_id}"

    @property
    def pending_since(self) -> float | None:
        """Start of a prefill that has not ended; books what has."""
        self.book()
        return self._started_seconds if self._made == 0 else None

    async def _advance(self) -> None:
        """Let the time of one more token pass. A batch goes on whether or not its tokens are taken."""
        engine = self._engine
        if engine._batch is None:
            if self._made == 0:
                delay = engine.prefill_seconds(self._prompt_tokens - self._cached)
            else:
                delay = engine.step_seconds()
            if delay > 0:
                await engine._sleep(delay)
            self.stepped(engine._clock(), engine._sequences)
            return
        if not self._joined:
            self._joined = True
            engine._batch.join(self, self._prompt_tokens, self._cached, self._tokens, self.sequences)
        while self._made <= self._taken:
            self._token.clear()
            await self._token.wait()
        self._taken += 1

    def stepped(self, now_seconds: float, batch: int) -> None:
        """One more token of each sequence, in a step of ``batch`` sequences."""
        self._last_seconds = now_seconds
        if self._made == 0:
            self.first_token_seconds = now_seconds
            self._engine._prefixes.keep(self._prompt)
        self._made += 1
        self._batch_sum += batch
        self._token.set()
        if now_seconds - self._booked_seconds >= BOOK_SECONDS:
            self.book()

    def _usage(self) -> dict[str, Any]:
        completion = self._made * self.sequences
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self._prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": self._cached},
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": int(self._engine._wall()),
            "model": self._request.model,
            "system_fingerprint": FINGERPRINT,
        }

    async def unary(self) -> AsyncGenerator[bytes, None]:
        for _ in range(self._tokens):
            await self._advance()
        self.book()
        choices: list[dict[str, Any]] = []
        for index, words in enumerate(self._words):
            text = " ".join(words)
            said = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
            choices.append({"index": index, "finish_reason": self._finish, "logprobs": None, **said})
        head = self._head("chat.completion" if self._chat else "text_completion")
        yield orjson.dumps({**head, "choices": choices, "usage": self._usage()})

    async def stream(self) -> AsyncGenerator[bytes, None]:
        head = orjson.dumps(self._head("chat.completion.chunk" if self._chat else "text_completion"))[:-1]
        # every frame is the same but for its text: a template, not a serialiser
        ending = b',"finish_reason":null}]}\n\n'
        openings = [b"data: " + head + b',"choices":[{"index":%d,' % index for index in range(self.sequences)]
        if self._chat:
            for opening in openings:
                yield opening + b'"delta":{"role":"assistant","content":""}' + ending
        for made in range(self._tokens):
            await self._advance()
            for opening, words in zip(openings, self._words, strict=True):
                text = orjson.dumps(words[made] if made == 0 else " " + words[made])
                yield opening + (b'"delta":{"content":' + text + b"}" if self._chat else b'"text":' + text) + ending
        self.book()
        last = b'"delta":{}' if self._chat else b'"text":""'
        for opening in openings:
            yield opening + last + b',"finish_reason":"' + self._finish.encode() + b'"}]}\n\n'
        if (self._request.payload.get("stream_options") or {}).get("include_usage"):
            yield b"data: " + head + b',"choices":[],"usage":' + orjson.dumps(self._usage()) + b"}\n\n"
        yield b"data: [DONE]\n\n"

    def book(self) -> None:
        """Hand over the work of the tokens made since the last time."""
        request, context = self._request, self._prompt_tokens + self._booked

        def record(started: float, ended: float, **tokens: int) -> None:
            self._work(
                WorkRecord(
                    request.request_id, request.model, request.tenant, started, ended, method=Method.SIMULATED, **tokens
                )
            )

        if self._made == self._booked or self.first_token_seconds is None:
            return
        decoded, since = self._made - self._booked, self._booked_seconds
        if self._booked == 0:
            computed = self._prompt_tokens - self._cached
            record(
                self._started_seconds,
                self.first_token_seconds,
                prefill_tokens=computed,
                cached_tokens=self._cached,
            )
            decoded, since, context = decoded - 1, self.first_token_seconds, context + 1
        if decoded:
            for _ in range(self.sequences):
                record(since, self._last_seconds, decode_tokens=decoded, first_context_tokens=context)
        # a step shared by b sequences is one b-th of a step to each
        made = (self._made - self._booked) * self.sequences
        steps = max(1, round(made * (self._made - self._booked) / max(1, self._batch_sum)))
        self._engine._step_sink(EngineSteps(request.model, self._booked_seconds, self._last_seconds, steps, made))
        self._booked, self._booked_seconds, self._batch_sum = self._made, self._last_seconds, 0


def _prompt_text(payload: dict[str, Any]) -> str:
    if "messages" not in payload:
        prompt = payload.get("prompt")
        return prompt if isinstance(prompt, str) else " ".join(map(str, prompt or ()))
    parts = []
    for message in payload["messages"]:
        content = message.get("content")
        if isinstance(content, list):
            content = " ".join(str(part.get("text", "")) for part in content)
        parts.append(f"{message.get('role')} {content or ''}")
    return "\n".join(parts)
