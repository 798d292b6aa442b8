"""Batches outlive the replicas that run them: nothing is lost, and what has ended is not run again."""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batches.input import Line
from serving.batches.journal import ERRORS, OUTPUT, Journal
from tests.unit.batches.conftest import BatchHouse, Opener, line, until
from tests.unit.batches.fakes import ScriptedApp


async def begun(house: BatchHouse, app: ScriptedApp, *lines: Any) -> str:
    """A batch whose first line has ended and whose second is under way."""
    app.script = lambda text, times: (app.gate.clear() or (200, {})) if len(app.asked) == 1 else (200, {})
    house.runner.serve(app)
    batch_id = await house.batch_of(*lines)
    await house.runner.scan()
    while len(app.asked) < 2:
        app.entered.clear()
        await app.entered.wait()
    return batch_id


async def test_the_next_replica_runs_only_what_has_not_ended(opened: Opener) -> None:
    one, app = opened(settings={"concurrent_lines": 1}), ScriptedApp()
    batch_id = await begun(one, app, *(line(number) for number in range(1, 5)))
    await one.runner.close()
    assert one.kept(batch_id).status == "in_progress"
    other = opened()
    assert (await other.seen(batch_id))["status"] == "in_progress"
    fresh = ScriptedApp()
    other.runner.serve(fresh)
    await other.run()
    assert sorted(fresh.asked) == ["Hi 2", "Hi 3", "Hi 4"]
    batch = await other.seen(batch_id)
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 4)
    assert batch["usage"]["output_tokens"] == 8
    assert len(await other.results(batch["output_file_id"])) == 4


async def test_an_orderly_end_lets_lines_under_way_end(opened: Opener) -> None:
    one, app = opened(settings={"concurrent_lines": 1}), ScriptedApp()
    batch_id = await begun(one, app, line(1), line(2), line(3))
    app.gate.set()
    await one.runner.close(grace_seconds=30)
    assert app.asked == ["Hi 1", "Hi 2"]
    kept = one.kept(batch_id)
    assert (kept.status, kept.completed) == ("in_progress", 2)


async def test_of_replicas_that_share_a_folder_one_runs_a_batch(opened: Opener) -> None:
    houses, apps = [opened() for _ in range(3)], [ScriptedApp() for _ in range(3)]
    for house, app in zip(houses, apps, strict=True):
        house.runner.serve(app)
        app.gate.clear()
    batch_id = await houses[0].batch_of(line(1), line(2), line(3))
    for house in houses:
        await house.runner.scan()
    await apps[0].entered.wait()
    assert [bool(app.asked) for app in apps] == [True, False, False]
    assert (await houses[2].send(path=f"/v1/batches/{batch_id}/cancel", raw=b"")).json["status"] == "cancelling"
    apps[0].gate.set()
    for house in houses:
        await house.run()
    assert (await houses[1].seen(batch_id))["status"] == "cancelled"
    assert apps[1].asked == apps[2].asked == []


async def test_a_batch_that_cannot_be_begun_holds_up_no_other(opened: Opener) -> None:
    house, app = opened(), ScriptedApp()
    house.runner.serve(app)
    bad = await house.batch_of(line(1))
    house.wall.advance(1)
    good = await house.batch_of(line(2))
    (folder,) = house.root.glob(f"tenants/*/batches/{bad}")
    (folder / "lock").mkdir()
    await house.run()
    assert (await house.seen(good))["status"] == "completed"
    assert app.asked == ["Hi 2"]
    assert house.count("wattgate_batch_faults_total", operation="disk") == 1
    (folder / "lock").rmdir()
    house.wall.advance(60)
    await house.run()
    assert (await house.seen(bad))["status"] == "completed"


async def test_what_has_expired_is_swept_although_no_batch_can_be_begun(opened: Opener) -> None:
    house = opened()
    old = (await house.upload(b"x")).json["id"]
    house.wall.advance(30 * 86_400)
    batch_id = await house.batch_of(line(1))
    (folder,) = house.root.glob(f"tenants/*/batches/{batch_id}")
    (folder / "lock").mkdir()
    house.runner.start(ScriptedApp())
    await until(lambda: house.batches.files.get("default", old) is None)
    assert house.count("wattgate_batch_faults_total", operation="disk") == 1


