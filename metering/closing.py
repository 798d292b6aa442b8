"""Closing a window: each component's energy and carbon divided over the requests, and the rates that follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from metering.accounts import Account
from metering.booking import Engine, LiveRecord, Shares, Slice, share
from metering.books import ComponentClose, ComponentLedger, Counters, LineTotals
from metering.idle import IdleBook
from metering.ledger import Amounts, ComponentWindow, Division, divide, integer_weights, window_total
from metering.node_settings import NodeSettings
from metering.power.base import Boundary, Component, LoadPower
from metering.sampling import Sample, SealedWindow
from metering.settlement import ComponentRate, IntensityStamp
from metering.weights import WeightKind, prefix_flops_avoided, roofline_seconds, usable_kind
from metering.windows import NANO
from metering.work import Method

Lines = dict[tuple[str, str], LineTotals]


class Closer:
    """The ledgers of a node's components. ``close`` divides one window over all of them."""

    def __init__(
        self,
        components: Iterable[Component],
        load_models: Iterable[LoadPower],
        settings: NodeSettings,
        counters: Counters,
        power_method: Method,
        *,
        meters: Mapping[str, tuple[Method, str]] | None = None,
        unused: Iterable[str] = (),
    ) -> None:
        """``meters``: method and name of each component's meter; ``unused``: components that are not booked before a
        source uses them."""
        self.ledgers = {
            component.name: ComponentLedger(component, IdleBook(settings.idle_policy, settings.idle_release_seconds))
            for component in components
        }
        self.rates: dict[str, ComponentRate] = {}
        self.rates_end_seconds: float | None = None
        self.devices: dict[str, frozenset[str]] = {}
        """Accelerators that a source runs on; absent: all."""
        self.unused = frozenset(unused)
        """Components that no source runs on yet."""
        self._load_models = {model.component.name: model for model in load_models}
        self._settings = settings
        self._counters = counters
        self._method = power_method
        self._meters = meters or {}
        self._embodied_rest = dict.fromkeys(settings.embodied, 0)
        self._price_rest = dict.fromkeys(settings.prices_per_hour, 0)

    def use(self, source: str) -> None:
        """Book the devices that the source runs on, from the next window that is sealed."""
        self.unused -= self.devices.get(source, frozenset(self.ledgers))

    def idle_since(self, seconds: float) -> dict[str, int]:
        """Nanojoules of the components whose power is a model fed with work, over a time that none is known of."""
        return {
            name: round(model.idle_watts * seconds * NANO)
            for name, model in self._load_models.items()
            if model.idle_watts is not None
        }

    def close(
        self, sealed: SealedWindow, slices: list[Slice], batch: Mapping[Engine, float], lines: Lines
    ) -> tuple[ComponentClose, ...]:
        """Divide the window, add to the accounts and ``lines``, and set new rates where work was done."""
        cache: dict[frozenset[str], Shares] = {}
        sources = {piece.live.source for piece in slices}
        closes = []
        for ledger in self.ledgers.values():
            component = ledger.component
            if component.name in sealed.unused:
                continue
            here = frozenset(source for source in sources if self._runs_on(source, component))
            if here not in cache:
                mine = slices if here == sources else [piece for piece in slices if piece.live.source in here]
                cache[here] = share(mine, batch, self._settings.weight, sealed.window)
            closes.append(self._close_component(ledger, sealed, cache[here], lines))
        return tuple(closes)

    def _runs_on(self, source: str, component: Component) -> bool:
        devices = self.devices.get(source)
        return component.boundary is Boundary.HOST or devices is None or component.name in devices

    def _primary(self, source: str, component: Component) -> bool:
        """Whether the component is the first accelerator of the source, on which its device-seconds are counted."""
        accelerators = (
            ledger.component
            for ledger in self.ledgers.values()
            if ledger.component.boundary is Boundary.ACCELERATOR and self._runs_on(source, ledger.component)
        )
        return next(accelerators, None) == component

    def _close_component(
        self, ledger: ComponentLedger, sealed: SealedWindow, shares: Shares, lines: Lines
    ) -> ComponentClose:
        component, window = ledger.component, sealed.window
        sample = self._sample(component, sealed, shares)
        length = window.nanoseconds
        known = ComponentWindow(
            window_nanoseconds=length,
            busy_nanoseconds=min(length, round(shares.busy_seconds * NANO)),
            energy_nanojoules=sample.nanojoules,
            idle_watts=sample.idle_watts,
            pue=self._settings.pue,
            intensity_grams_per_kwh=sealed.stamp.grams_per_kwh if sealed.stamp else None,
            embodied_nanograms=self._embodied(component.name, length),
            device_nanocost=self._device_cost(component.name, length),
            price_per_kwh=self._settings.price_per_kwh,
        )
        division = divide(known, integer_weights(shares.usable_weights))
        ledger.meter.add(window_total(known))
        ledger.unattributed.add(division.unattributed)
        idle_shares = ledger.idle.share(division.idle, known.busy_nanoseconds, shares.seconds, shares.flops)
        if sample.recovered_nanojoules:
            self._book_recovered(ledger, sample, sealed, length)
        if sample.nanojoules is None and sample.gap:
            ledger.gap_seconds += window.seconds
        self._credit(ledger, shares, division, idle_shares, sample, sealed.stamp, lines)
        self._set_rate(ledger, shares, division, idle_shares, sample, sealed)
        method, power = self._how(component)
        return ComponentClose(
            component=component,
            energy_nanojoules=sample.nanojoules,
            gap=sample.gap,
            busy_seconds=shares.busy_seconds,
            idle_nanojoules=division.idle.energy_nanojoules,
            unattributed_nanojoules=division.unattributed.energy_nanojoules + sample.recovered_nanojoules,
            kind=shares.kind,
            recovered_nanojoules=sample.recovered_nanojoules,
            method=method,
            power=power,
        )

    def _sample(self, component: Component, sealed: SealedWindow, shares: Shares) -> Sample:
        model = self._load_models.get(component.name)
        sample = sealed.samples.get(component.name, Sample(None))
        if model is None:
            return sample
        energy = model.energy_nanojoules(shares.load)
        gap = "" if energy is not None else "utilisation unknown: the peak of a device or an architecture is missing"
        return Sample(energy, model.idle_watts, gap, sample.recovered_nanojoules)

    def _how(self, component: Component) -> tuple[Method, str]:
        """How its energy is obtained, and by what."""
        return self._meters.get(component.name, (self._method, "unknown"))

    def _embodied(self, name: str, length_nanoseconds: int) -> int:
        """The window's share of the embodied carbon; what rounding leaves goes into the next window."""
        embodied = self._settings.embodied.get(name)
        if embodied is None:
            return 0
        lifetime = round(embodied.lifetime_seconds * NANO)
        owed = round(embodied.grams * NANO) * length_nanoseconds + self._embodied_rest[name]
        share_nanograms, self._embodied_rest[name] = divmod(owed, lifetime)
        return share_nanograms

    def _device_cost(self, name: str, length_nanoseconds: int) -> int:
        """The window's price of the device; what rounding leaves goes into the next window."""
        hourly = self._settings.prices_per_hour.get(name)
        if hourly is None:
            return 0
        owed = round(hourly * NANO) * length_nanoseconds + self._price_rest[name]
        cost, self._price_rest[name] = divmod(owed, 3600 * NANO)
        return cost

    def _book_recovered(self, ledger: ComponentLedger, sample: Sample, sealed: SealedWindow, length: int) -> None:
        recovered = ComponentWindow(
            window_nanoseconds=length,
            busy_nanoseconds=length,
            energy_nanojoules=sample.recovered_nanojoules,
            pue=self._settings.pue,
            intensity_grams_per_kwh=sealed.stamp.grams_per_kwh if sealed.stamp else None,
            price_per_kwh=self._settings.price_per_kwh,
        )
        ledger.meter.add(window_total(recovered))
        ledger.unattributed.add(divide(recovered, []).unattributed)
        ledger.recovered_nanojoules += sample.recovered_nanojoules

    def _credit(
        self,
        ledger: ComponentLedger,
        shares: Shares,
        division: Division,
        idle_shares: list[Amounts],
        sample: Sample,
        stamp: IntensityStamp | None,
        lines: Lines,
    ) -> None:
        component = ledger.component
        total_weight = sum(shares.usable_weights)
        primary = {source: self._primary(source, component) for source in set(shares.sources)}
        has_embodied = component.name in self._settings.embodied
        has_price = component.name in self._settings.prices_per_hour
        for index, account in enumerate(shares.accounts):
            work, idle = division.requests[index], idle_shares[index]
            ledger.requests.add(work)
            account.work[component.boundary].add(work)
            account.idle.add(idle)
            line = line_of(lines, account)
            line.work[component.boundary].add(work)
            line.idle.add(idle)
            account.accelerated = account.accelerated or component.boundary is Boundary.ACCELERATOR
            if has_embodied:
                account.embodied_boundaries.add(component.boundary)
            account.devices_priced = account.devices_priced or has_price
            if sample.nanojoules is not None:
                account.energy_methods.setdefault(component.boundary, set()).add(self._how(component)[0])
                account.kinds.add(shares.kind)
                account.methods.add(self._method)
                account.electricity_priced = self._settings.price_per_kwh is not None
                account.stamped(stamp)
            elif sample.gap:
                seconds = account.gap_seconds.get(component.name, 0.0)
                account.gap_seconds[component.name] = seconds + shares.seconds[index]
            if primary[shares.sources[index]] and total_weight > 0:
                device_seconds = shares.busy_seconds * shares.usable_weights[index] / total_weight
                account.device_seconds += device_seconds
                line.device_seconds += device_seconds
                known = line.seconds_by_device.get(component.name, 0.0)
                line.seconds_by_device[component.name] = known + device_seconds

    def _set_rate(
        self,
        ledger: ComponentLedger,
        shares: Shares,
        division: Division,
        idle_shares: list[Amounts],
        sample: Sample,
        sealed: SealedWindow,
    ) -> None:
        weights, seconds = sum(shares.weights), sum(shares.seconds)
        if weights <= 0 or seconds <= 0:
            return
        work, idle = Amounts(), Amounts()
        for amounts in division.requests:
            work.add(amounts)
        for amounts in idle_shares:
            idle.add(amounts)
        name = ledger.component.name
        metered = sample.nanojoules is not None
        has_embodied = name in self._settings.embodied
        has_price = name in self._settings.prices_per_hour
        self.rates[name] = ComponentRate(
            component=name,
            boundary=ledger.component.boundary,
            kind=shares.kind,
            joules_per_weight=work.energy_nanojoules / NANO / weights if metered else None,
            idle_joules_per_second=idle.energy_nanojoules / NANO / seconds if metered else None,
            device_seconds_per_weight=shares.busy_seconds / weights,
            embodied_grams_per_weight=work.embodied_nanograms / NANO / weights if has_embodied else None,
            embodied_grams_per_second=idle.embodied_nanograms / NANO / seconds if has_embodied else None,
            device_cost_per_weight=work.device_nanocost / NANO / weights if has_price else None,
            device_cost_per_second=idle.device_nanocost / NANO / seconds if has_price else None,
            method=self._how(ledger.component)[0],
        )
        self.rates_end_seconds = sealed.window.end_seconds


