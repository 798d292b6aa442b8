"""A report from the history: tokens, energy and carbon by group, how each figure was made, and what is missing.

Pure: rows in, figures out. A figure that is unknown is None and named under ``missing``; it is never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from metering.errors import BadInput, nearest
from metering.history import History, NodeTotals, ServedTotals, Usage, UsageKey, add_up
from metering.receipt import cost_of
from metering.report_savings import Baseline, Run, savings
from metering.sci import sci_score

GROUPINGS = ("model", "tenant", "day", "hour")
BOUNDARIES = ("accelerator", "host", "idle", "overhead")
NANO = 1e9
JOULES_PER_KWH = 3.6e6
SECONDS_PER_MINUTE = 60

Group = tuple[str, ...]


@dataclass(slots=True)
class Line:
    """One group's sums. Groups of different method, or of average and marginal intensity, are never one line."""

    group: dict[str, str]
    method: str
    signal: str
    usage: Usage = field(default_factory=Usage)
    served: ServedTotals = field(default_factory=ServedTotals)
    flops_with_peak: float = 0.0
    """Of the FLOPs, those done where the peak was known: MFU compares them with that peak and no others."""
    peakless_seconds: float = 0.0
    """Device-seconds where the peak was unknown."""
    grams_by_boundary: dict[str, float] = field(default_factory=lambda: dict.fromkeys(BOUNDARIES, 0.0))
    estimators: set[str] = field(default_factory=set)
    zones: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)

    def add(self, key: UsageKey, usage: Usage) -> None:
        add_up(self.usage, usage)
        if usage.device_seconds > 0 and usage.peak_flop_seconds == 0:
            self.peakless_seconds += usage.device_seconds
        else:
            self.flops_with_peak += usage.flops_prefill + usage.flops_decode
        self.estimators.add(key.estimator)
        if key.zone:
            self.zones.add(key.zone)
            self.sources.add(key.intensity_source)
        joules = joules_of(usage)
        total = sum(joules.values())
        for boundary in BOUNDARIES:
            # the ledger's grams follow its energy line by line; within a minute the split is in that proportion
            share = joules[boundary] / total if total > 0 else 0.0
            self.grams_by_boundary[boundary] += usage.operational_nanograms / NANO * share

    @property
    def energy_known(self) -> bool:
        return self.usage.device_seconds > self.usage.unmetered_seconds and sum(joules_of(self.usage).values()) > 0

    @property
    def operational_grams(self) -> float | None:
        stamped = self.energy_known and self.usage.unstamped_nanojoules == 0
        return self.usage.operational_nanograms / NANO if stamped else None

    @property
    def embodied_grams(self) -> float | None:
        return self.usage.embodied_nanograms / NANO if self.usage.embodied_seconds > 0 else None

    @property
    def cost(self) -> dict[str, float] | None:
        """By cause and in total, of what had a price."""
        usage = self.usage
        return cost_of(
            usage.device_nanocost / NANO if usage.device_priced_seconds > 0 else None,
            usage.electricity_nanocost / NANO if usage.electricity_priced_seconds > 0 else None,
        )

    @property
    def tokens(self) -> int:
        """Of all answers, hits included: the functional unit of the SCI score."""
        return self.served.prompt_tokens + self.served.output_tokens + self.served.avoided_tokens

    @property
    def mfu_ratio(self) -> float | None:
        flops, possible = self.flops_with_peak, self.usage.peak_flop_seconds
        return flops / possible if possible > 0 and flops > 0 else None

    @property
    def massless_seconds(self) -> float:
        """Device-seconds whose embodied carbon is unknown."""
        return _lacking(self.usage.embodied_seconds, self.usage.device_seconds)

    @property
    def intensity_grams_per_kwh(self) -> float | None:
        """Energy-weighted mean of what it was booked with."""
        joules = sum(joules_of(self.usage).values()) - self.usage.unstamped_nanojoules / NANO
        return self.usage.operational_nanograms / NANO / (joules / JOULES_PER_KWH) if joules > 0 else None

    def sci_grams_per_1k_tokens(self) -> float | None:
        intensity, embodied = self.intensity_grams_per_kwh, self.embodied_grams
        if self.signal != "average" or self.operational_grams is None or embodied is None or intensity is None:
            return None
        if self.tokens == 0 or self.massless_seconds > 0 or self.usage.unreserved_seconds > 0:
            return None
        kwh = sum(joules_of(self.usage).values()) / JOULES_PER_KWH
        return sci_score(kwh, intensity, embodied, self.tokens / 1000)

    def run(self) -> Run:
        joules = joules_of(self.usage)
        return Run(
            flops=self.usage.flops_prefill + self.usage.flops_decode,
            response_flops_avoided=self.served.avoided_flops,
            prefix_flops_avoided=self.usage.prefix_flops_avoided,
            work_joules=joules["accelerator"] + joules["host"],
            idle_joules=joules["idle"],
            overhead_joules=joules["overhead"],
            operational_grams=self.operational_grams,
            roofline_seconds=self.usage.roofline_seconds,
            roofline_alone_seconds=self.usage.roofline_alone_seconds,
        )

    def missing(self) -> list[str]:
        usage, out = self.usage, []
        if usage.device_seconds > 0 and not self.energy_known:
            out.append("energy: no power reading (configure metering.idle_watts and max_watts, or a meter)")
        elif usage.unmetered_seconds > 0:
            out.append(f"energy of {usage.unmetered_seconds:.1f} s of device time: gaps of the meter; not in the sums")
        if self.energy_known and usage.host_nanojoules == 0:
            out.append("energy of the host: not metered, not included")
        if usage.unstamped_nanojoules > 0:
            out.append(f"grams of {usage.unstamped_nanojoules / NANO:.4g} J: the grid intensity was unknown")
        if usage.device_seconds > 0 and usage.embodied_seconds == 0:
            out.append("embodied carbon: unknown for this device (metering.embodied_kilograms); no SCI score")
        elif self.massless_seconds > 0:
            out.append(
                f"embodied carbon for {self.massless_seconds:.1f} s of device time: unknown for its device "
                "(metering.embodied_kilograms), not in the sums; no SCI score"
            )
        if usage.device_seconds > 0 and usage.peak_flop_seconds == 0:
            out.append("MFU: the device's peak is unknown (metering.peak_flops)")
        elif self.peakless_seconds > 0:
            out.append(
                f"MFU for {self.peakless_seconds:.1f} s of device time: the peak was unknown (metering.peak_flops); "
                "neither its FLOPs nor its time are in the ratio"
            )
        if usage.tokens_prefill + usage.tokens_decode > 0 and usage.flops_prefill + usage.flops_decode == 0:
            out.append("FLOPs: the model's architecture is unknown")
        unpriced = _lacking(usage.device_priced_seconds, usage.device_seconds)
        if usage.device_priced_seconds > 0 and unpriced > 0:
            out.append(f"cost of devices for {unpriced:.1f} s of device time: no price was given then")
        unpriced = _lacking(usage.electricity_priced_seconds, usage.device_seconds - usage.unmetered_seconds)
        if usage.electricity_priced_seconds > 0 and unpriced > 0:
            out.append(f"cost of electricity for {unpriced:.1f} s of device time: no price was given then")
        if self.signal == "marginal":
            out.append("SCI score: it takes an average intensity, this one is marginal")
        if usage.unreserved_seconds > 0:
            out.append(
                "SCI score: it counts all idle of the hardware, and only metering.idle_policy `reserved` shares "
                "all of it"
            )
        if usage.tokens_decode > 0 and self.served.requests == 0:
            out.append("requests and answered tokens: not counted in this period")
        return out

    def figures(self, baseline: Baseline) -> dict[str, Any]:
        """JSON-ready; units in names, unknown is None."""
        usage, served, joules = self.usage, self.served, joules_of(self.usage)
        known = self.energy_known
        kwh = {name: joules[name] / JOULES_PER_KWH if known else None for name in BOUNDARIES}
        total_kwh = sum(joules.values()) / JOULES_PER_KWH if known else None
        operational, embodied, tokens = self.operational_grams, self.embodied_grams, self.tokens
        saved = savings(self.run(), baseline)
        missing = self.missing()
        if isinstance(saved, str):
            missing.append(f"savings: {saved}")
        return {
            **self.group,
            "method": self.method,
            "estimator": ", ".join(sorted(self.estimators)),
            "signal": self.signal,
            "requests": served.requests,
            "failed": served.failed,
            "hits": served.hits,
            "tokens": {
                "prompt": served.prompt_tokens,
                "cached_prompt": served.cached_prompt_tokens,
                "output": served.output_tokens,
                "avoided": served.avoided_tokens,
                "total": tokens,
                "executed_prefill": usage.tokens_prefill,
                "executed_decode": usage.tokens_decode,
            },
            "flops": usage.flops_prefill + usage.flops_decode or None,
            "mfu_ratio": self.mfu_ratio,
            "device_seconds": usage.device_seconds,
            "energy_kwh": {**kwh, "total": total_kwh},
            "grams": {
                **{name: self.grams_by_boundary[name] if operational is not None else None for name in BOUNDARIES},
                "operational": operational,
                "embodied": embodied,
            },
            "cost": {"devices": None, "electricity": None, "total": None} | (self.cost or {}),
            "per_1k_tokens": {
                "joules": _per(sum(joules.values()) if known else None, tokens),
                "operational_grams": _per(operational, tokens),
                "embodied_grams": _per(embodied, tokens),
                "sci_grams": self.sci_grams_per_1k_tokens(),
                "cost": _per(self.cost["total"] if self.cost else None, tokens),
            },
            "intensity_grams_per_kwh": self.intensity_grams_per_kwh,
            "zones": sorted(self.zones),
            "sources": sorted(self.sources),
            "hits_modelled": {
                "joules": served.hit_joules,
                "grams": served.hit_grams,
                "avoided_joules": served.avoided_joules,
                "avoided_grams": served.avoided_grams,
            },
            "savings": None if isinstance(saved, str) else saved.as_dict(),
            "missing": missing,
        }


