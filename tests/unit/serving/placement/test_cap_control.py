from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from serving.admission.queue import AdmissionQueue
from serving.call import Call
from serving.control_settings import CapControlSettings
from serving.engines.base import EngineAnswer
from serving.limits.book import Use
from serving.metrics import Metrics
from serving.operations.decisions import DecisionLog
from serving.operations.events import EventLog
from serving.placement.cap_control import CapControl, CapControls
from serving.telemetry.ended import Ended
from tests.unit.serving.fakes import ManualClock

SLO = ("ttft_p95<=2s", "itl_p95<=100ms")


def answered(itl: float = 0.02, ttft: float = 0.3, tokens: int = 41, **changes: Any) -> Ended:
    values = {
        "request_id": "r",
        "path": "/v1/chat/completions",
        "status": 200,
        "error": None,
        "started_wall_seconds": 0.0,
        "seconds": ttft + itl * (tokens - 1),
        "cache": "MISS",
        "first_token_seconds": ttft,
        "use": Use(output_tokens=tokens),
    }
    return Ended(**(values | changes))


class Busy(AdmissionQueue):
    """As if its slots were taken and ``queued`` requests waited."""

    queued = 0

    @property
    def running(self) -> int:
        return self.cap

    @property
    def waiting(self) -> int:
        return self.queued


class Rig:
    def __init__(self, folder: Path, cap: int = 16, **settings: Any) -> None:
        self.clock = ManualClock()
        self.queue = Busy(cap)
        self.metrics = Metrics(CollectorRegistry())
        self.events = EventLog(folder / "events.jsonl", wall=self.clock)
        self.decisions = DecisionLog(folder / "decisions.jsonl", wall=self.clock)
        self.intensity: float | None = None
        self.control = CapControl(
            CapControlSettings(**({"mode": "on", "slo": SLO} | settings)),
            self.queue,
            model="m",
            source="replica-1",
            most_cap=64,
            metrics=self.metrics,
            events=self.events,
            decisions=self.decisions,
            intensity=lambda: self.intensity,
            clock=self.clock,
        )

    def window(self, itl: float = 0.02, queued: int = 0, **changes: Any) -> None:
        """Five seconds with three answers."""
        self.queue.queued = queued
        for _ in range(3):
            self.control.ended(answered(itl, **changes))
        for _ in range(5):
            self.clock.advance(1.0)
            self.control.tick()

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_the_cap_of_the_queue_rises_while_requests_wait_and_the_promise_has_room(rig: Rig) -> None:
    rig.window(queued=5)
    assert rig.queue.cap == 20
    assert rig.sample("wattgate_control_wanted_cap", model="m") == 20


def test_the_cap_is_cut_where_tokens_come_too_slowly(rig: Rig) -> None:
    rig.window(itl=0.25, queued=5)
    assert rig.queue.cap < 16


def test_a_decision_says_why_from_to_what_was_seen_and_what_is_expected(rig: Rig) -> None:
    rig.window(queued=5)
    for _ in range(3):
        rig.window(itl=0.03, queued=5, tokens=61)
    for _ in range(3):
        rig.window(itl=0.25, queued=5)
    *_, cut = rig.decisions.read()
    assert cut["why"] == "inter-token time is over its bound"
    assert (cut["from"], cut["applied"], cut["replica"], cut["mode"]) == (25, True, "replica-1", "on")
    assert cut["to"] == rig.queue.cap < 25
    assert cut["seen"]["itl_p95_seconds"] == pytest.approx(0.25, rel=0.01)
    assert cut["seen"]["tokens_per_second"] == pytest.approx(3 * 41 / 5)
    assert 0 < cut["expected"]["itl_p95_seconds"] < 0.25
    assert cut["promise"] == "ttft_p95<=2s, itl_p95<=0.1s"


def test_moves_are_events_in_words(rig: Rig) -> None:
    rig.window(queued=5)
    (event,) = rig.events.read()
    assert event.kind == "cap"
    assert event.text.startswith("cap 16 -> 20: requests wait and the bounds hold with room; seen ttft p95 0.3 s")


def test_staying_for_the_same_reason_is_logged_once(rig: Rig) -> None:
    for _ in range(4):
        rig.window()
    assert [line["why"] for line in rig.decisions.read()] == ["the bounds hold and nobody waits"]
    labels = {"model": "m", "mode": "on", "move": "stay", "reason": "nobody_waits"}
    assert rig.sample("wattgate_control_decisions_total", **labels) == 4