async def test_one_that_has_lost_its_lock_writes_and_begins_nothing_more(opened: Opener) -> None:
    one, slow = opened(settings={"concurrent_lines": 1}), ScriptedApp()
    batch_id = await begun(one, slow, *(line(number) for number in range(1, 5)))
    # as a file system does with the lock of a machine that it has not heard from
    next(one.root.glob(f"tenants/*/batches/{batch_id}/lock")).unlink()
    other, app = opened(), ScriptedApp()
    other.runner.serve(app)
    await other.run()
    slow.gate.set()
    await one.runner.idle()
    assert slow.asked == ["Hi 1", "Hi 2"]
    assert sorted(app.asked) == ["Hi 2", "Hi 3", "Hi 4"]
    batch = await one.seen(batch_id)
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 4)
    assert len(await other.results(batch["output_file_id"])) == 4
    assert one.count("wattgate_batch_faults_total", operation="overtaken") == 1
    assert one.count("wattgate_batch_faults_total", operation="run") == 0


async def test_a_batch_is_let_go_when_nothing_writes_any_more(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    one, app, other = opened(), ScriptedApp(), opened()
    one.runner.serve(app)
    batch_id = await one.batch_of(line(1))
    (folder,) = one.root.glob(f"tenants/*/batches/{batch_id}")
    writing, go_on = threading.Event(), threading.Event()
    write = Journal.write

    def writes(journal: Journal, result: dict[str, Any], *, failed: bool) -> None:
        writing.set()
        assert go_on.wait(30)
        write(journal, result, failed=failed)

    monkeypatch.setattr(Journal, "write", writes)
    await one.runner.scan()
    await asyncio.to_thread(writing.wait, 30)
    ending = asyncio.create_task(one.runner.close())
    for _ in range(50):
        await asyncio.to_thread(lambda: None)
    assert other.batches.claim(folder.parents[1].name, batch_id) is None
    go_on.set()
    await ending
    await other.run()
    batch = await other.seen(batch_id)
    assert len(await other.results(batch["output_file_id"])) == 1
    assert app.asked == ["Hi 1"]


async def test_a_line_during_which_three_replicas_died_is_given_up(opened: Opener) -> None:
    house, app = opened(), ScriptedApp()
    house.runner.serve(app)
    batch_id = await house.batch_of(line(1), line(2), line(3))
    journal = house.journal(batch_id)
    for _ in range(3):
        journal.begin(2)
        journal.begin(3)
    journal.left(3)
    await house.run()
    batch = await house.seen(batch_id)
    assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    (error,) = (await house.results(batch["error_file_id"])).values()
    assert (error["custom_id"], error["error"]["code"]) == ("line-2", "gateway_died")
    assert sorted(app.asked) == ["Hi 1", "Hi 3"]


async def test_a_line_that_waits_for_room_is_not_counted_as_a_death(opened: Opener) -> None:
    house = opened()
    house.runner.serve(ScriptedApp(lambda text, times: (503, {}) if times < 5 else (200, {})))
    batch_id = await house.batch_of(line(1))
    await house.run()
    assert house.journal(batch_id).recover().begun[1] == 1, "the last attempt, which ended"


@pytest.mark.parametrize("ending", ["completed", "expired", "cancelled"])
async def test_a_death_between_the_last_line_and_the_end_changes_nothing(
    opened: Opener, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened(settings={"concurrent_lines": 1})

    def script(text: str, times: int) -> tuple[int, dict[str, str]]:
        if ending == "expired":
            one.wall.advance(86_400)
        elif ending == "cancelled":
            one.batches.cancel("default", batch_id)
        return 200, {}

    one.runner.serve(ScriptedApp(script))
    batch_id = await one.batch_of(line(1), *([] if ending == "completed" else [line(2)]))
    # it dies when it makes the files, as often as it tries
    monkeypatch.setattr(one.batches.files, "publish", _dies)
    await one.run()
    decided = one.kept(batch_id)
    assert decided.ending == ending
    assert not decided.ended
    other, app = opened(clock=one.wall), ScriptedApp()
    other.runner.serve(app)
    other.wall.advance(100)
    await other.run()
    batch = await other.seen(batch_id)
    assert batch["status"] == ending
    assert batch["output_file_id"] == decided.output_file_id
    assert len(await other.results(batch["output_file_id"])) == 1
    if ending == "expired":
        assert set(await other.results(batch["error_file_id"])) == {"line-2"}
    assert app.asked == []


def _dies(*_: Any) -> None:
    raise RuntimeError("killed")


async def test_a_full_disk_holds_a_batch_up_and_loses_nothing(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    house, app = opened(settings={"concurrent_lines": 1}), ScriptedApp()
    house.runner.serve(app)
    write, full = Journal.write, [3]

    def writes(journal: Journal, result: dict[str, Any], *, failed: bool) -> None:
        if full[0]:
            full[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        write(journal, result, failed=failed)

    monkeypatch.setattr(Journal, "write", writes)
    batch_id = await house.batch_of(line(1), line(2))
    await house.run()
    assert (await house.seen(batch_id))["request_counts"]["completed"] == 2
    assert app.asked == ["Hi 1", "Hi 2"]
    assert house.count("wattgate_batch_faults_total", operation="disk") == 3


async def test_a_full_disk_amid_the_lines_that_expire_loses_none_from_the_counts(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = opened()
    batch_id = await house.batch_of(line(1), line(2), line(3), window="1h")
    house.wall.advance(3600)
    write, written = Journal.write, list[bool]()

    def writes(journal: Journal, result: dict[str, Any], *, failed: bool) -> None:
        written.append(True)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(journal, result, failed=failed)

    monkeypatch.setattr(Journal, "write", writes)
    await house.run()
    batch = await house.seen(batch_id)
    assert (batch["status"], batch["request_counts"]) == ("expired", {"total": 3, "completed": 0, "failed": 3})
    assert len(await house.results(batch["error_file_id"])) == 3
    assert house.count("wattgate_batch_lines_total", outcome="expired") == 3


async def test_a_run_with_a_defect_is_left_alone_for_a_while(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    house, app = opened(), ScriptedApp()
    house.runner.serve(app)
    batch_id = await house.batch_of(line(1))
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "recover", _dies)
        await house.run()
        await house.run()
    assert house.count("wattgate_batch_faults_total", operation="run") == 1
    house.wall.advance(61)
    await house.run()
    assert (await house.seen(batch_id))["status"] == "completed"


def result_of(line: Line) -> dict[str, Any]:
    return {"custom_id": line.custom_id, "response": {"body": {"usage": {"completion_tokens": 2}}}}


@given(ends=st.lists(st.booleans(), max_size=12), cut=st.integers(0, 200))
def test_a_write_cut_anywhere_loses_that_line_only(tmp_path_factory: Any, ends: list[bool], cut: int) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder)
    for number, failed in enumerate(ends):
        journal.write(result_of(Line(number, f"ü-{number}", {})), failed=failed)
    whole = [number for number, failed in enumerate(ends) if not failed]
    path = folder / OUTPUT
    lost: set[str] = set()
    if whole:
        raw = path.read_bytes()
        last = raw.splitlines(keepends=True)[-1]
        kept = len(raw) - 1 - cut % len(last)
        path.write_bytes(raw[:kept])
        lost = {f"ü-{whole[-1]}"}
    found = Journal(folder).recover()
    assert found.done == {f"ü-{number}" for number in range(len(ends))} - lost
    assert (found.completed, found.failed) == (len(whole) - len(lost), sum(ends))
    assert found.use.output_tokens == 2 * found.completed
    for number in whole[len(whole) - len(lost) :]:
        journal.write(result_of(Line(number, f"ü-{number}", {})), failed=False)
    assert Journal(folder).recover().done == {f"ü-{number}" for number in range(len(ends))}
    assert (folder / ERRORS).exists() == any(ends)
