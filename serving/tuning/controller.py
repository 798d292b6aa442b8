"""Keeping the live cap right as traffic and grid change: a pure decision over windows of observations.

The cap is raised by bounded steps while requests wait and inter-token time has room, and cut by a factor where
inter-token time breaks its bound. But a smaller batch makes fewer tokens in all: below the configured cap it is cut
only while the time to first token has room for a longer wait, a cut that did not help is undone, and where both bounds
cannot hold at once the cap goes back to the configured one. So it is not worse than leaving it alone.

Additive increase and multiplicative decrease are those of Chiu and Jain 1989. They are held still by a dead band
around the bound (hysteresis), by a cool-down after each move, and by undoing a raise that did not give more tokens.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum

from metering.errors import BadInput
from serving.tuning.slo import Slo

CLEAN_RATIO = 0.95
"""Of the intensity's threshold: hysteresis, so that an intensity that hovers there does not turn the promise too."""


class Reason(StrEnum):
    """Why the cap moved, or stayed."""

    TOO_FEW = "too few tokens to judge by"
    COOLING = "the last move is still settling"
    ITL_BROKEN = "inter-token time is over its bound"
    TTFT_BROKEN_BY_STEPS = "time to first token is over its bound and nobody waits for a slot"
    TTFT_BROKEN_BY_QUEUE = "time to first token is over its bound while requests wait for a slot"
    QUEUE = "requests wait and the bounds hold with room"
    NO_GAIN = "the last raise gave no more tokens"
    CUT_DID_NOT_HELP = "the last cut did not shorten the inter-token time"
    LOAD_ITSELF = "inter-token time is over its bound, but the cap does not hold the batch: the load does"
    WAIT_NEEDS_ROOM = "below the configured cap the wait comes near its bound"
    BOTH_BROKEN = "inter-token time is over its bound, and the wait has no room for a smaller batch"
    AT_BOUND = "already at the end of the range"
    NEAR_BOUND = "the bounds hold, without room to spare"
    NOBODY_WAITS = "the bounds hold and nobody waits"


