"""What a node used, minute by minute, in a small SQLite file: the source of reports when nothing else kept it.

Three tables, each a sum by minute and by what must not be added up: ``usage`` (what the ledger gave to a model and
tenant), ``served`` (answers and cache hits as the gateway counted them), ``node`` (what the meters read). Energy and
carbon are integers of nanojoules and nanograms, as in the ledger, so that a month balances as a window does.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from metering.errors import BadInput

SCHEMA_VERSION = 3
"""``PRAGMA user_version`` of the file. An older one gains the columns it lacks, a newer one is left alone."""
SECONDS_PER_MINUTE = 60
_BUSY_SECONDS = 5.0
"""How long another writer (a second gateway of the same user) is waited for."""


class HistoryUnavailable(Exception):
    """The file cannot be opened, read or written; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class UsageKey:
    """What usage is summed by; figures of different method, estimator or signal are never one sum."""

    minute: int
    """Epoch seconds // 60, by the wall clock when the window ended."""
    model: str
    tenant: str
    method: str
    """Weakest of the power's and the work's."""
    estimator: str
    """Power meter, as ``nvml`` or ``idle_aware``."""
    zone: str
    intensity_source: str
    signal: str
    """``average``, ``marginal``, or empty where the intensity was unknown."""


@dataclass(slots=True)
class Usage:
    """Executed work and what the ledger gave for it."""

    flops_prefill: float = 0.0
    flops_decode: float = 0.0
    tokens_prefill: int = 0
    tokens_cached: int = 0
    tokens_decode: int = 0
    preemptions: int = 0
    device_seconds: float = 0.0
    peak_flop_seconds: float = 0.0
    """Peak FLOP/s x device-seconds, the divisor of MFU; 0 where the peak is unknown."""
    unmetered_seconds: float = 0.0
    """Device-seconds in windows without a power reading: their energy is unknown, not zero."""
    embodied_seconds: float = 0.0
    """Device-seconds on devices whose embodied carbon is known."""
    accelerator_nanojoules: int = 0
    host_nanojoules: int = 0
    idle_nanojoules: int = 0
    overhead_nanojoules: int = 0
    operational_nanograms: int = 0
    embodied_nanograms: int = 0
    unstamped_nanojoules: int = 0
    """Of the energy and the overhead, what has no grams because the intensity was unknown."""
    roofline_seconds: float = 0.0
    """Roofline time of the work in the batches it ran in."""
    roofline_alone_seconds: float = 0.0
    """Of the same work, had each sequence run alone."""
    prefix_flops_avoided: float = 0.0
    """FLOPs that reused keys and values made unnecessary."""
    device_nanocost: int = 0
    """Thousand-millionths of the operator's currency, at the prices of the time."""
    electricity_nanocost: int = 0
    device_priced_seconds: float = 0.0
    """Device-seconds on devices with a price."""
    electricity_priced_seconds: float = 0.0
    """Device-seconds, metered, while a kWh had a price."""
    unreserved_seconds: float = 0.0
    """Device-seconds under an idle policy other than ``reserved``: the node kept idle that SCI counts."""


@dataclass(frozen=True, slots=True)
class ServedKey:
    minute: int
    model: str
    tenant: str


@dataclass(slots=True)
class ServedTotals:
    """``metering.work.Served``, summed."""

    requests: int = 0
    failed: int = 0
    hits: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    output_tokens: int = 0
    avoided_tokens: int = 0
    avoided_flops: float = 0.0
    avoided_joules: float = 0.0
    avoided_grams: float = 0.0
    hit_joules: float = 0.0
    hit_grams: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeKey:
    minute: int
    component: str
    boundary: str
    method: str
    estimator: str


@dataclass(slots=True)
class NodeTotals:
    """What one meter read, whoever used it."""

    metered_nanojoules: int = 0
    idle_nanojoules: int = 0
    """Booked as idle, before any of it was given to requests."""
    unattributed_nanojoules: int = 0
    window_seconds: float = 0.0
    busy_seconds: float = 0.0
    gap_seconds: float = 0.0
    """Without a reading."""


Totals = TypeVar("Totals", Usage, ServedTotals, NodeTotals)


def add_up(into: Totals, more: Totals) -> None:
    """Add every column."""
    for column in fields(into):
        setattr(into, column.name, getattr(into, column.name) + getattr(more, column.name))


@dataclass(slots=True)
class History:
    """Rows by key: what a buffer holds, and what a report reads."""

    usage: dict[UsageKey, Usage] = field(default_factory=dict)
    served: dict[ServedKey, ServedTotals] = field(default_factory=dict)
    node: dict[NodeKey, NodeTotals] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.usage or self.served or self.node)

    def merge(self, other: History) -> None:
        for key, usage in other.usage.items():
            add_up(self.usage.setdefault(key, Usage()), usage)
        for served_key, served in other.served.items():
            add_up(self.served.setdefault(served_key, ServedTotals()), served)
        for node_key, node in other.node.items():
            add_up(self.node.setdefault(node_key, NodeTotals()), node)


_TABLES: Mapping[str, tuple[type[Any], type[Any]]] = {
    "usage": (UsageKey, Usage),
    "served": (ServedKey, ServedTotals),
    "node": (NodeKey, NodeTotals),
}
_SQL_TYPES = {"int": "INTEGER", "float": "REAL", "str": "TEXT"}


