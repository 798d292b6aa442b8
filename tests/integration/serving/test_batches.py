"""Files and batches through the stock SDK, on whole gateways."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = pytest.mark.ray

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


def requests(count: int, model: str, **body: Any) -> bytes:
    lines = []
    for number in range(count):
        asked = {"model": model, "messages": [{"role": "user", "content": f"Say the number {number}."}], **body}
        lines.append(json.dumps({"custom_id": f"n-{number}", "method": "POST", "url": CHAT, "body": asked}))
    return "\n".join(lines).encode()


def begin(client: openai.OpenAI, content: bytes, endpoint: Any = CHAT) -> str:
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    return batch.id


def ended(client: openai.OpenAI, batch_id: str) -> Any:
    def seen() -> Any:
        batch = client.batches.retrieve(batch_id)
        return batch if batch.status in ENDED else None

    return until(seen, 240, "the batch's end")


def results(client: openai.OpenAI, file_id: str) -> dict[str, Any]:
    found = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    assert len({one["custom_id"] for one in found}) == len(found)
    return {one["custom_id"]: one for one in found}


@pytest.mark.engine
@pytest.mark.redis
def test_a_batch_on_the_real_model(real_gateway: GatewayProcess) -> None:
    client = real_gateway.client()
    model = client.models.list().data[0].id
    content = requests(6, model, max_tokens=8) + b"\n"
    bad = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 10**9}
    content += json.dumps({"custom_id": "bad", "method": "POST", "url": CHAT, "body": bad}).encode()
    before = real_gateway.metric("wattgate_flops_total")
    batch = ended(client, begin(client, content))
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (7, 6, 1)
    answers = results(client, batch.output_file_id)
    assert len(answers) == 6
    for answer in answers.values():
        body = openai.types.chat.ChatCompletion.model_validate(answer["response"]["body"])
        assert body.choices[0].message.content
        assert answer["response"]["body"]["usage"]["wattgate"]["energy_joules"]["total"] > 0
    (error,) = results(client, batch.error_file_id).values()
    assert (error["custom_id"], error["response"]["status_code"]) == ("bad", 400)
    assert batch.usage.output_tokens == sum(
        one["response"]["body"]["usage"]["completion_tokens"] for one in answers.values()
    )
    assert batch.model_dump()["usage"]["wattgate"]["energy_joules"] > 0
    until(lambda: real_gateway.metric("wattgate_flops_total") > before, what="the batch's work in the books")


def test_the_sdks_files_and_batches(simulated_gateway: GatewayProcess) -> None:
    client = simulated_gateway.client()
    model = client.models.list().data[0].id
    content = requests(3, model, max_tokens=2)
    file = client.files.create(file=("mine.jsonl", content), purpose="batch")
    assert (file.filename, file.bytes, file.purpose) == ("mine.jsonl", len(content), "batch")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == content
    assert file.id in [one.id for one in client.files.list(purpose="batch")]
    made = [
        client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"number": str(number)}
        )
        for number in range(3)
    ]
    done = [ended(client, batch.id) for batch in made]
    assert {batch.status for batch in done} == {"completed"}
    assert [batch.metadata for batch in done] == [{"number": str(number)} for number in range(3)]
    # the SDK turns the pages
    listed = [batch.id for batch in client.batches.list(limit=2)]
    assert listed[:3] == [batch.id for batch in reversed(made)]
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(made[0].id)
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=b"x", purpose="fine-tune")
    assert refused.value.param == "purpose"
    broken = ended(client, begin(client, content + b"\n{"))
    assert broken.status == "failed"
    assert broken.errors.data[0].line == 4


def test_a_large_upload_passes_the_proxy_and_one_too_large_is_refused(simulated_gateway: GatewayProcess) -> None:
    client = simulated_gateway.client()
    content = b"x" * (20 * 1024 * 1024)
    file = client.files.create(file=("large.jsonl", content), purpose="batch")
    assert file.bytes == len(content)
    assert client.files.content(file.id).content == content
    client.files.delete(file.id)
    with pytest.raises(openai.APIStatusError) as refused:
        client.files.create(file=("huge.jsonl", b"x" * (101 * 1024 * 1024)), purpose="batch")
    assert refused.value.status_code == 413


@pytest.mark.long
def test_a_batch_goes_on_after_a_kill_and_is_cancelled(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "engine: {kind: simulated, simulated: {step_seconds: 0.02, answer_tokens: 20}}\n"
        f"server: {{port: 0}}\nbatches: {{folder: {tmp_path / 'batches'}, concurrent_lines: 2, poll_seconds: 0.1}}\n"
    )
    first = GatewayProcess("--config", str(file)).wait_ready()
    client = first.client()
    model = client.models.list().data[0].id
    lines = 60
    batch_id = begin(client, requests(lines, model))

    def some_are_done() -> int:
        return int(client.batches.retrieve(batch_id).request_counts.completed)

    done = until(lambda: some_are_done() if some_are_done() >= 5 else 0, what="the first lines")
    assert done < lines
    first.stop(signal.SIGKILL)
    second = GatewayProcess("--config", str(file)).wait_ready()
    try:
        client = second.client()
        batch = ended(client, batch_id)
        assert (batch.status, batch.request_counts.completed) == ("completed", lines)
        assert len(results(client, batch.output_file_id)) == lines
        run_again = second.metric("wattgate_batch_lines_total", outcome="completed")
        assert run_again <= lines - done
        other = begin(client, requests(lines, model))
        until(lambda: client.batches.retrieve(other).status == "in_progress", what="the second batch")
        assert client.batches.cancel(other).status == "cancelling"
        assert ended(client, other).status == "cancelled"
    finally:
        second.stop()
