"""The power seam: cumulative integer nanojoules by component, or a model fed with the window's load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from metering.work import Method


class Boundary(StrEnum):
    """What a component's energy is counted under."""

    ACCELERATOR = "accelerator"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Component:
    """A thing of the node whose energy is known by itself: a GPU, the engine's cores, the rest of the host."""

    name: str
    """Unique on the node, as ``cpu``, ``host`` or a GPU's UUID."""
    boundary: Boundary
    devices: float = 1.0
    """How many devices of the catalogue it stands for: less than one for a MIG slice."""


@dataclass(frozen=True, slots=True)
class ComponentReading:
    """One component's counter at one moment."""

    nanojoules: int
    """Cumulative; never falls within an epoch."""
    idle_watts: float | None = None
    """What the component draws with nothing to do; None where unknown."""
    epoch: int = 0
    """Raised when the counter started anew: readings of different epochs have no difference."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All that a meter could read at one moment."""

    at_seconds: float
    components: Mapping[str, ComponentReading]
    missing: Mapping[str, str] = field(default_factory=dict)
    """Components that could not be read, with the reason."""


class PowerUnavailable(Exception):
    """A meter cannot be used or read: the message says why and what would mend it, in one line."""


class PowerMeter(Protocol):
    """A counter that is read at the end of each window. Reads are quick (about a millisecond) but do I/O."""

    name: str
    """Short, for ``estimator``: ``nvml``, ``rapl``, ``idle_aware``."""
    method: Method

    @property
    def components(self) -> tuple[Component, ...]: ...

    def read(self, now_seconds: float) -> Reading:
        """Raises ``PowerUnavailable`` where nothing could be read: the window becomes a visible gap."""

    def close(self) -> None: ...


@runtime_checkable
class Resumable(Protocol):
    """A meter whose counter another one goes on with, after a restart on the same machine."""

    def memory(self) -> Any:
        """What the next one needs; it can be pickled."""

    def recall(self, memory: Any) -> None:
        """Before the first reading: be the one that ``memory`` is of."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a component executed over a window, in units of its peak."""

    window_seconds: float
    busy_seconds: float
    mfu_ratio: float | None
    mbu_ratio: float | None

    @property
    def utilisation_ratio(self) -> float | None:
        """max(MFU, MBU), at most one: with MFU alone, memory-bound decode would look free. None if both unknown."""
        known = [ratio for ratio in (self.mfu_ratio, self.mbu_ratio) if ratio is not None]
        return min(1.0, max(known)) if known else None


class LoadPower(Protocol):
    """A power model of one component fed with the executed work, for devices that nothing can read."""

    @property
    def name(self) -> str: ...

    @property
    def method(self) -> Method: ...

    @property
    def component(self) -> Component: ...

    @property
    def idle_watts(self) -> float | None: ...

    def energy_nanojoules(self, load: Load) -> int | None:
        """Energy of the window; None where the load does not tell (an unknown peak)."""
