"""A meter that reads what a test or a planner wrote down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from metering.power.base import Component, ComponentReading, PowerUnavailable, Reading
from metering.work import Method

Script = Iterable[Mapping[str, ComponentReading] | PowerUnavailable]


class ScriptedMeter:
    """Gives one entry of the script per read, an exception entry being raised; after the last, it is unavailable."""

    def __init__(
        self,
        components: Iterable[Component],
        script: Script,
        *,
        name: str = "scripted",
        method: Method = Method.MEASURED,
    ) -> None:
        self.name = name
        self.method = method
        self._components = tuple(components)
        self._script = iter(script)

    @property
    def components(self) -> tuple[Component, ...]:
        return self._components

    def read(self, now_seconds: float) -> Reading:
        entry = next(self._script, None)
        if entry is None:
            raise PowerUnavailable("the script has no further reading; give it more entries")
        if isinstance(entry, PowerUnavailable):
            raise entry
        missing = {c.name: "not in the script" for c in self._components if c.name not in entry}
        return Reading(now_seconds, entry, missing)

    def close(self) -> None:
        return None


class ConstantMeter:
    """Draws the same watts all the time, by component."""

    def __init__(
        self,
        watts: Mapping[Component, float],
        *,
        idle_watts: Mapping[str, float] | None = None,
        name: str = "constant",
        method: Method = Method.MODELLED,
    ) -> None:
        self.name = name
        self.method = method
        self._watts = dict(watts)
        self._idle = dict(idle_watts or {})
        self._totals = {component.name: 0 for component in self._watts}
        self._last: float | None = None

    @property
    def components(self) -> tuple[Component, ...]:
        return tuple(self._watts)

    def read(self, now_seconds: float) -> Reading:
        elapsed = 0.0 if self._last is None else max(0.0, now_seconds - self._last)
        self._last = now_seconds
        for component, watts in self._watts.items():
            self._totals[component.name] += round(watts * elapsed * 1e9)
        return Reading(
            now_seconds,
            {name: ComponentReading(total, self._idle.get(name)) for name, total in self._totals.items()},
        )

    def close(self) -> None:
        return None
