"""Two Ray nodes, each in a network namespace of its own, serve one gateway. In this order: the last loses a node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.cluster.conversations import converse_all, shares
from tests.integration.cluster.loss import lose_a_node
from tests.integration.cluster.nodes import HEADERS, KEY, Cluster
from tests.integration.operations.prometheus_process import PrometheusProcess
from tests.integration.serving.gateway_process import until

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.redis]


def ask(cluster: Cluster, text: str, **headers: str) -> httpx.Response:
    body = {
        "model": "simulated-1b",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 400,
        "temperature": 0,
    }
    answer = httpx.post(f"{cluster.url}/v1/chat/completions", json=body, headers=HEADERS | headers, timeout=60)
    answer.raise_for_status()
    return answer


def per_node(cluster: Cluster, name: str, **labels: str) -> list[float]:
    return [cluster.metric(name, target, **labels) for target in cluster.targets()]


def test_both_nodes_have_a_replica_a_meter_and_an_address_for_prometheus(cluster: Cluster) -> None:
    assert until(lambda: sorted(cluster.targets()), what="the targets") == [
        f"{address}:9464" for address in cluster.network.addresses
    ]
    until(lambda: per_node(cluster, "wattgate_engine_ready") == [1, 1], what="an engine on each node")


def test_a_nodes_figures_are_for_those_with_a_key(cluster: Cluster) -> None:
    assert httpx.get(f"http://{cluster.targets()[0]}/metrics").status_code == 401


def test_a_conversation_stays_where_its_prefix_is_known(cluster: Cluster) -> None:
    turns = asyncio.run(converse_all(cluster.url, conversations=12, turns=4, at_once=6))
    of = {number: [turn for turn in turns if turn.conversation == number] for number in range(12)}
    # 0.8: what a turn finds of the one before, in whole blocks; a turn elsewhere finds the system prompt only
    kept = [all(turn.cached_tokens > 0.6 * turn.prompt_tokens for turn in found[1:]) for found in of.values()]
    assert sum(kept) >= 10, shares(turns)
    requests = per_node(cluster, "wattgate_requests_total", status="200")
    assert sum(requests) >= 48
    assert min(requests) > 0, "all conversations went to one node"


def test_one_redis_serves_both(cluster: Cluster) -> None:
    before = per_node(cluster, "wattgate_cache_lookups_total")
    outcomes = [ask(cluster, "Who keeps the grid?", **{"x-wattgate-session": f"s{n}"}) for n in range(12)]
    assert [answer.headers["x-cache"] for answer in outcomes] == ["MISS"] + 11 * ["HIT-EXACT"]
    after = per_node(cluster, "wattgate_cache_lookups_total")
    assert all(now > then for now, then in zip(after, before, strict=True)), "only one node was asked"


def test_a_receipt_is_found_from_every_node_and_the_books_of_each_balance(cluster: Cluster) -> None:
    answers = [ask(cluster, f"Question {n}.", **{"x-wattgate-session": f"r{n}"}) for n in range(8)]
    for number, answer in enumerate(answers):
        ident = answer.headers["x-wattgate-receipt"]

        def final(ident: str = ident, number: int = number) -> bool:
            headers = HEADERS | {"x-wattgate-session": f"elsewhere{number}"}
            found = httpx.get(f"{cluster.url}/v1/receipts/{ident}", headers=headers, timeout=30)
            return found.status_code == 200 and found.json()["status"] == "final"

        until(final, what=f"the final receipt of request {number}")
    assert per_node(cluster, "wattgate_books_difference_joules") == [0, 0]
    # each node has one device, metered once, whoever asks
    assert all(49.9 <= watts <= 300 for watts in per_node(cluster, "wattgate_power_watts"))


def asked_of_both(cluster: Cluster, path: str) -> list[dict[str, Any]]:
    """A session each, so that both replicas are asked."""
    return [
        httpx.get(cluster.url + path, headers=HEADERS | {"x-wattgate-session": f"list{n}"}, timeout=30).json()
        for n in range(4)
    ]


def test_what_both_nodes_record_is_one_list_whoever_is_asked(cluster: Cluster) -> None:
    for answer in asked_of_both(cluster, "/v1/events"):
        assert answer["unanswered_nodes"] == []
        assert {event["node"] for event in answer["data"]} == set(cluster.network.addresses)


def test_a_tenants_receipts_are_those_of_both_nodes(cluster: Cluster) -> None:
    idents = {
        ask(cluster, f"Item {n}.", **{"x-wattgate-session": f"i{n}"}).headers["x-wattgate-receipt"] for n in range(8)
    }

    def listed() -> bool:
        answers = asked_of_both(cluster, "/v1/receipts?limit=200")
        assert all(answer["complete"] for answer in answers)
        return all(idents <= {one["receipt_id"] for one in answer["data"]} for answer in answers)

    until(listed, what="the receipts of all requests, from both replicas")


def test_prometheus_finds_both_and_shows_one_view(cluster: Cluster, tmp_path: Path) -> None:
    prometheus = PrometheusProcess(cluster.url, tmp_path, key=KEY)
    try:
        until(lambda: len(prometheus.query('up{job="wattgate"} == 1')) == 2, what="two targets that are up")
        expected = sum(per_node(cluster, "wattgate_requests_total"))
        until(
            lambda: [float(s["value"][1]) for s in prometheus.query("sum(wattgate_requests_total)")] == [expected],
            what="the sum of both nodes",
        )
        assert len(prometheus.query("wattgate_power_watts")) == 2
    finally:
        prometheus.stop()


def test_a_rolling_change_loses_no_request(cluster: Cluster) -> None:
    """A new engine setting replaces the replicas one after the other, under load."""
    cluster.configure({"engine": {"served_model_name": "simulated-1b", "revision": "second"}})

    async def run() -> list[int]:
        statuses: list[int] = []
        ended = asyncio.Event()

        async def client(number: int) -> None:
            async with httpx.AsyncClient(headers=HEADERS | {"cache-control": "no-store"}, timeout=60) as http:
                turn = 0
                while not ended.is_set():
                    turn += 1
                    body = {
                        "model": "simulated-1b",
                        "messages": [{"role": "user", "content": f"Client {number}, turn {turn}."}],
                        "max_tokens": 24,
                    }
                    answer = await http.post(f"{cluster.url}/v1/chat/completions", json=body)
                    statuses.append(answer.status_code)

        clients = [asyncio.create_task(client(number)) for number in range(6)]
        cluster.gateway.process.send_signal(1)  # SIGHUP
        await asyncio.to_thread(cluster.gateway.wait_for, "all replicas are replaced")
        ended.set()
        await asyncio.gather(*clients)
        return statuses

    statuses = asyncio.run(run())
    assert len(statuses) > 20
    assert set(statuses) == {200}


def test_a_lost_node_loses_no_request_that_had_not_begun_to_answer(cluster: Cluster) -> None:
    fates = asyncio.run(lose_a_node(cluster, lambda: cluster.network.cut(1), requests=32))
    waiting = [fate for fate in fates if not fate.begun_before]
    assert len(waiting) > 16
    assert [fate for fate in waiting if not fate.complete] == []
    assert any(fate.begun_before and fate.complete for fate in fates), "streams of the other node go on"
    assert ask(cluster, "And now?").status_code == 200
    # its target stays known for a while, so that the alert that it is down can fire
    assert len(cluster.targets()) == 2
