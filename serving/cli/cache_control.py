"""``wattgate cache stats | inspect | invalidate | export-labels``: of a running gateway, or of its Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from cache.evidence import VerifiedLabel

Where = Annotated[
    str, typer.Option("--url", help="Gateway (http://...), or its Redis (redis://..., unix://...).", show_default=True)
]
Key = Annotated[
    str | None, typer.Option("--key", envvar="WATTGATE_ADMIN_KEY", help="Admin key, or a tenant's for its own.")
]
Secret = Annotated[
    str | None,
    typer.Option(
        "--secret", envvar="WATTGATE_CACHE_SECRET", help="With a Redis: cache.tenant_secret, for entries and tenants."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print figures as JSON.")]
_GATEWAY = "http://127.0.0.1:8000"
_SECONDS = 10.0
_NO_SECRET = "0" * 32
"""Figures and invalidation by model need none."""


def stats(url: Where = _GATEWAY, key: Key = None, secret: Secret = None, as_json: AsJson = False) -> None:
    """Figures of the cache: of one replica's memory, and of the shared store."""
    if _is_redis(url):
        figures = _on_redis(url, secret, lambda cache: cache.stats())
        if "shared_lost" in figures:
            _refuse(f"{url}: Redis cannot be asked ({figures['shared_lost']})")
        _print(figures, as_json)
    else:
        _print(_ask("GET", url, "/v1/cache", key), as_json)


