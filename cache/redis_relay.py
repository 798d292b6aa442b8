"""Frames between replicas through Redis: a stream for each run, and a set of wishes for each replica."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from cache.entry import secret_for
from cache.identity import Address
from cache.observer import CacheObserver, Loss, Operation
from cache.redis_link import Command, RedisLink, ok
from cache.relay_store import READ_BATCHES, Batch, Followed
from cache.store import Budget, Lease

_TAG_BYTES = 16

_TAKE = """
local owners = redis.call('SMEMBERS', KEYS[1])
if #owners > 0 then redis.call('DEL', KEYS[1]) end
return owners
"""
# The numbers are the stream's ids: sent twice, a batch is there once. Rank 0 before anyone can have a frame: who is
# more urgent must not take the lease, and with it their stream, until the next renewal tells that the run has begun.
# A lock that is gone and that nobody took is set again: the store may have come back empty.
_PUSH = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
if held then
  redis.call('SET', KEYS[1], ARGV[1] .. '0', 'KEEPTTL')
else
  redis.call('SET', KEYS[1], ARGV[1] .. '0', 'PX', ARGV[4])
end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
newest = newest and tonumber(string.match(newest[1], '^%d+')) or 0
for i = 5, #ARGV do
  local number = tonumber(ARGV[2]) + i - 5
  if number > newest then redis.call('XADD', KEYS[2], number .. '-0', 'b', ARGV[i]) end
end
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
"""


def held_by(lease: Lease) -> str:
    """What its lock begins with; the holder's rank follows."""
    return f"{lease.token}:{lease.owner}:"


@dataclass(frozen=True, slots=True)
class BatchCodec:
    """tag (16 bytes) | lengths and receipt, JSON | newline | frames. Only for the run and number it was written for."""

    secret: bytes = field(repr=False)

    def encode(self, lease: Lease, batch: Batch) -> bytes:
        head = {"lengths": [len(frame) for frame in batch.frames], "last": batch.last, "receipt": batch.receipt}
        content = orjson.dumps(head) + b"\n" + b"".join(batch.frames)
        return self._tag(lease, batch.number, content) + content

    def decode(self, lease: Lease, number: int, value: bytes) -> Batch | None:
        """None where it was not written with this secret for this lease and number."""
        tag, content = value[:_TAG_BYTES], value[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(lease, number, content)):
            return None
        head_bytes, _, joined = content.partition(b"\n")
        head = orjson.loads(head_bytes)
        frames, start = [], 0
        for length in head["lengths"]:
            frames.append(joined[start : start + length])
            start += length
        return Batch(number, tuple(frames), last=head["last"], receipt=head["receipt"])

    def _tag(self, lease: Lease, number: int, content: bytes) -> bytes:
        at = lease.address
        context = f"batch\0{at.partition}\0{at.exact}\0{lease.token}\0{lease.owner}\0{number}\0".encode()
        return hmac.digest(self.secret, context + content, "sha256")[:_TAG_BYTES]


class RedisRelay:
    """``RelayStore`` over a store's link. ``run`` and ``lock`` name an address's keys; ``inboxes``: a prefix."""

    def __init__(
        self,
        link: RedisLink,
        *,
        secret: bytes,
        inboxes: bytes,
        run: Callable[[Address], bytes],
        lock: Callable[[Address], bytes],
        observer: CacheObserver,
    ) -> None:
        self._link = link
        self._codec = BatchCodec(secret_for("frames", secret))
        self._inboxes = inboxes
        self._run_key = run
        self._lock = lock
        self._observer = observer

    async def wish(self, holder: Lease, life_seconds: float, budget: Budget) -> None:
        inbox = self._inbox(holder.replica)
        replies = await self._link.execute(
            [("SADD", inbox, holder.owner), ("PEXPIRE", inbox, int(life_seconds * 1000))], budget
        )
        for reply in replies:
            ok(reply)

    async def wishes(self, replica: str, budget: Budget) -> set[str]:
        owners = ok((await self._link.execute([("EVAL", _TAKE, 1, self._inbox(replica))], budget))[0])
        return {owner.decode() for owner in owners}

    async def push(
        self, lease: Lease, batches: Sequence[Batch], keep_from: int, life_seconds: float, budget: Budget
    ) -> bool:
        values = [self._codec.encode(lease, batch) for batch in batches]
        keys = (self._lock(lease.address), self._run(lease))
        first = batches[0].number if batches else 1
        life = int(life_seconds * 1000)
        command: Command = ("EVAL", _PUSH, 2, *keys, held_by(lease), first, keep_from, life, *values)
        return bool(ok((await self._link.execute([command], budget))[0]))

    async def follow(self, holder: Lease, after: int, budget: Budget) -> Followed:
        # The lock first: what its holder wrote before it lost it is then in what is read.
        replies: list[Any] = await self._link.execute(
            [
                ("GET", self._lock(holder.address)),
                ("XRANGE", self._run(holder), f"{after + 1}-0", "+", "COUNT", READ_BATCHES),
                ("EXISTS", self._run(holder)),
            ],
            budget,
        )
        alive = (ok(replies[0]) or b"").startswith(held_by(holder).encode())
        batches = []
        for name, fields in ok(replies[1]) or ():
            number = int(name.partition(b"-")[0])
            batch = self._codec.decode(holder, number, fields.get(b"b", b""))
            if batch is None:
                self._observer.lost(Operation.RELAY, Loss.FORGED)
                # Nothing after it fits on what came before it.
                alive = False
                break
            batches.append(batch)
        return Followed(tuple(batches), alive, kept=bool(ok(replies[2])))

    def _inbox(self, replica: str) -> bytes:
        return self._inboxes + b":{" + replica.encode() + b"}"

    def _run(self, lease: Lease) -> bytes:
        return self._run_key(lease.address) + b":" + str(lease.token).encode()
