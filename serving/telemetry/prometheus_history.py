"""The history of a report out of Prometheus: what our own counters say, instead of the node's file.

Counters are differenced from step to step, series by series, so that a restart (the counter falls) loses at most what
came in the step before it; what a Prometheus that was away did not scrape is in the next difference. Usage is put
under the grid intensity that was in use at its step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import httpx

from metering.history import (
    SECONDS_PER_MINUTE,
    History,
    NodeKey,
    NodeTotals,
    ServedKey,
    ServedTotals,
    Usage,
    UsageKey,
    add_up,
)
from metering.settlement import weakest
from metering.work import Method

Column = TypeVar("Column")

NANO = 1e9
MOST_STEPS = 10_000
"""Prometheus refuses more than 11,000 points of a series."""
LEAST_STEP_SECONDS = 15.0
"""Of a scrape, as ``deploy/prometheus`` sets it."""
_TIMEOUT_SECONDS = 60.0
_BASELINE = "1d"
"""How far back the value at the start is looked for: a Prometheus may have been away just then."""
_INTENSITY = "wattgate_intensity_grams_per_kwh"
_ENERGY = "wattgate_energy_joules_total"


class PrometheusUnavailable(Exception):
    """It cannot be reached or does not understand us; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one series grew by in the step that ended then."""

    labels: Mapping[str, str]
    ended_seconds: float
    grown: float


_USAGE: Mapping[str, Mapping[tuple[str, str], tuple[str, float]]] = {
    "wattgate_flops_total": {("phase", "prefill"): ("flops_prefill", 1), ("phase", "decode"): ("flops_decode", 1)},
    "wattgate_possible_flops_total": {("", ""): ("peak_flop_seconds", 1)},
    "wattgate_executed_tokens_total": {
        ("phase", "prefill"): ("tokens_prefill", 1),
        ("phase", "reused"): ("tokens_cached", 1),
        ("phase", "decode"): ("tokens_decode", 1),
    },
    "wattgate_device_seconds_total": {("", ""): ("device_seconds", 1)},
    "wattgate_unreserved_device_seconds_total": {("", ""): ("unreserved_seconds", 1)},
    "wattgate_roofline_seconds_total": {
        ("batch", "shared"): ("roofline_seconds", 1),
        ("batch", "alone"): ("roofline_alone_seconds", 1),
    },
    "wattgate_request_joules_total": {
        ("boundary", name): (f"{name}_nanojoules", NANO) for name in ("accelerator", "host", "idle", "overhead")
    },
    "wattgate_request_grams_total": {
        ("scope", "operational"): ("operational_nanograms", NANO),
        ("scope", "operational_marginal"): ("operational_nanograms", NANO),
        ("scope", "embodied"): ("embodied_nanograms", NANO),
    },
    "wattgate_request_cost_total": {
        ("cause", "devices"): ("device_nanocost", NANO),
        ("cause", "electricity"): ("electricity_nanocost", NANO),
    },
    "wattgate_avoided_flops_total": {("cause", "prefix"): ("prefix_flops_avoided", 1)},
}
"""By metric and by a label's value: the column of ``Usage``, and what it is multiplied by."""
_SERVED: Mapping[str, Mapping[tuple[str, str], tuple[str, ...]]] = {
    "wattgate_tokens_total": {
        ("kind", "prompt"): ("prompt_tokens",),
        ("kind", "cached_prompt"): ("prompt_tokens", "cached_prompt_tokens"),
        ("kind", "output"): ("output_tokens",),
        ("kind", "avoided"): ("avoided_tokens",),
    },
    "wattgate_avoided_flops_total": {("cause", "response"): ("avoided_flops",)},
    "wattgate_avoided_joules_total": {("", ""): ("avoided_joules",)},
    "wattgate_avoided_grams_total": {("", ""): ("avoided_grams",)},
    "wattgate_excess_joules_total": {("", ""): ("avoided_joules",)},
    "wattgate_excess_grams_total": {("", ""): ("avoided_grams",)},
    "wattgate_hit_joules_total": {("", ""): ("hit_joules",)},
}
_TAKEN_OFF = ("wattgate_excess_joules_total", "wattgate_excess_grams_total")
"""A counter cannot fall, so hits that cost more than the run they replaced have counters of their own."""