def test_a_dry_run_reports_and_changes_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, mode="dry_run")
    rig.window(queued=5)
    assert rig.queue.cap == 16
    assert rig.sample("wattgate_control_wanted_cap", model="m") == 20
    (line,) = rig.decisions.read()
    assert (line["from"], line["to"], line["applied"], line["mode"]) == (16, 20, False, "dry_run")
    assert rig.events.read()[0].text.startswith("dry run: cap would go 16 -> 20")


def test_off_sees_and_does_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, mode="off", slo=())
    rig.window(itl=9.0, queued=50)
    assert rig.queue.cap == 16
    assert rig.decisions.read() == []


def test_hits_failures_and_pages_say_nothing_of_the_batch(rig: Rig) -> None:
    rig.window(itl=9.0, cache="HIT-EXACT")
    rig.window(itl=9.0, status=503)
    rig.window(itl=9.0, page="/v1/files")
    assert rig.queue.cap == 16
    assert {line["why"] for line in rig.decisions.read()} == {"too few tokens to judge by"}


def test_windows_are_counted_by_whether_the_promise_held(rig: Rig) -> None:
    rig.window()
    rig.window(itl=0.25)
    rig.window(ttft=3.0)
    assert rig.sample("wattgate_control_windows_total", model="m", kept="yes") == 1
    assert rig.sample("wattgate_control_windows_total", model="m", kept="no") == 2
    assert rig.sample("wattgate_control_bound_seconds", model="m", metric="itl") == 0.1
    assert rig.sample("wattgate_control_seen_seconds", model="m", metric="ttft") == pytest.approx(3.0)


def test_requests_whose_deadline_passed_enter_the_wait_with_the_time_they_took(rig: Rig) -> None:
    for _ in range(2):
        rig.control.ended(answered(status=504, first_token_seconds=None, seconds=30.0, use=Use()))
    rig.window()
    assert rig.sample("wattgate_control_seen_seconds", model="m", metric="ttft") == pytest.approx(30.0)
    assert rig.sample("wattgate_control_windows_total", model="m", kept="no") == 1
    assert rig.sample("wattgate_control_windows_total", model="m", kept="yes") is None


def test_a_window_in_which_every_deadline_passed_did_not_keep_the_promise(rig: Rig) -> None:
    rig.window(status=504, first_token_seconds=None, seconds=30.0, use=Use())
    assert rig.sample("wattgate_control_windows_total", model="m", kept="no") == 1
    assert rig.queue.cap == 16


def test_a_window_whose_bounded_figure_is_unknown_counts_neither_way(rig: Rig) -> None:
    rig.window(first_token_seconds=None, seconds=1.0)
    assert rig.sample("wattgate_control_windows_total", model="m", kept="yes") is None
    assert rig.sample("wattgate_control_windows_total", model="m", kept="no") is None


def test_while_the_grid_is_dirty_the_relaxed_promise_holds(tmp_path: Path) -> None:
    rig = Rig(tmp_path, objective="carbon", relaxed_slo=("itl_p95<=300ms",), threshold_grams_per_kwh=400)
    rig.intensity = 500.0
    rig.window(itl=0.2, queued=5)
    assert rig.queue.cap == 20
    assert rig.sample("wattgate_control_bound_seconds", model="m", metric="itl") == 0.3
    rig.intensity = 100.0
    for _ in range(3):
        rig.window(itl=0.2, queued=5)
    assert rig.queue.cap < 20


def test_the_cap_stays_within_the_declared_bounds_and_the_engines(tmp_path: Path) -> None:
    rig = Rig(tmp_path, highest_cap=18, lowest_cap=10)
    rig.window(queued=5)
    assert rig.queue.cap == 18
    for _ in range(20):
        rig.window(itl=1.0, ttft=0.1, queued=5)
    assert rig.queue.cap >= 10
    (tmp_path / "other").mkdir()
    unbounded = Rig(tmp_path / "other", cap=60, highest_cap=1000)
    unbounded.window(queued=5)
    assert unbounded.queue.cap == 64


