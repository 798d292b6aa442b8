"""Limits kept in Redis: each decision is one script there, so replicas that race cannot both have the last of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from cache.redis_link import Command, RedisLink, ok
from cache.store import Budget
from serving.limits.book import NANO, USE_FIELDS, Ask, Settlement, Use, Verdict, as_use, periods

_COMMON = """
local function refill(level, at, limit, now)
  if not level then return limit end
  return math.min(limit, level + math.max(0, now - at) * limit / 60)
end
local function load(state, name, limit, now)
  local found = redis.call('HMGET', state, name, name .. '_at')
  return refill(tonumber(found[1]), tonumber(found[2]), limit, now), math.max(now, tonumber(found[2]) or now)
end
local function save(state, name, level, at)
  redis.call('HSET', state, name, string.format('%.17g', level), name .. '_at', string.format('%.17g', at))
end
-- what a lease held; one that cannot be read holds nothing, and is let go like any other
local function release(state, leases, held, lease)
  local tokens, nano = string.match(redis.call('HGET', held, lease) or '', '^(%d+):(%d+)$')
  if nano and nano ~= '0' then redis.call('HINCRBY', state, 'held', '-' .. nano) end
  redis.call('HDEL', held, lease)
  redis.call('ZREM', leases, lease)
  return tonumber(tokens or 0)
end
"""

_RESERVE = (
    _COMMON
    + """
local state, leases, held = KEYS[1], KEYS[2], KEYS[3]
local now, lease, lifetime = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local want, grams = tonumber(ARGV[4]), tonumber(ARGV[5])
local rlimit, tlimit, climit = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local dlimit, mlimit, hard = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11] == 'hard'
local rlevel, rat, tlevel, tat
if rlimit >= 0 then rlevel, rat = load(state, 'requests', rlimit, now) end
if tlimit >= 0 then tlevel, tat = load(state, 'tokens', tlimit, now) end
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', ARGV[1])) do
  local tokens = release(state, leases, held, dead)
  if tlevel then tlevel = math.min(tlimit, tlevel + tokens) end
end
local reserved = tonumber(redis.call('HGET', state, 'held')) or 0
local function account(key)
  local found = redis.call('HMGET', key, 'operational_nanograms', 'embodied_nanograms')
  return (tonumber(found[1]) or 0) + (tonumber(found[2]) or 0)
end
local day, month, count = account(KEYS[4]), account(KEYS[5]), redis.call('ZCARD', leases)
local need = 0
if tlevel then need = math.min(want, tlimit) end
local refused, retry = '', 0
if rlevel and rlevel < 1 then refused, retry = 'requests', (1 - rlevel) * 60 / rlimit
elseif tlevel and tlevel < need then refused, retry = 'tokens', (need - tlevel) * 60 / tlimit
elseif climit >= 0 and count >= climit then refused = 'concurrent'
elseif hard and dlimit >= 0 and day + reserved + grams > dlimit then refused = 'carbon_day'
elseif hard and mlimit >= 0 and month + reserved + grams > mlimit then refused = 'carbon_month' end
if refused == '' then
  if rlevel then rlevel = rlevel - 1 end
  if tlevel then tlevel = tlevel - need end
  redis.call('ZADD', leases, string.format('%.17g', now + lifetime), lease)
  redis.call('HSET', held, lease, string.format('%d:%s', need, ARGV[5]))
  redis.call('HINCRBY', state, 'held', ARGV[5])
  count, reserved = count + 1, reserved + grams
end
if rlevel then save(state, 'requests', rlevel, rat) end
if tlevel then save(state, 'tokens', tlevel, tat) end
local keep = math.ceil(math.max(3600, 2 * lifetime))
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], keep) end
return {refused, string.format('%.17g', retry), rlevel and string.format('%.17g', rlevel) or '',
  tlevel and string.format('%.17g', tlevel) or '', count, string.format('%.0f', day), string.format('%.0f', month),
  string.format('%.0f', reserved)}
"""
)

_SETTLE = (
    _COMMON
    + """
local state, leases, held = KEYS[1], KEYS[2], KEYS[3]
local now, lease, tlimit, used = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if not redis.call('SET', KEYS[6], '1', 'NX', 'EX', 900) then return 0 end
local tokens = release(state, leases, held, lease)
if tlimit >= 0 then
  local level, at = load(state, 'tokens', tlimit, now)
  save(state, 'tokens', math.min(tlimit, level + tokens - used), at)
  if redis.call('TTL', state) < 0 then redis.call('EXPIRE', state, 3600) end
end
for i = 5, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[4], ARGV[i], ARGV[i + 1])
  redis.call('HINCRBY', KEYS[5], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[4], 172800)
