"""``wattgate chat``: ask a running gateway, see the answer and its receipt."""

from __future__ import annotations

import json
import os
import time
from typing import Annotated, Any

import typer

from serving.cli.output import fail, out, receipt_table

_CONNECT_SECONDS = 5.0


def chat(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    url: Annotated[str, typer.Option(help="Address of the gateway.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="Served model; the first one if not said.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Answer, usage and receipt as JSON.")] = False,
) -> None:
    """Ask a running gateway; prints the answer as it comes, then the receipt. WATTGATE_API_KEY is sent if set."""
    import openai
    from httpx2 import Timeout

    client = openai.OpenAI(
        base_url=url.rstrip("/").removesuffix("/v1") + "/v1",
        api_key=os.environ.get("WATTGATE_API_KEY", "none"),
        timeout=Timeout(600.0, connect=_CONNECT_SECONDS),
        max_retries=0,
    )
    try:
        name = model or client.models.list().data[0].id
        answer = ask(client, name, question, max_tokens, temperature, echo=not as_json)
    except openai.APIConnectionError:
        fail(f"no gateway answers at {url}: start one with `wattgate serve`, or name another with --url", 1)
    except openai.APIStatusError as error:
        fail(f"the gateway answered {error.status_code}: {error.message}", 1)
    except openai.APIError as error:
        fail(f"the answer broke off: {error.message}", 1)
    if as_json:
        print(json.dumps(answer))
        return
    out.print()
    out.print(
        receipt_table(answer["usage"], seconds=answer["seconds"], first_token_seconds=answer["first_token_seconds"])
    )


def ask(client: Any, model: str, question: str, max_tokens: int, temperature: float, *, echo: bool) -> dict[str, Any]:
    """Stream one answer. Returns its text, usage with receipt, and times in seconds."""
    started = time.monotonic()
    first: float | None = None
    text: list[str] = []
    usage: dict[str, Any] = {}
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=max_tokens,
        temperature=temperature,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.usage is not None:
            usage = chunk.usage.model_dump()
        piece = chunk.choices[0].delta.content if chunk.choices else None
        if piece:
            first = first if first is not None else time.monotonic() - started
            text.append(piece)
            if echo:
                out.print(piece, end="", markup=False, soft_wrap=True)
    if echo:
        out.print()
    seconds = time.monotonic() - started
    return {"answer": "".join(text), "usage": usage, "seconds": seconds, "first_token_seconds": first}
