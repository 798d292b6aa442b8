"""The Redis servers of a gateway: those that are configured, or embedded ones of its own.

There are two embedded ones, because one that is full must forget answers, and must not forget accounts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import platformdirs
from redis.exceptions import RedisError

from cache.embedded import EmbeddedRedis, EmbeddedRedisError
from serving.config import GatewayConfig
from serving.limits.redis_book import end_leases

_MEBIBYTE = 1024 * 1024
_LOAD_TIMEOUT_SECONDS = 60.0
"""Redis rewrites its append-only file at 64 MB (auto-aof-rewrite-min-size): seconds to read, on a busy machine too."""


@dataclass(frozen=True, slots=True)
class RedisUrls:
    """What replicas are told; None: without it."""

    cache: str | None = None
    accounts: str | None = None
    """Tenants' limits and what they have used."""

    @classmethod
    def shared(cls, config: GatewayConfig) -> Self:
        """Of servers that are there already; none where they would be embedded."""
        configured = None if config.cache.redis == "embedded" else config.cache.redis
        return cls(cache=configured, accounts=config.limits.redis or configured)


def accounts_folder(port: int) -> Path:
    """Where the accounts are unless configured otherwise: a gateway that comes back on its port finds its own."""
    return Path(platformdirs.user_data_dir("wattgate")) / f"accounts-{port}"


def _shares_accounts(config: GatewayConfig) -> bool:
    """Whether they are more than the figures of one replica about nobody in particular."""
    access = config.access
    return access.limited or not access.keyless or config.server.replicas > 1 or config.limits.redis is not None


class AccountsUnavailable(Exception):
    """They cannot be kept, and the configuration is strict; one readable line with the mend."""


class RedisServers:
    """Starts what is to be embedded; from the main thread, like ``EmbeddedRedis``."""

    def __init__(self, config: GatewayConfig, run_folder: Path, tell: Callable[[str], None]) -> None:
        self._config = config
        self._run_folder = run_folder
        self._tell = tell
        self._cache: EmbeddedRedis | None = None
        self._accounts: EmbeddedRedis | None = None
        self._stays_down: set[EmbeddedRedis] = set()
        """Told already."""

    def start(self) -> RedisUrls:
        """Raises AccountsUnavailable."""
        config = self._config
        if config.cache.tier == "off" and not _shares_accounts(config):
            return RedisUrls()
        there = RedisUrls.shared(config)
        own_cache = there.cache is None and config.cache.tier != "off"
        if own_cache or there.accounts is None:
            self._tell("starting the embedded Redis 8")
        return RedisUrls(
            cache=self._start_cache() if own_cache else there.cache,
            accounts=there.accounts or self._start_accounts(),
        )

    def _start_cache(self) -> str | None:
        server = EmbeddedRedis(
            folder_in=self._run_folder, maxmemory_bytes=self._config.cache.redis_memory_mib * _MEBIBYTE
        )
        try:
            self._cache = server.start()
        except EmbeddedRedisError as error:
            # the cache is optional: the in-process tier goes on alone
            self._tell(f"without Redis: {error}")
            return None
        return server.url

    def _start_accounts(self) -> str | None:
        limits, port = self._config.limits, self._config.server.port
        folder = limits.folder or accounts_folder(port)
        if self._config.access.limited and folder.is_relative_to(self._run_folder):
            self._tell(f"the tenants' accounts end with this run, because port {port} was drawn: choose a port")
        # no bound on its memory: a full one could book nothing, and it holds two small hashes a tenant
        server = EmbeddedRedis(
            folder_in=self._run_folder,
            data_dir=folder,
            eviction="noeviction",
            start_timeout_seconds=_LOAD_TIMEOUT_SECONDS,
        )
        try:
            self._accounts = server.start()
            end_leases(server.url)
        except (EmbeddedRedisError, RedisError) as error:
            why = f"the tenants' accounts cannot be kept in {folder} ({error}); limits.folder is another place for them"
            if limits.strict and self._config.access.limited:
                raise AccountsUnavailable(why) from None
            self._tell(f"{why}; each replica counts for itself, from zero")
            server.close()
            self._accounts = None
            return None
        return server.url

    def watch(self) -> None:
        """Bring back what has died, at the address it had."""
        for server, holds in ((self._cache, "the cache, empty"), (self._accounts, "the accounts, as they were")):
            if server is None or server.running:
                continue
            if server not in self._stays_down:
                self._tell(f"an embedded Redis has died: starting it again with {holds}")
            try:
                server.start()
                self._stays_down.discard(server)
            except EmbeddedRedisError as error:
                if server not in self._stays_down:
                    self._tell(f"it stays down ({error}); each look tries again")
                self._stays_down.add(server)

    def close(self) -> None:
        """Idempotent."""
        for server in (self._cache, self._accounts):
            if server is not None:
                server.close()
        self._cache = self._accounts = None
