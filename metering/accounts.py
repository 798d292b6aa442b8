"""One request's account while its windows close, and the bounded store of final receipts."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from metering.ledger import Amounts
from metering.power.base import Boundary
from metering.receipt import EnergyJoules, Receipt, cost_of
from metering.settlement import IntensityStamp, by_boundary, estimator_name, mfu, weakest
from metering.weights import ExecutedWork, WeightKind, WorkModel
from metering.windows import NANO
from metering.work import Method, WorkRecord

Key = tuple[str, str]
"""(tenant, request id)."""


@dataclass(slots=True)
class Account:
    """What has been attributed to a request so far."""

    tenant: str
    request_id: str
    model: str
    touched_seconds: float
    """When a record of it last came in."""
    flops_prefill: int = 0
    flops_decode: int = 0
    flops_known: bool = True
    work: dict[Boundary, Amounts] = field(default_factory=lambda: {b: Amounts() for b in Boundary})
    idle: Amounts = field(default_factory=Amounts)
    device_seconds: float = 0.0
    accelerated: bool = False
    """It worked on an accelerator, metered or not; without one the host's energy is the whole."""
    energy_methods: dict[Boundary, set[Method]] = field(default_factory=dict)
    """Of the boundaries with at least one reading while it worked."""
    gap_seconds: dict[str, float] = field(default_factory=dict)
    """By component: time that it worked while the meter gave no reading."""
    embodied_boundaries: set[Boundary] = field(default_factory=set)
    """Boundaries whose embodied carbon is known, of what it worked on."""
    devices_priced: bool = False
    electricity_priced: bool = False
    stamp: IntensityStamp | None = None
    stamps_differ: bool = False
    methods: set[Method] = field(default_factory=set)
    kinds: set[WeightKind] = field(default_factory=set)
    open_spans: int = 0
    """Records with a part in a window that is not booked yet."""
    open_sources: set[str] = field(default_factory=set)
    """Replicas that may send more."""
    done_sources: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    cache: str = "MISS"
    """Verdict of the response cache; a request that reached an engine was no hit."""

    @property
    def key(self) -> Key:
        return (self.tenant, self.request_id)

    @property
    def settled(self) -> bool:
        """Nothing more is expected and every window of it is booked."""
        return not self.open_sources and self.open_spans == 0

    def count(self, record: WorkRecord, work: ExecutedWork | None) -> None:
        """Add a record's FLOPs, exactly."""
        if work is None:
            self.flops_known = False
        else:
            self.flops_prefill += work.flops_prefill
            self.flops_decode += work.flops_decode
        self.methods.add(record.method)

    def finish(self, source: str, verdict: str | None = None) -> None:
        """``verdict``: of the response cache, where the source has said it."""
        self.cache = verdict or self.cache
        self.open_sources.discard(source)
        self.done_sources.add(source)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def stamped(self, stamp: IntensityStamp | None) -> None:
        if stamp is None:
            return
        if self.stamp is not None and self.stamp.grams_per_kwh != stamp.grams_per_kwh:
            self.stamps_differ = True
        self.stamp = stamp

    @property
    def totals(self) -> Amounts:
        total = self.idle.copy()
        for amounts in self.work.values():
            total.add(amounts)
        return total

    def receipt(self, status: str, model: WorkModel | None, power: str, wanted: WeightKind) -> Receipt:
        """``status`` final, or provisional for what is booked so far."""
        totals = self.totals
        notes = [*self.notes]
        for component, seconds in sorted(self.gap_seconds.items()):
            notes.append(f"no power reading of {component} for {seconds:.3f} s of its work")
        energy = operational = None
        needed = Boundary.ACCELERATOR if self.accelerated else Boundary.HOST
        if needed in self.energy_methods:
            energy = EnergyJoules(
                accelerator=self.work[Boundary.ACCELERATOR].energy_nanojoules / NANO,
                host=self.work[Boundary.HOST].energy_nanojoules / NANO,
                idle=self.idle.energy_nanojoules / NANO,
                overhead=totals.overhead_nanojoules / NANO,
            )
            if Boundary.HOST not in self.energy_methods:
                notes.append("energy of the host is unknown and not included")
            if totals.unstamped_nanojoules == 0:
                operational = totals.operational_nanograms / NANO
            else:
                notes.append("grid intensity was unknown for a part of it")
        elif not self.gap_seconds:
            notes.append(f"power of the {needed.value} is unknown: no meter")
        intensity = self.stamp.grams_per_kwh if self.stamp else None
        if self.stamps_differ and energy is not None and operational is not None and energy.total > 0:
            intensity = operational / energy.total * 3.6e6
            notes.append("intensity is the energy-weighted mean of its windows")
        flops_prefill = self.flops_prefill if self.flops_known else None
        flops_decode = self.flops_decode if self.flops_known else None
        return Receipt(
            receipt_id=self.request_id,
            status="final" if status == "final" else "provisional",
            flops_prefill=flops_prefill,
            flops_decode=flops_decode,
            mfu_ratio=mfu(
                self.flops_prefill + self.flops_decode if self.flops_known else None,
                model.peak_flops if model is not None else None,
                self.device_seconds,
            ),
            energy_joules=energy,
            operational_grams=operational,
            # the host's share alone would pass for the whole
            embodied_grams=totals.embodied_nanograms / NANO if needed in self.embodied_boundaries else None,
            cost=cost_of(
                totals.device_nanocost / NANO if self.devices_priced else None,
                totals.electricity_nanocost / NANO if self.electricity_priced and energy is not None else None,
            ),
            method=weakest(self.methods),
            energy_methods=by_boundary(self.energy_methods),
            estimator=estimator_name(power, self.kinds, wanted),
            intensity_grams_per_kwh=intensity,
            zone=self.stamp.zone if self.stamp else None,
            source=self.stamp.source if self.stamp else "",
            cache=self.cache,
            notes=tuple(notes),
        )


@dataclass(frozen=True, slots=True)
class FinalReceipt:
    """A receipt that has just become final (again, where late work revised it)."""

    tenant: str
    request_id: str
    model: str
    receipt: Receipt
    totals: Amounts
    """The integers behind the receipt's floats."""


class FinalStore:
    """Final receipts by tenant and request, bounded by number and age; the least recently used goes first."""

    def __init__(self, most: int, age_seconds: float) -> None:
        self._most = most
        self._age_seconds = age_seconds
        self._kept: OrderedDict[Key, tuple[Account, FinalReceipt, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, account: Account, final: FinalReceipt, now_seconds: float) -> None:
        self._kept[account.key] = (account, final, now_seconds)
        self._kept.move_to_end(account.key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def get(self, key: Key, now_seconds: float) -> FinalReceipt | None:
        found = self._kept.get(key)
        if found is None:
            return None
        if now_seconds - found[2] > self._age_seconds:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found[1]

    def reopen(self, key: Key) -> Account | None:
        """Take back a finalised account for which late work has come."""
        found = self._kept.pop(key, None)
        return found[0] if found else None

    def expire(self, now_seconds: float) -> None:
        """Drop what is too old, oldest first; what was read since goes when it is next at the front."""
        while self._kept:
            key, (_, _, at) = next(iter(self._kept.items()))
            if now_seconds - at <= self._age_seconds:
                return
            del self._kept[key]
