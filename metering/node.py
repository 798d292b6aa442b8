"""The meter of one node: owns its devices and windows, merges the replicas' work, keeps the books.

A plain core: no threads, no I/O but the meters' reads, an injected clock. ``submit`` takes what replicas report,
``tick`` closes windows. Both are called from one thread (an actor).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from metering.accounts import Account, FinalReceipt, FinalStore
from metering.booking import Engine, batches, cut, engine_windows
from metering.books import Books, ClosedWindow, Counters
from metering.closing import Closer, Lines, count_spent
from metering.intake import Intake
from metering.node_settings import NodeSettings
from metering.power.base import Boundary, Component, LoadPower, PowerMeter, Resumable
from metering.receipt import Receipt
from metering.sampling import Counter, Kept, Readings, Sample, SealedWindow, read_all
from metering.settlement import Acknowledgement, IntensityStamp, Rates, weakest
from metering.weights import WorkModel
from metering.windows import Window
from metering.work import WorkBatch

SLACK_SECONDS = 1e-6
"""A tick this much early still ends a window; below what any meter resolves."""
UNMETERED = Component("unmetered", Boundary.ACCELERATOR)
"""Stands for the devices of a node that has no meter: busy time and MFU are known, energy is not."""


class NodeMeter:
    """Windows, ledger and receipts of one node.

    Args:
        meters: counters that are read at the ends of windows; none: energy is unknown, FLOPs and MFU are not.
        load_models: power models fed with the executed work, for components that nothing can read.
        on_demand: components that are booked only from when a source runs on them: other people's until then.
        elsewhere: some sources work on devices that nothing meters, beside others that something does.
        clock: monotonic seconds, the clock of the work records.
        wall_clock: epoch seconds, for stamps only.

    Raises:
        ValueError: two meters claim one component, or embodied carbon or a price names one that is not there.
    """

    def __init__(
        self,
        meters: Sequence[PowerMeter] = (),
        settings: NodeSettings | None = None,
        *,
        load_models: Sequence[LoadPower] = (),
        on_demand: Collection[str] = (),
        elsewhere: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings or NodeSettings()
        self.counters = Counters()
        self._meters = tuple(meters)
        self._clock, self._wall_clock = clock, wall_clock
        sampled = [component for meter in self._meters for component in meter.components]
        known = [*sampled, *(model.component for model in load_models), *([UNMETERED] if elsewhere else [])]
        self.components = checked(known, self.settings)
        names = [meter.name for meter in self._meters] + [model.name for model in load_models]
        self.power = "+".join(dict.fromkeys(names)) or "unknown"
        self.power_method = weakest([m.method for m in self._meters] + [m.method for m in load_models])
        self._readers = {component.name: Counter(component) for component in sampled}
        self._finals = FinalStore(self.settings.kept_receipts, self.settings.kept_seconds)
        self._intake = Intake(self.settings, self.counters, self._finals)
        by_component = {c.name: (meter.method, meter.name) for meter in self._meters for c in meter.components}
        by_component |= {model.component.name: (model.method, model.name) for model in load_models}
        self._closer = Closer(
            self.components,
            load_models,
            self.settings,
            self.counters,
            self.power_method,
            meters=by_component,
            unused=on_demand,
        )
        self._sealed: deque[SealedWindow] = deque()
        self._open_start: float | None = None
        self._now = float("-inf")
        self._stamp: IntensityStamp | None = None
        self._kept: Kept | None = None
        self._absence: dict[str, int] = {}
        """Nanojoules drawn between the meter before this one and the first window."""
        self._mean_batch: dict[Engine, float] = {}
        self._finalised: list[FinalReceipt] = []

    def register(self, model: WorkModel) -> None:
        """Make a served model known; again after its peak or precision changed."""
        self._intake.models[model.name] = model

    def attach(self, source: str, devices: Iterable[str] | None = None, now_seconds: float | None = None) -> None:
        """Announce a replica before its first batch; ``devices`` names the accelerators it runs on (None: all).

        Raises:
            ValueError: a device that is not one of the node's components.
        """
        if devices is not None:
            named = frozenset(devices)
            unknown = named - {component.name for component in self.components}
            if unknown:
                there = ", ".join(component.name for component in self.components)
                raise ValueError(f"{source} runs on {', '.join(sorted(unknown))}: not metered here; there are {there}")
            self._closer.devices[source] = named
        self._closer.use(source)
        self._intake.hear(source, self._moment(now_seconds))

    def kept(self) -> Kept:
        """What a meter after this one has to be given to go on from here; it can be pickled."""
        booked = {}
        for name, reader in self._readers.items():
            if reader.last is not None:
                ahead = self._closer.ledgers[name].pending_nanojoules + self._absence.get(name, 0)
                booked[name] = replace(reader.last, nanojoules=reader.last.nanojoules - ahead)
        memories = {meter.name: meter.memory() for meter in self._meters if isinstance(meter, Resumable)}
        return Kept(self._first_open_seconds, memories, booked, dict(self._closer.devices))

    def resume(self, kept: Kept | None = None) -> None:
        """After a restart, before the start: sources go on with the sequences that they had, on the devices that they
        had, and what was before is not missing here.

        What was drawn since ``kept`` is booked with the first window, unattributed: counters say how much; a power
        model that is fed with work knows of none and gives its idle watts.
        """
        self._intake.resumed = True
        if kept is None or not math.isfinite(kept.at_seconds) or kept.at_seconds > self._clock():
            return
        self._kept = kept
        here = {component.name for component in self.components}
        for source, devices in kept.devices.items():
            if devices <= here:
                self._closer.devices[source] = devices
                self._closer.use(source)
        for meter in self._meters:
            if isinstance(meter, Resumable) and meter.name in kept.memories:
                meter.recall(kept.memories[meter.name])

    def set_intensity(self, stamp: IntensityStamp | None) -> None:
        """Intensity of the windows sealed from now on; None: unknown."""
        self._stamp = stamp

    def start(self, now_seconds: float | None = None) -> None:
        """Take the baseline reading and open the first window; the first ``submit`` or ``tick`` does it otherwise."""
        now = self._moment(now_seconds)
        if self._open_start is None:
            self._begin(self.read_meters(now))

    def submit(self, batch: WorkBatch, now_seconds: float | None = None) -> Acknowledgement:
        """Book a batch once by (source, sequence). Malformed records are refused and counted, the rest is booked.

        Raises:
            ValueError: a sequence below 1.
        """
        now = self._moment(now_seconds)
        self.start(now)
        if batch.source not in self._intake.sources:
            self._closer.use(batch.source)
        booked = self._intake.take(batch, self._first_open_seconds, now)
        return Acknowledgement(batch.source, batch.sequence, booked, self.rates(batch.source))

    def tick(self, now_seconds: float | None = None) -> tuple[ClosedWindow, ...]:
        """End the open window if it is long enough, and book every sealed window whose work is in.

        Call it a few times a window. To read the meters off the event loop, use ``due``, ``read_meters`` (in a
        thread) and ``advance``, which together are the same.
        """
        now = self._moment(now_seconds)
        return self.advance(self.read_meters(now) if self.due(now) else None, now)

    def due(self, now_seconds: float | None = None) -> bool:
        """Whether the meters are to be read now."""
        now = self._moment(now_seconds)
        return self._open_start is None or now - self._open_start >= self.settings.window_seconds - SLACK_SECONDS

    def read_meters(self, now_seconds: float | None = None) -> Readings:
        """Read all meters; touches nothing else, so it may run in a thread."""
        return read_all(self._meters, self._clock() if now_seconds is None else now_seconds)

    def advance(self, readings: Readings | None, now_seconds: float | None = None) -> tuple[ClosedWindow, ...]:
        """Seal the open window with the readings, if any, then book what can be booked."""
        now = self._moment(now_seconds)
        if readings is not None:
            if self._open_start is None:
                self._begin(readings)
            elif readings.at_seconds > self._open_start:
                self._seal(readings, self._open_start)
        self._intake.bury_silent(now)
        closed = []
        while self._sealed:
            forced = self._bookable(self._sealed[0].window, now)
            if forced is None:
                break
            closed.append(self._book(self._sealed.popleft(), forced, now))
        self._finalise(now)
        self._finals.expire(now)
        return tuple(closed)

    def rates(self, source: str) -> Rates:
        """Rates for the provisional receipts of one replica."""
        devices = self._closer.devices.get(source)
        return Rates(
            components=tuple(
                rate
                for name, rate in self._closer.rates.items()
                if devices is None or rate.boundary is Boundary.HOST or name in devices
            ),
            window_end_seconds=self._closer.rates_end_seconds,
            wanted=self.settings.weight,
            mean_batch={model: batch for (name, model), batch in self._mean_batch.items() if name == source},
            pue=self.settings.pue,
            intensity=self._stamp,
            method=self.power_method,
            power=self.power,
            price_per_kwh=self.settings.price_per_kwh,
        )

    def receipt(self, tenant: str, request_id: str, now_seconds: float | None = None) -> Receipt | None:
        """Final receipt, or what is booked so far (``provisional``); None for an unknown or forgotten request."""
        account = self._intake.accounts.get((tenant, request_id))
        if account is not None:
            model = self._intake.models.get(account.model)
            return account.receipt("provisional", model, self.power, self.settings.weight)
        final = self.final(tenant, request_id, now_seconds)
        return final.receipt if final else None

    def final(self, tenant: str, request_id: str, now_seconds: float | None = None) -> FinalReceipt | None:
        """Final receipt with the integers behind it; None while the request is open, or for one unknown."""
        return self._finals.get((tenant, request_id), self._moment(now_seconds))

    def books(self) -> Books:
        """The node's totals; they balance to the nanojoule and nanogram."""
        self.counters.lost_batches = self._intake.lost_batches
        return Books(
            components=tuple(ledger.books() for ledger in self._closer.ledgers.values()),
            counters=self.counters,
            open_requests=len(self._intake.accounts),
            open_windows=len(self._sealed),
            kept_receipts=len(self._finals),
        )

    @property
    def sources_alive(self) -> frozenset[str]:
        """Replicas that report, or were announced lately."""
        return frozenset(self._intake.alive())

    def accelerators_of(self, source: str) -> frozenset[str]:
        """Components that the replica's engine runs on; without what nothing meters."""
        here = {c.name for c in self.components if c.boundary is Boundary.ACCELERATOR} - {UNMETERED.name}
        devices = self._closer.devices.get(source)
        return frozenset(here if devices is None else here & devices)

    def open_accounts(self) -> tuple[Account, ...]:
        """Requests that are not final yet."""
        return tuple(self._intake.accounts.values())

    def drain(self, now_seconds: float | None = None) -> tuple[ClosedWindow, ...]:
        """Before stopping: end the open window however short it is, and book all windows and open requests.

        Nothing is waited for; requests that were not reported as finished say so in their receipts.
        """
        now = self._moment(now_seconds)
        if self._open_start is not None and now > self._open_start:
            self._seal(self.read_meters(now), self._open_start)
        self._intake.abandon_all("the node meter stopped: booked as reported")
        closed = [self._book(self._sealed.popleft(), False, now) for _ in range(len(self._sealed))]
        self._finalise(now)
        return tuple(closed)

    def close(self) -> None:
        """Give the devices back."""
        for meter in self._meters:
            meter.close()

    @property
    def _first_open_seconds(self) -> float:
        if self._sealed:
            return self._sealed[0].window.start_seconds
        return self._open_start if self._open_start is not None else float("-inf")

    def _moment(self, now_seconds: float | None) -> float:
        """The time, never earlier than before: a monotonic clock that steps back is counted and held."""
        now = self._clock() if now_seconds is None else now_seconds
        if now < self._now:
            self.counters.clock_steps_back += 1
            return self._now
        self._now = now
        return now

    def _begin(self, readings: Readings) -> None:
        self._open_start = readings.at_seconds
        self.counters.meter_failures += readings.failures
        for name, reader in self._readers.items():
            before = self._kept.booked.get(name) if self._kept is not None else None
            reader.start(before)
            reading = readings.components.get(name)
            if before is None or reading is None:
                reader.start(reading)
                continue
            sample = reader.advance(reading, "")
            self.counters.meter_resets += sample.reset
            self._absence[name] = sample.nanojoules or 0
        if self._kept is not None:
            self._absence |= self._closer.idle_since(readings.at_seconds - self._kept.at_seconds)

    def _seal(self, readings: Readings, start_seconds: float) -> None:
        self.counters.meter_failures += readings.failures
        samples = {
            name: reader.advance(readings.components.get(name), readings.missing.get(name, ""))
            for name, reader in self._readers.items()
        }
        for name, nanojoules in self._absence.items():
            sample = samples.get(name, Sample(None))
            samples[name] = replace(sample, recovered_nanojoules=sample.recovered_nanojoules + nanojoules)
        self._absence.clear()
        for name, sample in samples.items():
            self.counters.meter_resets += sample.reset
            pending = (sample.nanojoules or 0) + sample.recovered_nanojoules
            self._closer.ledgers[name].pending_nanojoules += pending
        window = Window(start_seconds, readings.at_seconds)
        self._sealed.append(SealedWindow(window, samples, self._stamp, self._wall_clock(), self._closer.unused))
        self._open_start = readings.at_seconds

    def _bookable(self, window: Window, now_seconds: float) -> bool | None:
        """False: all work is in. True: booked without waiting any longer. None: wait."""
        waits = self._intake.waits(window)
        if waits is False:
            return False
        return bool(waits) if now_seconds >= window.end_seconds + self.settings.grace_seconds else None

    def _book(self, sealed: SealedWindow, forced: bool, now_seconds: float) -> ClosedWindow:
        self.counters.forced_windows += forced
        for name, sample in sealed.samples.items():
            pending = (sample.nanojoules or 0) + sample.recovered_nanojoules
            self._closer.ledgers[name].pending_nanojoules -= pending
        slices, going_on, spent = cut(self._intake.live, sealed.window)
        batch = batches(slices, self._intake.steps, sealed.window)
        lines: Lines = {}
        components = self._closer.close(sealed, slices, batch, lines)
        count_spent(lines, spent, batch)
        engines = engine_windows(slices, batch, sealed.window)
        self.counters.mfu_over_unity += sum(engine.mfu_ratio is not None and engine.mfu_ratio > 1 for engine in engines)
        alive = self._intake.alive()
        self._mean_batch = {e: mean for e, mean in {**self._mean_batch, **batch}.items() if e[0] in alive}
        self._intake.booked(spent, going_on, sealed.window)
        self._finalise(now_seconds)
        finals, self._finalised = tuple(self._finalised), []
        return ClosedWindow(
            sealed.window,
            sealed.epoch_seconds,
            components,
            engines,
            lines,
            finals,
            sealed.stamp,
            forced,
            self.settings.idle_policy,
        )

    def _finalise(self, now_seconds: float) -> None:
        for account in self._intake.settle(now_seconds):
            model = self._intake.models.get(account.model)
            receipt = account.receipt("final", model, self.power, self.settings.weight)
            self.counters.mfu_over_unity += receipt.mfu_ratio is not None and receipt.mfu_ratio > 1
            final = FinalReceipt(account.tenant, account.request_id, account.model, receipt, account.totals)
            self._finals.put(account, final, now_seconds)
            self._finalised.append(final)


def checked(components: list[Component], settings: NodeSettings) -> tuple[Component, ...]:
    """The node's components, with a stand-in where no accelerator is metered."""
    if not any(component.boundary is Boundary.ACCELERATOR for component in components):
        components = [*components, UNMETERED]
    names = [component.name for component in components]
    if len(set(names)) != len(names):
        raise ValueError(f"two meters claim one component ({', '.join(sorted(names))}): give each a single owner")
    for name in settings.embodied:
        if name not in names:
            raise ValueError(f"embodied carbon of {name!r}: no such component; there are {', '.join(names)}")
    for name in settings.prices_per_hour:
        if name not in names:
            raise ValueError(f"price of {name!r}: no such component; there are {', '.join(names)}")
    return tuple(components)
