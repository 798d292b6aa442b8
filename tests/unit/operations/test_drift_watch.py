from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from serving.operations.drift import Finding, Seen
from serving.operations.drift_references import OwnRebases, References
from serving.operations.drift_telling import Telling
from serving.operations.drift_watch import LOOK_SECONDS, DriftWatch, DriftWatches
from serving.operations.events import EventLog
from tests.unit.operations.test_drift import traffic, vectors


def longer(seen: Seen) -> Seen:
    return replace(seen, prompt_tokens=seen.prompt_tokens * 4)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl", wall=lambda: 5.0)


def replica(log: EventLog, folder: Path | None = None, shown: list[Finding] | None = None) -> DriftWatches:
    """A replica's watches; what they share with another's is the folder."""
    references = References(folder)
    measured = (lambda finding: None) if shown is None else shown.append
    return DriftWatches(
        lambda model: DriftWatch(Telling(log.record, measured), model, size=200, references=references), references
    )


def send(watches: DriftWatches, seed: int, model: str = "m", *, long: bool = False) -> None:
    for seen in traffic(seed, 200).requests:
        watches.ended(model, longer(seen) if long else seen)


def test_the_watch_records_an_event_that_says_what_moved_by_how_much_and_of_which_model(log: EventLog) -> None:
    shown: list[Finding] = []
    watches = replica(log, shown=shown)
    send(watches, 0)
    send(watches, 1)
    assert log.read() == []
    assert len(shown) == 7
    send(watches, 2, long=True)
    event = log.read()[0]
    assert (event.kind, event.model) == ("drift", "m")
    assert event.text.startswith("prompt length, m: ")
    assert "threshold" in event.text


def test_another_model_s_traffic_is_no_change_of_this_one_s(log: EventLog) -> None:
    watches = replica(log)
    for seed in (0, 1, 2):
        short, long = traffic(seed, 200).requests, traffic(seed + 10, 200).requests
        for number in range(200):
            watches.ended("short", short[number])
            # its share of the requests grows, too
            for _ in range(seed):
                watches.ended("long", longer(long[number]))
    assert log.read() == []


def test_a_new_replica_compares_with_what_the_old_one_saw(log: EventLog, tmp_path: Path) -> None:
    send(replica(log, tmp_path / "drift"), 0)
    after = replica(log, tmp_path / "drift")
    send(after, 1, long=True)
    assert {event.kind for event in log.read()} == {"drift"}


def test_after_a_change_that_was_meant_the_next_window_is_the_reference(log: EventLog) -> None:
    watches = replica(log)
    send(watches, 0)
    watches.rebase()
    for seed in (1, 2):
        send(watches, seed, long=True)
    assert log.read() == []
    send(watches, 3)
    assert log.read()


def test_a_rebase_of_one_model_leaves_the_other_s_reference(log: EventLog) -> None:
    watches = replica(log)
    for model in ("m", "n"):
        send(watches, 0, model)
    watches.rebase("m")
    for model in ("m", "n"):
        send(watches, 1, model, long=True)
    assert {event.model for event in log.read()} == {"n"}


def test_vectors_and_verdicts_are_of_all_models(log: EventLog) -> None:
    shown: list[Finding] = []
    watches = replica(log, shown=shown)
    for seed in range(2):
        for vector in vectors(seed, size=200):
            watches.embedded(vector, "encoder")
        for _ in range(100):
            watches.verified(False)
    assert [(finding.what, finding.model) for finding in shown] == [("prompt embeddings", None)]
    for _ in range(200):
        watches.verified(False)
    assert [(finding.what, finding.model) for finding in shown[1:]] == [("false hits", None)], "200 of their own"


def test_verified_hits_that_are_wrong_more_often_are_told_within_a_small_budget(log: EventLog) -> None:
    watches = replica(log)
    for wrong in (2, 9, 16):
        for number in range(200):
            watches.verified(number < wrong)
    (event,) = log.read()
    assert event.text.startswith("false hits: 0.01 -> 0.08")


def test_what_stays_moved_is_told_once_and_its_return_too(log: EventLog) -> None:
    watches = replica(log)
    for seed in range(6):
        send(watches, seed, long=seed in (2, 3, 4))
    moved, back = log.read()
    assert moved.text.startswith("prompt length, m: ")
    assert back.text.endswith("back at its reference")


@pytest.mark.parametrize("how", ["here", "elsewhere", "no traffic"])
def test_what_was_let_go_or_is_not_seen_stands_no_longer(log: EventLog, tmp_path: Path, how: str) -> None:
    at, standing = [1_000.0], {}
    rebases = OwnRebases()
    references = References(tmp_path / "drift", rebases=rebases, wall=lambda: at[0])

    def stands(model: str | None, what: str, moved: bool) -> None:
        standing[what] = moved

    watches = DriftWatches(
        lambda model: DriftWatch(
            Telling(log.record, standing=stands), model, size=200, references=references, wall=lambda: at[0]
        ),
        references,
    )
    for seed in range(2):
        send(watches, seed, long=seed == 1)
    watches.look()
    assert standing["prompt length"]
    at[0] += 3_700 if how == "no traffic" else LOOK_SECONDS
    if how == "here":
        watches.rebase("m")
    elif how == "elsewhere":
        References(tmp_path / "drift", rebases=rebases, wall=lambda: at[0]).rebase("m")
    watches.look()
    assert not any(standing.values())


def test_a_rebase_by_each_replica_takes_no_window_that_another_has_begun(log: EventLog) -> None:
    at = [1_000.0]
    rebases = OwnRebases()
    references = References(rebases=rebases, wall=lambda: at[0])
    references.rebase("m", 1_000.0)
    at[0] = 1_010.0
    # the same change, told to another replica a little earlier and done a little later
    references.rebase("m", 999.0)
    assert rebases.read("m") == 1_000.0
