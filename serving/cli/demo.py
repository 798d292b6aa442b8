"""``wattgate demo``: from nothing to metered answers of a real model, through the stock OpenAI SDK."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer
from rich.rule import Rule

from serving.cli.chat import ask
from serving.cli.output import Progress, fail, out, quantity, receipt_table
from serving.cli.serve import CacheOption, EngineOption, GatewayOptions, announce, terminate
from serving.placement.metered_engine import WARM_UP_TENANT
from serving.placement.ray_runtime import free_port, lasting_port

QUESTION = "What is the capital of France?"
STREAMED = "Write two sentences about why clean electricity matters."
_FINAL_SECONDS = 15.0
"""Windows close within a second or two; a busy machine takes longer."""
EIGHT = tuple(
    f"Answer in one sentence: what is a {thing} used for?"
    for thing in ("hammer", "compass", "kettle", "telescope", "battery", "bicycle", "thermometer", "lighthouse")
)


def demo(
    engine: EngineOption = None,
    cache: CacheOption = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; 8000, or a free one if that is taken.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End after the demonstration instead of staying up.")] = False,
) -> None:
    """Start a gateway on the bundled model, ask it four ways, show the receipts, stay up until Ctrl-C."""
    from serving.placement.supervisor import StartError, Supervisor

    options = GatewayOptions(engine=engine, cache=cache, port=port if port is not None else _usual_port())
    config = options.gathered().config
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, terminate)
    try:
        with Supervisor(config, Progress()) as supervisor:
            announce(supervisor.config, supervisor.url)
            failed = not show(supervisor.url)
            _where_next(supervisor.url)
            if failed:
                fail("a part of the demonstration did not work", 1)
            if not once:
                out.print("\nStaying up; Ctrl-C ends everything.")
                while True:
                    supervisor.watch()
                    time.sleep(1.0)
    except StartError as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        out.print("ended: nothing is left running")


def _usual_port() -> int:
    try:
        return free_port(wanted=8000)
    except OSError:
        return lasting_port("127.0.0.1")


def show(url: str) -> bool:
    """The four questions; False where an answer or its receipt is not what it should be."""
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300.0)
    model = client.models.list().data[0].id
    out.print(f"\nmodel [bold]{model}[/bold], asked through the stock openai SDK\n")

    first = _unary(client, model, "1. A question", QUESTION)
    again = _unary(client, model, "2. The same question again", QUESTION)

    _title("3. A streamed answer", STREAMED)
    streamed = ask(client, model, STREAMED, 96, 0.0, echo=True)
    _receipt(streamed)

    _title("4. Eight questions at once", "batched by the engine")
    started = time.monotonic()
    with ThreadPoolExecutor(len(EIGHT)) as pool:
        answers = list(pool.map(lambda text: _ask_unary(client, model, text, 48), EIGHT))
    seconds = time.monotonic() - started
    for answer in answers:
        out.print(f"  [dim]-[/dim] {answer['answer'].strip()}", soft_wrap=True)
    out.print()
    _receipt(answers[0], "of the first")
    tokens = sum(answer["usage"]["completion_tokens"] for answer in answers)
    joules = [((answer["usage"].get("wattgate") or {}).get("energy_joules") or {}).get("total") for answer in answers]
    known = [figure for figure in joules if figure is not None]
    total = sum(known) if len(known) == len(joules) else None
    out.print(
        f"  all eight: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.1f} tokens/s, {quantity(total, 'J')}"
        + ("" if not total else f", {total / tokens:.3g} J a token")
    )
    every = [first, again, streamed, *answers]
    _books(url, [answer["usage"]["wattgate"]["receipt_id"] for answer in (first, streamed, *answers)])
    return all(item["answer"] and item["usage"].get("wattgate") for item in every)


def _books(url: str, receipt_ids: list[str]) -> None:
    """Wait for the final receipts and show that what was metered is what was booked."""
    import httpx
    from prometheus_client.parser import text_string_to_metric_families

    _title("5. The books", "final receipts, once their windows have closed")
    until = time.monotonic() + _FINAL_SECONDS
    finals: dict[str, dict[str, Any]] = {}
    with httpx.Client(base_url=url, timeout=30.0) as http:
        while len(finals) < len(receipt_ids) and time.monotonic() < until:
            for receipt_id in receipt_ids:
                got = http.get(f"/v1/receipts/{receipt_id}")
                if got.status_code == 200 and got.json()["status"] == "final":
                    finals[receipt_id] = got.json()
            time.sleep(0.5)
        series: dict[str, float] = {}
        warm_up = 0.0
        for family in text_string_to_metric_families(http.get("/metrics").text):
            for sample in family.samples:
                key = f"{sample.name}/{sample.labels.get('boundary', '')}"
                series[key] = series.get(key, 0.0) + sample.value
                if sample.name == "wattgate_request_joules_total" and sample.labels["tenant"] == WARM_UP_TENANT:
                    warm_up += sample.value
    metered = sum(value for key, value in series.items() if key.startswith("wattgate_energy_joules_total/"))
    booked = {
        name: series.get(f"wattgate_request_joules_total/{name}", 0.0) for name in ("accelerator", "host", "idle")
    }
    given = sum(booked.values())
    energies = [final["energy_joules"] for final in finals.values() if final["energy_joules"]]
    out.print(
        f"  {len(finals)} of {len(receipt_ids)} receipts are final: {quantity(sum(e['total'] for e in energies), 'J')}"
    )
    parts = ", ".join(f"{name} {quantity(value, 'J')}" for name, value in booked.items())
    out.print(f"  the hit's was final at once; {quantity(warm_up, 'J')} more went to the engine's warm-up")
    out.print(
        f"  metered since the start {quantity(metered, 'J')} = to requests {quantity(given, 'J')} ({parts})",
        soft_wrap=True,
    )
    out.print(f"    + idle of the node, not given to a request yet, {quantity(metered - given, 'J')}")
    difference = series.get("wattgate_books_difference_joules/", 0.0)
    out.print(f"  metered minus booked: {difference:g} J\n")


def _ask_unary(client: Any, model: str, question: str, max_tokens: int) -> dict[str, Any]:
    started = time.monotonic()
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=max_tokens,
        temperature=0.0,
    )
    seconds = time.monotonic() - started
    answer = raw.parse()
    ttft = raw.headers.get("x-wattgate-ttft-ms")
    return {
        "answer": answer.choices[0].message.content or "",
        "usage": answer.usage.model_dump(),
        "seconds": seconds,
        "first_token_seconds": float(ttft) / 1000 if ttft else None,
    }


def _unary(client: Any, model: str, title: str, question: str) -> dict[str, Any]:
    _title(title, question)
    answer = _ask_unary(client, model, question, 64)
    out.print(answer["answer"].strip(), soft_wrap=True)
    _receipt(answer)
    return answer


def _title(title: str, question: str) -> None:
    out.print(Rule(f"{title}: [italic]{question}[/italic]", align="left", style="dim"))


def _receipt(answer: dict[str, Any], label: str = "") -> None:
    if label:
        out.print(f"[dim]receipt {label}[/dim]")
    out.print(
        receipt_table(answer["usage"], seconds=answer["seconds"], first_token_seconds=answer["first_token_seconds"])
    )
    out.print()


def _where_next(url: str) -> None:
    body = '{"model":"MODEL","messages":[{"role":"user","content":"Hello"}]}'
    out.print(Rule("Where to look next", align="left", style="dim"))
    out.print(f"metrics      {url}/metrics", soft_wrap=True)
    out.print(f"models       {url}/v1/models", soft_wrap=True)
    out.print(f"ask          wattgate chat --url {url} 'Why is the sky blue?'", soft_wrap=True)
    out.print(
        f"curl         curl {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'",
        soft_wrap=True,
        markup=False,
    )
