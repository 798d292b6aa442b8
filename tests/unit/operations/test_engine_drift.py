"""The engine's watch over closed metering windows: a slower engine is found, a fuller or emptier hour is not."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metering.booking import EngineWindow
from metering.books import ClosedWindow, ComponentClose, LineTotals
from metering.ledger import Amounts
from metering.power.base import Boundary, Component
from metering.weights import WeightKind
from metering.windows import Window
from serving.operations.drift import Finding
from serving.operations.drift_references import OwnRebases, References
from serving.operations.drift_telling import Telling
from serving.operations.engine_drift import EngineWatch, expected_seconds
from serving.tuning.engine_model import EngineModel, FlopCount, Plane, Power

GPU = Component("gpu", Boundary.ACCELERATOR)
FITTED = EngineModel(
    "m",
    "device",
    (Plane(0.004, 0.001, 0.0001, 1e-7, 1e-8),),
    power=Power(10.0, 110.0),
    peak_flops=1e12,
    flops=FlopCount(per_token=2e9, per_pair=1e4, per_row=1e8),
)


def window(draw: random.Random, slower: float = 1.0, model: str = "m", batch: float = 4.0) -> ClosedWindow:
    """Decode of a drawn batch for a drawn part of a second, at the fitted model's speed and power."""
    batch, steps = batch * draw.uniform(0.95, 1.05), draw.uniform(5, 20)
    tokens = batch * steps
    pairs = tokens * 300
    busy = FITTED.step_seconds(batch, 0, batch * 300) * steps * slower * draw.uniform(0.97, 1.03)
    flops = tokens * (2e9 + 1e8) + pairs * 1e4
    length = busy + draw.uniform(0.0, 0.5)
    engine = EngineWindow(model, flops, 0, tokens, busy, batch, 1, busy, flops / (1e12 * length), None)
    line = LineTotals()
    line.work[Boundary.ACCELERATOR] = Amounts(energy_nanojoules=round(110 * busy * 1e9))
    close = ComponentClose(GPU, round(120e9), "", busy, 0, 0, WeightKind.ROOFLINE_TIME)
    return ClosedWindow(Window(0.0, length), 0.0, (close,), (engine,), {(model, "t"): line}, (), None, False)


def watched(**options: Any) -> tuple[EngineWatch, list[str], list[Finding]]:
    events: list[str] = []
    shown: list[Finding] = []
    telling = Telling(lambda kind, text, model: events.append(f"{kind} {model} {text}"), shown.append, patience=2)
    return EngineWatch(telling, size=100, **options), events, shown


def feed(watch: EngineWatch, draw: random.Random, *lots: float, **options: Any) -> None:
    """A lot of windows for each slowness."""
    for slower in lots:
        for _ in range(100):
            watch.closed(window(draw, slower=slower, **options))


def test_a_slower_engine_is_found_and_an_emptier_hour_is_not() -> None:
    watch, events, shown = watched()
    draw = random.Random(1)
    feed(watch, draw, 1, 1, 1)
    assert events == []
    assert {finding.what for finding in shown} == {"MFU at a batch of 4", "joules per token at a batch of 4"}
    feed(watch, draw, 1.5)
    assert events == [], "it may be a neighbour's doing, and over in a minute"
    assert any(finding.drifted for finding in shown)
    feed(watch, draw, 1.5, 1.5)
    assert [text.split(":")[0] for text in events] == [
        "drift m MFU at a batch of 4, m",
        "drift m joules per token at a batch of 4, m",
    ]


def test_what_is_slow_for_minutes_and_as_before_again_is_no_drift() -> None:
    watch, events, _ = watched()
    feed(watch, random.Random(6), 1, 1, 1.6, 1, 1.6, 1, 0.6, 1.6)
    assert events == []


def test_minutes_that_a_neighbour_took_do_not_become_the_reference() -> None:
    watch, events, shown = watched()
    feed(watch, random.Random(8), 1.6, 1, 1, 1, 1)
    assert events == []
    assert not any(finding.drifted for finding in shown)


def test_a_restarted_meter_compares_with_what_the_one_before_saw(tmp_path: Path) -> None:
    draw = random.Random(7)
    watch, _, _ = watched(references=References(tmp_path))
    feed(watch, draw, 1, 1)
    watch, events, _ = watched(references=References(tmp_path))
    feed(watch, draw, 1.5, 1.5)
    assert len(events) == 2