@dataclass(frozen=True, slots=True)
class Window:
    """What one replica saw in one window. Latencies are None where nothing happened."""

    ended_seconds: float
    ttft_p95_seconds: float | None
    itl_p95_seconds: float | None
    tokens: int
    """Output tokens."""
    seconds: float
    running_mean: float
    waiting_mean: float
    """Requests in the queue before the cap."""
    mfu_ratio: float | None = None
    intensity_grams_per_kwh: float | None = None

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """
    Raises:
        BadInput: a value out of its range, or a carbon objective without its second bound.
    """

    slo: Slo
    """Of p95 of ttft and itl; other bounds are not controlled by the cap and are refused."""
    lowest_cap: int = 1
    highest_cap: int = 256
    raise_ratio: float = 0.25
    """Largest raise in one move, of the cap; at least one."""
    cut_ratio: float = 0.75
    """The cap is multiplied by this at least when inter-token time breaks its bound."""
    room: float = 0.85
    """A raise needs latencies below this share of their bounds: the dead band lies between it and 1."""
    wait_room: float = 0.4
    """Below the configured cap, time to first token must stay under this share of its bound, or the cap goes back."""
    cool_down_windows: int = 2
    least_tokens: int = 20
    """A window with fewer says nothing."""
    least_help: float = 1.05
    """A cut must shorten inter-token time by this factor, or it is undone: prompts, not the batch, were the cause."""
    gain: float = 0.02
    """A raise that gave less than this more tokens/s while requests waited is undone."""
    hold_windows: int = 12
    """So long no raise above a cap that was undone or cut: the range is not probed without end."""
    carbon_slo: Slo | None = None
    """Objective carbon: its bounds hold instead of those of ``slo`` while the grid is dirty; see ``relaxed``."""
    threshold_grams_per_kwh: float | None = None
    """The grid is dirty from above this on, until below ``CLEAN_RATIO`` of it."""
    dry_run: bool = False
    """Decide and log, but say that nothing is to be changed."""

    def __post_init__(self) -> None:
        if not 1 <= self.lowest_cap <= self.highest_cap:
            raise BadInput(f"caps go from at least 1 upwards, got {self.lowest_cap} to {self.highest_cap}")
        if not (0 < self.cut_ratio < 1 and 0 < self.room < 1 and self.raise_ratio > 0):
            raise BadInput("the cut and the room are ratios between 0 and 1, the raise is above 0")
        for slo in (self.slo, self.carbon_slo):
            for bound in slo.bounds if slo else ():
                if bound.percentile != 95 or bound.metric == "e2e":
                    raise BadInput(f"the controller holds ttft_p95 and itl_p95, not {bound}")
        if not self.slo.bounds:
            raise BadInput("the controller needs a bound to hold, as itl_p95<=50ms")
        if (self.carbon_slo is None) != (self.threshold_grams_per_kwh is None):
            raise BadInput("the objective carbon needs both its second bound and the intensity above which it holds")
        allowed = {bound.metric: bound.seconds for bound in self.slo.bounds}
        for bound in self.carbon_slo.bounds if self.carbon_slo else ():
            if bound.seconds < allowed.get(bound.metric, 0.0):
                raise BadInput(
                    f"the relaxed promise {bound} is tighter than {allowed[bound.metric]:g} s: while the grid is dirty "
                    "batches are to be larger; loosen it"
                )

    @property
    def relaxed(self) -> Slo:
        """The promise while the grid is dirty: a bound of ``slo`` that ``carbon_slo`` does not loosen stays."""
        looser = {bound.metric: bound for bound in self.carbon_slo.bounds} if self.carbon_slo is not None else {}
        kept = [looser.pop(bound.metric, bound) for bound in self.slo.bounds]
        return Slo((*kept, *looser.values()))


@dataclass(frozen=True, slots=True)
class Decision:
    """A line of the decision log."""

    at_seconds: float
    previous_cap: int
    cap: int
    """Wanted; with ``dry_run`` only reported."""
    reason: Reason
    slo: str
    """The promise that held in this window."""
    seen_ttft_p95_seconds: float | None
    seen_itl_p95_seconds: float | None
    seen_tokens_per_second: float
    expected_itl_p95_seconds: float | None
    """At the new cap, from the line through the last two caps seen; None where nothing is known."""
    applied: bool

    @property
    def moved(self) -> bool:
        return self.cap != self.previous_cap


@dataclass(frozen=True, slots=True)
class State:
    """What the controller remembers between windows."""

    cap: int
    default: int = 1
    """The configured cap: where both bounds cannot hold at once, it is what the cap goes back to."""
    cooling: int = 0
    before_raise: tuple[int, float] | None = None
    """Cap and tokens/s before a raise that is still to prove itself."""
    before_cut: tuple[int, float] | None = None
    """Cap and inter-token time over its bound before a cut that is still to prove itself."""
    no_cut_windows: int = 0
    """No cut below the default for so long: the last one cost the wait its bound, or did not help."""
    ceiling: int | None = None
    """No raise to this or above, for ``ceiling_windows`` more."""
    ceiling_windows: int = 0
    last_seen: tuple[int, float] | None = None
    """Cap and inter-token time of the last window at another cap."""
    here: tuple[int, float] | None = None
    dirty: bool = False
    """Objective carbon: the relaxed promise holds."""


