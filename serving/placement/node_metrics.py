"""Closed windows, final figures and books of a node as Prometheus series."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from metering.booking import EngineWindow
from metering.books import ClosedWindow, LineTotals
from metering.idle import IdlePolicy
from metering.node import NodeMeter
from metering.power.base import Boundary
from metering.settlement import IntensityStamp
from metering.work import Served
from serving.metrics import Metrics

NANO = 1e9


class NodeMetrics:
    """Closed windows and final receipts as Prometheus series."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._faults: dict[str, int] = {}
        self._intensity: tuple[str, ...] | None = None
        self._utilised: set[tuple[str, str]] = set()
        """Gauges of utilisation that have been shown, with their model."""

    def fault(self, name: str) -> None:
        self._metrics.add("wattgate_meter_faults_total", 1, name)

    def intensity(self, stamp: IntensityStamp | None) -> None:
        """The figure in use. The series it had under other labels cannot be deleted here: it becomes NaN."""
        labels = None if stamp is None else (stamp.zone, stamp.source, stamp.signal, stamp.quality)
        if self._intensity is not None and self._intensity != labels:
            self._metrics.set("wattgate_intensity_grams_per_kwh", math.nan, *self._intensity)
            self._metrics.set("wattgate_carbon_free_ratio", math.nan, *self._intensity[:2])
        self._intensity = labels
        if stamp is not None and labels is not None:
            self._metrics.set("wattgate_intensity_grams_per_kwh", stamp.grams_per_kwh, *labels)
            if stamp.carbon_free_ratio is not None:
                self._metrics.set("wattgate_carbon_free_ratio", stamp.carbon_free_ratio, *labels[:2])

    def window(self, closed: ClosedWindow, peak_flops: Mapping[str, float | None] | None = None) -> None:
        """``peak_flops``: of one engine, FLOP/s, by model."""
        peak_flops = peak_flops or {}
        add, put = self._metrics.add, self._metrics.set
        for close in closed.components:
            name = close.component.name
            how = close.component.boundary.value, close.method.value, close.power
            if close.unattributed_nanojoules:
                add("wattgate_unattributed_joules_total", close.unattributed_nanojoules / NANO, name)
            if close.recovered_nanojoules:
                add("wattgate_energy_joules_total", close.recovered_nanojoules / NANO, name, *how)
            if close.energy_nanojoules is None:
                if close.gap:
                    # without a reason nothing meters it at all: no fault, its energy is unknown
                    add("wattgate_meter_faults_total", 1, "gap")
                continue
            joules = close.energy_nanojoules / NANO
            add("wattgate_energy_joules_total", joules, name, *how)
            add("wattgate_idle_joules_total", close.idle_nanojoules / NANO, name)
            put("wattgate_power_watts", joules / closed.window.seconds, name)
        self._utilisation(closed.engines)
        for (model, tenant), line in closed.lines.items():
            self._work(model, tenant, line, peak_flops.get(model))
            if closed.idle_policy is not IdlePolicy.RESERVED:
                add("wattgate_unreserved_device_seconds_total", line.device_seconds, model, tenant)
            overhead = operational = embodied = devices = electricity = 0
            for boundary in Boundary:
                amounts = line.work[boundary]
                add("wattgate_request_joules_total", amounts.energy_nanojoules / NANO, model, tenant, boundary.value)
                overhead += amounts.overhead_nanojoules
                operational += amounts.operational_nanograms
                embodied += amounts.embodied_nanograms
                devices += amounts.device_nanocost
                electricity += amounts.electricity_nanocost
            idle = line.idle
            add("wattgate_request_joules_total", idle.energy_nanojoules / NANO, model, tenant, "idle")
            overhead += idle.overhead_nanojoules
            add("wattgate_request_joules_total", overhead / NANO, model, tenant, "overhead")
            operational += idle.operational_nanograms
            embodied += idle.embodied_nanograms
            marginal = closed.stamp is not None and closed.stamp.signal == "marginal"
            scope = "operational_marginal" if marginal else "operational"
            add("wattgate_request_grams_total", operational / NANO, model, tenant, scope)
            add("wattgate_request_grams_total", embodied / NANO, model, tenant, "embodied")
            for cause, nanocost in (
                ("devices", devices + idle.device_nanocost),
                ("electricity", electricity + idle.electricity_nanocost),
            ):
                if nanocost:
                    add("wattgate_request_cost_total", nanocost / NANO, model, tenant, cause)

    def _utilisation(self, engines: Iterable[EngineWindow]) -> None:
        """A window has only the engines that worked in it; the others' gauges must not go on as in their last one."""
        ratios = {
            (name, engine.model): ratio
            for engine in engines
            for name, ratio in (("wattgate_mfu_ratio", engine.mfu_ratio), ("wattgate_mbu_ratio", engine.mbu_ratio))
        }
        for name, model in self._utilised - ratios.keys():
            self._metrics.set(name, 0.0, model)
        for (name, model), ratio in ratios.items():
            if ratio is not None:
                self._metrics.set(name, ratio, model)
                self._utilised.add((name, model))
            elif (name, model) in self._utilised:
                self._metrics.set(name, math.nan, model)

    def _work(self, model: str, tenant: str, line: LineTotals, peak_flops: float | None) -> None:
        who = (model, tenant)
        figures: tuple[tuple[str, float, tuple[str, ...]], ...] = (
            ("wattgate_flops_total", line.flops_prefill, (*who, "prefill")),
            ("wattgate_flops_total", line.flops_decode, (*who, "decode")),
            ("wattgate_possible_flops_total", (peak_flops or 0.0) * line.device_seconds, who),
            ("wattgate_executed_tokens_total", line.tokens_prefill, (*who, "prefill")),
            ("wattgate_executed_tokens_total", line.tokens_cached, (*who, "reused")),
            ("wattgate_executed_tokens_total", line.tokens_decode, (*who, "decode")),
            ("wattgate_device_seconds_total", line.device_seconds, who),
            ("wattgate_roofline_seconds_total", line.roofline_seconds, (*who, "shared")),
            ("wattgate_roofline_seconds_total", line.roofline_alone_seconds, (*who, "alone")),
            ("wattgate_avoided_flops_total", line.prefix_flops_avoided, (*who, "prefix")),
        )
        for name, amount, labels in figures:
            if amount:
                self._metrics.add(name, amount, *labels)

    def served(self, answers: Iterable[Served]) -> None:
        for answer in answers:
            if answer.avoided_flops:
                labels = (answer.model, answer.tenant, "response")
                self._metrics.add("wattgate_avoided_flops_total", answer.avoided_flops, *labels)

    def books(self, node: NodeMeter) -> None:
        books = node.books()
        for component in books.components:
            difference = component.difference.energy_nanojoules / NANO
            self._metrics.set("wattgate_books_difference_joules", difference, component.component.name)
        counters = books.counters
        for fault in (
            "late_records", "malformed_records", "forced_windows", "meter_failures", "meter_resets",
            "dead_sources", "abandoned_requests", "mfu_over_unity", "lost_batches",
        ):  # fmt: skip
            now = int(getattr(counters, fault))
            self._metrics.begin("wattgate_meter_faults_total", fault)
            if (grown := now - self._faults.get(fault, 0)) > 0:
                self._metrics.add("wattgate_meter_faults_total", grown, fault)
            self._faults[fault] = now
