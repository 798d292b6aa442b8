"""A mixed run (streams, unary, cancelled, cached, errors, deadlines): do receipts and idle add up to the meter, and do
our FLOPs agree with vLLM's own counter over the same run?"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import prometheus_client

from cache.control import CacheControl
from metering.model_profile import ModelProfile
from metering.work import Method, WorkRecord
from serving.call import Call
from serving.errors import GatewayError
from tests.bench.metering.own_cost import cpu_seconds, own_cost
from tests.bench.metering.stack import Stack, balance

PATH = "/v1/chat/completions"
VLLM_FLOPS = "vllm:estimated_flops_per_gpu_total"
KINDS = ("stream", "unary", "cancelled", "cached", "error", "deadline")
SHARES = (0.36, 0.30, 0.12, 0.12, 0.06, 0.04)
WORDS = (
    "lamp",
    "river",
    "engine",
    "copper",
    "winter",
    "garden",
    "signal",
    "bread",
    "harbour",
    "violin",
    "paper",
    "storm",
)


SHARED = 0.3
"""Share of the prompts that begin alike, as with an application's own instructions."""
PREFIX = " ".join(WORDS * 24)
"""Some hundred tokens: several of vLLM's blocks (128 tokens each on a CPU, 16 on a GPU), which it reuses whole."""


def prompt(number: int, rng: random.Random) -> str:
    """A prompt that no other request has; some begin with what others begin with."""
    own = " ".join(rng.choices(WORDS, k=rng.randint(5, 60)))
    start = f"{PREFIX}. " if rng.random() < SHARED else ""
    return f"{start}{number} {own}: continue."


async def ask(made: Stack, number: int, kind: str, rng: random.Random) -> str:
    """One request to its end; how it ended."""
    text = "What is the capital of France?" if kind == "cached" else prompt(number, rng)
    payload: dict[str, Any] = {
        "model": made.engine.models()[0].name,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 10**6 if kind == "error" else 400 if kind in ("cancelled", "deadline") else rng.randint(4, 24),
        "temperature": 0,
        "stream": kind in ("stream", "cancelled"),
    }
    if kind == "cached":
        payload["max_tokens"] = 8
    if kind in ("cancelled", "deadline"):
        payload["ignore_eos"] = True
    now = time.monotonic()
    deadline = now + (0.4 if kind == "deadline" else 600.0)
    # some refuse the cache, so that receipts with either verdict come about
    control = CacheControl(no_store=number % 3 == 0 and kind != "cached")
    call = Call(f"{kind}-{number}", f"tenant-{number % 3}", PATH, payload, now, deadline, control)
    try:
        async with made.gateway.open(call) as reply:
            left = rng.randint(2, 6)
            async for _ in reply.frames:
                left -= 1
                if kind == "cancelled" and left == 0:
                    return "left"
    except (GatewayError, TimeoutError) as error:
        return f"refused {getattr(error, 'status', '?')}"
    return call.outcome.value