class PrometheusHistory:
    """Reads over Prometheus' HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/).

    Args:
        url: its address; a user and a password may be in it.
        client: a test's own.
    """

    def __init__(self, url: str, client: httpx.Client | None = None) -> None:
        self._url = url.rstrip("/")
        self._named = re.sub(r"//[^/@]*@", "//", self._url)
        """Without the password."""
        self._client = client or httpx.Client(timeout=_TIMEOUT_SECONDS)

    def read(self, since_epoch_seconds: float, until_epoch_seconds: float) -> History:
        """Rows as the node's own history has them.

        Raises:
            PrometheusUnavailable: it cannot be reached, or refuses.
        """
        window = _Window.of(since_epoch_seconds, until_epoch_seconds)
        grid = self._grid(window)
        method, power = "modelled", ""
        out = History()
        energy = list(self._steps(_ENERGY, window))
        if energy:
            method = weakest(Method(one.labels["method"]) for one in energy).value
            power = "+".join(sorted({one.labels["source"] for one in energy}))
        for one in energy:
            labels = one.labels
            key = NodeKey(_minute(one), labels["component"], labels["boundary"], labels["method"], labels["source"])
            add_up(out.node.setdefault(key, NodeTotals()), NodeTotals(metered_nanojoules=round(one.grown * NANO)))
        self._idle(window, out)
        self._usage(window, out, grid, method, power)
        self._served(window, out)
        return out

    def _idle(self, window: _Window, out: History) -> None:
        for one in self._steps("wattgate_idle_joules_total", window):
            for key, totals in out.node.items():
                if key.minute == _minute(one) and key.component == one.labels["component"]:
                    totals.idle_nanojoules += round(one.grown * NANO)
                    break

    def _usage(self, window: _Window, out: History, grid: _Grid, method: str, power: str) -> None:
        for metric, columns in _USAGE.items():
            for one in self._steps(metric, window):
                column = _column(columns, one.labels)
                if column is None:
                    continue
                name, factor = column
                zone, source, signal = grid.at(one.ended_seconds)
                if one.labels.get("scope", "") == "operational_marginal":
                    signal = "marginal"
                labels = one.labels
                who = labels["model"], labels["tenant"]
                key = UsageKey(_minute(one), *who, method, power, zone, source, signal)
                usage = out.usage.setdefault(key, Usage())
                grown = one.grown * factor
                setattr(usage, name, getattr(usage, name) + (round(grown) if _whole(name) else grown))
        _conclude(out.usage)

    def _served(self, window: _Window, out: History) -> None:
        for metric, columns in _SERVED.items():
            for one in self._steps(metric, window):
                for name in _column(columns, one.labels) or ():
                    totals = out.served.setdefault(_served_key(one), ServedTotals())
                    grown = round(one.grown) if name.endswith("_tokens") else one.grown
                    grown = -grown if metric in _TAKEN_OFF else grown
                    setattr(totals, name, getattr(totals, name) + grown)
        for one in self._steps("wattgate_requests_total", window):
            if one.labels["model"] == "unknown":
                continue
            totals = out.served.setdefault(_served_key(one), ServedTotals())
            number = round(one.grown)
            totals.requests += number
            totals.failed += number if one.labels["status"] != "200" else 0
            totals.hits += number if one.labels["cache"].startswith("HIT") else 0

    def _grid(self, window: _Window) -> _Grid:
        return _Grid(
            [(labels, value, at) for labels, values in self._range(_INTENSITY, window) for at, value in values]
        )

    def _steps(self, metric: str, window: _Window) -> Iterator[Step]:
        """Growth of each series of a counter. One that begins within the period began at nothing."""
        before = {_identity(labels): value for labels, value in self._instant(metric, window.since)}
        for labels, values in self._range(metric, window):
            known = before.get(_identity(labels), 0.0)
            for (_, old), (at, new) in pairwise([(window.since, known), *values]):
                grown = new - old if new >= old else new
                if grown > 0:
                    yield Step(labels, at, grown)

    def _instant(self, metric: str, at_seconds: float) -> list[tuple[dict[str, str], float]]:
        query = f"last_over_time({metric}[{_BASELINE}])"
        found = self._ask("query", {"query": query, "time": str(at_seconds)})
        return [(series["metric"], float(series["value"][1])) for series in found]

    def _range(self, metric: str, window: _Window) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        found = self._ask(
            "query_range",
            {"query": metric, "start": str(window.since), "end": str(window.until), "step": str(window.step)},
        )
        return [
            (series["metric"], [(float(at), float(value)) for at, value in series["values"] if value != "NaN"])
            for series in found
        ]

    def _ask(self, path: str, parameters: Mapping[str, str]) -> Any:
        try:
            # a form, not a query string: no limit on its length
            answer = self._client.post(f"{self._url}/api/v1/{path}", data=dict(parameters))
            document = answer.json()
            if document.get("status") != "success":
                raise PrometheusUnavailable(f"{self._named} refused: {document.get('error', answer.status_code)}")
            return document["data"]["result"]
        except httpx.HTTPError as error:
            raise PrometheusUnavailable(f"cannot reach Prometheus at {self._named}: {error}") from error
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise PrometheusUnavailable(f"{self._named} does not answer as Prometheus does") from error


