from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from serving.metrics import CATALOGUE
from serving.operations.event_series import NAME, EventSeries
from serving.operations.events import EventLog
from tests.unit.serving.fakes import ManualClock


def samples(log: EventLog, clock: ManualClock) -> list[tuple[dict[str, str], float]]:
    (family,) = EventSeries(log, clock).collect()
    return [(sample.labels, sample.value) for sample in family.samples]


def test_an_event_is_a_series_that_says_what_changed_and_when(tmp_path: Path) -> None:
    clock = ManualClock(5000.0)
    log = EventLog(tmp_path / "events.jsonl", clock)
    log.record("cap", "cap: 32 -> 16", "m")
    clock.advance(10)
    log.record("config", "zone: FRA -> DEU")
    assert samples(log, clock) == [
        ({"kind": "cap", "model": "m", "text": "cap: 32 -> 16"}, 5000.0),
        ({"kind": "config", "model": "", "text": "zone: FRA -> DEU"}, 5010.0),
    ]


def test_an_event_is_shown_for_an_hour(tmp_path: Path) -> None:
    clock = ManualClock(5000.0)
    log = EventLog(tmp_path / "events.jsonl", clock)
    log.record("cap", "cap: 32 -> 16", "m")
    clock.advance(3600)
    assert len(samples(log, clock)) == 1
    clock.advance(1)
    assert samples(log, clock) == []


def test_what_happens_again_is_one_series_at_its_last_time(tmp_path: Path) -> None:
    clock = ManualClock(5000.0)
    log = EventLog(tmp_path / "events.jsonl", clock)
    for _ in range(3):
        log.record("cap", "cap: 32 -> 16", "m")
        clock.advance(1)
    assert [value for _, value in samples(log, clock)] == [5002.0]


def test_there_are_never_many_series_nor_long_labels(tmp_path: Path) -> None:
    clock = ManualClock(5000.0)
    log = EventLog(tmp_path / "events.jsonl", clock)
    for number in range(50):
        log.record("config", f"{number} " + "x" * 1000)
    found = samples(log, clock)
    assert [labels["text"].split()[0] for labels, _ in found] == [str(number) for number in range(30, 50)]
    assert {len(labels["text"]) for labels, _ in found} == {200}


def test_any_text_is_a_label_that_prometheus_can_read_and_the_catalogue_knows_it(tmp_path: Path) -> None:
    clock = ManualClock(5000.0)
    log = EventLog(tmp_path / "events.jsonl", clock)
    log.record("model", 'a "quoted" \\ name')
    registry = CollectorRegistry()
    registry.register(EventSeries(log, clock))
    (line,) = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    assert line == NAME + r'{kind="model",model="",text="a \"quoted\" \\ name"} 5000.0'
    (spec,) = [spec for spec in CATALOGUE if spec.name == NAME]
    assert spec.labels == ("kind", "model", "text")