@dataclass(frozen=True, slots=True)
class Report:
    since_epoch_seconds: float
    until_epoch_seconds: float
    by: Group
    lines: tuple[Line, ...]
    totals: tuple[Line, ...]
    """One for each method and signal."""
    node: Mapping[tuple[str, str, str, str], NodeTotals]
    """By component, boundary, method and estimator."""
    series: tuple[tuple[float, Line], ...]
    """Over time: start of the interval and what fell into it, of the first of ``totals``."""
    interval_seconds: float
    baseline: Baseline
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "since": _iso(self.since_epoch_seconds),
            "until": _iso(self.until_epoch_seconds),
            "by": list(self.by),
            "groups": [line.figures(self.baseline) for line in self.lines],
            "totals": [line.figures(self.baseline) for line in self.totals],
            "node": [node_figures(key, totals) for key, totals in sorted(self.node.items())],
            "not_given_to_requests_kwh": self.not_given_kwh(),
            "how": dict(HOW),
            "notes": list(self.notes),
        }

    def not_given_kwh(self) -> float:
        """Metered and in no receipt: idle that the policy has kept or still carries, and what nobody used."""
        metered = sum(totals.metered_nanojoules for totals in self.node.values())
        given = sum(
            line.usage.accelerator_nanojoules + line.usage.host_nanojoules + line.usage.idle_nanojoules
            for line in self.totals
        )
        return (metered - given) / NANO / JOULES_PER_KWH


