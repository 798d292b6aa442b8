"""One measured run against a gateway: warm up, drive, wait for the final receipts, summarise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from metering.errors import BadInput
from serving.tuning.http_sender import HttpSender, settle
from serving.tuning.load import LoopTimer, Told, closed_loop, open_loop
from serving.tuning.outcome import Outcome
from serving.tuning.prompts import PromptMaker
from serving.tuning.utilisation import UtilisationWatch
from serving.tuning.workload import Workload

SETTLE_SECONDS = 3.0
"""A receipt is final when its windows have closed: one window of 1 s, the reports in flight, and the booking."""


class GatewayAway(Exception):
    """No gateway answers, or it serves nothing; one readable line."""


@dataclass(frozen=True, slots=True)
class Drive:
    """How a workload is put to a gateway."""

    clients: int | None = None
    """Closed loop of so many clients; None: open loop, as the workload says."""
    warm_up_requests: int = 0
    """Sent before, one after another in a closed loop of 4, and not counted."""
    natural: bool = False
    """Let answers end by themselves instead of at the workload's exact lengths."""
    use_cache: bool = True
    timeout_seconds: float = 600.0
    api_key: str | None = field(default=None, repr=False)
    seed: int = 0
    final_receipts: bool = True


async def measure(
    url: str,
    workload: Workload,
    drive: Drive,
    told: Told = lambda outcome: None,
    *,
    model: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    watch: UtilisationWatch | None = None,
) -> tuple[str, list[Outcome]]:
    """Drive the gateway at ``url``; the model's name and the outcomes. ``watch`` looks on while requests are sent.

    Raises:
        GatewayAway: nothing answers at the address, or the model is not served there.
    """
    base = url.rstrip("/").removesuffix("/v1")
    headers = {"authorization": f"Bearer {drive.api_key}"} if drive.api_key else {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:
        name = await _model(session, base, model)
        if drive.warm_up_requests:
            await _warm_up(session, base, name, workload, drive)
        prompts = PromptMaker(workload, drive.seed)
        send = HttpSender(
            session,
            base,
            name,
            workload,
            prompts,
            natural=drive.natural,
            use_cache=drive.use_cache,
            timeout_seconds=drive.timeout_seconds,
        )
        timer = LoopTimer()
        async with nullcontext() if watch is None else watch.during(session, base, name):
            if drive.clients is None:
                outcomes = await open_loop(workload, send, timer, told, stop=stop)
            else:
                outcomes = await closed_loop(workload, send, timer, told, clients=drive.clients, stop=stop)
        if drive.final_receipts and any(outcome.cost.receipt_id for outcome in outcomes):
            await asyncio.sleep(SETTLE_SECONDS)
            outcomes = await settle(session, base, outcomes)
        return name, outcomes


async def _warm_up(session: aiohttp.ClientSession, base: str, name: str, workload: Workload, drive: Drive) -> None:
    # other prompts than the run's, or the caches would be warm with its answers
    count = min(drive.warm_up_requests, len(workload))
    first = workload.head(count)
    send = HttpSender(
        session,
        base,
        name,
        first,
        PromptMaker(first, drive.seed + 1_000_003),
        natural=drive.natural,
        use_cache=False,
        timeout_seconds=drive.timeout_seconds,
    )
    clients = min(4, count) if drive.clients is None else drive.clients
    await closed_loop(first, send, LoopTimer(), lambda outcome: None, clients=clients)


async def _model(session: aiohttp.ClientSession, base: str, wanted: str | None) -> str:
    try:
        async with session.get(f"{base}/v1/models") as response:
            if response.status == 401:
                raise GatewayAway(f"{base} needs an API key: set WATTGATE_API_KEY")
            if response.status != 200:
                raise GatewayAway(f"{base}/v1/models answered HTTP {response.status}")
            listed: Mapping[str, Any] = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        raise GatewayAway(
            f"no gateway answers at {base}: start one with `wattgate serve`, or name another with --url"
        ) from None
    names = [entry["id"] for entry in listed.get("data", ())]
    if not names:
        raise GatewayAway(f"{base} serves no model yet: wait until it is ready")
    if wanted is not None and wanted not in names:
        raise BadInput(f"{base} does not serve {wanted!r}: it has {', '.join(names)}")
    return wanted or str(names[0])