def decide(state: State, window: Window, settings: ControlSettings) -> tuple[State, Decision]:
    """One window: the next state, and what to do. Pure: equal inputs give equal decisions."""
    state = replace(state, dirty=_dirty(state, window, settings))
    slo = settings.relaxed if state.dirty else settings.slo
    state = _remember(state, window)
    wanted, reason = _wanted(state, window, settings, slo)
    wanted = min(max(wanted, settings.lowest_cap), settings.highest_cap)
    moved = wanted != state.cap
    if not moved and reason in _MOVES:
        reason = Reason.AT_BOUND
    decision = Decision(
        window.ended_seconds,
        state.cap,
        wanted,
        reason,
        str(slo),
        window.ttft_p95_seconds,
        window.itl_p95_seconds,
        window.tokens_per_second,
        _expected(state, wanted),
        moved and not settings.dry_run,
    )
    return _after(state, window, settings, slo, decision), decision


def _dirty(state: State, window: Window, settings: ControlSettings) -> bool:
    """Where the intensity is not known, the promise is not relaxed."""
    threshold, seen = settings.threshold_grams_per_kwh, window.intensity_grams_per_kwh
    if threshold is None or seen is None:
        return False
    return seen > threshold or (state.dirty and seen >= CLEAN_RATIO * threshold)


_MOVES = (
    Reason.CUT_DID_NOT_HELP,
    Reason.ITL_BROKEN,
    Reason.TTFT_BROKEN_BY_STEPS,
    Reason.TTFT_BROKEN_BY_QUEUE,
    Reason.QUEUE,
    Reason.NO_GAIN,
)


def _wanted(state: State, window: Window, settings: ControlSettings, slo: Slo) -> tuple[int, Reason]:
    itl, ttft = _share(slo, "itl", window.itl_p95_seconds), _share(slo, "ttft", window.ttft_p95_seconds)
    if window.tokens < settings.least_tokens:
        return state.cap, Reason.TOO_FEW
    if state.cooling > 0:
        return state.cap, Reason.COOLING
    waits = window.waiting_mean >= 0.5
    raised = _raised(state, settings)
    if itl > 1:
        return _itl_broken(state, window, settings, itl, ttft)
    if ttft > 1 and not waits:
        # a smaller cap would only make a queue; above the default it may be the long steps
        cut = max(state.default, math.floor(state.cap * settings.cut_ratio))
        return min(cut, state.cap), Reason.TTFT_BROKEN_BY_STEPS
    if state.cap < state.default and ttft > settings.wait_room:
        return state.default, Reason.WAIT_NEEDS_ROOM
    if not waits:
        return state.cap, Reason.NOBODY_WAITS
    if state.before_raise is not None and state.cap > state.default:
        cap, rate = state.before_raise
        if window.tokens_per_second < rate * (1 + settings.gain):
            return cap, Reason.NO_GAIN
    if itl < settings.room:
        return raised, Reason.TTFT_BROKEN_BY_QUEUE if ttft > 1 else Reason.QUEUE
    return state.cap, Reason.NEAR_BOUND


def _itl_broken(state: State, window: Window, settings: ControlSettings, itl: float, ttft: float) -> tuple[int, Reason]:
    """Fewer at once are faster each, but fewer in all: below the default only while the wait has room for it."""
    if state.before_cut is not None and itl * settings.least_help > state.before_cut[1]:
        return state.before_cut[0], Reason.CUT_DID_NOT_HELP
    tight = ttft > settings.wait_room or state.no_cut_windows > 0
    waits = window.waiting_mean >= 0.5
    if state.cap < state.default and ttft > settings.wait_room:
        return state.default, Reason.BOTH_BROKEN
    if state.cap <= state.default and tight:
        return state.cap, Reason.BOTH_BROKEN
    if state.cap <= state.default and not waits:
        # the cap does not hold this batch down: the load made it, and a smaller cap would only make a queue
        return state.cap, Reason.LOAD_ITSELF
    cut = math.floor(state.cap * max(settings.cut_ratio / 2, min(settings.cut_ratio, 1 / itl)))
    floor = state.default if tight or not waits else settings.lowest_cap
    return max(floor, min(state.cap - 1, cut)), Reason.ITL_BROKEN


