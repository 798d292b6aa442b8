"""The one typed configuration.

Every field is documented beneath it; ``wattgate config`` and the README's reference are made from this.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from metering.hardware.catalogue import find_device
from metering.intensity.static import find_zone
from serving.admission.settings import AdmissionSettings
from serving.batches.settings import BatchSettings
from serving.cache_settings import CacheSettings
from serving.control_settings import CapControlSettings
from serving.embeddings.settings import EmbeddingsSettings
from serving.engines.settings import EngineSettings
from serving.metering_settings import MeteringSettings
from serving.models_settings import FallbackSettings, ModelSettings, check_cap
from serving.tenancy.tenant import TenantSettings

_SENDABLE = re.compile(r"[!-~]([ -~]*[!-~])?")


class ConfigError(Exception):
    """One readable line: what is wrong, where, and the mend."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ServerSettings(Section):
    """The HTTP side."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs `api_keys`."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one and says which."""
    replicas: int = Field(default=1, ge=1)
    """Gateway replicas behind the proxy; with the vllm engine each loads the model."""
    replicas_per_node: int | None = Field(default=None, ge=1)
    """At most so many replicas on one machine of a cluster. None: as many as Ray puts there (it packs them)."""
    affinity: Literal["conversation", "none"] = "conversation"
    """With several replicas: conversation sends the turns of a conversation to the same one, whose prefix cache knows
    it, unless that one has 1.5 times the mean load. It is told by `x-wattgate-session`, else by `prompt_cache_key`,
    else by its messages up to the user's first. none: to the replica with the fewest connections."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of every node on which its meter serves the node's `/metrics`; `/metrics/targets` lists them. None: 9464 in
    a cluster, none on a single machine, where the gateway's own `/metrics` is the node's."""
    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Larger request bodies get 413. A prompt of 100,000 tokens is about 0.5 MB."""
    max_concurrent_requests: int = Field(default=4096, ge=1)
    """Requests inside one replica, queued ones included; above it 429."""
    request_timeout_seconds: float = Field(default=300.0, gt=0)
    """Deadline of a request unless it says `x-request-timeout`; the answer must be complete by then. Within the same
    time its body must have come, an uploaded file too: else 408. A file of 200 MB at 10 Mbit/s takes 160 s."""
    slow_reader_seconds: float = Field(default=30.0, gt=0)
    """A client that takes nothing of its answer for so long, with all buffers on the way full, is cut, and its engine
    slot is free. Above the longest pause that your clients' links have."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may ask from a browser, as `https://app.example.org`; `*` is any. Empty: none. TLS is left to
    the ingress in front."""
    shutdown_grace_seconds: float = Field(default=300.0, ge=0)
    """On SIGTERM what was accepted gets this long to finish; below `request_timeout_seconds` the longest answers are
    cut. An orchestrator's own grace must be longer (Kubernetes: `terminationGracePeriodSeconds`), or it kills first."""


class AccessSettings(Section):
    """Who may ask. Without keys the gateway listens on loopback only and accepts any key."""

    api_keys: dict[str, SecretStr] = Field(default_factory=dict)
    """Tenant name to key. Better kept out of the file: environment WATTGATE_API_KEYS=`tenant=key,tenant=key`."""
    key_file: Path | None = None
    """Digests of keys made with `wattgate keys`; changes to it take effect within seconds."""
    admin_key: SecretStr | None = None
    """Opens /metrics, what the console shows of the node, and every tenant's usage; clears the cache, holds live caps;
    nothing else. None: those figures open with a tenant's key while it is the only tenant, and with nobody's where
    there are several. Environment: WATTGATE_ADMIN_KEY."""
    tenants: dict[str, TenantSettings] = Field(default_factory=dict)
    """Tenant name to its grants: `models`, `priority`, `limits`. Live."""
    default_tenant: TenantSettings = TenantSettings()
    """Grants of tenants that are not named under `tenants`. Live."""

    @field_validator("key_file")
    @classmethod
    def _from_here(cls, path: Path | None) -> Path | None:
        # the replicas' working folder is not the command's
        return None if path is None else path.expanduser().absolute()

    @model_validator(mode="after")
    def _keys_can_be_sent(self) -> Self:
        named = [("admin_key", self.admin_key), *((f"api_keys.{name}", key) for name, key in self.api_keys.items())]
        for name, key in named:
            if key is not None and not _SENDABLE.fullmatch(key.get_secret_value()):
                raise ValueError(
                    f"{name} cannot be sent in a header: keys are ASCII letters, digits and signs "
                    "(`wattgate keys create` makes good ones)"
                )
        return self

    @property
    def keyless(self) -> bool:
        return not self.api_keys and self.key_file is None and self.admin_key is None

    @property
    def limited(self) -> bool:
        """Whether any tenant has a limit."""
        return any(tenant.limits.any for tenant in (self.default_tenant, *self.tenants.values()))