redis.call('EXPIRE', KEYS[5], 5356800)
return 1
"""
)


class RedisBook:
    """``LimitBook``. Run Redis without eviction for these keys, or with room: an evicted account starts at zero; and
    with an append-only file, without which it starts at zero with Redis.
    """

    def __init__(self, link: RedisLink, *, prefix: str = "wg", budget_seconds: float = 1.0) -> None:
        """``budget_seconds`` for one call: longer than the cache's, because a busy event loop must not open limits."""
        self._link = link
        self._prefix = prefix
        self._budget_seconds = budget_seconds

    async def reserve(self, ask: Ask, now: float) -> Verdict:
        limits = ask.limits
        (reply,) = await self._run(
            _RESERVE,
            [
                (
                    self._keys(ask.tenant, now),
                    (
                        f"{now:.6f}",
                        ask.lease,
                        ask.lifetime_seconds,
                        ask.tokens,
                        ask.nanograms,
                        *(
                            -1 if limit is None else limit
                            for limit in (
                                limits.requests_per_minute,
                                limits.tokens_per_minute,
                                limits.concurrent_requests,
                                _nanograms(limits.grams_per_day),
                                _nanograms(limits.grams_per_month),
                            )
                        ),
                        limits.carbon,
                    ),
                )
            ],
        )
        refused, retry, requests, tokens, concurrent, day, month, held = reply
        return Verdict(
            refused.decode() or None,
            float(retry),
            float(requests) if requests else None,
            float(tokens) if tokens else None,
            int(concurrent),
            int(day),
            int(month),
            int(held),
        )

    async def settle(self, settlements: Sequence[Settlement], now: float) -> None:
        calls: list[tuple[tuple[str, ...], tuple[str | int | float, ...]]] = []
        for settlement in settlements:
            limit, use = settlement.limits.tokens_per_minute, settlement.use
            pairs = [part for name in USE_FIELDS if (value := getattr(use, name)) for part in (name, value)]
            at = now if settlement.wall_seconds is None else settlement.wall_seconds
            keys = (*self._keys(settlement.tenant, at), self._key(settlement.tenant, f"done:{settlement.lease}"))
            calls.append((keys, (f"{now:.6f}", settlement.lease, -1 if limit is None else limit, use.tokens, *pairs)))
        await self._run(_SETTLE, calls)

    async def usage(self, tenant: str, now: float) -> tuple[Use, Use]:
        keys = self._keys(tenant, now)[3:]
        found = await self._link.execute([("HGETALL", key) for key in keys], Budget(self._budget_seconds))
        day, month = (as_use({name.decode(): int(value) for name, value in ok(raw).items()}) for raw in found)
        return day, month

    async def close(self) -> None:
        await self._link.close()

    def _key(self, tenant: str, name: str) -> str:
        # the braces keep a tenant's keys on one node of a cluster
        return f"{self._prefix}:{{{tenant}}}:{name}"

    def _keys(self, tenant: str, now: float) -> tuple[str, ...]:
        day, month = periods(now)
        return tuple(self._key(tenant, name) for name in ("limits", "leases", "held", f"use:{day}", f"use:{month}"))

    async def _run(
        self, script: str, calls: Sequence[tuple[tuple[str, ...], tuple[str | int | float, ...]]]
    ) -> list[Any]:
        budget = Budget(self._budget_seconds)
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        replies = await self._link.execute([_call("EVALSHA", digest, *call) for call in calls], budget)
        # a server that has been restarted knows no scripts; each of these was refused whole
        missing = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            again = await self._link.execute([_call("EVAL", script, *calls[at]) for at in missing], budget)
            for at, reply in zip(missing, again, strict=True):
                replies[at] = reply
        return [ok(reply) for reply in replies]


def end_leases(url: str, *, prefix: str = "wg") -> None:
    """What a gateway had under way when it ended, in a Redis that only one gateway uses: nobody will settle it, and it
    would hold its tenants' places until it expires. Accounts and buckets stay. Raises RedisError.
    """
    with Redis.from_url(url) as redis:
        for leases in redis.scan_iter(match=f"{prefix}:{{*}}:leases"):
            tenant = leases.removesuffix(b"leases")
            redis.delete(leases, tenant + b"held")
            redis.hdel(tenant + b"limits", "held")


def _call(how: str, script: str, keys: tuple[str, ...], arguments: tuple[str | int | float, ...]) -> Command:
    return (how, script, len(keys), *keys, *arguments)


def _nanograms(grams: float | None) -> int | None:
    return None if grams is None else round(grams * NANO)