HOW = (
    ("requests, tokens", "counted by the gateway from the engine's usage; executed tokens by the engine's steps"),
    ("flops", "modelled: matrix multiplications of the architecture for the tokens executed, causal attention"),
    ("mfu_ratio", "flops / (peak of the device x device-seconds attributed), both where the peak was known"),
    ("energy_kwh", "by the line's method and estimator; windows of a second or more, split by the ledger's weights"),
    ("overhead", "(PUE - 1) x the rest, PUE as configured"),
    ("operational", "energy x intensity of its window; zone and source beside it; location-based"),
    ("embodied", "embodied mass x time share / lifetime, as configured or by the hardware catalogue"),
    ("cost", "device time x price of a device-hour, energy with PUE x price of a kWh, as configured at the time"),
    ("sci_grams", "ISO/IEC 21031: (energy x average intensity + embodied) per 1,000 tokens answered, hits included"),
    ("hits_modelled", "CPU time of the lookup x watts per core, and the original's working energy minus that"),
    ("savings", "modelled against the baseline named; model x machine x mechanization x map = total"),
)
"""How each figure is made, shown with every report."""


def build_report(
    history: History,
    *,
    since_epoch_seconds: float,
    until_epoch_seconds: float,
    by: Sequence[str] = ("model", "tenant"),
    baseline: Baseline | None = None,
) -> Report:
    """Sum the rows by group.

    Raises:
        BadInput: an unknown or repeated grouping.
    """
    for name in by:
        if name not in GROUPINGS:
            raise BadInput(f"cannot group by {name!r}{nearest(name, GROUPINGS)}; there are {', '.join(GROUPINGS)}")
    if len(set(by)) != len(by):
        raise BadInput(f"{', '.join(by)} names a grouping twice")
    lines = _lines(history, tuple(by))
    totals = _lines(history, ())
    interval = _interval(until_epoch_seconds - since_epoch_seconds)
    node: dict[tuple[str, str, str, str], NodeTotals] = {}
    for key, found in history.node.items():
        add_up(node.setdefault((key.component, key.boundary, key.method, key.estimator), NodeTotals()), found)
    notes = []
    if not history:
        notes.append("nothing was recorded in this period")
    if len(totals) > 1:
        notes.append("figures of different method or signal are not added up: there is a total for each")
    return Report(
        since_epoch_seconds, until_epoch_seconds, tuple(by), lines, totals, node,
        _series(history, totals, interval), interval, baseline or Baseline(), tuple(notes),
    )  # fmt: skip


