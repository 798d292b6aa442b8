from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from serving.console.page import page, security_policy
from serving.errors import GatewayError, Unauthenticated
from serving.operations.cluster_records import ClusterRecords
from serving.operations.decisions import DecisionLog
from serving.operations.events import EventLog
from serving.operations.pages import OperationsPages
from serving.tuning.controller import Decision, Reason


def authorize(request: Request) -> None:
    if request.headers.get("authorization") != "Bearer right":
        raise Unauthenticated("No.")


async def envelope(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return Response(status_code=error.status)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl", wall=lambda: 1000.0)


@pytest.fixture
def client(log: EventLog) -> Iterator[TestClient]:
    app = Starlette(
        routes=OperationsPages(authorize, log).routes(),
        exception_handlers={GatewayError: envelope},
    )
    with TestClient(app, base_url="http://node-1:8000", headers={"authorization": "Bearer right"}) as client:
        yield client


def test_the_controllers_decisions_are_listed_since_a_time(tmp_path: Path) -> None:
    seconds = iter((100.0, 200.0))
    decisions = DecisionLog(tmp_path / "decisions.jsonl", wall=lambda: next(seconds))
    for cap in (20, 25):
        decision = Decision(0.0, 16, cap, Reason.QUEUE, "itl_p95<=1s", 0.3, 0.02, 90.0, None, True)
        decisions.record(decision, model="m", source="r", mode="on")
    pages = OperationsPages(authorize, None, decisions)
    app = Starlette(routes=pages.routes(), exception_handlers={GatewayError: envelope})
    with TestClient(app, headers={"authorization": "Bearer right"}) as client:
        both = client.get("/v1/control").json()
        (late,) = client.get("/v1/control?since=150").json()["data"]
        assert client.get("/v1/control?since=soon").status_code == 400
        assert client.get("/v1/control", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert both["object"] == "list"
    assert [line["to"] for line in both["data"]] == [20, 25]
    assert (late["from"], late["to"], late["why"]) == (16, 25, "requests wait and the bounds hold with room")
    assert late["seen"] == {"ttft_p95_seconds": 0.3, "itl_p95_seconds": 0.02, "tokens_per_second": 90.0}


def test_targets_are_in_prometheus_form_and_name_the_address_that_was_asked(client: TestClient) -> None:
    answer = client.get("/metrics/targets")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == [{"targets": ["node-1:8000"], "labels": {"__metrics_path__": "/metrics"}}]


def test_a_cluster_names_its_own_targets(log: EventLog) -> None:
    pages = OperationsPages(authorize, log, targets=lambda: ["a:9000", "b:9000"])
    client = TestClient(Starlette(routes=pages.routes()), headers={"authorization": "Bearer right"})
    assert [group["targets"] for group in client.get("/metrics/targets").json()] == [["a:9000"], ["b:9000"]]


def test_a_host_that_is_no_address_is_refused(client: TestClient) -> None:
    assert client.get("/metrics/targets", headers={"host": "x/y z"}).status_code == 400


@pytest.mark.parametrize("path", ["/metrics/targets", "/v1/events"])
def test_figures_are_protected(client: TestClient, path: str) -> None:
    assert client.get(path, headers={"authorization": "Bearer wrong"}).status_code == 401


def test_events_come_oldest_first_since_a_time(client: TestClient, log: EventLog) -> None:
    log.record("cap", "cap: 32 -> 16", "m")
    assert client.get("/v1/events").json() == {
        "object": "list",
        "data": [{"kind": "cap", "text": "cap: 32 -> 16", "at_seconds": 1000.0, "model": "m"}],
    }
    assert client.get("/v1/events?since=1000.5").json()["data"] == []
    for since in ("soon", "nan", "inf"):
        assert client.get(f"/v1/events?since={since}").status_code == 400


def test_the_console_needs_no_key_for_it_holds_no_data(client: TestClient) -> None:
    answer = client.get("/console", headers={"authorization": "none"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"] == security_policy(page())


def test_the_console_loads_nothing_from_elsewhere() -> None:
    html = page().replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src 'none'" in security_policy(html)
    assert " on" + "click=" not in html


def receipts_client(log: EventLog) -> TestClient:
    async def recent(tenant: str | None) -> list[dict[str, str]]:
        return [{"receipt_id": f"{name}{n}"} for n in range(30) for name in ("a", "b") if tenant in (None, name)]

    def reader(authorization: str | None) -> str | None:
        if authorization is None:
            raise Unauthenticated("No.")
        return {"Bearer admin": None, "Bearer a": "a"}[authorization]

    pages = OperationsPages(authorize, log, recent=recent, reader=reader)
    return TestClient(Starlette(routes=pages.routes(), exception_handlers={GatewayError: envelope}))


def test_a_tenant_lists_its_own_receipts_and_the_admin_all(log: EventLog) -> None:
    client = receipts_client(log)
    own = client.get("/v1/receipts?limit=3", headers={"authorization": "Bearer a"}).json()["data"]
    assert [one["receipt_id"] for one in own] == ["a0", "a1", "a2"]
    everybodys = client.get("/v1/receipts", headers={"authorization": "Bearer admin"}).json()["data"]
    assert len(everybodys) == 20
    assert {one["receipt_id"][0] for one in everybodys} == {"a", "b"}
    assert client.get("/v1/receipts").status_code == 401
    assert client.get("/v1/receipts?limit=x", headers={"authorization": "Bearer a"}).status_code == 400


def test_without_a_meter_the_grid_is_unknown(client: TestClient) -> None:
    assert client.get("/v1/intensity").json() == {"object": "intensity", "now": None, "forecast": []}


def cluster_client(records: list[dict[str, object]], asked: list[tuple[str, object]]) -> TestClient:
    async def nodes(kind: str, of: float | str | None) -> ClusterRecords:
        asked.append((kind, of))
        return ClusterRecords(records, ["10.0.0.2"])

    pages = OperationsPages(authorize, reader={"Bearer right": None, "Bearer a": "a"}.__getitem__, nodes=nodes)
    app = Starlette(routes=pages.routes(), exception_handlers={GatewayError: envelope})
    return TestClient(app, headers={"authorization": "Bearer right"})


@pytest.mark.parametrize(("path", "kind"), [("/v1/events", "events"), ("/v1/control", "decisions")])
def test_a_clusters_list_is_of_all_nodes_and_names_those_that_are_missing(path: str, kind: str) -> None:
    asked: list[tuple[str, object]] = []
    records: list[dict[str, object]] = [{"at_seconds": 1.0, "node": "10.0.0.1"}]
    client = cluster_client(records, asked)
    answer = client.get(f"{path}?since=5").json()
    assert answer == {"object": "list", "data": records, "unanswered_nodes": ["10.0.0.2"]}
    assert asked == [(kind, 5.0)]
    assert client.get(path, headers={"authorization": "Bearer wrong"}).status_code == 401


def test_a_clusters_receipts_are_newest_first_and_a_tenant_sees_no_addresses() -> None:
    asked: list[tuple[str, object]] = []
    client = cluster_client([{"at_seconds": float(at), "node": "10.0.0.1"} for at in range(300)], asked)
    whole = client.get("/v1/receipts?limit=2").json()
    assert [one["at_seconds"] for one in whole["data"]] == [299.0, 298.0]
    assert whole["unanswered_nodes"] == ["10.0.0.2"]
    assert len(client.get("/v1/receipts?limit=1000").json()["data"]) == 200
    own = client.get("/v1/receipts?limit=1", headers={"authorization": "Bearer a"}).json()
    assert own == {"object": "list", "data": [{"at_seconds": 299.0}], "complete": False}
    assert asked[-1] == ("recent", "a")
