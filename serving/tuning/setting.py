"""What tuning may turn: a point of the space, the space, and a point's effect on a gateway's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from metering.errors import BadInput
from serving.config import GatewayConfig

_CHUNKED = {True: "enable-chunked-prefill", False: "no-enable-chunked-prefill"}
"""vLLM's own option, which is not among ours; without it vLLM decides."""


def _chunked(extra: Mapping[str, Any]) -> bool | None:
    return next((wanted for wanted, name in _CHUNKED.items() if extra.get(name) is True), None)


@dataclass(frozen=True, slots=True)
class Setting:
    """One point. ``None`` leaves the configuration's own value."""

    cap: int
    """The live cap, of each replica: changed without a restart. All the others restart the engine."""
    max_batched_tokens: int | None = None
    prefix_caching: bool | None = None
    chunked_prefill: bool | None = None
    dtype: str | None = None
    replicas: int | None = None
    model: str | None = None
    """A variant of the configuration's model: as quantised, or smaller. How well it answers is not looked at."""

    @classmethod
    def of(cls, config: GatewayConfig) -> Self:
        """The configuration's present point."""
        vllm = config.engine.vllm
        return cls(
            config.admission.max_concurrency,
            vllm.max_batched_tokens,
            vllm.enable_prefix_caching,
            _chunked(vllm.extra),
            vllm.dtype,
            config.server.replicas,
        )

    def applied(self, config: GatewayConfig, most_cap: int = 1) -> GatewayConfig:
        """``most_cap``: the engine is started for so many sequences, so that the cap may move without a restart."""
        vllm = config.engine.vllm
        changes = {
            "max_batched_tokens": self.max_batched_tokens,
            "enable_prefix_caching": self.prefix_caching,
            "dtype": self.dtype,
        }
        vllm = vllm.model_copy(update={name: value for name, value in changes.items() if value is not None})
        if self.chunked_prefill is not None:
            extra = {name: value for name, value in vllm.extra.items() if name not in _CHUNKED.values()}
            vllm = vllm.model_copy(update={"extra": {**extra, _CHUNKED[self.chunked_prefill]: True}})
        vllm = vllm.model_copy(update={"max_batch": max(vllm.max_batch, self.cap, most_cap)})
        replicas = config.server.replicas if self.replicas is None else self.replicas
        return config.model_copy(
            update={
                "admission": config.admission.model_copy(update={"max_concurrency": self.cap}),
                "engine": config.engine.model_copy(update={"vllm": vllm, **self._model()}),
                "server": config.server.model_copy(update={"replicas": replicas}),
            }
        )

    def _model(self) -> dict[str, str | None]:
        # a hub's revision is of the one model
        return {} if self.model is None else {"model": self.model, "revision": None}

    def restarts(self, other: Setting) -> bool:
        """Whether going from ``other`` to this one restarts the engine."""
        return any(getattr(self, f.name) != getattr(other, f.name) for f in fields(self) if f.name != "cap")

    @property
    def shell(self) -> Setting:
        """What the engine is started with: between settings of one shell only the live cap moves."""
        return replace(self, cap=1)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items() if value is not None)


@dataclass(frozen=True, slots=True)
class Space:
    """What is tried. One value in a tuple holds that knob still.

    Raises:
        BadInput: an empty choice, or a cap below 1.
    """

    lowest_cap: int = 1
    highest_cap: int = 64
    max_batched_tokens: tuple[int | None, ...] = (None,)
    prefix_caching: tuple[bool | None, ...] = (None,)
    chunked_prefill: tuple[bool | None, ...] = (None,)
    dtypes: tuple[str | None, ...] = (None,)
    replicas: tuple[int | None, ...] = (None,)
    models: tuple[str | None, ...] = (None,)

    def __post_init__(self) -> None:
        if not 1 <= self.lowest_cap <= self.highest_cap:
            raise BadInput(f"caps go from at least 1 upwards, got {self.lowest_cap} to {self.highest_cap}")
        for name, choices in self.choices().items():
            if not choices:
                raise BadInput(f"{name} needs at least one value to try")

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The knobs that take one of a few values."""
        return {
            "max_batched_tokens": self.max_batched_tokens,
            "prefix_caching": self.prefix_caching,
            "chunked_prefill": self.chunked_prefill,
            "dtype": self.dtypes,
            "replicas": self.replicas,
            "model": self.models,
        }

    def __str__(self) -> str:
        parts = [f"cap {self.lowest_cap}-{self.highest_cap}"]
        # also those that are held: another precision is another study
        parts += [
            f"{name} {'/'.join(map(str, choices))}" for name, choices in self.choices().items() if choices != (None,)
        ]
        return ", ".join(parts)

    def __contains__(self, setting: Setting) -> bool:
        within = self.lowest_cap <= setting.cap <= self.highest_cap
        return within and all(getattr(setting, name) in choices for name, choices in self.choices().items())

    def shells(self) -> list[Setting]:
        """Every combination of the restarting knobs, at a cap of 1."""
        found = [Setting(1)]
        for name, choices in self.choices().items():
            found = [replace(one, **{name: choice}) for one in found for choice in choices]
        return found

    @property
    def caps(self) -> range:
        return range(self.lowest_cap, self.highest_cap + 1)

    @property
    def size(self) -> int:
        size = len(self.caps)
        for choices in self.choices().values():
            size *= len(choices)
        return size
