from __future__ import annotations

import socket

import httpx
import pytest

from serving.access import KeyRing
from serving.placement.exporter import NodeExporter, Targets
from serving.placement.recently_seen import RecentlySeen
from tests.unit.serving.fakes import ManualClock


def exporter(keys: KeyRing, port: int = 0) -> NodeExporter:
    return NodeExporter(keys, lambda: (b"a_metric 1\n", "text/plain; version=0.0.4"), "127.0.0.1", port)


async def asked(keys: KeyRing, key: str | None) -> tuple[int, str]:
    made = exporter(keys)
    url = f"http://127.0.0.1:{made.start()}/metrics"
    try:
        async with httpx.AsyncClient() as client:
            answer = await client.get(url, headers={} if key is None else {"authorization": f"Bearer {key}"})
    finally:
        await made.close()
    return answer.status_code, answer.text


@pytest.mark.parametrize(("key", "status"), [("admin", 200), ("alices", 403), ("wrong", 401), (None, 401)])
async def test_figures_are_the_admins_where_there_is_one(key: str | None, status: int) -> None:
    found, text = await asked(KeyRing({"alice": "alices"}, admin_key="admin"), key)
    assert found == status
    assert ("a_metric" in text) == (status == 200)


async def test_without_an_admin_the_only_tenants_key_opens_them() -> None:
    assert (await asked(KeyRing({"alice": "alices"}), "alices"))[0] == 200
    assert (await asked(KeyRing({}), None))[0] == 200


async def test_without_an_admin_no_tenant_sees_what_is_of_several() -> None:
    status, text = await asked(KeyRing({"alice": "alices", "bob": "bobs"}), "alices")
    assert status == 403
    assert "access.admin_key" in text


async def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"server.metrics_port: cannot listen on 127.0.0.1:{port}"):
            exporter(KeyRing({}), port).start()


def test_a_node_that_went_stays_a_target_until_its_alert_has_fired() -> None:
    clock, alive = ManualClock(), {"a:1", "b:1"}
    targets = Targets(lambda: alive, RecentlySeen(clock=clock))
    assert targets() == ["a:1", "b:1"]
    alive.discard("b:1")
    clock.advance(600)
    assert targets() == ["a:1", "b:1"]
    clock.advance(400)
    assert targets() == ["a:1"]
