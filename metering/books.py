"""The node's books: running totals by component, what a closed window reports, and counts of what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from metering.accounts import FinalReceipt
from metering.booking import EngineWindow
from metering.idle import IdleBook, IdlePolicy
from metering.ledger import Amounts
from metering.power.base import Boundary, Component
from metering.settlement import IntensityStamp
from metering.weights import WeightKind
from metering.windows import Window
from metering.work import Method


@dataclass(slots=True)
class Counters:
    """Diagnostics; none of them changes a figure."""

    batches: int = 0
    duplicate_batches: int = 0
    lost_batches: int = 0
    """Gaps in a source's sequence that were given up; falls when one arrives after all."""
    records: int = 0
    late_records: int = 0
    """Measured, and arrived after their window had closed: booked in the next open one."""
    malformed_records: int = 0
    """Refused: negative tokens, an interval that ends before it starts, or the like."""
    skewed_records: int = 0
    """Said to end in the future: cut at the moment of arrival."""
    unknown_model_records: int = 0
    forced_windows: int = 0
    """Closed at the end of the grace time, with a source still behind."""
    meter_failures: int = 0
    meter_resets: int = 0
    dead_sources: int = 0
    abandoned_requests: int = 0
    """Never finished by their replica; booked as far as reported."""
    revised_receipts: int = 0
    mfu_over_unity: int = 0
    """Windows or requests whose MFU came out above one: a wrong FLOP count or peak."""
    clock_steps_back: int = 0


@dataclass(slots=True)
class LineTotals:
    """What one model and tenant were given in one window, by boundary."""

    work: dict[Boundary, Amounts] = field(default_factory=lambda: {b: Amounts() for b in Boundary})
    idle: Amounts = field(default_factory=Amounts)
    flops_prefill: int = 0
    """Exact; of the records that ended in the window."""
    flops_decode: int = 0
    tokens_prefill: int = 0
    tokens_cached: int = 0
    tokens_decode: int = 0
    preemptions: int = 0
    device_seconds: float = 0.0
    seconds_by_device: dict[str, float] = field(default_factory=dict)
    """The device-seconds by the component they were counted on: the first accelerator that the source runs on."""
    roofline_seconds: float = 0.0
    """Roofline time of the records that ended in the window, as batched; 0 where no roofline is known."""
    roofline_alone_seconds: float = 0.0
    """The same for batches of one: what sharing each forward pass saved."""
    prefix_flops_avoided: int = 0
    """FLOPs that reused keys and values made unnecessary."""
    methods: set[Method] = field(default_factory=set)
    """How the records that ended in the window were obtained."""


@dataclass(frozen=True, slots=True)
class ComponentClose:
    """One component's part of a closed window."""

    component: Component
    energy_nanojoules: int | None
    """None in a gap."""
    gap: str
    """Why there is no reading; empty where there is one."""
    busy_seconds: float
    idle_nanojoules: int
    unattributed_nanojoules: int
    kind: WeightKind
    recovered_nanojoules: int = 0
    """Of the unattributed: drawn in a gap before the window, on top of ``energy_nanojoules``."""
    method: Method = Method.MODELLED
    """How its energy was obtained; a neighbour's may be obtained otherwise."""
    power: str = "unknown"
    """Name of its meter or power model."""


@dataclass(frozen=True, slots=True)
class ClosedWindow:
    """A window that has been booked, for metrics, history and logs."""

    window: Window
    closed_epoch_seconds: float
    """Wall clock, as a stamp only."""
    components: tuple[ComponentClose, ...]
    engines: tuple[EngineWindow, ...]
    lines: Mapping[tuple[str, str], LineTotals]
    """By (model, tenant)."""
    finals: tuple[FinalReceipt, ...]
    stamp: IntensityStamp | None
    forced: bool
    idle_policy: IdlePolicy = IdlePolicy.RESERVED
    """By which the idle in ``lines`` was shared."""


@dataclass(frozen=True, slots=True)
class ComponentBooks:
    """One component's totals since the start. Each quantity: meter = requests + idle lines + unattributed + pending."""

    component: Component
    meter: Amounts
    requests: Amounts
    """Given to requests for work."""
    idle_booked: Amounts
    idle_shared: Amounts
    """Of the booked idle, given to requests by the policy."""
    idle_node: Amounts
    """Kept by the node."""
    idle_carried: Amounts
    """Waiting to be shared with later requests."""
    unattributed: Amounts
    pending_nanojoules: int
    """Read, in windows that are not booked yet; counted in no other line, nor in ``meter``."""
    gap_seconds: float
    recovered_nanojoules: int
    """Of the unattributed: metered in sum across a gap, not by window."""

    @property
    def difference(self) -> Amounts:
        """meter - (requests + idle + unattributed): nothing, unless the ledger is broken."""
        rest = self.meter.copy()
        for line in (self.requests, self.idle_shared, self.idle_node, self.idle_carried, self.unattributed):
            rest.subtract(line)
        return rest


@dataclass(frozen=True, slots=True)
class Books:
    """The node's totals."""

    components: tuple[ComponentBooks, ...]
    counters: Counters
    open_requests: int
    open_windows: int
    kept_receipts: int

    @property
    def balanced(self) -> bool:
        return not any(component.difference for component in self.components)

    def as_dict(self) -> dict[str, object]:
        """JSON-ready: integers in nanojoules and nanograms."""
        out = asdict(self)
        out["balanced"] = self.balanced
        for entry, books in zip(out["components"], self.components, strict=True):
            entry["difference"] = asdict(books.difference)
        return out


@dataclass(slots=True)
class ComponentLedger:
    """Running state of one component; ``close`` freezes it into ``ComponentBooks``."""

    component: Component
    idle: IdleBook
    meter: Amounts = field(default_factory=Amounts)
    requests: Amounts = field(default_factory=Amounts)
    unattributed: Amounts = field(default_factory=Amounts)
    pending_nanojoules: int = 0
    gap_seconds: float = 0.0
    recovered_nanojoules: int = 0

    def books(self) -> ComponentBooks:
        return ComponentBooks(
            component=self.component,
            meter=self.meter.copy(),
            requests=self.requests.copy(),
            idle_booked=self.idle.booked.copy(),
            idle_shared=self.idle.shared.copy(),
            idle_node=self.idle.node.copy(),
            idle_carried=self.idle.carried.copy(),
            unattributed=self.unattributed.copy(),
            pending_nanojoules=self.pending_nanojoules,
            gap_seconds=self.gap_seconds,
            recovered_nanojoules=self.recovered_nanojoules,
        )