async def mixed_run(made: Stack, *, requests: int, clients: int, seed: int = 1) -> dict[str, Any]:
    """Drive the load, book everything, and compare."""
    rng = random.Random(seed)
    kinds = [rng.choices(KINDS, SHARES)[0] for _ in range(requests)]
    queue = iter(enumerate(kinds))
    ended: Counter[str] = Counter()
    theirs_before = vllm_flops()

    async def client(mine: random.Random) -> None:
        for number, kind in queue:
            ended[f"{kind}: {await ask(made, number, kind, mine)}"] += 1

    started, cpu_before = time.monotonic(), cpu_seconds()
    with own_cost(made) as cost:
        await asyncio.gather(*(client(random.Random(seed * 1000 + number)) for number in range(clients)))
        seconds = time.monotonic() - started
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                # the node's books are polled as an operator would
                while made.node.books().open_requests:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
    cpu = cpu_seconds() - cpu_before
    theirs = vllm_flops() - theirs_before
    await made.finish()
    books = balance(made)
    finals = list(made.finals.values())
    profile = next(iter(made.profiles.values()))
    receipts_flops = sum((f.receipt.flops_prefill or 0) + (f.receipt.flops_decode or 0) for f in finals)
    full = replace(profile, attention="full")
    unseen = [record for record in made.records if record.method is not Method.MEASURED]
    seen = flops_of([record for record in made.records if record.method is Method.MEASURED], full)
    return {
        "requests": requests,
        "clients": clients,
        "seconds": seconds,
        "kinds": dict(Counter(kinds)),
        "ended": dict(sorted(ended.items())),
        "receipts": len(finals),
        "receipts_by_verdict": dict(Counter(f.receipt.cache for f in finals)),
        "method": made.method.value,
        "estimator": finals[0].receipt.estimator if finals else "",
        "tokens_prefill": sum(record.prefill_tokens for record in made.records),
        "tokens_prefix_reused": sum(record.cached_tokens for record in made.records),
        "tokens_decode": sum(record.decode_tokens for record in made.records),
        **books,
        "idle_ratio": books["idle_booked_nanojoules"] / books["meter_nanojoules"]
        if books["meter_nanojoules"]
        else None,
        "flops": {
            "receipts_causal": receipts_flops,
            "records_causal": flops_of(made.records, profile),
            "records_full": seen + flops_of(unseen, full),
            "records_full_seen": seen,
            "unseen_prefills": len(unseen),
            "unseen_prefill_tokens": sum(record.prefill_tokens for record in unseen),
            "vllm": theirs,
            "full_over_vllm": (seen + flops_of(unseen, full)) / theirs if theirs else None,
            "seen_over_vllm": seen / theirs if theirs else None,
        },
        "cpu_seconds": cpu,
        "own_cpu_seconds": cost.seconds,
        "own_cpu_ratio": sum(cost.seconds.values()) / cpu,
        "faults": dict(Counter(made.faults)),
        "late_records": made.node.counters.late_records,
        "forced_windows": made.node.counters.forced_windows,
    }


def flops_of(records: list[WorkRecord], profile: ModelProfile) -> int:
    work = (profile.work(record) for record in records)
    return sum(one.flops for one in work if one is not None)


def vllm_flops() -> float:
    """vLLM's own counter in this process; 0 where there is no vLLM."""
    return sum(
        sample.value
        for family in prometheus_client.REGISTRY.collect()
        for sample in family.samples
        if sample.name == VLLM_FLOPS
    )


def table(result: dict[str, Any]) -> str:
    """The run in Markdown."""
    joules = {name: result[f"{name}_nanojoules"] / 1e9 for name in ("meter", "receipts", "idle_carried")}
    flops = result["flops"]
    tokens = ", ".join(str(result[f"tokens_{name}"]) for name in ("prefill", "prefix_reused", "decode"))
    ratio, seen = flops["full_over_vllm"] or 0.0, flops["seen_over_vllm"] or 0.0
    unseen = f"{flops['unseen_prefills']} ({flops['unseen_prefill_tokens']} tokens)"
    rows = [
        ("requests (clients)", f"{result['requests']} ({result['clients']})"),
        ("kinds", ", ".join(f"{count} {kind}" for kind, count in sorted(result["kinds"].items()))),
        ("windows, of them without a reading", f"{result['windows']}, {result['gaps']}"),
        ("tokens prefilled, reused, decoded", tokens),
        ("meter", f"{joules['meter']:.9f} J ({result['method']}, {result['estimator']})"),
        (f"receipts ({result['receipts']}), with the idle given to them", f"{joules['receipts']:.9f} J"),
        ("idle carried, not yet given to a request", f"{joules['idle_carried']:.9f} J"),
        ("idle kept by the node", f"{result['idle_node_nanojoules']} nJ"),
        ("unattributed", f"{result['unattributed_nanojoules']} nJ"),
        ("meter - all of these", f"**{result['difference_nanojoules']} nJ**"),
        ("idle, share of the meter", f"{result['idle_ratio']:.2%}"),
        ("FLOPs of receipts - of work records (causal)", str(flops["receipts_causal"] - flops["records_causal"])),
        ("FLOPs, full convention", f"{flops['records_full']:.6g}"),
        ("vLLM's counter", f"{flops['vllm']:.6g}"),
        ("ours over vLLM's", f"{ratio:.5f}"),
        ("prefills cut short before their first token, booked as modelled", unseen),
        ("CPU time in the meter's own code, of all CPU time", f"{result['own_cpu_ratio']:.3%}"),
        ("ours without these over vLLM's", f"{seen:.5f}"),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])
