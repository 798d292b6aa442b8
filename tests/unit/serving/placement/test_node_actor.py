"""The node's meter as the replicas and Prometheus see it; driven by hand, without Ray."""

from __future__ import annotations

import math
import os
import pickle
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from metering.architecture import architecture_from_config
from metering.history import HistoryStore
from metering.model_profile import ModelProfile
from metering.settlement import IntensityStamp
from metering.work import Served, WorkBatch, WorkRecord
from serving.config_sources import load_config
from serving.metrics import Metrics
from serving.operations.decisions import DECISIONS, DecisionLog
from serving.operations.events import EVENTS, EventLog
from serving.placement import node_actor
from serving.placement.node_actor import KEPT, PROFILES, NodeMeterActor
from serving.placement.node_metrics import NodeMetrics
from serving.placement.presence import Presence
from serving.tuning.controller import Decision, Reason
from tests.unit.metering.model_configs import SMOLLM2_135M
from tests.unit.serving.fakes import ManualClock


def actor(folder: Path, **flags: Any) -> NodeMeterActor:
    wanted = {"engine.kind": "simulated", "metering.zone": "FRA", "metering.history.path": str(folder / "h.sqlite3")}
    return NodeMeterActor(load_config(None, wanted | flags, {}).config, str(folder))


def exported(made: NodeMeterActor) -> CollectorRegistry:
    """Where its series go from now on."""
    registry = CollectorRegistry()
    made._export = NodeMetrics(Metrics(registry))
    return registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


async def submit(made: NodeMeterActor, sequence: int = 1, **fields: Any) -> None:
    now = time.monotonic()
    record = WorkRecord("r", "m", "t", now - 0.5, now, decode_tokens=5, first_context_tokens=9)
    batch = {"records": (record,), "finished": ("r",), "served": (Served("m", "t", requests=1, output_tokens=6),)}
    await made.submit(WorkBatch("replica", sequence, now + 3600, **(batch | fields)))


async def close(made: NodeMeterActor) -> None:
    """End a window, and go past the time that it waits for replicas that are behind."""
    now = time.monotonic()
    await made.advance(now + 2)
    await made.advance(now + 14)


async def test_what_windows_and_replicas_report_is_in_the_history(tmp_path: Path) -> None:
    made = actor(tmp_path)
    made._node.register(ModelProfile("m"))
    made._node.attach("replica")
    for _ in range(2):
        # sent again, because its answer was lost: booked and counted once
        await submit(made)
    await close(made)
    assert made._keeper is not None
    await made._keeper.flush()
    history = HistoryStore(tmp_path / "h.sqlite3").read(0)
    assert [(key.model, key.tenant, totals.requests) for key, totals in history.served.items()] == [("m", "t", 1)]
    ((key, usage),) = history.usage.items()
    assert (key.zone, key.signal, key.method) == ("FRA", "average", "simulated")
    assert usage.tokens_decode == 5


async def test_without_a_history_nothing_is_written(tmp_path: Path) -> None:
    made = actor(tmp_path, **{"metering.history.enabled": False})
    await submit(made)
    await close(made)
    assert not (tmp_path / "h.sqlite3").exists()


async def test_an_actor_that_was_killed_goes_on_with_the_models_it_knew(tmp_path: Path) -> None:
    first = actor(tmp_path)
    await first.attach("replica", [ModelProfile("m", peak_flops=5.0)])
    again = actor(tmp_path)
    await submit(again, sequence=7)
    assert again._tasks
    assert again._node.counters.unknown_model_records == 0
    await close(again)
    assert again._keeper is not None
    await again._keeper.flush()
    ((_, usage),) = HistoryStore(tmp_path / "h.sqlite3").read(0).usage.items()
    assert usage.peak_flop_seconds == 5.0 * usage.device_seconds > 0
    assert again._node.books().counters.lost_batches == 0
    for task in (*first._tasks, *again._tasks):
        task.cancel()


async def test_the_energy_of_an_actor_s_absence_is_counted_and_given_to_nobody(tmp_path: Path) -> None:
    first = actor(tmp_path)
    await first.attach("replica", [ModelProfile("m")])
    for task in first._tasks:
        task.cancel()
    again = actor(tmp_path)
    registry = exported(again)
    name = "simulated_device"
    assert again._node.components[0].name == name
    await close(again)
    (books,) = again._node.books().components
    assert books.recovered_nanojoules > 0
    told = value(registry, "wattgate_unattributed_joules_total", component=name)
    assert told is not None
    assert told >= books.recovered_nanojoules / 1e9