def test_new_bounds_hold_from_the_next_window_on(rig: Rig) -> None:
    rig.window(itl=0.08)
    rig.control.reconfigure(CapControlSettings(mode="on", slo=("itl_p95<=50ms",)), None)
    rig.window(itl=0.08, queued=5)
    assert rig.queue.cap < 16


def test_a_new_configured_cap_is_where_it_begins_again(rig: Rig) -> None:
    rig.window(queued=5)
    rig.queue.resize(8)
    rig.control.reconfigure(CapControlSettings(mode="on", slo=SLO), 8)
    rig.window(queued=5)
    assert rig.queue.cap == 10


def test_it_can_be_switched_on_and_off_while_it_runs(tmp_path: Path) -> None:
    rig = Rig(tmp_path, mode="off", slo=())
    rig.control.reconfigure(CapControlSettings(mode="on", slo=SLO), None)
    rig.window(queued=5)
    assert rig.queue.cap == 20
    rig.control.reconfigure(CapControlSettings(), 16)
    rig.window(queued=5)
    assert rig.queue.cap == 20


def test_a_controller_pauses_while_its_cap_is_held_and_begins_a_new_window_then(rig: Rig) -> None:
    controls = CapControls({"m": rig.control}, {})
    rig.queue.queued = 5
    for held in ((), {"m"}):
        for _ in range(3):
            rig.control.ended(answered())
        for _ in range(4):
            rig.clock.advance(1.0)
            controls.tick(held)
    rig.clock.advance(4.0)
    controls.tick()
    assert rig.decisions.read() == []
    for _ in range(3):
        rig.control.ended(answered())
    rig.clock.advance(1.0)
    controls.tick()
    assert len(rig.decisions.read()) == 1


class Streaming:
    """A call and its answer, of which frames come one by one."""

    def __init__(self, rig: Rig, **payload: Any) -> None:
        self.first: float | None = None
        self._rig = rig
        body = {"model": "m", "stream": True, **payload}
        self.call = Call("r", "t", "/v1/chat/completions", body, rig.clock(), rig.clock() + 600.0)
        answer = EngineAnswer(self._none(), first_token_seconds=lambda: self.first)
        self.watch = CapControls({"m": rig.control}, {"m": "m"}).watch(self.call, answer)

    async def _none(self) -> AsyncIterator[bytes]:
        return
        yield b""

    def frame(self, delta: str = '"content":"x"', ending: str = "null", after: float = 0.0) -> None:
        self._rig.clock.advance(after)
        if self.watch is not None:
            self.watch(f'data: {{"choices":[{{"delta":{{{delta}}},"finish_reason":{ending}}}]}}\n\n'.encode())


def test_the_tokens_of_a_stream_are_seen_as_they_come(rig: Rig) -> None:
    stream = Streaming(rig)
    stream.frame('"role":"assistant","content":""')
    stream.first = 0.0
    stream.frame(after=0.4)
    for gap in [0.001] * 25 + [0.15] * 4:
        stream.frame(after=gap)
    stream.frame("", '"stop"', after=0.5)
    stream.frame("", '"stop"', after=0.5)
    rig.clock.advance(5.0)
    rig.control.tick()
    assert rig.sample("wattgate_control_seen_seconds", model="m", metric="ttft") == pytest.approx(0.4)
    assert rig.sample("wattgate_control_seen_seconds", model="m", metric="itl") == pytest.approx(0.15, rel=0.01)
    assert stream.call.told_tokens == 30


def test_what_was_told_of_a_stream_is_not_told_again_when_it_has_ended(rig: Rig) -> None:
    rig.control.ended(answered(itl=9.0, ttft=9.0, told_tokens=40, use=Use(output_tokens=60)))
    rig.window()
    assert rig.sample("wattgate_control_seen_seconds", model="m", metric="ttft") == pytest.approx(0.3)
    assert rig.sample("wattgate_control_seen_seconds", model="m", metric="itl") == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize("payload", [{"stream": False}, {"n": 2}])
def test_an_answer_without_tokens_one_after_the_other_is_judged_when_it_has_ended(
    rig: Rig, payload: dict[str, Any]
) -> None:
    assert Streaming(rig, **payload).watch is None


def test_nobody_looks_on_while_the_controller_is_off(tmp_path: Path) -> None:
    assert Streaming(Rig(tmp_path, mode="off", slo=())).watch is None