def joules_of(usage: Usage) -> dict[str, float]:
    return {name: getattr(usage, f"{name}_nanojoules") / NANO for name in BOUNDARIES}


def node_figures(key: tuple[str, str, str, str], totals: NodeTotals) -> dict[str, Any]:
    component, boundary, method, estimator = key
    return {
        "component": component,
        "boundary": boundary,
        "method": method,
        "estimator": estimator,
        "metered_kwh": totals.metered_nanojoules / NANO / JOULES_PER_KWH,
        "idle_kwh": totals.idle_nanojoules / NANO / JOULES_PER_KWH,
        "unattributed_kwh": totals.unattributed_nanojoules / NANO / JOULES_PER_KWH,
        "busy_ratio": totals.busy_seconds / totals.window_seconds if totals.window_seconds > 0 else None,
        "gap_seconds": totals.gap_seconds,
    }


def _lines(history: History, by: Group) -> tuple[Line, ...]:
    found: dict[tuple[Group, str, str], Line] = {}
    for key, usage in history.usage.items():
        values = tuple(_value(name, key.minute, key.model, key.tenant) for name in by)
        signal = "marginal" if key.signal == "marginal" else "average"
        line = found.setdefault(
            (values, key.method, signal), Line(dict(zip(by, values, strict=True)), key.method, signal)
        )
        line.add(key, usage)
    made_by = _made_by(history)
    for served_key, served in history.served.items():
        model, tenant = served_key.model, served_key.tenant
        # nothing but hits and refusals: no engine worked, what a hit cost is modelled
        kind = made_by.get((served_key.minute, model, tenant)) or made_by.get((None, model, tenant))
        method, signal = kind or ("modelled", "average")
        values = tuple(_value(name, served_key.minute, model, tenant) for name in by)
        group = dict(zip(by, values, strict=True))
        add_up(found.setdefault((values, method, signal), Line(group, method, signal)).served, served)
    return tuple(found[key] for key in sorted(found))


def _made_by(history: History) -> dict[tuple[int | None, str, str], tuple[str, str]]:
    """Method and signal of the work by (minute, model, tenant), and over the period by (None, model, tenant): answers
    are counted without them, and belong where the work for them is. Of several, the one with most device time."""
    seconds: dict[tuple[int | None, str, str], dict[tuple[str, str], float]] = {}
    for key, usage in history.usage.items():
        kind = (key.method, "marginal" if key.signal == "marginal" else "average")
        for minute in (key.minute, None):
            known = seconds.setdefault((minute, key.model, key.tenant), {})
            known[kind] = known.get(kind, 0.0) + usage.device_seconds
    return {where: max(known, key=lambda kind: known[kind]) for where, known in seconds.items()}


def _value(name: str, minute: int, model: str, tenant: str) -> str:
    if name in ("model", "tenant"):
        return model if name == "model" else tenant
    at = datetime.fromtimestamp(minute * SECONDS_PER_MINUTE, UTC)
    return at.strftime("%Y-%m-%d") if name == "day" else at.strftime("%Y-%m-%dT%H:00Z")


def _interval(period_seconds: float) -> float:
    """At most some 60 bars."""
    for seconds in (60, 300, 900, 3600, 6 * 3600, 86400, 7 * 86400):
        if period_seconds <= 60 * seconds:
            return float(seconds)
    return 28.0 * 86400


def _series(history: History, totals: tuple[Line, ...], interval: float) -> tuple[tuple[float, Line], ...]:
    if not totals:
        return ()
    first = max(totals, key=lambda line: line.usage.device_seconds)
    found: dict[float, Line] = {}
    for key, usage in history.usage.items():
        if key.method == first.method and (key.signal == "marginal") == (first.signal == "marginal"):
            start = key.minute * SECONDS_PER_MINUTE // interval * interval
            found.setdefault(start, Line({}, first.method, first.signal)).add(key, usage)
    return tuple(sorted(found.items(), key=lambda entry: entry[0]))


def _lacking(part_seconds: float, whole_seconds: float) -> float:
    """What the part lacks of the whole; sums in another order differ in their last digits, which is nothing."""
    rest = whole_seconds - part_seconds
    return rest if rest > 1e-9 * whole_seconds else 0.0


def _per(value: float | None, tokens: int) -> float | None:
    return None if value is None or tokens == 0 else value / tokens * 1000


def _iso(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