async def test_a_meter_that_cannot_be_kept_goes_on_and_says_so(tmp_path: Path) -> None:
    made = actor(tmp_path)
    registry = exported(made)
    made._folder = tmp_path / "gone"
    await made.advance(time.monotonic() + 2)
    told = value(registry, "wattgate_meter_faults_total", fault="meter_not_kept")
    assert told == 1
    assert made._node.books().balanced


async def test_what_nothing_meters_is_no_gap_of_a_meter(tmp_path: Path) -> None:
    for engine, gaps in (("upstream", False), ("simulated", True)):
        made = actor(tmp_path, **{"engine.kind": engine, "metering.history.enabled": False})
        registry = exported(made)
        # of an unknown architecture: a model that is fed with work knows no load
        made._node.register(ModelProfile("m"))
        made._node.attach("replica")
        await submit(made)
        await close(made)
        assert made._node.books().open_requests == 0
        assert bool(value(registry, "wattgate_meter_faults_total", fault="gap")) == gaps


async def test_a_replica_is_booked_on_the_gpus_it_names(tmp_path: Path) -> None:
    made = actor(tmp_path)
    here = made._node.components[0].name
    made._devices = {"a": frozenset({here}), "b": frozenset()}
    assert made._devices_of(None, [here, "GPU-of-another-node"]) == {here}
    assert made._devices_of(["b"], ["GPU-of-another-node"]) == frozenset()
    assert made._devices_of(["a", "b"], ()) == {here}
    assert made._devices_of(None, ()) is None
    assert made._devices_of(["unknown"], ()) is None


async def test_the_energy_of_a_replica_is_that_of_what_it_alone_works_on(tmp_path: Path) -> None:
    models = {name: {"engine": {"kind": "simulated"}} for name in ("a", "b")}
    made = actor(tmp_path, **{"engine.kind": None}, models=models)
    one, other = (next(iter(made._devices[name])) for name in ("a", "b"))
    profile = ModelProfile("m", architecture_from_config(SMOLLM2_135M), 2, 2, 1e12, 1e11)
    for source, engines in (("first", ["a"]), ("second", ["b"]), ("gateway", [])):
        await made.attach(source, [profile], engines)
    for task in made._tasks:
        task.cancel()
    await close(made)
    alone = await made.metered_joules("first")
    assert alone is not None
    assert set(alone) == {one}
    assert set(await made.metered_joules("second") or ()) == {other}
    assert await made.metered_joules("gateway") is None
    await made.attach("third", [profile], ["a"])
    assert await made.metered_joules("first") is None, "two engines on one device"
    for task in made._tasks:
        task.cancel()


async def test_an_orderly_stop_books_and_writes_what_is_open(tmp_path: Path) -> None:
    made = actor(tmp_path)
    await made.attach("replica", [ModelProfile("m")])
    await submit(made)
    await made.stop()
    history = HistoryStore(tmp_path / "h.sqlite3").read(0)
    assert [totals.requests for totals in history.served.values()] == [1]
    assert [usage.tokens_decode for usage in history.usage.values()] == [5]
    assert all(task.done() for task in made._tasks)


async def test_what_is_booked_between_two_readings_is_kept_as_booked(tmp_path: Path) -> None:
    made = actor(tmp_path)
    await made.attach("replica", [ModelProfile("m", architecture_from_config(SMOLLM2_135M), 2, 2, 1e12, 1e11)])
    for task in made._tasks:
        task.cancel()
    now = time.monotonic()
    await made.advance(now + 2)
    # it waits for the replica, which is behind
    assert await made.metered_joules("replica") is None
    await submit(made)
    assert not made._node.due(now + 2)
    await made.advance(now + 2)
    assert await made.metered_joules("replica")
    assert pickle.loads((tmp_path / KEPT).read_bytes()) == made._node.kept()


async def test_after_an_orderly_stop_the_next_meter_begins_anew(tmp_path: Path) -> None:
    made = actor(tmp_path)
    await made.attach("replica", [ModelProfile("m")])
    await submit(made)
    await made.stop()
    assert {KEPT, PROFILES}.isdisjoint(os.listdir(tmp_path))
    following = actor(tmp_path)
    await close(following)
    (books,) = following._node.books().components
    assert books.recovered_nanojoules == 0
    assert following._profiles == {}