class HistoryStore:
    """One file. Every call opens it anew, so that a deleted, full or locked file is a fault of that call only.

    Safe to use from several processes; not from several threads at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, rows: History) -> None:
        """Add rows to those there are, all or none.

        Raises:
            HistoryUnavailable: nothing was written; the rows are the caller's to keep.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as database, database:
                for table, found in (("usage", rows.usage), ("served", rows.served), ("node", rows.node)):
                    database.executemany(
                        _upsert(table), [astuple(key) + astuple(totals) for key, totals in found.items()]
                    )
        except (sqlite3.Error, OSError, OverflowError) as error:
            raise HistoryUnavailable(f"cannot write the history {self.path}: {error}") from error

    def forget(self, before_epoch_seconds: float) -> int:
        """Delete older minutes; how many rows went.

        Raises:
            HistoryUnavailable: the file cannot be written.
        """
        minute = int(before_epoch_seconds // SECONDS_PER_MINUTE)
        try:
            with closing(self._open()) as database, database:
                return sum(
                    database.execute(f"DELETE FROM {table} WHERE minute < ?", (minute,)).rowcount for table in _TABLES
                )
        except (sqlite3.Error, OSError) as error:
            raise HistoryUnavailable(f"cannot write the history {self.path}: {error}") from error

    def read(self, since_epoch_seconds: float, until_epoch_seconds: float | None = None) -> History:
        """Minutes that began at or after ``since`` and before ``until`` (now).

        Raises:
            HistoryUnavailable: there is no such file, or it is not a history of this version.
        """
        if not self.path.is_file():
            raise HistoryUnavailable(
                f"no history in {self.path}: it is written by `wattgate serve`; name another file with --store"
            )
        until = time.time() if until_epoch_seconds is None else until_epoch_seconds
        first = -(-since_epoch_seconds // SECONDS_PER_MINUTE)
        window = (int(first), int(-(-until // SECONDS_PER_MINUTE)))
        out = History()
        try:
            with closing(self._open(read_only=True)) as database:
                rows: Sequence[Any]
                for table, (key_type, totals_type) in _TABLES.items():
                    width = len(fields(key_type))
                    there = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
                    # a file that an older version wrote and no newer one has extended lacks the later columns
                    wanted = [
                        name if name in there else f"0 AS {name}" for name in _columns(key_type) + _columns(totals_type)
                    ]
                    names = ", ".join(wanted)
                    query = f"SELECT {names} FROM {table} WHERE minute >= ? AND minute < ?"
                    into: dict[Any, Any] = getattr(out, table)
                    for rows in database.execute(query, window):
                        into[key_type(*rows[:width])] = totals_type(*rows[width:])
        except sqlite3.Error as error:
            raise HistoryUnavailable(f"cannot read the history {self.path}: {error}") from error
        return out

    def _open(self, *, read_only: bool = False) -> sqlite3.Connection:
        target = f"{self.path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        database = sqlite3.connect(target, timeout=_BUSY_SECONDS, uri=True)
        try:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if not 0 <= version <= SCHEMA_VERSION or (version == 0 and _has_tables(database)):
                raise HistoryUnavailable(
                    f"{self.path} is not a history of this version of wattgate: move it away, or name another file"
                )
            if version == 0:
                if read_only:
                    raise HistoryUnavailable(f"{self.path} is not a history of wattgate")
                # readers never wait for the writer; a crash of the machine may cost the last seconds
                database.execute("PRAGMA journal_mode = WAL")
                for table in _TABLES:
                    database.execute(_create(table))
                database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                database.commit()
            elif version < SCHEMA_VERSION and not read_only:
                _extend(database)
            database.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            database.close()
            raise
        return database


def parse_since(text: str, now_epoch_seconds: float) -> float:
    """``90m``, ``24h``, ``7d``, ``4w`` back from now, or an ISO 8601 date or time (local where it has no zone).

    Raises:
        BadInput: neither, or in the future.
    """
    from datetime import datetime

    units = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
    number, unit = text[:-1], text[-1:]
    if unit in units and number.replace(".", "", 1).isdigit():
        return now_epoch_seconds - float(number) * units[unit]
    try:
        when = datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise BadInput(f"{text!r} is no period: give 90m, 24h, 7d or 4w, or a date such as 2026-01-31") from None
    if when > now_epoch_seconds:
        raise BadInput(f"{text} is in the future")
    return when


def _columns(kind: type[Any]) -> list[str]:
    return [column.name for column in fields(kind)]


def _create(table: str) -> str:
    key_type, totals_type = _TABLES[table]
    columns: Iterable[Any] = (*fields(key_type), *fields(totals_type))
    declared = ", ".join(f"{column.name} {_SQL_TYPES[str(column.type)]} NOT NULL" for column in columns)
    return f"CREATE TABLE {table} ({declared}, PRIMARY KEY ({', '.join(_columns(key_type))})) WITHOUT ROWID"


def _upsert(table: str) -> str:
    key_type, totals_type = _TABLES[table]
    keys, totals = _columns(key_type), _columns(totals_type)
    places = ", ".join("?" * (len(keys) + len(totals)))
    sums = ", ".join(f"{name} = {name} + excluded.{name}" for name in totals)
    return (
        f"INSERT INTO {table} ({', '.join(keys + totals)}) VALUES ({places}) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {sums}"
    )


def _extend(database: sqlite3.Connection) -> None:
    """Add the columns that later versions brought; rows from before them hold 0 there."""
    for table, (key_type, totals_type) in _TABLES.items():
        there = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        for column in (*fields(key_type), *fields(totals_type)):
            if column.name not in there:
                kind = _SQL_TYPES[str(column.type)]
                database.execute(f"ALTER TABLE {table} ADD COLUMN {column.name} {kind} NOT NULL DEFAULT 0")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    database.commit()


def _has_tables(database: sqlite3.Connection) -> bool:
    return bool(database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
