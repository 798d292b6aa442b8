"""vLLM in the process: its own OpenAI application behind the engine seam.

Templates, tools, structured output and logprobs are vLLM's serving layer, reused as an ASGI application;
this module is the one place that knows where vLLM keeps it (``vllm.entrypoints`` moves between releases).
A ``StepRecorder`` is put around the output processor before that layer is built.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson

from metering.work import EngineSteps, Method
from serving.bundled_model import BUNDLED_MODEL, BUNDLED_SERVED_NAME, BundledModelError, prepare_bundled_model
from serving.engines.asgi import AsgiAnswer, asgi_call
from serving.engines.base import (
    EngineAnswer,
    EngineModel,
    EngineRequest,
    EngineStartError,
    EngineStatus,
    StepSink,
    WorkSink,
)
from serving.engines.core_cause import core_cause, marks, told_elsewhere, written_since
from serving.engines.settings import EngineSettings, VllmSettings
from serving.engines.vllm_recorder import Recording, StepRecorder, current_recording
from serving.errors import EngineRefused, EngineUnavailable, GatewayError

log = logging.getLogger("wattgate")

_LOOK_SECONDS = 1.0
_CPU_CONTEXT_TOKENS = 4096
_CPU_BATCHED_TOKENS = 2048
_BUNDLED_EXTRA = {"tool-call-parser": "hermes", "enable-auto-tool-choice": True}
"""vLLM refuses tools without a parser; with Hermes' form the model calls a named tool (the engine tests show it)."""
_ERROR = b'data: {"error"'
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Choices of vLLM's ``--max-lora-rank`` (``vllm.config.lora.MaxLoRARanks``)."""
_DTYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}


def engine_cores(settings: VllmSettings, available: Sequence[int]) -> tuple[int, ...]:
    """Cores that a CPU engine computes on: all but the first, which the gateway keeps."""
    if settings.cpu_cores is not None:
        return settings.cpu_cores
    return tuple(sorted(available))[1:] or tuple(available)


def has_gpu() -> bool:
    """Whether an NVIDIA device is there; asks the driver's files, so that no library is loaded."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def cpu_has_native_bf16() -> bool:
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def vllm_arguments(
    settings: VllmSettings, model: str, served_name: str, *, revision: str | None, gpu: bool, bf16: bool
) -> list[str]:
    """vLLM's command line for these settings; what is only right on a CPU is only said on a CPU."""
    flags: dict[str, Any] = {
        "model": model,
        "served-model-name": served_name,
        "max-num-seqs": settings.max_batch,
        "tensor-parallel-size": settings.tensor_parallel_size,
        "enable-mfu-metrics": True,
        "no-enable-prefix-caching": not settings.enable_prefix_caching,
        "enforce-eager": settings.enforce_eager if settings.enforce_eager is not None else not gpu,
        "disable-uvicorn-access-log": True,
        "enable-prompt-tokens-details": True,
    }
    if revision:
        flags["revision"] = revision
    dtype = settings.dtype
    if dtype == "auto" and not gpu:
        dtype = "bfloat16" if bf16 else "float32"
    flags["dtype"] = dtype
    if settings.max_context_tokens:
        flags["max-model-len"] = settings.max_context_tokens
    if settings.max_batched_tokens:
        flags["max-num-batched-tokens"] = settings.max_batched_tokens
    elif not gpu:
        flags["max-num-batched-tokens"] = max(_CPU_BATCHED_TOKENS, settings.max_batch)
    if gpu:
        flags["gpu-memory-utilization"] = settings.gpu_memory_utilization
    flags |= {key.lstrip("-").replace("_", "-"): value for key, value in settings.extra.items()}
    out: list[str] = []
    if settings.lora:
        out += ["--lora-modules", *(json.dumps({"name": name, "path": path}) for name, path in settings.lora.items())]
        flags |= {"enable-lora": True, "max-loras": len(settings.lora), "max-lora-rank": _lora_rank(settings.lora)}
    for key, value in flags.items():
        if value is True:
            out.append(f"--{key}")
        elif value is not False and value is not None:
            out += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return out


