"""Settings of the engines. Each field is documented beneath it: meaning, unit, effect, how to size it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from serving.tuning.engine_library import find_engine_model


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class VllmSettings(_Section):
    """vLLM in the gateway's process (the engine core in processes of its own)."""

    dtype: str = "auto"
    """Precision of weights and arithmetic: auto, float32, bfloat16, float16. auto: the checkpoint's on a GPU;
    on a CPU float32 unless it has AVX512-BF16 (emulated bfloat16 is slower)."""
    max_context_tokens: int | None = Field(default=None, ge=16)
    """Longest prompt plus answer, tokens. None: the model's own limit, at most 4096 on a CPU. Larger
    contexts take KV cache from the batch."""
    max_batch: int = Field(default=32, ge=1)
    """vLLM's max_num_seqs: sequences in one step, and the upper bound of the live cap. Larger: more tokens
    per second and fewer joules each, longer inter-token time. `wattgate tune` finds it."""
    max_batched_tokens: int | None = Field(default=None, ge=16)
    """Tokens in one step (prefill chunks and decode). None: vLLM's choice; 2048 on a CPU. Smaller:
    steadier inter-token time while prompts arrive, later first tokens."""
    kv_cache_gib: int = Field(default=2, ge=1)
    """CPU only: memory for keys and values, GiB (VLLM_CPU_KVCACHE_SPACE). max_batch x context x bytes per token."""
    cpu_cores: tuple[int, ...] | None = None
    """CPU only: cores the engine computes on. None: all but the first one, which is left to the gateway.
    Two compute threads on two busy cores were three times slower than one."""
    enforce_eager: bool | None = None
    """Skip compilation and CUDA graphs. None: eager on a CPU (compiling takes minutes), compiled on a GPU."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """GPU only: share of the device's memory for weights and keys/values."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that one replica's model is split over."""
    enable_prefix_caching: bool = True
    """Reuse keys and values of equal prompt beginnings; the tokens reused are neither computed nor billed."""
    hung_after_seconds: float | None = Field(default=120.0, gt=0)
    """An engine that gives no token for so long, with requests inside, counts as hung: it is killed, what it had ends
    with an error, and the replica is replaced. Above the time of your longest prefill. None: it is waited for."""
    lora: dict[str, str] = Field(default_factory=dict)
    """LoRA adapters (folders in PEFT's form) over the model, each served under its own name: `name: folder`. Tenants,
    cache, metering and `/v1/models` know them by it. One batch mixes them."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further vLLM options by their long name, as `tool-call-parser: hermes`; true stands for a bare flag."""

    @property
    def gpus(self) -> int:
        """GPUs that one replica runs on, where it runs on GPUs."""
        tensor = int(self.extra.get("tensor-parallel-size", self.tensor_parallel_size))
        return tensor * int(self.extra.get("pipeline-parallel-size", 1))

    @field_validator("lora")
    @classmethod
    def _from_here(cls, lora: dict[str, str]) -> dict[str, str]:
        # the replicas' working folder is not the command's
        return {name: str(Path(folder).expanduser().absolute()) for name, folder in lora.items()}


class UpstreamSettings(_Section):
    """Any OpenAI-compatible server: a vLLM server, SGLang, TGI, llama.cpp."""

    url: str = "http://127.0.0.1:8000"
    """Base address, with or without /v1."""
    api_key: SecretStr | None = None
    """Sent to the upstream as bearer token. Better: environment WATTGATE_UPSTREAM_API_KEY."""
    connect_timeout_seconds: float = Field(default=5.0, gt=0)
    """For a connection to be made; above it the upstream counts as away."""
    read_timeout_seconds: float = Field(default=600.0, gt=0)
    """Longest silence of the upstream in mid-answer; above the longest prefill."""
    max_connections: int = Field(default=512, ge=1)
    """Pooled connections; at least the live cap."""
    model_config_path: str | None = None
    """Hugging Face config (file or folder) of the served model. Without it the FLOPs are unknown."""


class SimulatedSettings(_Section):
    """A seeded latency model on a declared device. For planning and tests; every answer says so."""

    seed: int = 0
    """Same seed, same prompts: same answers and the same delays."""
    engine_model: str | None = None
    """Fitted engine model of `wattgate tune`: a file, or `model@device` of one that it kept. Its step times, for one
    batch of all requests, stand for the three figures below; its FLOPs, peak and power, where it knows them, for those
    of the declared device."""

    @field_validator("engine_model")
    @classmethod
    def _is_there(cls, name: str | None) -> str | None:
        if name is None:
            return None
        find_engine_model(name)
        path = Path(name)
        # the replicas' working folder is not the command's
        return str(path.absolute()) if path.is_file() else name

    prefill_seconds_per_token: float = Field(default=0.0004, ge=0)
    """Time to first token grows by this for each prompt token, seconds."""
    step_seconds: float = Field(default=0.02, ge=0)
    """Inter-token time of a batch of one, seconds."""
    step_seconds_per_sequence: float = Field(default=0.001, ge=0)
    """What each further sequence in the batch adds to the inter-token time, seconds."""
    answer_tokens: int = Field(default=48, ge=1)
    """Mean length of an answer when max_tokens does not end it, tokens."""
    max_context_tokens: int = Field(default=8192, ge=16)
    """Longer prompts are refused as a real engine refuses them."""
    prefix_cache_tokens: int = Field(default=0, ge=0)
    """Prompt tokens whose keys and values are kept for equal beginnings, in blocks of 16. 0: no prefix cache."""
    peak_flops: float = Field(default=100e12, gt=0)
    """Peak of the declared simulated device, FLOP/s."""
    bandwidth_bytes_per_second: float = Field(default=1e12, gt=0)
    """Memory bandwidth of the declared simulated device."""
    idle_watts: float = Field(default=50.0, ge=0)
    """Idle power of the declared simulated device, watts."""
    max_watts: float = Field(default=300.0, gt=0)
    """Full power of the declared simulated device, watts."""


class EngineSettings(_Section):
    """Which engine answers, with which model."""

    kind: Literal["vllm", "upstream", "simulated"] = "vllm"
    """vllm: in the gateway's process. upstream: relay to a server. simulated: no model, for planning and tests."""
    model: str = "bundled:smollm2-135m-instruct"
    """Hugging Face id, local folder, or bundled:smollm2-135m-instruct (travels as a package, no hub)."""
    revision: str | None = None
    """Revision of a hub model; enters the cache's identity."""
    served_model_name: str | None = None
    """Name that clients ask for. None: a hub id as it is, a folder's last part, an upstream's own names."""
    unload_after_seconds: float | None = Field(default=None, ge=1)
    """Scale to zero: after so long without a request the engine is unloaded (a GPU's memory is free, a CPU's too), and
    loaded again by the next one. Hits of the response cache do not wake it. None: it stays loaded."""
    wake_timeout_seconds: float = Field(default=180.0, gt=0)
    """How long a request waits for that, within its own deadline; then 504 with Retry-After. Above the loading time."""
    vllm: VllmSettings = VllmSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    simulated: SimulatedSettings = SimulatedSettings()