class LimitsSettings(Section):
    """How tenants' limits (`access.tenants`) are kept: in the Redis of `cache.redis`, shared by all replicas; where it
    is embedded, in one beside the cache's. So are the accounts that `/v1/usage` tells. Without keys and limits, one
    replica with `cache.tier: off` counts for itself."""

    strict: bool = False
    """While Redis is away: true refuses tenants with limits (503); false lets each replica count for itself."""
    redis: str | None = None
    """`redis://host:port/db` of a Redis of your own for the accounts of the day and the month: one with an append-only
    file, which evicts nothing (`noeviction`). None: that of `cache.redis`, which forgets them if it is run as a cache;
    where it is embedded, one beside it, which does not. Environment: WATTGATE_LIMITS_REDIS_URL."""
    folder: Path | None = None
    """Where the embedded one keeps them, so that a restart forgets none. None: a folder of this port under the user's
    data folder; with port 0 it ends with the run."""
    assumed_output_tokens: int = Field(default=256, ge=1)
    """Reserved for a request that does not say `max_tokens`, until its real use is known."""

    @field_validator("folder")
    @classmethod
    def _from_here(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()


class TelemetrySettings(Section):
    """What is told about each request. Never its key; its text only as `log_prompts` says."""

    request_log: str | None = None
    """File that gets one JSON line a request; `-` is standard error (the replica's log). None: no lines."""
    log_prompts: Literal["off", "redacted"] = "off"
    """off: the log has no text. redacted: the line of a request has the first 2,000 characters of its prompt, with
    e-mail addresses, telephone and card numbers, keys and IP addresses replaced by their kind; names and whatever else
    people tell stay in, so guard `request_log` as personal data. Metrics, spans and errors never have it."""
    workload_log: Path | None = None
    """File that gets the arrival time and the lengths of each answered request, nothing else: a workload for `wattgate
    load`, `tune` and `plan`. None: none."""
    workload_log_megabytes: float = Field(default=64.0, gt=0)
    """Size at which that file gets the ending `.1`, in place of the one before it; 64 MB are about 700,000 requests."""
    otlp_endpoint: str | None = None
    """OpenTelemetry collector, OTLP over HTTP (`http://host:4318`), for one span a request. None: no spans."""

    drift_window_requests: int = Field(default=500, ge=0)
    """Requests of a model's window in which each replica looks for drift; the first is the reference, which outlives
    replicas, until `DELETE /v1/drift/references` or a change of live admission. Below 50 nothing is compared; 0:
    off, the engines' drift too."""
    engine_model: Path | None = None
    """Engine model that `wattgate tune` fitted: the measured MFU and joules per token are held against it. None: only
    against their own first 300 busy metering windows at a batch (the first that the next 300 were like), which outlive
    a restart. What moves is told when the next 300 have moved the same way."""

    @field_validator("request_log")
    @classmethod
    def _from_here(cls, path: str | None) -> str | None:
        return path if path in (None, "-") else str(Path(path).expanduser().absolute())

    @field_validator("log_prompts", mode="before")
    @classmethod
    def _off_is_no_boolean(cls, prompts: object) -> object:
        # YAML 1.1 reads a bare `off` as false
        return "off" if prompts is False else prompts

    @model_validator(mode="after")
    def _prompts_have_a_log(self) -> Self:
        if self.log_prompts != "off" and self.request_log is None:
            raise ValueError(f"log_prompts {self.log_prompts}: there is no log for them; set telemetry.request_log")
        return self

    @field_validator("workload_log")
    @classmethod
    def _beside_us(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()


class GatewayConfig(Section):
    """Everything `wattgate serve` needs; all of it optional."""

    server: ServerSettings = ServerSettings()
    access: AccessSettings = AccessSettings()
    engine: EngineSettings = EngineSettings()
    embeddings: EmbeddingsSettings = EmbeddingsSettings()
    admission: AdmissionSettings = AdmissionSettings()
    fallback: FallbackSettings | None = None
    """Who answers while the engine is away and no byte of the answer has left: `upstream`, an OpenAI-compatible server
    (`url`, `api_key`, ...), and `model`, its name there. With the vllm engine the gateway then runs in replicas of its
    own, so that it outlives the engine."""
    models: dict[str, ModelSettings] = Field(default={})
    """Several models side by side, in place of `engine`: the name that clients ask for, to its `engine`, `admission`,
    `replicas` (of the engine) and `fallback` (another name here as `model`, or an `upstream`). Each runs in replicas of
    its own behind the same proxy."""
    control: CapControlSettings = CapControlSettings()
    limits: LimitsSettings = LimitsSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    batches: BatchSettings = BatchSettings()
    cache: CacheSettings = CacheSettings()
    metering: MeteringSettings = MeteringSettings()

    @property
    def embeddings_served(self) -> bool:
        """Whether `/v1/embeddings` is answered."""
        kinds = {model.engine.kind for model in self.models.values()} or {self.engine.kind}
        return "vllm" in kinds if self.embeddings.enabled is None else self.embeddings.enabled

    @field_validator("metering")
    @classmethod
    def _metering_makes_sense(cls, metering: MeteringSettings) -> MeteringSettings:
        # both raise ValueErrors that name the nearest known ones
        if metering.intensity_grams_per_kwh is None:
            find_zone(metering.zone)
        if metering.device is not None and metering.device != "cpu":
            find_device(metering.device)
        return metering

    @model_validator(mode="after")
    def _keys_off_loopback(self) -> Self:
        if self.access.keyless and not is_loopback(self.server.host):
            raise ValueError(
                f"server.host {self.server.host} is not loopback and no API keys are configured: "
                "set access.key_file (see `wattgate keys`) or access.api_keys (or WATTGATE_API_KEYS), "
                "or listen on 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _cap_fits_batch(self) -> Self:
        check_cap(self.engine, self.admission)
        return self

    @model_validator(mode="after")
    def _models_fit_together(self) -> Self:
        if self.models:
            both = [name for name in ("engine", "admission", "fallback") if name in self.model_fields_set]
            if both:
                raise ValueError(f"{both[0]} and models: with several models each has its own {both[0]} under its name")
        elif self.fallback is not None and self.fallback.upstream is None:
            raise ValueError(f"fallback.model {self.fallback.model}: there is no other model; set fallback.upstream")
        names = [*self.models, *(name for model in self.models.values() for name in model.engine.vllm.lora)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"models: {name} stands for two models; give the LoRA adapter another name")
        for name, model in self.models.items():
            other = model.fallback
            if other is not None and other.upstream is None and (other.model == name or other.model not in self.models):
                there = ", ".join(known for known in self.models if known != name) or "none"
                raise ValueError(f"models.{name}.fallback.model {other.model} is no other model; there are: {there}")
        return self


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def walk(model: type[BaseModel] | BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """(dotted key, value or default, documentation) of every leaf field, in order."""
    for name, field in type(model).model_fields.items() if isinstance(model, BaseModel) else model.model_fields.items():
        value = getattr(model, name) if isinstance(model, BaseModel) else field.default
        if isinstance(value, BaseModel):
            yield from walk(value, f"{prefix}{name}.")
        elif name == "models" and value:
            for key, one in value.items():
                yield from walk(one, f"{prefix}{name}.{key}.")
        else:
            yield f"{prefix}{name}", value, " ".join((field.description or "").split())