def test_what_was_let_go_does_not_come_back_with_a_restart(tmp_path: Path) -> None:
    draw, standing = random.Random(7), {}
    rebases = OwnRebases()
    watch, events, _ = watched(references=References(tmp_path, rebases=rebases))
    watch.telling.standing = lambda model, what, moved: standing.update({what: moved})
    feed(watch, draw, 1, 1, 1.5, 1.5)
    assert set(standing.values()) == {True}
    # a replica does it, and the meter reads the same board
    References(tmp_path, rebases=rebases).rebase("m")
    assert list(tmp_path.iterdir()) == []
    for _ in range(30):
        watch.closed(window(draw, slower=1.5))
    assert set(standing.values()) == {False}
    watch, events, _ = watched(references=References(tmp_path))
    feed(watch, draw, 1.5, 1.5, 1.5, 1.5)
    assert events == []


def test_what_is_not_seen_for_an_hour_is_said_to_be_moved_no_longer() -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock, standing = Clock(), {}
    watch, _, _ = watched(fitted=FITTED, wall=clock)
    watch.telling.standing = lambda model, what, moved: standing.update({what: moved})
    draw = random.Random(12)
    feed(watch, draw, 1, 1, 1.6, 1.6)
    assert standing == {
        f"{what} at a batch of 4": True
        for what in (
            "MFU",
            "joules per token",
            "MFU against the fitted model",
            "joules per token against the fitted model",
        )
    }
    # the cap is lower from now on: that batch does not come again
    for minutes, still in ((30, True), (61, False)):
        clock.now = 60.0 * minutes
        for _ in range(30):
            watch.closed(window(draw, batch=16))
        assert set(standing.values()) == {still}


def test_a_batch_that_grows_within_the_octave_is_no_other_engine() -> None:
    watch, events, _ = watched()
    draw = random.Random(9)
    for batch in (3.0, 3.0, 3.0, 5.0, 5.0, 5.0, 5.0, 3.0):
        feed(watch, draw, 1, batch=batch)
    assert events == []


def test_replicas_that_work_one_after_the_other_are_no_slower_engine() -> None:
    watch, events, _ = watched()
    draw = random.Random(10)
    feed(watch, draw, 1, 1, 1)
    for _ in range(300):
        one = window(draw)
        (engine,) = one.engines
        # another one did as much after it: half of each one's window is its own
        double = replace(
            engine,
            engines=2,
            flops=2 * engine.flops,
            tokens_decode=2 * engine.tokens_decode,
            busy_seconds=2 * engine.busy_seconds,
            engine_seconds=2 * engine.engine_seconds,
        )
        (line,) = one.lines.values()
        line.work[Boundary.ACCELERATOR].energy_nanojoules *= 2
        watch.closed(replace(one, engines=(double,)))
    assert events == []


def test_joules_are_watched_where_no_peak_is_known() -> None:
    watch, events, shown = watched()
    draw = random.Random(11)
    for slower in (1, 1, 1.5, 1.5):
        for _ in range(100):
            one = window(draw, slower=slower)
            watch.closed(replace(one, engines=(replace(one.engines[0], mfu_ratio=None),)))
    assert [text.split(":")[0] for text in events] == ["drift m joules per token at a batch of 4, m"]
    assert {finding.what for finding in shown} == {"joules per token at a batch of 4"}


def test_a_fuller_hour_is_no_other_engine() -> None:
    watch, events, shown = watched()
    draw = random.Random(5)
    for batch in (4.0, 4.0, 16.0, 16.0, 16.0, 4.0):
        feed(watch, draw, 1, batch=batch)
    assert events == []
    assert {finding.what for finding in shown if "MFU" in finding.what} == {
        "MFU at a batch of 4",
        "MFU at a batch of 16",
    }


def test_the_fitted_model_is_held_against_from_the_first_windows_on() -> None:
    watch, events, _ = watched(fitted=FITTED)
    draw = random.Random(2)
    for _ in range(100):
        watch.closed(window(draw))
    assert events == []
    watch, events, _ = watched(fitted=FITTED)
    for _ in range(200):
        watch.closed(window(draw, slower=1.6))
    assert [text.split(":")[0] for text in events] == [
        "drift m MFU against the fitted model at a batch of 4, m",
        "drift m joules per token against the fitted model at a batch of 4, m",
    ]


def test_a_model_that_was_fitted_to_another_is_held_against_nothing() -> None:
    watch, events, shown = watched(fitted=FITTED)
    draw = random.Random(3)
    for _ in range(100):
        watch.closed(window(draw, slower=3.0, model="another"))
    assert (events, shown) == ([], [])


def test_a_windows_expected_time_is_that_of_its_steps() -> None:
    (engine,) = window(random.Random(4)).engines
    steps = engine.tokens_decode / engine.mean_batch
    one = FITTED.step_seconds(engine.mean_batch, 0, engine.mean_batch * 300)
    assert expected_seconds(FITTED, engine) == pytest.approx(steps * one, rel=1e-6)