def _lora_rank(adapters: Mapping[str, str]) -> int:
    """vLLM's rank that holds all of them.

    Raises:
        EngineStartError: a folder that is no adapter in PEFT's form, or a rank above vLLM's largest.
    """
    ranks = {}
    for name, folder in adapters.items():
        try:
            ranks[name] = int(json.loads((Path(folder) / "adapter_config.json").read_text())["r"])
        except (OSError, ValueError, KeyError, TypeError):
            raise EngineStartError(
                f"engine.vllm.lora.{name}: {folder} is no LoRA adapter in PEFT's form (adapter_config.json with its r)"
            ) from None
    largest = max(ranks, key=lambda name: ranks[name])
    fitting = next((rank for rank in _LORA_RANKS if rank >= ranks[largest]), None)
    if fitting is None:
        raise EngineStartError(f"engine.vllm.lora.{largest}: rank {ranks[largest]} is above vLLM's {_LORA_RANKS[-1]}")
    return fitting


def adapter_revision(folder: Path) -> str:
    """A digest of the adapter's files: another adapter under the same name is another model to the cache."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(folder.glob("adapter_*")):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def look_for(model: str) -> None:
    """Raises ``EngineStartError`` where the name is a folder's and nothing to serve is in it."""
    if model.startswith((".", "/", "~")) and not (Path(model).expanduser() / "config.json").exists():
        raise EngineStartError(f"no model in {model}: the folder has no config.json")


def served_name(settings: EngineSettings) -> str:
    """The name that clients ask for."""
    if settings.served_model_name is not None:
        return settings.served_model_name
    if settings.model == BUNDLED_MODEL:
        return BUNDLED_SERVED_NAME
    path = Path(settings.model).expanduser()
    return path.resolve().name if path.is_dir() else settings.model


def model_context_limit(folder: Path) -> int | None:
    """``max_position_embeddings`` of a local checkpoint."""
    try:
        value = json.loads((folder / "config.json").read_text()).get("max_position_embeddings")
    except (OSError, ValueError):
        return None
    return int(value) if isinstance(value, int) else None