@dataclass(frozen=True, slots=True)
class _Window:
    """``until`` is ``steps`` whole steps after ``since``, so that the last of them is asked for too."""

    since: float
    until: float
    step: float

    @classmethod
    def of(cls, since: float, until: float) -> _Window:
        steps = max(1, min(MOST_STEPS, round((until - since) / LEAST_STEP_SECONDS)))
        # Prometheus counts in milliseconds
        step = int((until - since) * 1000) // steps
        return cls(until - steps * step / 1000, until, step / 1000)


class _Grid:
    """Which zone, source and signal were in use when: labels of the intensity series that was not NaN."""

    def __init__(self, samples: Sequence[tuple[Mapping[str, str], float, float]]) -> None:
        self._at: dict[float, tuple[str, str, str]] = {}
        for labels, _, at in samples:
            self._at[at] = (labels["zone"], labels["source"], labels["signal"])

    def at(self, seconds: float) -> tuple[str, str, str]:
        """Of that step; before the first and after the last known one theirs, without any empty."""
        if seconds in self._at or not self._at:
            return self._at.get(seconds, ("", "", ""))
        return self._at[min(self._at, key=lambda known: abs(known - seconds))]


def _conclude(found: Mapping[UsageKey, Usage]) -> None:
    """What the counters say only between the lines: a column that never moved while devices worked was unknown.

    Over all of a model's and tenant's minutes on a grid, because a scrape may fall between two counters of a window.
    """
    sums: dict[UsageKey, Usage] = {}
    for key, usage in found.items():
        add_up(sums.setdefault(replace(key, minute=0), Usage()), usage)
    for key, usage in found.items():
        whole = sums[replace(key, minute=0)]
        joules = usage.accelerator_nanojoules + usage.host_nanojoules + usage.idle_nanojoules
        if whole.accelerator_nanojoules + whole.host_nanojoules == 0:
            usage.unmetered_seconds = usage.device_seconds
        elif whole.operational_nanograms == 0:
            usage.unstamped_nanojoules = joules + usage.overhead_nanojoules
        usage.embodied_seconds = usage.device_seconds if whole.embodied_nanograms else 0.0
        usage.device_priced_seconds = usage.device_seconds if whole.device_nanocost else 0.0
        usage.electricity_priced_seconds = usage.device_seconds if whole.electricity_nanocost else 0.0


def _column(columns: Mapping[tuple[str, str], Column], labels: Mapping[str, str]) -> Column | None:
    for (label, value), column in columns.items():
        if not label or labels.get(label) == value:
            return column
    return None


def _whole(column: str) -> bool:
    return column.startswith("tokens_") or "_nano" in column


def _minute(step: Step) -> int:
    """The minute in which the step ended, just before its end."""
    return int((step.ended_seconds - 1e-3) // SECONDS_PER_MINUTE)


def _served_key(step: Step) -> ServedKey:
    return ServedKey(_minute(step), step.labels["model"], step.labels["tenant"])


def _identity(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in labels.items() if name != "__name__"))
