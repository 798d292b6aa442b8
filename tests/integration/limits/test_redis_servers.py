from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from redis import Redis

from cache import embedded
from cache.embedded import EmbeddedRedisError
from cache.observer import SilentObserver
from cache.redis_link import RedisLink
from serving.config import GatewayConfig
from serving.limits.book import NANO, Use
from serving.limits.redis_book import RedisBook
from serving.placement.redis_servers import AccountsUnavailable, RedisServers, RedisUrls
from tests.unit.limits import laws

pytestmark = pytest.mark.redis

LIMITED = {"tenants": {"acme": {"limits": {"grams_per_month": 10, "concurrent_requests": 1}}}}


class Run:
    """A gateway's servers, and what they had to say."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.said: list[str] = []
        settings = {"access": LIMITED, "limits": {"folder": folder / "accounts"}} | settings
        (folder / "run").mkdir(exist_ok=True)
        self.servers = RedisServers(GatewayConfig.model_validate(settings), folder / "run", self.said.append)
        self.urls = RedisUrls()


@pytest.fixture
def folder() -> Iterator[Path]:
    # pytest's own folder bears the test's name and a count: too long for the path of a socket
    with TemporaryDirectory(prefix="servers-") as folder:
        yield Path(folder)


@pytest.fixture
def run(folder: Path) -> Iterator[Callable[..., Run]]:
    with ExitStack() as runs:

        def start(**settings: Any) -> Run:
            run = Run(folder, **settings)
            runs.enter_context(closing(run.servers))
            run.urls = run.servers.start()
            return run

        yield start


async def acme_at(url: str | None) -> laws.Tester:
    assert url is not None
    # the budget is generous: this machine may be busy
    book = RedisBook(RedisLink(url, observer=SilentObserver()), budget_seconds=10.0)
    return laws.Tester(book, "acme", grams_per_month=10, concurrent_requests=1)


async def test_a_spent_budget_stays_spent_over_a_restart_of_the_gateway_and_a_kill_of_redis(
    run: Callable[..., Run],
) -> None:
    first = run()
    acme = await acme_at(first.urls.accounts)
    lease, _ = await acme.ask(grams=1)
    await acme.settle(lease, Use(requests=1, operational_nanograms=11 * NANO))
    await acme.book.close()
    first.servers.close()

    second = run()
    acme = await acme_at(second.urls.accounts)
    assert (await acme.ask(grams=1))[1].refused == "carbon_month"
    kill(second.urls.accounts)
    second.servers.watch()
    assert second.said[-1] == "an embedded Redis has died: starting it again with the accounts, as they were"
    await acme.book.close()
    acme = await acme_at(second.urls.accounts)
    assert (await acme.ask(grams=1))[1].refused == "carbon_month"
    assert (await acme.book.usage("acme", acme.now))[1].requests == 1
    await acme.book.close()


def kill(url: str | None) -> None:
    assert url is not None
    with Redis.from_url(url) as redis:
        process = psutil.Process(int(redis.info("server")["process_id"]))
    process.kill()
    psutil.wait_procs([process])


def test_one_that_stays_down_is_told_once_and_tried_again(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = run()
    kill(gateway.urls.cache)

    def missing() -> Path:
        raise EmbeddedRedisError("no redis-server found")

    with monkeypatch.context() as without:
        without.setattr(embedded, "find_server", missing)
        for _ in range(3):
            gateway.servers.watch()
    assert gateway.said[-2:] == [
        "an embedded Redis has died: starting it again with the cache, empty",
        "it stays down (no redis-server found); each look tries again",
    ]
    gateway.servers.watch()
    assert gateway.urls.cache is not None
    with Redis.from_url(gateway.urls.cache) as cache:
        assert cache.ping()


async def test_what_was_under_way_at_the_end_holds_no_places_after_it(run: Callable[..., Run]) -> None:
    first = run()
    acme = await acme_at(first.urls.accounts)
    await acme.ask(grams=9)
    assert (await acme.ask())[1].refused == "concurrent"
    await acme.book.close()
    first.servers.close()

    acme = await acme_at(run().urls.accounts)
    _, verdict = await acme.ask(grams=9)
    assert (verdict.refused, verdict.concurrent, verdict.held_nanograms) == (None, 1, 9 * NANO)
    await acme.book.close()


async def test_a_full_cache_forgets_no_account(run: Callable[..., Run]) -> None:
    full = run(cache={"redis_memory_mib": 16})
    acme = await acme_at(full.urls.accounts)
    lease, _ = await acme.ask()
    await acme.settle(lease, Use(requests=1))
    assert full.urls.cache is not None
    with Redis.from_url(full.urls.cache) as cache:
        for number in range(40):
            cache.set(f"answer {number}", bytes(1024 * 1024), ex=3600)
        assert cache.info("stats")["evicted_keys"] > 20
    assert (await acme.book.usage("acme", acme.now))[1].requests == 1
    await acme.book.close()


def test_accounts_that_cannot_be_kept_stop_a_strict_gateway_and_no_other(run: Callable[..., Run], folder: Path) -> None:
    taken = folder / "taken"
    taken.touch()
    lax = run(limits={"folder": taken})
    assert lax.urls.accounts is None
    assert lax.urls.cache is not None
    assert f"cannot be kept in {taken}" in lax.said[-1]
    with pytest.raises(AccountsUnavailable, match="cannot be kept in"):
        run(limits={"folder": taken, "strict": True})


def test_accounts_below_the_run_end_with_it_and_say_so(run: Callable[..., Run], folder: Path) -> None:
    drawn = run(limits={"folder": folder / "run" / "accounts"})
    assert "end with this run" in drawn.said[-1]
    assert not any("end with this run" in line for line in run().said)


@pytest.mark.parametrize("access", [LIMITED, {"api_keys": {"acme": "key"}}])
def test_without_a_cache_there_is_one_for_the_accounts_only(run: Callable[..., Run], access: dict[str, Any]) -> None:
    urls = run(cache={"tier": "off"}, access=access).urls
    assert urls.cache is None
    assert urls.accounts is not None