class VllmEngine:
    """``AsyncLLM`` in this process; see ``Engine``."""

    kind = "vllm"
    method = Method.MEASURED

    def __init__(self, settings: EngineSettings, steps: StepSink, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._step_sink = steps
        self._tell = tell
        self._llm: Any = None
        self._app: Any = None
        self._recorder: StepRecorder | None = None
        self._models: tuple[EngineModel, ...] = ()
        self._failure: str | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        settings = self._settings
        gpu = has_gpu()
        model, name = await asyncio.to_thread(self._resolve_model)
        vllm = settings.vllm
        if settings.model == BUNDLED_MODEL:
            vllm = vllm.model_copy(update={"extra": _BUNDLED_EXTRA | vllm.extra})
        if not gpu:
            self._set_cpu_environment(vllm)
            if vllm.max_context_tokens is None:
                limit = model_context_limit(Path(model)) or _CPU_CONTEXT_TOKENS
                vllm = vllm.model_copy(update={"max_context_tokens": min(limit, _CPU_CONTEXT_TOKENS)})
        arguments = vllm_arguments(
            vllm, model, name, revision=settings.revision, gpu=gpu, bf16=not gpu and cpu_has_native_bf16()
        )
        self._tell(f"loading {name} into vLLM on the {'GPU' if gpu else 'CPU'} (about a minute)")
        before = marks()
        try:
            await self._load(arguments, name)
            self._models += await asyncio.to_thread(_adapters, self._models[0], vllm.lora)
        except EngineStartError:
            raise
        except Exception as error:
            # vLLM's own errors name the setting; its last line is the one an operator can act on
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            if told_elsewhere(reason):
                reason = core_cause(written_since(before)) or reason
            raise EngineStartError(f"vLLM could not load {model}: {reason}") from error

    def _resolve_model(self) -> tuple[str, str]:
        model = self._settings.model
        if model == BUNDLED_MODEL:
            try:
                folder = prepare_bundled_model(self._tell)
            except BundledModelError as error:
                raise EngineStartError(str(error)) from error
            return str(folder), served_name(self._settings)
        look_for(model)
        path = Path(model).expanduser()
        return str(path) if path.is_dir() else model, served_name(self._settings)

    @staticmethod
    def _set_cpu_environment(settings: VllmSettings) -> None:
        # vLLM's CPU backend takes these from the environment only, and reads them when it is imported
        cores = engine_cores(settings, sorted(os.sched_getaffinity(0)))
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(settings.kv_cache_gib)
        os.environ["VLLM_CPU_CI_ENV"] = "1"
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

    async def _load(self, arguments: list[str], name: str) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app
        from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
        from vllm.utils.argparse_utils import FlexibleArgumentParser
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            args = make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
            validate_parsed_serve_args(args)
        except SystemExit as error:
            raise EngineStartError(f"vLLM does not accept engine.vllm.extra: {' '.join(arguments)}") from error
        # it waits for the engine core: when it is loaded again after a sleep, others are served meanwhile
        llm = await asyncio.to_thread(AsyncLLM.from_engine_args, AsyncEngineArgs.from_cli_args(args))
        try:
            cache = llm.vllm_config.cache_config
            recorder = StepRecorder(
                self._tell_steps,
                name,
                llm.vllm_config.scheduler_config.max_num_batched_tokens,
                cache.block_size if cache.enable_prefix_caching else 0,
            )
            _record_steps(llm.output_processor, recorder)
            tasks = await llm.get_supported_tasks()
            app = build_app(args, tasks, llm.model_config)
            await init_app_state(llm, app.state, args, tasks)
            # vLLM's handler of engine errors asks its HTTP server to stop; here the replica is replaced
            app.state.server = SimpleNamespace(should_exit=False)
        except BaseException:
            llm.shutdown()
            raise
        self._llm, self._app, self._recorder = llm, app, recorder
        if (hung_after := self._settings.vllm.hung_after_seconds) is not None:
            self._watcher = asyncio.create_task(self._watch(hung_after), name="hung engine")
        config = llm.model_config
        dtype = str(config.dtype).removeprefix("torch.")
        self._models = (
            EngineModel(
                name=name,
                max_context_tokens=config.max_model_len,
                revision=config.revision,
                config=config.hf_config.to_dict(),
                weight_bytes_each=_DTYPE_BYTES.get(dtype) if config.quantization is None else None,
                dtype=dtype,
            ),
        )

    def _tell_steps(self, steps: EngineSteps) -> None:
        # adapters run in the same forward passes as their model
        for model in self._models:
            self._step_sink(replace(steps, model=model.name))

    def models(self) -> tuple[EngineModel, ...]:
        return self._models

    def status(self) -> EngineStatus:
        if self._llm is None:
            return EngineStatus(ready=False, reason="closed" if self._closed else "the model is loading")
        if self._failure is None and (self._llm.errored or not self._llm.is_running):
            self._failure = "the engine core has died"
        if self._failure is not None:
            return EngineStatus(ready=False, reason=self._failure, fatal=True)
        assert self._recorder is not None
        return EngineStatus(ready=True, running=self._recorder.running)

    async def _watch(self, hung_after_seconds: float) -> None:
        while not self.end_if_hung(hung_after_seconds):  # noqa: ASYNC110 - silence gives no signal
            await asyncio.sleep(_LOOK_SECONDS)

    def end_if_hung(self, after_seconds: float) -> bool:
        """Kill an engine core that has been silent for so long with requests inside: a dead one ends them and is
        replaced, a hung one would keep them. Whether it was."""
        assert self._recorder is not None
        silent = self._recorder.silent_seconds()
        if silent < after_seconds or not self.status().ready:
            return False
        self._failure = f"the engine gave nothing for {silent:.0f} s with {self._recorder.running} requests inside"
        log.error("%s: it is killed", self._failure)
        for process in self._llm.engine_core.resources.engine_manager.processes:
            process.kill()
        return True

    def flush(self) -> float | None:
        return None if self._recorder is None else self._recorder.flush()

    @contextlib.asynccontextmanager
    async def run(self, request: EngineRequest, work: WorkSink) -> AsyncIterator[EngineAnswer]:
        status = self.status()
        if not status.ready:
            raise EngineUnavailable(f"The engine cannot answer now: {status.reason}.")
        recording = Recording(request.request_id, request.model, request.tenant, work)
        body = orjson.dumps(request.payload)
        try:
            async with self._asked(request, body, recording) as answer:
                yield answer
        finally:
            if self._recorder is not None:
                self._recorder.left(recording)

    @contextlib.asynccontextmanager
    async def _asked(self, request: EngineRequest, body: bytes, recording: Recording) -> AsyncIterator[EngineAnswer]:
        async with asgi_call(
            self._app,
            request.path,
            body,
            request_id=request.request_id,
            on_start=lambda: current_recording.set(recording) and None,
        ) as answer:
            if answer.status != 200:
                raise self._refusal(answer.status, await _whole(answer))
            if request.stream:
                # vLLM says 200 before it has computed anything: an engine that dies in the prefill is told as one
                first = await answer.begin()
                if (first is None or first.startswith(_ERROR)) and not self.status().ready:
                    raise EngineUnavailable("The engine died before it answered.")
            yield EngineAnswer(answer.frames, first_token_seconds=lambda: recording.first_token_seconds)

    def _refusal(self, status: int, body: bytes) -> GatewayError:
        try:
            envelope = orjson.loads(body)
        except orjson.JSONDecodeError:
            envelope = {}
        if not isinstance(envelope, dict):
            envelope = {}
        if status >= 500:
            # the engine's text may carry its internals
            if not self.status().ready:
                return EngineUnavailable("The engine died while answering.")
            if status == 503:
                return EngineUnavailable("The engine refused more work for now.")
            return GatewayError("The engine failed to answer.", code="engine_error")
        return EngineRefused(status, envelope)

    async def close(self) -> None:
        llm, self._llm = self._llm, None
        self._closed = True
        if self._watcher is not None:
            self._watcher.cancel()
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)


