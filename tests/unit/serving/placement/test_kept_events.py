from __future__ import annotations

import json
from pathlib import Path

from serving.config import GatewayConfig
from serving.operations.events import EVENTS, EventLog
from serving.placement import kept_events
from serving.placement.kept_events import keep_events


def run(tmp_path: Path, number: int, **sections: object) -> EventLog:
    folder = tmp_path / f"run-{number}"
    folder.mkdir()
    keep_events(folder, tmp_path / "data", GatewayConfig.model_validate(sections))
    return EventLog(folder / EVENTS)


def test_a_later_run_on_the_port_tells_the_earlier_ones_events_and_what_the_restart_changed(tmp_path: Path) -> None:
    run(tmp_path, 1).record("cap", "32 -> 16")
    cache = {"redis": "redis://user:a-secret@redis:6379/0"}
    later = run(tmp_path, 2, metering={"pue": 1.3}, access={"api_keys": {"acme": "a-secret"}}, cache=cache)
    texts = [event.text for event in later.read()]
    assert texts[0] == "32 -> 16"
    assert "at the restart: metering.pue: 1.0 -> 1.3" in texts
    assert "at the restart: cache.redis: embedded -> redis://redis:6379/0" in texts
    assert not any("a-secret" in path.read_text() for path in (tmp_path / "data").iterdir() if path.is_file())


def test_the_same_configuration_on_another_port_is_another_story(tmp_path: Path) -> None:
    run(tmp_path, 1).record("cap", "32 -> 16")
    assert run(tmp_path, 2, server={"port": 8001}).read() == []


def test_the_first_run_and_one_without_a_change_tell_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, 1).read() == []
    assert run(tmp_path, 2).read() == []


def test_the_file_stays_short_and_its_lines_whole(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(kept_events, "_MOST_BYTES", 2000)
    monkeypatch.setattr(kept_events, "_KEPT_BYTES", 1000)
    first = run(tmp_path, 1)
    for number in range(50):
        first.record("cap", f"change {number}")
    kept = run(tmp_path, 2).read()
    assert kept[-1].text == "change 49"
    assert 1 < len(kept) < 20
    (file,) = (tmp_path / "data").glob("events-*")
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_a_configuration_that_cannot_be_read_is_no_previous_one(tmp_path: Path) -> None:
    run(tmp_path, 1)
    (file,) = (tmp_path / "data").glob("configuration-*")
    file.write_text("{half")
    assert run(tmp_path, 2, metering={"pue": 1.3}).read() == []
