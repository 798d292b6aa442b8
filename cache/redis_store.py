"""The response store on Redis 8: strings for bodies, vector sets for similarity, every call within the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cache.breaker import CircuitBreaker
from cache.embedding import Vector
from cache.entry import CachedAnswer, EntryCodec, secret_for
from cache.identity import Address, Epochs, Scopes
from cache.observer import CacheObserver, Loss, Operation, SilentObserver
from cache.redis_errors import loss_of
from cache.redis_link import Command, RedisLink, ok
from cache.redis_relay import RedisRelay, held_by
from cache.store import (
    Budget,
    Claim,
    Found,
    IndexSpec,
    Lease,
    LeaseState,
    Peek,
    Put,
    StoreStats,
    StoreUnavailable,
    checked,
    cosine_from_redis,
)

_TOMBSTONE = b"-"
_SAMPLE = 8
"""Members drawn to find the one to evict."""
_FENCE_SECONDS = 3600
"""Of a lease's counter, 160 bytes a missed prompt: longer than a run goes on after another has taken its lease over."""

# Each script touches keys of one hash tag only.
_PUT = """
if redis.call('GETRANGE', KEYS[1], 0, 0) == '-' then return 1 end
if ARGV[3] ~= '' and tonumber(redis.call('GET', KEYS[2]) or '0') > tonumber(ARGV[3]) then return 2 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
"""
_CLAIM = """
local body = redis.call('GET', KEYS[3])
if body and body ~= '-' then return {0, body} end
local held = redis.call('GET', KEYS[1])
if held == 'declined' then return {0, 0} end
if held and (tonumber(string.match(held, ':(%d+)$')) or 0) <= tonumber(ARGV[4]) then return {-1, held} end
local token = redis.call('INCR', KEYS[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('SET', KEYS[1], token .. ':' .. ARGV[1] .. ':' .. ARGV[4], 'PX', ARGV[2])
return {token, 0}
"""
# Only another's lock refuses it: one that is gone and that nobody took is set again.
_RENEW = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[3], 'PX', ARGV[2])
return 1
"""
_RELEASE = """
if string.sub(redis.call('GET', KEYS[1]) or '', 1, #ARGV[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], 'declined', 'PX', ARGV[2])
return 1
"""
_PUTS = (Put.STORED, Put.TOMBSTONE, Put.FENCED)


class RedisStore:
    """``ResponseStore`` on one Redis 8 server (or a primary with replicas); see ``RedisLink`` for its faults."""

    def __init__(
        self,
        url: str,
        *,
        secret: bytes,
        prefix: str = "wattgate",
        lanes: int = 4,
        observer: CacheObserver | None = None,
        breaker: CircuitBreaker | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observer = observer or SilentObserver()
        self._link = RedisLink(url, observer=self._observer, lanes=lanes, breaker=breaker, monotonic=monotonic)
        self._codec = EntryCodec(secret_for("entries", secret))
        self._prefix = prefix.encode()
        self.relay = RedisRelay(
            self._link,
            secret=secret,
            inboxes=self._prefix + b":w",
            run=lambda address: self._key(address.partition, b"s", address.exact.encode()),
            lock=self._lock,
            observer=self._observer,
        )

    async def peek(
        self,
        address: Address,
        scopes: Scopes,
        budget: Budget,
        *,
        index: IndexSpec | None = None,
        count_sighting_seconds: float | None = None,
    ) -> Peek:
        commands: list[Command] = [self._read_epochs(scopes), ("GET", self._body(address))]
        if index is not None:
            commands.append(("VCARD", self._index(address.partition, index)))
        if count_sighting_seconds is not None:
            seen = self._key(address.partition, b"n")
            commands += [("INCR", seen), ("EXPIRE", seen, int(count_sighting_seconds) or 1)]
        replies = await self._link.execute(commands, budget)
        epochs, value = _epochs(ok(replies[0])), ok(replies[1])
        # The exact tier works on a server without vector sets, and a replica may be read-only.
        indexed = self._soft(Operation.SEARCH, replies[2]) if index is not None else 0
        sightings = self._soft(Operation.SEARCH, replies[-2]) if count_sighting_seconds is not None else 0
        return Peek(
            epochs=epochs,
            answer=self._decode(value, address),
            tombstone=value == _TOMBSTONE,
            indexed=indexed,
            sightings=sightings,
        )

    async def epochs(self, scopes: Scopes, budget: Budget) -> Epochs:
        return _epochs(await self._one(self._read_epochs(scopes), budget))

    async def advance(self, field: str, budget: Budget) -> int:
        return int(await self._one(("HINCRBY", self._epochs_key, field, 1), budget))

    async def put(self, answer: CachedAnswer, ttl_seconds: float, budget: Budget, *, token: int | None = None) -> Put:
        address = answer.address
        keys = (self._body(address), self._fence(address))
        value, life = self._codec.encode(answer), _milliseconds(ttl_seconds)
        return _PUTS[await self._one(("EVAL", _PUT, 2, *keys, value, life, "" if token is None else token), budget)]

    async def add(self, address: Address, index: IndexSpec, vector: Vector, ttl_seconds: float, budget: Budget) -> int:
        blob = checked(vector, index).tobytes()
        key, life = self._index(address.partition, index), _milliseconds(ttl_seconds)
        commands: list[Command] = [
            ("VADD", key, "FP32", blob, address.exact, "NOQUANT"),
            # A set lives as long as its newest entry: NX gives it a first life, GT never shortens it.
            ("PEXPIRE", key, life, "NX"),
            ("PEXPIRE", key, life, "GT"),
            ("VCARD", key),
        ]
        replies = await self._link.execute(commands, budget)
        ok(replies[0])
        excess = int(ok(replies[3])) - index.capacity
        return await self._evict(address, key, min(excess, _SAMPLE), budget) if excess > 0 else 0

    async def _evict(self, newcomer: Address, key: bytes, excess: int, budget: Budget) -> int:
        """Of a few members drawn at random those nearest their expiry go; bodies stay for the exact tier."""
        drawn = await self._one(("VRANDMEMBER", key, _SAMPLE + 1), budget)
        members = [name for name in drawn if name.decode() != newcomer.exact]
        if not members:
            return 0
        bodies = [self._body(Address(newcomer.partition, name.decode())) for name in members]
        replies = await self._link.execute([("PTTL", body) for body in bodies], budget)
        victims = sorted(zip(map(ok, replies), members, strict=True))[:excess]
        removed = await self._link.execute([("VREM", key, name) for _, name in victims], budget)
        return sum(int(ok(reply)) for reply in removed)

    async def nearest(
        self, partition: str, index: IndexSpec, vector: Vector, count: int, budget: Budget
    ) -> tuple[list[Found], int]:
        unit = checked(vector, index)
        key = self._index(partition, index)
        # A thread per search costs Redis more than the search: p50 0.4 against 1.0 ms at 1,000 elements, 0.9
        # against 1.2 ms at 10,000 (8.2.3, 384 dimensions, 2 cores, one client).
        search: Command = ("VSIM", key, "FP32", unit.tobytes(), "WITHSCORES", "COUNT", count, "NOTHREAD")
        scores = _scores(await self._one(search, budget))
        if not scores:
            return [], 0
        commands: list[Command] = []
        for name in scores:
            commands += [("GET", self._body(Address(partition, name))), ("VEMB", key, name, "RAW")]
        replies = await self._link.execute(commands, budget)
        found, orphans = [], []
        for position, (name, score) in enumerate(scores.items()):
            answer = self._decode(ok(replies[2 * position]), Address(partition, name))
            if answer is None:
                orphans.append(name)
            else:
                found.append(Found(answer, _rescored(unit, ok(replies[2 * position + 1]), score)))
        found.sort(key=lambda item: -item.similarity)
        return found, await self._sweep(key, orphans, budget)

    async def _sweep(self, key: bytes, orphans: list[str], budget: Budget) -> int:
        """Orphans at the top hide live neighbours from the next search."""
        if not orphans:
            return 0
        try:
            replies = await self._link.execute([("VREM", key, name) for name in orphans], budget)
            return sum(int(ok(reply)) for reply in replies)
        except StoreUnavailable:
            # A replica that may not write still finds.
            return 0

    async def fetch(self, address: Address, budget: Budget) -> CachedAnswer | None:
        return self._decode(await self._one(("GET", self._body(address)), budget), address)

    async def remove(self, address: Address, index: IndexSpec | None, budget: Budget) -> bool:
        await self._unindex(address, index, budget)
        if await self.fetch(address, budget) is None:
            return False
        return bool(await self._one(("DEL", self._body(address)), budget))

    async def entomb(self, address: Address, index: IndexSpec | None, ttl_seconds: float, budget: Budget) -> None:
        await self._unindex(address, index, budget)
        await self._one(("SET", self._body(address), _TOMBSTONE, "PX", _milliseconds(ttl_seconds)), budget)

    async def _unindex(self, address: Address, index: IndexSpec | None, budget: Budget) -> None:
        if index is None:
            return
        try:
            await self._one(("VREM", self._index(address.partition, index), address.exact), budget)
        except StoreUnavailable as unavailable:
            # Without vector sets there is nothing to take out.
            if unavailable.loss is not Loss.UNSUPPORTED:
                raise

    async def claim(
        self, address: Address, owner: str, lease_seconds: float, budget: Budget, *, rank: int = 0
    ) -> Claim:
        keys = (self._lock(address), self._fence(address), self._body(address))
        command: Command = ("EVAL", _CLAIM, 3, *keys, owner, _milliseconds(lease_seconds), _FENCE_SECONDS, rank)
        token, other = await self._one(command, budget)
        if token < 0:
            return Claim(LeaseState.HELD, holder=_holder(address, other))
        if token:
            return Claim(LeaseState.GRANTED, lease=Lease(address, token, owner))
        if isinstance(other, bytes):
            answer = self._decode(other, address)
            # Bytes that are not ours: nobody else will mend them, so run without a lease and write over them.
            return Claim(LeaseState.ANSWERED if answer else LeaseState.DECLINED, answer=answer)
        return Claim(LeaseState.DECLINED)

    async def renew(self, lease: Lease, lease_seconds: float, budget: Budget, *, rank: int = 0) -> bool:
        life = _milliseconds(lease_seconds)
        return bool(await self._one(("EVAL", _RENEW, 1, self._lock(lease.address), held_by(lease), life, rank), budget))

    async def release(self, lease: Lease, budget: Budget, *, declined_seconds: float | None = None) -> None:
        declined = "" if declined_seconds is None else _milliseconds(declined_seconds)
        await self._one(("EVAL", _RELEASE, 1, self._lock(lease.address), held_by(lease), declined), budget)

    async def _one(self, command: Command, budget: Budget) -> Any:
        return ok((await self._link.execute([command], budget))[0])

    def _read_epochs(self, scopes: Scopes) -> Command:
        return ("HMGET", self._epochs_key, *scopes.fields, "local")

    async def stats(self, budget: Budget) -> StoreStats:
        replies = await self._link.execute([("INFO", "server"), ("INFO", "memory"), ("DBSIZE",)], budget)
        server, memory, keys = (ok(reply) for reply in replies)
        return StoreStats(
            server=f"redis {server.get('redis_version', '?')}",
            keys=int(keys),
            bytes_used=int(memory["used_memory"]),
            bytes_limit=int(memory.get("maxmemory", 0)) or None,
        )

    async def close(self) -> None:
        await self._link.close()

    # Keys: one hash tag, so one slot and one node, for all that belongs to a partition.

    @property
    def _epochs_key(self) -> bytes:
        return self._prefix + b":epochs"

    def _key(self, partition: str, *parts: bytes) -> bytes:
        return b":".join((self._prefix, b"{" + partition.encode() + b"}", *parts))

    def _body(self, address: Address) -> bytes:
        return self._key(address.partition, b"b", address.exact.encode())

    def _lock(self, address: Address) -> bytes:
        return self._key(address.partition, b"l", address.exact.encode())

    def _fence(self, address: Address) -> bytes:
        return self._key(address.partition, b"f", address.exact.encode())

    def _index(self, partition: str, index: IndexSpec) -> bytes:
        return self._key(partition, b"v", index.name.encode())

    def _decode(self, value: bytes | None, address: Address) -> CachedAnswer | None:
        if value is None or value == _TOMBSTONE:
            return None
        answer = self._codec.decode(value, address)
        if answer is None:
            self._observer.lost(Operation.LOOKUP, Loss.FORGED)
        return answer

    def _soft(self, operation: Operation, reply: Any) -> int:
        if isinstance(reply, Exception):
            self._observer.lost(operation, loss_of(reply))
            return 0
        return int(reply)


def _epochs(values: list[bytes | None]) -> Epochs:
    return Epochs(*(int(value or 0) for value in values))


def _scores(reply: Any) -> dict[str, float]:
    """Cosine by element: a map in RESP3, pairs in RESP2, either may come through a proxy."""
    if not reply:
        return {}
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(): cosine_from_redis(float(score)) for name, score in pairs}


def _rescored(unit: Vector, embedding: Any, score: float) -> float:
    """Cosine with the stored FP32 vector; an index quantised by another hand keeps Redis's score."""
    if not embedding or embedding[0] != b"f32":
        return score
    stored = np.frombuffer(embedding[1], dtype=np.float32)
    return float(np.clip(stored @ unit, -1.0, 1.0)) if stored.shape == unit.shape else score


def _holder(address: Address, lock: bytes) -> Lease | None:
    """None where another hand wrote it: it is waited for all the same."""
    parts = lock.decode(errors="replace").split(":")
    return Lease(address, int(parts[0]), parts[1]) if len(parts) == 3 and parts[0].isdecimal() else None


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