def _raised(state: State, settings: ControlSettings) -> int:
    raised = state.cap + max(1, math.floor(state.cap * settings.raise_ratio))
    if state.ceiling is not None and state.ceiling_windows > 0:
        raised = min(raised, state.ceiling - 1)
    return max(raised, state.cap)


def _share(slo: Slo, metric: str, seen: float | None) -> float:
    """Seen over allowed; 0 where there is no such bound or nothing was seen."""
    for bound in slo.bounds:
        if bound.metric == metric and seen is not None:
            return seen / bound.seconds
    return 0.0


def _remember(state: State, window: Window) -> State:
    if window.itl_p95_seconds is None:
        return state
    last = state.here if state.here is not None and state.here[0] != state.cap else state.last_seen
    return replace(state, last_seen=last, here=(state.cap, window.itl_p95_seconds))


def _expected(state: State, cap: int) -> float | None:
    if state.here is None:
        return None
    if cap == state.here[0]:
        return state.here[1]
    if state.last_seen is None or state.last_seen[0] == state.here[0]:
        return None
    slope = (state.here[1] - state.last_seen[1]) / (state.here[0] - state.last_seen[0])
    # a step's time is a fixed part and one that grows with the batch: between no change and a proportional one
    same, proportional = state.here[1], state.here[1] * cap / state.here[0]
    line = same + slope * (cap - state.here[0])
    return min(max(line, min(same, proportional)), max(same, proportional))


def _after(state: State, window: Window, settings: ControlSettings, slo: Slo, decision: Decision) -> State:
    aged = replace(
        state,
        cooling=max(0, state.cooling - 1),
        ceiling_windows=max(0, state.ceiling_windows - 1),
        ceiling=state.ceiling if state.ceiling_windows > 1 else None,
        no_cut_windows=max(0, state.no_cut_windows - 1),
    )
    if decision.reason in (Reason.CUT_DID_NOT_HELP, Reason.BOTH_BROKEN, Reason.WAIT_NEEDS_ROOM):
        aged = replace(aged, no_cut_windows=settings.hold_windows, before_cut=None)
    if not decision.applied:
        # a move has proven itself once it was judged: settled, and with enough tokens
        judged = state.cooling == 0 and window.tokens >= settings.least_tokens
        return replace(aged, before_raise=None, before_cut=None) if judged else aged
    moved = replace(aged, cap=decision.cap, cooling=settings.cool_down_windows)
    if decision.cap > decision.previous_cap:
        return replace(moved, before_raise=(decision.previous_cap, window.tokens_per_second), before_cut=None)
    moved = replace(
        moved, before_raise=None, ceiling=max(decision.previous_cap, state.default + 1),
        ceiling_windows=settings.hold_windows,
    )  # fmt: skip
    if decision.reason is Reason.ITL_BROKEN:
        before = (decision.previous_cap, _share(slo, "itl", window.itl_p95_seconds))
        return replace(moved, before_cut=before)
    return moved


class Controller:
    """The state and the log around :func:`decide`, for a replica to hold."""

    def __init__(self, settings: ControlSettings, cap: int, log_length: int = 1000) -> None:
        self.settings = settings
        self._state = State(cap, default=cap)
        self.log: deque[Decision] = deque(maxlen=log_length)

    @property
    def cap(self) -> int:
        """The cap in force: with ``dry_run`` the one it began with."""
        return self._state.cap

    def observe(self, window: Window) -> Decision:
        """One window; the caller resizes its cap where ``applied``."""
        self._state, decision = decide(self._state, window, self.settings)
        self.log.append(decision)
        return decision

    def reconfigure(self, settings: ControlSettings) -> None:
        """New bounds from the next window on; what was learnt about a ceiling under the old ones is forgotten."""
        self.settings = settings
        self._state = replace(
            self._state, ceiling=None, ceiling_windows=0, before_raise=None, before_cut=None, no_cut_windows=0
        )
