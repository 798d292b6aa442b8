"""One batch from its input to its result files: check, run the lines, write down how each ended, publish."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from serving.batches.disk import new_id
from serving.batches.files import FileStore
from serving.batches.input import Line, check_input, read_lines
from serving.batches.inside import InsideAnswer
from serving.batches.journal import ERRORS, OUTPUT, Journal, Recovered
from serving.batches.record import Batch, Ending, use_of_answer
from serving.batches.store import Hold, Overtaken
from serving.errors import NeverBegun
from serving.metrics import Metrics

log = logging.getLogger("wattgate")

T = TypeVar("T")
Ask = Callable[[str, str, dict[str, Any]], Awaitable[InsideAnswer]]
"""A line's request: tenant, path and body to its answer."""

_NO_ROOM = frozenset({429, 503})
"""The gateway has no room, now: the line waits, as long as its batch has time. So it does after a 504 in the queue."""
_FAULTS = frozenset({500, 502, 504})
_MOST_FAULTS = 3
"""A line that failed so often by the engine's or the gateway's fault is given up; so is one during which so many
replicas died."""
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_READ_AHEAD = 64


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What runs share."""

    files: FileStore
    ask: Ask
    metrics: Metrics
    slots: asyncio.Semaphore
    """For lines under way in this replica."""
    stopping: asyncio.Event
    """The replica is to end: no new lines."""
    max_lines: int
    poll_seconds: float
    wall: Callable[[], float]
    sleep: Callable[[float], Awaitable[Any]]


class BatchRun:
    """The only writer of its batch while it lives."""

    def __init__(self, held: Hold, batch: Batch, workers: int, around: Surroundings) -> None:
        self._held = held
        self._workers = workers
        self._around = around
        self._journal = Journal(held.folder)
        self._batch = batch
        self._known = Recovered()
        self._lines: Iterator[Line] = iter(())
        self._ahead: list[Line] = []
        self._reading = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._saved_seconds = 0.0
        self._cancelled = False

    async def run(self) -> None:
        """Returns when the batch is at its end, or the replica is to end. Raises ``Overtaken``, maybe in a group."""
        if self._batch.status == "validating" and not await self._check():
            return
        known = self._known = await self._on_disk(self._journal.recover)
        self._batch = self._batch.with_(completed=known.completed, failed=known.failed, use=known.use)
        if self._batch.ending is None:
            self._lines = read_lines(self._held.input)
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
            if self._cancelled:
                await self._decide("cancelled")
            elif self._expired:
                await self._decide("expired")
            elif self._unfinished:
                # the replica is to end; whoever comes after goes on
                await self._save()
                return
            else:
                await self._decide("completed")
        if self._batch.ending == "expired":
            await self._on_disk(self._write_expired)
        await self._on_disk(self._publish)
        await self._end()

    # The input.

    async def _check(self) -> bool:
        around, batch = self._around, self._batch
        checked = await asyncio.to_thread(check_input, self._held.input, batch.endpoint, around.max_lines)
        now = int(around.wall())
        if checked.errors:
            self._batch = batch.with_(ending="failed", errors=checked.errors)
            await self._end()
            return False
        self._batch = batch.with_(status="in_progress", total=checked.total, in_progress_at=now)
        await self._save()
        return True

    async def _next(self) -> Line | None:
        """The next line that has not ended."""
        async with self._reading:
            while True:
                if not self._ahead:
                    self._ahead = await asyncio.to_thread(self._read_some)
                    if not self._ahead:
                        return None
                line = self._ahead.pop(0)
                if line.custom_id not in self._known.done:
                    return line

    def _read_some(self) -> list[Line]:
        return list(itertools.islice(self._lines, _READ_AHEAD))

    # The lines.

    async def _work(self) -> None:
        while (line := await self._next()) is not None:
            if self._known.begun[line.number] >= _MOST_FAULTS:
                message = f"{_MOST_FAULTS} replicas of the gateway ended while this request ran."
                await self._ended(line, None, {"code": "gateway_died", "message": message})
            elif not await self._line(line):
                return

    async def _line(self, line: Line) -> bool:
        """Until the line has ended; False where the batch, or the replica, ends before it."""
        around, faults, pause = self._around, 0, _FIRST_PAUSE_SECONDS
        while True:
            answer = await self._attempt(line)
            if answer is None:
                return False
            no_room = _no_room(answer)
            fault = not no_room and answer.status in _FAULTS | _NO_ROOM
            faults += fault
            if not no_room and (not fault or faults >= _MOST_FAULTS):
                await self._ended(line, answer, None)
                return True
            await self._left(line)
            around.metrics.add("wattgate_batch_lines_total", 1, self._batch.tenant, "tried_again")
            if not await self._pause(max(pause, answer.retry_after_seconds or 0.0)):
                return False
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _attempt(self, line: Line) -> InsideAnswer | None:
        """None where nothing shall be begun any more, or the window ended first."""
        around = self._around
        async with around.slots:
            if await self._over():
                return None
            await self._on_disk(partial(self._journal.begin, line.number))
            try:
                async with asyncio.timeout(self._batch.expires_at - around.wall()):
                    return await around.ask(self._batch.tenant, self._batch.endpoint, line.body)
            except TimeoutError:
                return None
            except asyncio.CancelledError:
                # the replica ends: one small write, and nothing may come between
                with contextlib.suppress(OSError, Overtaken):
                    self._held.check()
                    self._journal.left(line.number)
                raise

    async def _left(self, line: Line) -> None:
        await self._on_disk(partial(self._journal.left, line.number))

    async def _ended(self, line: Line, answer: InsideAnswer | None, error: dict[str, str] | None) -> None:
        failed = answer is None or answer.status != 200
        response = None
        if answer is not None:
            response = {"status_code": answer.status, "request_id": answer.request_id, "body": answer.body}
        await self._on_disk(partial(self._journal.write, _result(line, response, error), failed=failed))
        self._known.done.add(line.custom_id)
        batch = self._batch
        if failed:
            self._batch = batch.with_(failed=batch.failed + 1)
        else:
            assert answer is not None
            self._batch = batch.with_(completed=batch.completed + 1, use=batch.use + use_of_answer(answer.body))
        self._around.metrics.add("wattgate_batch_lines_total", 1, batch.tenant, "failed" if failed else "completed")
        if self._around.wall() - self._saved_seconds >= self._around.poll_seconds:
            await self._save()

    def _write_expired(self) -> None:
        """Every line that has not ended ends so. Counted one by one: a full disk may stop it, and it goes on later."""
        error = {"code": "batch_expired", "message": "The completion window ended before this request was run."}
        for line in read_lines(self._held.input):
            if line.custom_id not in self._known.done:
                self._journal.write(_result(line, None, error), failed=True)
                self._known.done.add(line.custom_id)
                self._batch = self._batch.with_(failed=self._batch.failed + 1)
                self._around.metrics.add("wattgate_batch_lines_total", 1, self._batch.tenant, "expired")

    # The end.

    @property
    def _unfinished(self) -> bool:
        return self._batch.completed + self._batch.failed < self._batch.total

    @property
    def _expired(self) -> bool:
        return self._around.wall() >= self._batch.expires_at and self._unfinished

    async def _over(self) -> bool:
        if not self._cancelled:
            self._cancelled = await asyncio.to_thread(self._held.cancelled_at) is not None
        return self._cancelled or self._expired or self._around.stopping.is_set()

    async def _pause(self, seconds: float) -> bool:
        """In steps, each with a look at whether the batch goes on; False where it does not."""
        until = self._around.wall() + seconds
        while not await self._over():
            left = until - self._around.wall()
            if left <= 0:
                return True
            await self._around.sleep(min(left, self._around.poll_seconds))
        return False

    async def _decide(self, ending: Ending) -> None:
        """How it ends, and the ids of its results, before either is so: whoever takes over does the same."""
        now = self._around.wall()
        output = self._journal.path(OUTPUT) is not None
        errors = ending == "expired" or self._journal.path(ERRORS) is not None
        self._batch = self._batch.with_(
            status="finalizing",
            ending=ending,
            finalizing_at=int(now),
            cancelling_at=await asyncio.to_thread(self._held.cancelled_at) if ending == "cancelled" else None,
            output_file_id=new_id("file-", now) if output else None,
            error_file_id=new_id("file-", now) if errors else None,
        )
        await self._save()

    def _publish(self) -> None:
        batch = self._batch
        for name, file_id, label in (
            (OUTPUT, batch.output_file_id, "output"),
            (ERRORS, batch.error_file_id, "errors"),
        ):
            path = self._journal.path(name)
            if file_id is not None and path is not None:
                self._around.files.publish(batch.tenant, file_id, f"{batch.id}_{label}.jsonl", path)

    async def _end(self) -> None:
        ending = self._batch.ending
        assert ending is not None
        self._batch = self._batch.with_(status=ending, **{f"{ending}_at": int(self._around.wall())})
        await self._save()
        await self._on_disk(self._held.end)
        self._around.metrics.add("wattgate_batches_total", 1, self._batch.tenant, ending)
        log.info("batch %s of %s: %s", self._batch.id, self._batch.tenant, ending)

    async def _save(self) -> None:
        async with self._saving:
            self._saved_seconds = self._around.wall()
            await self._on_disk(lambda: self._held.save(self._batch))

    async def _on_disk(self, action: Callable[[], T]) -> T:
        """A disk that is full or away holds the batch up; nothing of it is lost. Raises ``Overtaken``."""

        def ours() -> T:
            self._held.check()
            return action()

        while True:
            try:
                return await _to_its_end(ours)
            except OSError as error:
                self._around.metrics.add("wattgate_batch_faults_total", 1, "disk")
                log.warning("batch %s: %s", self._batch.id, error.strerror or error)
                await self._around.sleep(self._around.poll_seconds)


async def _to_its_end(action: Callable[[], T]) -> T:
    """In a thread. A task that is cancelled meanwhile ends after it: nothing writes to a batch that was let go."""
    acting = asyncio.ensure_future(asyncio.to_thread(action))
    try:
        return await asyncio.shield(acting)
    except asyncio.CancelledError:
        await asyncio.wait([acting])
        raise


def _no_room(answer: InsideAnswer) -> bool:
    """Whether no engine has begun on the line."""
    if answer.status in _NO_ROOM:
        return answer.code != "engine_error"
    return answer.code == NeverBegun.code


def _result(line: Line, response: dict[str, Any] | None, error: dict[str, str] | None) -> dict[str, Any]:
    """A line of the result files, as OpenAI writes it."""
    request = f"batch_req_{secrets.token_hex(12)}"
    return {"id": request, "custom_id": line.custom_id, "response": response, "error": error}