def inspect(
    cache_id: Annotated[str, typer.Argument(help="The value of an x-cache-id header.")],
    url: Where = _GATEWAY,
    key: Key = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Show one entry: its answer, its age, the receipt of the run that made it."""
    if not _is_redis(url):
        _print(_ask("GET", url, f"/v1/cache/{cache_id}", key), as_json)
        return
    if secret is None:
        _refuse("entries in Redis are sealed: give cache.tenant_secret with --secret, or ask the gateway instead")
    from serving.api.cache_pages import described

    answer = _on_redis(url, secret, lambda cache: cache.upkeep.inspect(cache_id))
    if answer is None:
        _refuse(f"{cache_id}: no such entry, or it was written with another secret")
    _print(described(answer), as_json)


def invalidate(
    cache_id: Annotated[str | None, typer.Option("--id", help="One entry.")] = None,
    tenant: Annotated[str | None, typer.Option(help="All of a tenant.")] = None,
    model: Annotated[str | None, typer.Option(help="All of a model.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    url: Where = _GATEWAY,
    key: Key = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Remove one entry, or all of a tenant, of a model, or everything."""
    if sum((cache_id is not None, tenant is not None, model is not None, everything)) != 1:
        _refuse("name exactly one of --id, --tenant, --model and --all")
    if _is_redis(url):
        if secret is None and (cache_id is not None or tenant is not None):
            _refuse("entries and tenants are sealed in Redis: give cache.tenant_secret with --secret")
        result = _on_redis(
            url,
            secret,
            lambda cache: cache.upkeep.invalidate(cache_id=cache_id, tenant=tenant, model=model, everything=everything),
        )
        if not result.done:
            _refuse(f"not done: {result.why}")
        _print({"done": True}, as_json)
        return
    if cache_id is not None:
        _print(_ask("DELETE", url, f"/v1/cache/{cache_id}", key), as_json)
        return
    query = {"tenant": tenant, "model": model, "all": "true" if everything else None}
    _print(_ask("DELETE", url, "/v1/cache", key, {name: value for name, value in query.items() if value}), as_json)


def export_labels(
    labels: Annotated[Path | None, typer.Argument(help="The gateway's cache.shadow_labels file.")] = None,
    redis: Annotated[
        str | None, typer.Option("--redis", help="The gateway's Redis (redis://..., unix://...), in place of a file.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Judge and embedder that gave the scores, where there are labels of several.")
    ] = None,
) -> None:
    """Print the labels that shadow verification gathered, as ``--calibration`` and cache.calibration take them."""
    from cache.calibration import Calibration, Label
    from serving.label_file import read_versions

    if (labels is None) == (redis is None):
        _refuse("name the labels' file, or their Redis with --redis, and not both")
    if labels is not None:
        place = str(labels)
        try:
            found = read_versions(labels)
        except OSError as error:
            _refuse(f"{labels}: cannot be read ({error.strerror})")
    else:
        assert redis is not None
        place = redis
        found = _labels_of_redis(redis)
    by_version = {
        name: judged
        for name, every in found.items()
        if (judged := tuple(Label(label.score, label.agreed) for label in every if label.judged))
    }
    if not by_version:
        _refuse(f"{place}: no labels; set cache.shadow_share and serve for a while")
    if version is None and len(by_version) > 1:
        held = ", ".join(f"{name} ({len(judged)} labels)" for name, judged in sorted(by_version.items()))
        _refuse(f"{place}: scores of several judges or embedders; choose with --version: {held}")
    chosen = version if version is not None else next(iter(by_version))
    if chosen not in by_version:
        _refuse(f"{place}: no labels of {chosen}; held: {', '.join(sorted(by_version))}")
    typer.echo(json.dumps(Calibration(by_version[chosen], f"live labels, {chosen}", True).as_dict()))


def _labels_of_redis(url: str) -> dict[str, list[VerifiedLabel]]:
    from cache.shared_labels import SharedLabels, versions
    from cache.store import StoreUnavailable

    if not _is_redis(url):
        _refuse(f"--redis {url}: expected redis://..., rediss://... or unix://...")

    async def read() -> dict[str, list[VerifiedLabel]]:
        out = {}
        for version in await versions(url):
            shared = SharedLabels(url, version=version)
            try:
                out[version] = await shared.exchange()
            finally:
                await shared.close()
        return out

    try:
        return asyncio.run(read())
    except StoreUnavailable as unavailable:
        _refuse(f"{url}: Redis cannot be asked ({unavailable.loss.value})")
    except ValueError as error:
        _refuse(f"--redis: {error}")


def _is_redis(url: str) -> bool:
    return url.startswith(("redis://", "rediss://", "unix://"))


def _ask(method: str, url: str, path: str, key: str | None, query: dict[str, str] | None = None) -> Any:
    import httpx

    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        reply = httpx.request(method, url.rstrip("/") + path, params=query, headers=headers, timeout=_SECONDS)
        body = reply.json()
    except httpx.HTTPError as error:
        _refuse(f"{url}: {type(error).__name__}: {error}; is the gateway running there?")
    except (ValueError, httpx.InvalidURL) as error:
        _refuse(f"{url}: no wattgate gateway answers there ({error})")
    if not reply.is_success:
        told = body.get("error") if isinstance(body, dict) else None
        _refuse(str((told or {}).get("message") or f"{url}: status {reply.status_code}"))
    return body


def _on_redis(url: str, secret: str | None, do: Callable[[Any], Awaitable[Any]]) -> Any:
    from cache.redis_store import RedisStore
    from cache.settings import CacheSettings
    from cache.store import StoreUnavailable
    from cache.tiers import ResponseCache

    async def run() -> Any:
        key = (secret or _NO_SECRET).encode()
        settings = CacheSettings(redis_budget_seconds=_SECONDS)
        cache = ResponseCache(secret=key, store=RedisStore(url, secret=key), settings=settings)
        try:
            return await do(cache)
        finally:
            await cache.close()

    try:
        return asyncio.run(run())
    except StoreUnavailable as unavailable:
        _refuse(f"{url}: Redis cannot be asked ({unavailable.loss.value})")
    except ValueError as error:
        _refuse(str(error))


def _print(figures: Any, as_json: bool) -> None:
    if as_json or not isinstance(figures, dict):
        typer.echo(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        typer.echo(f"{name}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value}")


def _refuse(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)