def line_of(lines: Lines, account: Account) -> LineTotals:
    key = (account.model, account.tenant)
    found = lines.get(key)
    if found is None:
        found = lines[key] = LineTotals()
    return found


def count_spent(lines: Lines, spent: Iterable[LiveRecord], batch: Mapping[Engine, float]) -> None:
    """Add the exact FLOPs and tokens of the records that ended in the window, and what batching and reuse saved."""
    for live in spent:
        line = line_of(lines, live.account)
        line.methods.add(live.record.method)
        if live.work is not None and live.model is not None:
            line.flops_prefill += live.work.flops_prefill
            line.flops_decode += live.work.flops_decode
            line.prefix_flops_avoided += prefix_flops_avoided(live.record, live.work, live.model)
            if usable_kind(WeightKind.ROOFLINE_TIME, live.model, live.work) is WeightKind.ROOFLINE_TIME:
                mean = batch.get((live.source, live.record.model), 1.0)
                line.roofline_seconds += roofline_seconds(live.record, live.work, live.model, mean)
                line.roofline_alone_seconds += roofline_seconds(live.record, live.work, live.model, 1.0)
        line.tokens_prefill += live.record.prefill_tokens
        line.tokens_cached += live.record.cached_tokens
        line.tokens_decode += live.record.decode_tokens
        line.preemptions += live.record.preemptions
