from __future__ import annotations

from serving.placement.presence import COMING_SECONDS, Presence
from tests.unit.serving.fakes import ManualClock


def test_a_meter_is_needed_until_nobody_has_been_there_for_long_enough() -> None:
    clock = ManualClock()
    presence = Presence(180.0, clock)
    assert presence.needed(living=True)
    clock.advance(179)
    assert presence.needed(living=False)
    clock.advance(1)
    assert not presence.needed(living=False)
    assert presence.needed(living=True), "one has come"
    clock.advance(100)
    assert presence.needed(living=False)


def test_one_that_loads_a_large_model_is_waited_for_and_not_for_ever() -> None:
    clock = ManualClock()
    presence = Presence(180.0, clock)
    presence.expect("a")
    presence.expect("b")
    clock.advance(600)
    assert presence.needed(living=False)
    presence.arrived("a")
    clock.advance(COMING_SECONDS - 601)
    assert presence.needed(living=False)
    clock.advance(181)
    assert not presence.needed(living=False)


def test_a_node_that_is_never_given_back_keeps_its_meter() -> None:
    clock = ManualClock()
    presence = Presence(None, clock)
    clock.advance(1e6)
    assert presence.needed(living=False)