class Leaving:
    """A meter that nobody has needed for longer than it stays, and what becomes of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.clock = ManualClock()
        self.ended = False
        self.left: dict[str, bool] = {}
        (folder / "metrics").mkdir()
        self.made = actor(folder / "metrics")
        self.made._presence = Presence(180.0, self.clock)
        for board in ("target_board", "node_board"):
            monkeypatch.setattr(node_actor, board, lambda: SimpleNamespace(write=self._write))
        monkeypatch.setattr(node_actor, "_QUESTION_SECONDS", 0.0)
        monkeypatch.setattr(node_actor, "own_address", lambda: "10.0.0.2")
        monkeypatch.setattr(node_actor, "exit_process", self._end)
        self.clock.advance(181)

    def _write(self, name: str, seconds: float) -> None:
        self.left[name] = seconds < 0

    def _end(self) -> None:
        self.ended = True


async def test_a_meter_without_a_replica_leaves_the_node_and_the_next_goes_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = Leaving(monkeypatch, tmp_path)
    await leaving.made.attach("replica", [ModelProfile("m")])
    for task in leaving.made._tasks:
        task.cancel()
    await submit(leaving.made, last=True)
    leaving.clock.advance(181)
    await leaving.made.leave()
    assert leaving.ended
    assert leaving.made._node.books().balanced
    assert leaving.left == {"10.0.0.2": True, "10.0.0.2:None": True}
    assert ["no replica is left" in event["text"] for event in await leaving.made.events(0.0)] == [True]
    faults: list[str] = []
    monkeypatch.setattr(NodeMetrics, "fault", lambda _, name: faults.append(name))
    following = actor(tmp_path / "metrics")
    assert faults == [], "nothing went wrong"
    await close(following)
    (books,) = following._node.books().components
    assert books.recovered_nanojoules > 0, "what was drawn meanwhile is booked to nobody"
    actor(tmp_path / "metrics")
    assert faults == ["meter_restarted"], "that one did not leave"


@pytest.mark.parametrize("how", ["expect", "attach", "submit"])
async def test_one_that_comes_while_the_meter_leaves_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    leaving = Leaving(monkeypatch, tmp_path)
    made = leaving.made
    flush = made._keeper.flush  # type: ignore[union-attr]

    async def comes() -> None:
        await flush()
        if how == "expect":
            await made.expect("replica")
        elif how == "attach":
            await made.attach("replica", [ModelProfile("m")])
        else:
            await submit(made)

    monkeypatch.setattr(made._keeper, "flush", comes)
    await made.leave()
    assert not leaving.ended
    assert made._tasks
    for task in made._tasks:
        task.cancel()


async def test_a_meter_with_a_replica_stays_whatever_asks_it_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = Leaving(monkeypatch, tmp_path)
    leaving.made._node.attach("replica")
    await leaving.made.leave()
    assert not leaving.ended


async def test_an_intensity_that_changes_leaves_nan_under_its_old_labels() -> None:
    registry = CollectorRegistry()
    export = NodeMetrics(Metrics(registry))
    name = "wattgate_intensity_grams_per_kwh"
    live = {"zone": "DE", "source": "em", "signal": "average", "quality": "live"}
    export.intensity(IntensityStamp(300.0, "DE", "em", "average", "live", 0.5))
    export.intensity(IntensityStamp(310.0, "DE", "em", "average", "live", 0.6))
    assert value(registry, name, **live) == 310.0
    assert value(registry, "wattgate_carbon_free_ratio", zone="DE", source="em") == 0.6
    export.intensity(IntensityStamp(381.0, "DEU", "codecarbon 2023", "average", "static"))
    assert math.isnan(value(registry, name, **live) or 0.0)
    assert math.isnan(value(registry, "wattgate_carbon_free_ratio", zone="DE", source="em") or 0.0)
    fallback = {"zone": "DEU", "source": "codecarbon 2023", "signal": "average", "quality": "static"}
    assert value(registry, name, **fallback) == 381.0
    export.intensity(None)
    assert math.isnan(value(registry, name, **fallback) or 0.0)


async def test_another_source_of_the_intensity_is_an_event_and_another_value_is_none(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    made = actor(tmp_path / "metrics", **{"metering.history.enabled": False})
    made._use(IntensityStamp(300.0, "DE", "electricity maps", "average", "live"))
    made._use(IntensityStamp(310.0, "DE", "electricity maps", "average", "live"))
    assert made._events.read() == []
    made._use(IntensityStamp(381.0, "DEU", "codecarbon (in place of electricity maps)", "average", "static"))
    (event,) = EventLog(tmp_path / EVENTS).read()
    assert event.kind == "intensity_source"
    assert "DE, electricity maps, average -> DEU, codecarbon (in place of electricity maps)" in event.text


async def test_grams_of_a_marginal_source_are_a_series_of_their_own(tmp_path: Path) -> None:
    for signal, mine, other in (
        ("average", "operational", "operational_marginal"),
        ("marginal", "operational_marginal", "operational"),
    ):
        made = actor(tmp_path, **{"metering.history.enabled": False})
        registry = exported(made)
        await made.attach("replica", [ModelProfile("m")])
        for task in made._tasks:
            # from here by hand: the intensity stays what it is set to
            task.cancel()
        made._use(IntensityStamp(300.0, "X", "s", signal, "live"))  # type: ignore[arg-type]
        await submit(made)
        await close(made)
        name = "wattgate_request_grams_total"
        assert value(registry, name, model="m", tenant="t", scope=mine) is not None
        assert value(registry, name, model="m", tenant="t", scope=other) is None


@pytest.mark.parametrize("policy", ["reserved", "by_time", "by_flops", "none"])
async def test_device_time_under_another_idle_policy_is_counted(tmp_path: Path, policy: str) -> None:
    made = actor(tmp_path, **{"metering.history.enabled": False, "metering.idle_policy": policy})
    registry = exported(made)
    made._node.register(ModelProfile("m"))
    made._node.attach("replica")
    await submit(made)
    await close(made)
    who = {"model": "m", "tenant": "t"}
    counted = value(registry, "wattgate_device_seconds_total", **who)
    assert counted is not None
    unreserved = value(registry, "wattgate_unreserved_device_seconds_total", **who)
    assert unreserved == (None if policy == "reserved" else counted)


async def test_prices_of_the_operator_give_costs_in_metrics_receipts_and_the_history(tmp_path: Path) -> None:
    prices = {"metering.price_per_device_hour": 3.6, "metering.price_per_kwh": 0.25}
    made = actor(tmp_path, **prices)
    registry = exported(made)
    peaks = {"peak_flops": 1e12, "bandwidth_bytes_per_second": 1e12}
    bytes_each = {"weight_bytes_each": 2.0, "kv_bytes_each": 2.0}
    made._node.register(
        ModelProfile("m", architecture=architecture_from_config(SMOLLM2_135M), **peaks, **bytes_each)  # type: ignore[arg-type]
    )
    made._node.attach("replica")
    await submit(made)
    await close(made)
    receipt = await made.receipt("t", "r")
    assert receipt is not None
    assert receipt.cost is not None
    assert receipt.energy_joules is not None
    assert receipt.cost["electricity"] == pytest.approx(receipt.energy_joules.total / 3.6e6 * 0.25, abs=1e-8)
    assert receipt.cost["devices"] > 0
    labels = {"model": "m", "tenant": "t"}
    for cause in ("devices", "electricity"):
        counted = value(registry, "wattgate_request_cost_total", **labels, cause=cause)
        assert counted == pytest.approx(receipt.cost[cause], abs=1e-8)
    assert made._keeper is not None
    await made._keeper.flush()
    (usage,) = HistoryStore(tmp_path / "h.sqlite3").read(0).usage.values()
    assert usage.device_nanocost / 1e9 == pytest.approx(receipt.cost["devices"])


async def test_final_receipts_are_listed_to_their_tenant_and_to_the_admin(tmp_path: Path) -> None:
    made = actor(tmp_path)
    made._node.register(ModelProfile("m"))
    made._node.attach("replica")
    before = time.time()
    await submit(made)
    await close(made)
    (receipt,) = await made.recent("t")
    assert receipt["receipt_id"] == "r"
    assert before <= receipt["at_seconds"] <= time.time()
    assert len(await made.recent(None)) == 1
    assert await made.recent("another") == []


async def test_a_trace_that_cannot_be_read_is_named_by_the_mean_that_stands_in_for_it(tmp_path: Path) -> None:
    made = actor(
        tmp_path, **{"metering.intensity.source": "trace", "metering.intensity.trace": str(tmp_path / "none.csv")}
    )
    await made._follow_intensity()
    assert made._stamp is not None
    assert (made._stamp.zone, made._stamp.quality) == ("FRA", "static")
    assert made._stamp.source.endswith("(in place of trace)")


async def test_a_node_tells_its_events_and_decisions_to_those_who_ask(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    times = iter((10.0, 20.0))
    log = EventLog(tmp_path / EVENTS, wall=lambda: next(times))
    log.record("cap", "cap: 32 -> 16", "m")
    log.record("config", "zone: FRA -> DEU")
    decision = Decision(0.0, 16, 20, Reason.QUEUE, "itl_p95<=1s", 0.3, 0.02, 90.0, None, True)
    DecisionLog(tmp_path / DECISIONS, wall=lambda: 15.0).record(decision, model="m", source="r", mode="on")
    made = actor(folder)
    assert [event["text"] for event in await made.events(0.0)] == ["cap: 32 -> 16", "zone: FRA -> DEU"]
    assert [event["at_seconds"] for event in await made.events(15.0)] == [20.0]
    assert [(one["from"], one["to"]) for one in await made.decisions(0.0)] == [(16, 20)]
    assert await made.decisions(16.0) == []