def _adapters(model: EngineModel, folders: Mapping[str, str]) -> tuple[EngineModel, ...]:
    """Their models, each the model's with what the adapter says of itself."""
    return tuple(
        replace(
            model,
            name=name,
            parent=model.name,
            revision=adapter_revision(Path(folder)),
            adapter=json.loads((Path(folder) / "adapter_config.json").read_text()),
        )
        for name, folder in folders.items()
    )


async def _whole(answer: AsgiAnswer) -> bytes:
    parts: list[bytes] = []
    # Starlette raises an error again after it has answered with it; the answer is what counts
    with contextlib.suppress(Exception):
        async for frame in answer.frames:
            parts.append(frame)  # noqa: PERF401 - what came before the error is kept
    return b"".join(parts)


def _record_steps(processor: Any, recorder: StepRecorder) -> None:
    """Let the recorder see what enters, what each step puts out and what is aborted."""
    add, process, abort = processor.add_request, processor.process_outputs, processor.abort_requests

    def add_request(request: Any, *args: Any, **kwargs: Any) -> Any:
        recorder.added(request.request_id, request.prompt_token_ids or ())
        return add(request, *args, **kwargs)

    def process_outputs(outputs: Any, timestamp: float | None = None, *args: Any, **kwargs: Any) -> Any:
        recorder.stepped(outputs, timestamp or time.monotonic())
        done = process(outputs, timestamp, *args, **kwargs)
        if done.reqs_to_abort:
            recorder.aborted(done.reqs_to_abort)
        return done

    def abort_requests(*args: Any, **kwargs: Any) -> Any:
        ids = abort(*args, **kwargs)
        recorder.aborted(ids)
        return ids

    processor.add_request = add_request
    processor.process_outputs = process_outputs
    processor.abort_requests = abort_requests
