"""The history's writer: a file that cannot be written costs nothing but the history."""

from __future__ import annotations

from pathlib import Path

from metering.history import History, HistoryStore, HistoryUnavailable, ServedKey, ServedTotals
from serving.placement import history
from serving.placement.history import HistoryKeeper


class Store(HistoryStore):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.broken = False
        self.forgotten: list[float] = []

    def add(self, rows: History) -> None:
        if self.broken:
            raise HistoryUnavailable("full")
        super().add(rows)

    def forget(self, before_epoch_seconds: float) -> int:
        self.forgotten.append(before_epoch_seconds)
        if self.broken:
            raise HistoryUnavailable("locked")
        return super().forget(before_epoch_seconds)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "h")
        self.faults: list[str] = []
        self.now = 10_000.0
        self.keeper = HistoryKeeper(self.store, self.faults.append, keep_seconds=600, wall_clock=lambda: self.now)

    def add(self, minute: int = 160) -> None:
        self.keeper.add(History(served={ServedKey(minute, "m", "t"): ServedTotals(requests=1)}))

    def requests(self) -> int:
        return sum(totals.requests for totals in self.store.read(0).served.values())


async def test_rows_are_written_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.add()
    rig.add()
    await rig.keeper.flush()
    await rig.keeper.flush()
    assert rig.requests() == 2
    assert rig.faults == []


async def test_rows_wait_while_the_file_cannot_be_written(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.store.broken = True
    rig.add()
    await rig.keeper.flush()
    assert rig.faults == ["history_kept_back"]
    rig.store.broken = False
    rig.add()
    await rig.keeper.flush()
    assert rig.requests() == 2


async def test_waiting_rows_are_bounded(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(history, "MOST_ROWS", 2)
    rig = Rig(tmp_path)
    for minute in (160, 161, 162):
        rig.add(minute)
    assert rig.faults == ["history_dropped"]
    await rig.keeper.flush()
    assert rig.requests() == 2


async def test_old_rows_go_at_most_once_an_hour_and_a_failure_writes_nothing_twice(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.add()
    await rig.keeper.flush()
    rig.add()
    await rig.keeper.flush()
    assert rig.store.forgotten == [9400.0]
    rig.now += 3600

    def locked(before_epoch_seconds: float) -> int:
        raise HistoryUnavailable("locked")

    rig.store.forget = locked  # type: ignore[method-assign]
    rig.add()
    await rig.keeper.flush()
    assert rig.faults == ["history_not_pruned"]
    await rig.keeper.flush()
    assert rig.requests() == 3
