"""What replicas report, merged: each batch once, each record once, each request's account kept until it settles."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from metering.accounts import Account, FinalStore, Key
from metering.booking import Engine, LiveRecord
from metering.books import Counters
from metering.node_settings import NodeSettings
from metering.sources import Source
from metering.weights import WorkModel
from metering.windows import Span, Window
from metering.work import EngineSteps, Method, WorkBatch, WorkRecord

MOST_EARLY_FINISHES = 10_000
"""Finished ids kept whose records have not come yet (batches out of order)."""
MUCH_OF_A_RECORD = 0.5
"""Share of a record in closed windows from which its receipt says so."""
MOST_DEAD_SOURCES = 1000
"""Dead replicas remembered, so that a batch sent again after a long silence is still booked once."""


class Intake:
    """Sources, open accounts, and the records and steps with a part in a window that is not booked yet."""

    def __init__(self, settings: NodeSettings, counters: Counters, finals: FinalStore) -> None:
        self.models: dict[str, WorkModel] = {}
        self.sources: dict[str, Source] = {}
        self.live: list[LiveRecord] = []
        self.steps: dict[Engine, list[EngineSteps]] = {}
        self.accounts: dict[Key, Account] = {}
        self._settings = settings
        self._counters = counters
        self._finals = finals
        self._open_by_source: dict[str, dict[str, set[Key]]] = {}
        self._early_finished: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._maybe_settled: dict[Key, None] = {}
        self._lost_by_forgotten = 0
        self.resumed = False
        """Whether a meter before this one heard the sources that are not announced to this one."""

    def hear(self, name: str, now_seconds: float) -> Source:
        """Note that a source lives."""
        source = self.sources.get(name)
        if source is None:
            source = self.sources[name] = Source(name, now_seconds)
        source.hear(now_seconds)
        return source

    def take(self, batch: WorkBatch, first_open_seconds: float, now_seconds: float) -> bool:
        """Book a batch; False where it was booked before.

        Raises:
            ValueError: a sequence below 1.
        """
        known = batch.source in self.sources
        source = self.hear(batch.source, now_seconds)
        if self.resumed and not known and batch.sequence > 1:
            source.resume(batch.sequence)
        watermark = min(batch.watermark_seconds, now_seconds)
        if not source.take(batch.sequence, watermark, now_seconds, last=batch.last):
            self._counters.duplicate_batches += 1
            return False
        self._counters.batches += 1
        for record in batch.records:
            self._take_record(batch.source, record, first_open_seconds, now_seconds)
        for steps in batch.steps:
            steps = replace(steps, ended_seconds=min(steps.ended_seconds, now_seconds))
            self.steps.setdefault((batch.source, steps.model), []).append(steps)
        verdicts = dict(batch.verdicts)
        for request_id in batch.finished:
            self._finish(batch.source, request_id, verdicts.get(request_id, "MISS"))
        if source.left:
            self._end(source, "its replica ended: booked as reported")
        return True

    def alive(self) -> set[str]:
        return {source.name for source in self.sources.values() if source.alive}

    def waits(self, window: Window) -> bool | None:
        """Whether a live source may still report work of the window; None where no source is known to live."""
        alive = [source for source in self.sources.values() if source.alive]
        if not alive:
            return None
        return any(source.watermark_seconds < window.end_seconds for source in alive)

    def booked(self, spent: Iterable[LiveRecord], going_on: list[LiveRecord], window: Window) -> None:
        """Keep what later windows need."""
        self.live = going_on
        for record in spent:
            record.account.open_spans -= 1
            self._maybe_settled[record.account.key] = None
        for engine, steps in list(self.steps.items()):
            kept = [entry for entry in steps if entry.ended_seconds > window.end_seconds]
            if kept:
                self.steps[engine] = kept
            else:
                del self.steps[engine]

    def settle(self, now_seconds: float) -> list[Account]:
        """Take out the accounts that nothing more is expected for."""
        for account in list(self.accounts.values()):
            if now_seconds - account.touched_seconds > self._settings.abandoned_seconds and account.open_sources:
                self._abandon(account, set(account.open_sources), "never reported as finished: booked as reported")
        settled = [self.accounts[key] for key in self._maybe_settled if key in self.accounts]
        self._maybe_settled.clear()
        settled = [account for account in settled if account.settled]
        for account in settled:
            del self.accounts[account.key]
        return settled

    def bury_silent(self, now_seconds: float) -> None:
        """Declare sources dead that were silent for too long, and stop waiting for batches that went missing."""
        for source in list(self.sources.values()):
            source.give_up_gaps(now_seconds, self._settings.grace_seconds)
            if source.alive and source.left:
                self._end(source, "its replica ended: booked as reported")
            if not source.alive or now_seconds - source.heard_seconds <= self._settings.silent_seconds:
                continue
            self._counters.dead_sources += 1
            self._end(source, "its replica stopped reporting: booked as reported")
        dead = [source for source in self.sources.values() if not source.alive]
        for source in sorted(dead, key=lambda s: s.heard_seconds)[: max(0, len(dead) - MOST_DEAD_SOURCES)]:
            self._lost_by_forgotten += source.lost
            del self.sources[source.name]

    def _end(self, source: Source, note: str) -> None:
        """Wait for nothing of it any more: neither for its windows nor for its open requests."""
        source.alive = False
        for keys in list(self._open_by_source.pop(source.name, {}).values()):
            for key in keys:
                self._abandon(self.accounts[key], {source.name}, note)

    def abandon_all(self, note: str) -> None:
        """Expect nothing more for any open request."""
        for account in list(self.accounts.values()):
            if account.open_sources:
                self._abandon(account, set(account.open_sources), note)

    @property
    def lost_batches(self) -> int:
        return self._lost_by_forgotten + sum(source.lost for source in self.sources.values())

    def _take_record(self, source: str, record: WorkRecord, first_open_seconds: float, now_seconds: float) -> None:
        problem = malformed(record)
        if problem:
            self._counters.malformed_records += 1
            return
        if record.ended_seconds > now_seconds:
            self._counters.skewed_records += 1
            record = replace(
                record, started_seconds=min(record.started_seconds, now_seconds), ended_seconds=now_seconds
            )
        model = self.models.get(record.model)
        try:
            work = model.work(record) if model is not None else None
        except ValueError:
            self._counters.malformed_records += 1
            return
        self._counters.records += 1
        if model is None:
            self._counters.unknown_model_records += 1
        account = self._account(source, record, now_seconds)
        account.count(record, work)
        if record.started_seconds < first_open_seconds:
            # modelled work comes when its request ends: there is nothing to repair
            self._counters.late_records += record.method is Method.MEASURED
            missed = first_open_seconds - record.started_seconds
            if missed >= MUCH_OF_A_RECORD * (record.ended_seconds - record.started_seconds):
                account.note("much of its work was reported after its window had closed: booked in the next")
        span = Span.of(record.started_seconds, record.ended_seconds, first_open_seconds)
        account.open_spans += 1
        self.live.append(LiveRecord(record, source, account, model, work, span))

    def _account(self, source: str, record: WorkRecord, now_seconds: float) -> Account:
        key = (record.tenant, record.request_id)
        account = self.accounts.get(key)
        if account is None:
            account = self._finals.reopen(key)
            if account is None:
                account = Account(record.tenant, record.request_id, record.model, now_seconds)
            else:
                self._counters.revised_receipts += 1
                account.note("revised: work was reported after it had become final")
            self.accounts[key] = account
        account.touched_seconds = now_seconds
        verdict = self._early_finished.get((source, record.request_id))
        if verdict is not None:
            account.finish(source, verdict)
        if source not in account.done_sources and source not in account.open_sources:
            account.open_sources.add(source)
            self._open_by_source.setdefault(source, {}).setdefault(record.request_id, set()).add(key)
        return account

    def _finish(self, source: str, request_id: str, verdict: str) -> None:
        keys = self._open_by_source.get(source, {}).pop(request_id, None)
        if keys is None:
            self._early_finished[(source, request_id)] = verdict
            while len(self._early_finished) > MOST_EARLY_FINISHES:
                self._early_finished.popitem(last=False)
            return
        for key in keys:
            self.accounts[key].finish(source, verdict)
            self._maybe_settled[key] = None

    def _abandon(self, account: Account, sources: set[str], note: str) -> None:
        self._counters.abandoned_requests += 1
        account.note(note)
        for source in sources:
            account.finish(source)
            self._open_by_source.get(source, {}).get(account.request_id, set()).discard(account.key)
        self._maybe_settled[account.key] = None


def malformed(record: WorkRecord) -> str:
    """What is wrong with a record; empty where nothing is."""
    if not (math.isfinite(record.started_seconds) and math.isfinite(record.ended_seconds)):
        return "its interval is not finite"
    if record.ended_seconds < record.started_seconds:
        return "it ends before it starts"
    if min(record.prefill_tokens, record.cached_tokens, record.decode_tokens, record.preemptions) < 0:
        return "it has negative counts"
    return ""
