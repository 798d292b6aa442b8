"""A batch from its upload to its result files, over a whole gateway."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from serving.access import KeyRing
from serving.admission.queue import AdmissionQueue
from serving.engines.base import EngineRequest
from serving.errors import EngineRefused, NeverBegun
from serving.gateway import Gateway
from serving.meter_link import MeterLink
from serving.metrics import Metrics
from serving.tenancy.tenant import LimitSettings, TenantSettings
from tests.unit.batches.conftest import CHAT, NOON, Opener, jsonl, line, until
from tests.unit.batches.fakes import ScriptedApp
from tests.unit.serving.fakes import Books, HeldEngine, ManualClock, answer_frames

KEYS = {"acme": "key", "zeta": "z"}


async def test_every_line_is_answered_through_the_gateway_and_metered(opened: Opener) -> None:
    house = opened(keys=KeyRing(KEYS))
    mine = {"authorization": "Bearer key"}
    batch_id = await house.batch_of(line(1), line(2), line(3), **mine)
    await house.run()
    batch = await house.seen(batch_id, **mine)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    assert batch["error_file_id"] is None
    assert batch["usage"]["total_tokens"] == 15
    assert batch["created_at"] <= batch["in_progress_at"] <= batch["finalizing_at"] <= batch["completed_at"]
    results = await house.results(batch["output_file_id"], **mine)
    assert set(results) == {"line-1", "line-2", "line-3"}
    for result in results.values():
        body = result["response"]["body"]
        assert (result["response"]["status_code"], result["error"]) == (200, None)
        assert body["choices"][0]["message"]["content"] == "Hello there"
        assert body["usage"]["wattgate"]["receipt_id"] == result["response"]["request_id"]
    assert {request.tenant for request in house.engine.requests} == {"acme"}
    assert house.count("wattgate_requests_total", tenant="acme", status="200") == 3
    assert house.count("wattgate_batch_lines_total", tenant="acme", outcome="completed") == 3
    assert house.count("wattgate_batches_total", tenant="acme", status="completed") == 1
    day = (await house.get("/v1/usage", **mine)).json["day"]
    assert day["requests"] == 3
    output = (await house.get(f"/v1/files/{batch['output_file_id']}", **mine)).json
    assert (output["purpose"], output["filename"]) == ("batch_output", f"{batch_id}_output.jsonl")


async def test_embeddings_are_lines_too(opened: Opener) -> None:
    engine = HeldEngine("e")

    async def script(request: EngineRequest) -> Any:
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        yield orjson.dumps({"object": "list", "model": "e", "data": [{"embedding": [0.5]}], "usage": usage})

    engine.script = script
    metrics = Metrics(CollectorRegistry())
    meter = MeterLink("embedder", Books(), flush_seconds=1.0, on_fault=lambda _: None)
    embeddings = Gateway(engine=engine, cap=AdmissionQueue(4), meter=meter, metrics=metrics)
    house = opened(embeddings=embeddings)
    url = "/v1/embeddings"
    lines = [
        {"custom_id": str(n), "method": "POST", "url": url, "body": {"model": "e", "input": f"text {n}"}}
        for n in range(3)
    ]
    file_id = (await house.upload(jsonl(*lines))).json["id"]
    asked = {"input_file_id": file_id, "endpoint": url, "completion_window": "24h"}
    batch_id = (await house.send(asked, path="/v1/batches")).json["id"]
    await house.run()
    batch = await house.seen(batch_id)
    assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    results = await house.results(batch["output_file_id"])
    assert results["2"]["response"]["body"]["data"][0]["embedding"] == [0.5]
    assert batch["usage"]["input_tokens"] == 6


async def test_lines_run_at_the_batch_priority(opened: Opener) -> None:
    house = opened(cap=1)
    house.engine.gate.clear()
    first = house.begin(house.chat("first"))
    await house.engine.entered.wait()
    await house.batch_of(line(1))
    await house.runner.scan()
    await until(lambda: house.cap.waiting == 1)
    second = house.begin(house.chat("second"))
    await until(lambda: house.cap.waiting == 2)
    house.engine.gate.set()
    await first.end()
    await second.end()
    await house.runner.idle()
    texts = [request.payload["messages"][0]["content"] for request in house.engine.requests]
    assert texts == ["first", "second", "Hi 1"]


async def test_lines_that_fail_are_in_the_error_file_and_the_others_are_not_held_up(opened: Opener) -> None:
    house = opened()

    async def script(request: EngineRequest) -> Any:
        if request.payload["messages"][0]["content"] == "Hi 2":
            raise EngineRefused(400, {"error": {"message": "no such tool", "code": "bad_tool"}})
        for frame in answer_frames(request):
            yield frame

    house.engine.script = script
    batch_id = await house.batch_of(line(1), line(2), line(3, max_tokens=-1), line(4, model="nope"), line(5))
    await house.run()
    batch = await house.seen(batch_id)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 5, "completed": 2, "failed": 3}
    errors = await house.results(batch["error_file_id"])
    told = {name: one["response"]["body"]["error"] for name, one in errors.items()}
    assert {name: one["response"]["status_code"] for name, one in errors.items()} == {
        "line-2": 400,
        "line-3": 400,
        "line-4": 404,
    }
    assert told["line-2"]["code"] == "bad_tool"
    assert told["line-3"]["param"] == "max_tokens"
    assert told["line-4"]["code"] == "model_not_found"
    assert set(await house.results(batch["output_file_id"])) == {"line-1", "line-5"}


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        ({**line(2), "custom_id": "line-1"}, "duplicate_custom_id", "custom_id"),
        ({**line(2), "custom_id": 7}, "invalid_custom_id", "custom_id"),
        ({**line(2), "custom_id": "x" * 513}, "invalid_custom_id", "custom_id"),
        ({**line(2), "method": "GET"}, "invalid_method", "method"),
        ({**line(2), "url": "/v1/completions"}, "mismatched_url", "url"),
        ({**line(2), "body": "Hi"}, "missing_body", "body"),
        ({**line(2), "body": {}}, "missing_model", "body.model"),
        (line(2, stream=True), "stream_unsupported", "body.stream"),
    ],
)
async def test_an_input_with_a_fault_runs_nothing_and_names_the_line(
    opened: Opener, bad: Any, code: str, param: str | None
) -> None:
    house = opened()
    batch_id = await house.batch_of(line(1), bad, line(3))
    await house.run()
    batch = await house.seen(batch_id)
    assert batch["status"] == "failed"
    (error,) = batch["errors"]["data"]
    assert (error["code"], error["param"], error["line"]) == (code, param, 2)
    assert error["message"]
    assert house.engine.requests == []
    assert batch["output_file_id"] is batch["error_file_id"] is None


async def test_an_input_with_too_many_lines_fails(opened: Opener) -> None:
    house = opened(settings={"max_lines": 2})
    batch_id = await house.batch_of(*(line(number) for number in range(3)))
    await house.run()
    batch = await house.seen(batch_id)
    assert batch["errors"]["data"][0]["code"] == "too_many_lines"


async def test_blank_lines_and_a_byte_order_mark_are_passed_over(opened: Opener) -> None:
    house = opened()
    batch_id = await house.batch_of(b"\xef\xbb\xbf" + jsonl(line(1)).strip(), b"", b"  ", line(2))
    await house.run()
    assert (await house.seen(batch_id))["request_counts"]["completed"] == 2


async def test_a_cancelled_batch_ends_what_runs_and_begins_nothing(opened: Opener) -> None:
    house = opened(settings={"concurrent_lines": 1})
    app = ScriptedApp()
    app.gate.clear()
    house.runner.serve(app)
    batch_id = await house.batch_of(line(1), line(2), line(3))
    await house.runner.scan()
    await app.entered.wait()
    cancelled = await house.send(path=f"/v1/batches/{batch_id}/cancel", raw=b"")
    assert cancelled.json["status"] == "cancelling"
    assert cancelled.json["cancelling_at"]
    app.gate.set()
    await house.runner.idle()
    batch = await house.seen(batch_id)
    assert batch["status"] == "cancelled"
    assert batch["cancelling_at"] <= batch["cancelled_at"]
    assert batch["request_counts"] == {"total": 3, "completed": 1, "failed": 0}
    assert set(await house.results(batch["output_file_id"])) == {"line-1"}
    assert app.asked == ["Hi 1"]
    again = await house.send(path=f"/v1/batches/{batch_id}/cancel", raw=b"")
    assert again.json["status"] == "cancelled"
    await house.run()
    assert app.asked == ["Hi 1"]


async def test_a_batch_at_its_end_cannot_be_cancelled(opened: Opener) -> None:
    house = opened()
    batch_id = await house.batch_of(line(1))
    await house.run()
    refused = await house.send(path=f"/v1/batches/{batch_id}/cancel", raw=b"")
    assert (refused.status, refused.error["code"]) == (409, "batch_ended")


async def test_a_window_that_ends_expires_the_rest_with_an_error_each(opened: Opener) -> None:
    house = opened(settings={"concurrent_lines": 1})

    def script(text: str, times: int) -> tuple[int, dict[str, str]]:
        if text == "Hi 2":
            house.wall.advance(3600)
        return 200, {}

    app = ScriptedApp(script)
    house.runner.serve(app)
    batch_id = await house.batch_of(*(line(number) for number in range(1, 6)), window="1h")
    await house.run()
    batch = await house.seen(batch_id)
    assert batch["status"] == "expired"
    assert batch["expired_at"] >= batch["expires_at"] == NOON + 3600
    assert batch["request_counts"] == {"total": 5, "completed": 2, "failed": 3}
    errors = await house.results(batch["error_file_id"])
    assert {one["error"]["code"] for one in errors.values()} == {"batch_expired"}
    assert set(errors) == {"line-3", "line-4", "line-5"}
    assert app.asked == ["Hi 1", "Hi 2"]


@pytest.mark.parametrize(("status", "code"), [(429, "queue_full"), (503, "engine_unavailable"), (504, NeverBegun.code)])
async def test_no_room_is_waited_for_as_long_as_the_gateway_says(opened: Opener, status: int, code: str) -> None:
    house = opened(settings={"concurrent_lines": 1})
    times_asked: list[float] = []

    def script(text: str, times: int) -> tuple[int, dict[str, str]]:
        times_asked.append(house.wall())
        return (status, {"retry-after": "90", "code": code}) if times < 8 else (200, {})

    house.runner.serve(ScriptedApp(script))
    batch_id = await house.batch_of(line(1))
    await house.run()
    assert (await house.seen(batch_id))["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    waits = [after - before for before, after in itertools.pairwise(times_asked)]
    assert all(wait >= 90 for wait in waits)
    assert house.count("wattgate_batch_lines_total", outcome="tried_again") == 7


@pytest.mark.parametrize(
    ("status", "headers", "asked"),
    [(504, {}, 3), (500, {}, 3), (503, {"code": "engine_error"}, 3), (400, {}, 1), (403, {}, 1), (413, {}, 1)],
)
async def test_faults_are_tried_thrice_and_the_lines_own_errors_once(
    opened: Opener, status: int, headers: dict[str, str], asked: int
) -> None:
    house = opened()
    app = ScriptedApp(lambda text, times: (status, dict(headers)))
    house.runner.serve(app)
    batch_id = await house.batch_of(line(1))
    await house.run()
    batch = await house.seen(batch_id)
    assert (batch["status"], batch["request_counts"]["failed"]) == ("completed", 1)
    assert len(app.asked) == asked
    (error,) = (await house.results(batch["error_file_id"])).values()
    assert error["response"]["status_code"] == status


async def test_a_line_waits_for_room_and_is_cancelled_while_it_waits(opened: Opener) -> None:
    house = opened()
    batch_id = ""

    def script(text: str, times: int) -> tuple[int, dict[str, str]]:
        house.batches.cancel("default", batch_id)
        return 429, {"retry-after": "1000000"}

    house.runner.serve(ScriptedApp(script))
    batch_id = await house.batch_of(line(1))
    await house.run()
    assert (await house.seen(batch_id))["status"] == "cancelled"
    assert house.wall() < NOON + 100


async def test_lines_under_way_are_bounded_over_all_batches(opened: Opener) -> None:
    house = opened(settings={"concurrent_lines": 3})
    app = ScriptedApp()
    house.runner.serve(app)
    app.gate.clear()
    for _ in range(3):
        await house.batch_of(*(line(number) for number in range(6)))
    await house.runner.scan()
    await app.full(3)
    app.gate.set()
    await house.runner.idle()
    assert app.most == 3
    assert len(app.asked) == 18


async def test_a_tenant_with_a_limit_of_concurrent_requests_keeps_half_of_it(opened: Opener) -> None:
    grants = {"acme": TenantSettings(limits=LimitSettings(concurrent_requests=4))}
    house = opened(keys=KeyRing(KEYS, tenants=grants), settings={"concurrent_lines": 8})
    app = ScriptedApp()
    house.runner.serve(app)
    app.gate.clear()
    await house.batch_of(*(line(number) for number in range(9)), authorization="Bearer key")
    await house.runner.scan()
    await app.full(2)
    app.gate.set()
    await house.runner.idle()
    assert app.most == 2
    assert app.tenants == {"acme"}


async def test_batches_wait_for_their_turn_fairly_between_tenants(opened: Opener) -> None:
    house = opened(keys=KeyRing(KEYS), settings={"concurrent_batches": 2})
    app = ScriptedApp()
    app.gate.clear()
    house.runner.serve(app)
    for _ in range(3):
        await house.batch_of(line(1), authorization="Bearer key")
    await house.batch_of(line(1), authorization="Bearer z")
    await house.runner.scan()
    await until(lambda: len(app.asked) == 2)
    assert app.tenants == {"acme", "zeta"}
    app.gate.set()
    await house.runner.idle()
    await house.run()
    await house.run()
    assert house.count("wattgate_batches_total", status="completed") == 4


async def test_a_tenant_sees_and_ends_only_its_own(opened: Opener) -> None:
    house = opened(keys=KeyRing(KEYS))
    mine, theirs = {"authorization": "Bearer key"}, {"authorization": "Bearer z"}
    batch_id = await house.batch_of(line(1), **mine)
    file_id = (await house.seen(batch_id, **mine))["input_file_id"]
    assert (await house.get(f"/v1/batches/{batch_id}", **theirs)).status == 404
    assert (await house.send(path=f"/v1/batches/{batch_id}/cancel", raw=b"", **theirs)).status == 404
    assert (await house.get("/v1/batches", **theirs)).json["data"] == []
    assert (await house.get(f"/v1/files/{file_id}", **theirs)).status == 404
    assert (await house.get(f"/v1/files/{file_id}/content", **theirs)).status == 404
    asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    assert (await house.send(asked, path="/v1/batches", **theirs)).status == 404
    for path in ("/v1/batches", "/v1/files", f"/v1/batches/{batch_id}", f"/v1/files/{file_id}/content"):
        assert (await house.get(path)).status == 401
    assert (await house.send(asked, path="/v1/batches")).status == 401
    assert (await house.upload(jsonl(line(1)))).status == 401


async def test_a_tenant_that_lost_its_model_gets_an_error_for_each_line(opened: Opener) -> None:
    house = opened(keys=KeyRing(KEYS))
    mine = {"authorization": "Bearer key"}
    batch_id = await house.batch_of(line(1), **mine)
    house.keys.grant({"acme": TenantSettings(models=("other",))}, TenantSettings())
    await house.run()
    batch = await house.seen(batch_id, **mine)
    (error,) = (await house.results(batch["error_file_id"], **mine)).values()
    assert error["response"]["status_code"] == 403


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"endpoint": "/v1/images"}, 400, "endpoint"),
        ({"completion_window": "soon"}, 400, "completion_window"),
        ({"completion_window": "31d"}, 400, "completion_window"),
        ({"input_file_id": "file-../../etc"}, 404, "input_file_id"),
        ({"input_file_id": None}, 400, "input_file_id"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"metadata": {"a": "x" * 513}}, 400, "metadata"),
    ],
)
async def test_a_wish_that_makes_no_sense_names_its_parameter(
    opened: Opener, change: dict[str, Any], status: int, param: str
) -> None:
    house = opened()
    file_id = (await house.upload(jsonl(line(1)))).json["id"]
    asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", "metadata": {"a": "b"}}
    assert (await house.send(asked, path="/v1/batches")).json["metadata"] == {"a": "b"}
    refused = await house.send(asked | change, path="/v1/batches")
    assert (refused.status, refused.error["param"]) == (status, param)
    for raw in (b"", b"{", b"[1]"):
        assert (await house.send(path="/v1/batches", raw=raw)).status == 400


async def test_batches_are_listed_newest_first_page_by_page(opened: Opener) -> None:
    house = opened()
    made = []
    for _ in range(5):
        house.wall.advance(1)
        made.append(await house.batch_of(line(1)))
    first = await _page(house, "limit=2")
    assert [one["id"] for one in first["data"]] == made[:-3:-1]
    assert first["has_more"]
    rest = await _page(house, f"limit=10&after={first['last_id']}")
    assert [one["id"] for one in rest["data"]] == made[2::-1]
    assert not rest["has_more"]
    assert (await house.send(raw=b"", path="/v1/batches", method="GET", query="limit=0")).status == 400


async def _page(house: Any, query: str) -> Any:
    return (await house.send(raw=b"", path="/v1/batches", method="GET", query=query)).json


async def test_what_ended_long_ago_is_swept(opened: Opener) -> None:
    clock = ManualClock(NOON)
    house = opened(clock=clock, settings={"keep_days": 1})
    done = await house.batch_of(line(1))
    await house.run()
    clock.advance(86_401)
    waiting = await house.batch_of(line(2))
    assert house.batches.sweep() == 1
    assert house.batches.files.sweep() == 2
    assert (await house.get(f"/v1/batches/{done}")).status == 404
    assert house.kept(waiting).status == "validating"
    assert len(house.batches.files.all_of("default")) == 1
