from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from serving.placement import joined
from serving.placement.applications import ApplicationFailed
from serving.placement.joined import JoinedGateway
from serving.placement.supervisor import StartError
from tests.unit.serving.placement.test_cluster import config


class Cluster:
    """What stands for Ray Serve on the cluster."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.handed = 0
        self.refuses = False
        self.run: bool | ApplicationFailed = False
        self.told: list[str] = []
        monkeypatch.setattr(joined, "serve_deployment", lambda *_, **__: "bound")
        monkeypatch.setattr(joined, "hand_over", self._hand_over)
        monkeypatch.setattr(joined, "all_run", self._all_run)
        self.gateway = JoinedGateway(config(), "10.0.0.1:6379", "a-token-of-the-tests", self.told.append)

    def _hand_over(self, wanted: object) -> None:
        if self.refuses:
            raise ApplicationFailed("Serve is away")
        self.handed += 1

    def _all_run(self, wanted: object) -> bool:
        if isinstance(self.run, ApplicationFailed):
            raise self.run
        return self.run


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_a_live_setting_is_applied_at_once(cluster: Cluster) -> None:
    assert cluster.gateway.apply(config(admission__max_concurrency=5)) == ["applied: admission.max_concurrency 32 -> 5"]
    assert cluster.handed == 1
    cluster.gateway.watch()
    assert cluster.told == []


def test_what_could_not_be_handed_over_is_tried_again(cluster: Cluster) -> None:
    cluster.refuses = True
    assert cluster.gateway.apply(config(admission__max_concurrency=5)) == ["not reloaded: Serve is away"]
    cluster.refuses = False
    assert cluster.gateway.apply(config(admission__max_concurrency=5)) == ["applied: admission.max_concurrency 32 -> 5"]


def test_the_same_again_hands_nothing_over(cluster: Cluster) -> None:
    assert cluster.gateway.apply(config()) == ["nothing has changed"]
    assert cluster.handed == 0


def test_another_setting_is_rolled_out_and_its_end_is_told_once(cluster: Cluster) -> None:
    lines = cluster.gateway.apply(config(server__request_timeout_seconds=100, server__replicas=2))
    assert lines[-1] == "replacing the replicas one by one"
    assert cluster.gateway.apply(config()) == ["not reloaded: the last change is still being rolled out"]
    cluster.gateway.watch()
    assert cluster.told == []
    cluster.run = True
    cluster.gateway.watch()
    cluster.gateway.watch()
    assert cluster.told == ["all replicas are replaced"]


def test_a_roll_out_that_fails_is_told_and_another_may_follow(cluster: Cluster) -> None:
    cluster.gateway.apply(config(server__request_timeout_seconds=100))
    cluster.run = ApplicationFailed("no disk")
    cluster.gateway.watch()
    assert cluster.told == ["the replicas could not be replaced: no disk"]
    assert cluster.gateway.apply(config(server__request_timeout_seconds=101))[-1].startswith("replacing the only")


def test_what_a_cluster_refuses_is_not_reloaded(cluster: Cluster) -> None:
    (line,) = cluster.gateway.apply(config(server__port=0))
    assert line.startswith("not reloaded: server.port")
    assert cluster.handed == 0


def test_the_address_stays_that_of_the_start(cluster: Cluster) -> None:
    assert cluster.gateway.apply(config(server__port=9000)) == [
        "not applied: server.port 8000 -> 9000: it takes a restart"
    ]
    assert cluster.handed == 0


def test_what_the_nodes_meters_were_made_with_waits_for_a_restart(cluster: Cluster) -> None:
    asked = config(metering__pue=1.2, server__metrics_port=9000, telemetry__engine_model="/a/model.json")
    assert set(cluster.gateway.apply(asked)) == {
        "not applied: metering.pue 1.0 -> 1.2: it takes a restart",
        "not applied: server.metrics_port 9464 -> 9000: it takes a restart",
        "not applied: telemetry.engine_model none -> /a/model.json: it takes a restart",
    }
    assert cluster.handed == 0
    assert cluster.gateway.config.metering.pue == 1.0


def test_new_keys_are_the_replicas_and_not_yet_those_of_the_nodes_exporters(cluster: Cluster) -> None:
    lines = cluster.gateway.apply(config(access__admin_key="of-another-admin"))
    late = "not applied at server.metrics_port of the nodes: access.admin_key is another: it takes a restart"
    assert lines[:-1] == [late, "applied: access.admin_key is another"]


@pytest.mark.parametrize(
    ("replicas", "room", "told"),
    [(1, True, "once another one beside it is ready"), (1, False, "nothing answers from"), (2, False, "one by one")],
)
def test_whether_anybody_answers_meanwhile_is_said(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, replicas: int, room: bool, told: str
) -> None:
    monkeypatch.setattr(joined, "has_room_now", lambda _: room)
    lines = cluster.gateway.apply(config(server__request_timeout_seconds=100, server__replicas=replicas))
    assert told in lines[-1]


def test_meters_write_their_history_before_they_are_ended(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    ray = SimpleNamespace(
        is_initialized=lambda: True,
        get_actor=lambda name, namespace: name,
        kill=lambda actor: done.append(f"kill {actor}"),
        shutdown=lambda: done.append("leave"),
        serve=SimpleNamespace(delete=lambda name: done.append("replicas"), shutdown=lambda: None),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(joined, "sweep", lambda folder: None)
    monkeypatch.setattr(joined.RayBoard, "clear", lambda board: done.append("held caps"))
    monkeypatch.setattr(joined, "forget_all", lambda: done.append("seen nodes"))
    monkeypatch.setattr(joined, "meters_alive", lambda: {"node": "meter"})
    monkeypatch.setattr(joined, "stop_node_meters", lambda: done.append("history"))
    cluster.gateway._folder, cluster.gateway._owner = Path("unused"), object()
    cluster.gateway.close()
    assert done == ["replicas", "held caps", "seen nodes", "history", "kill meter", "leave"]


def test_a_second_gateway_is_refused_and_takes_nothing_down(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def taken(**_: object) -> object:
        raise ValueError("The name is already taken.")

    named = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=taken))
    ray = SimpleNamespace(
        is_initialized=lambda: True,
        remote=lambda **_: lambda of: named,
        shutdown=lambda: done.append("leave"),
        serve=SimpleNamespace(delete=done.append, shutdown=lambda: done.append("serve")),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(joined, "sweep", lambda folder: None)
    monkeypatch.setattr(joined, "_OWNER_SECONDS", 0.0)
    with pytest.raises(StartError, match="a gateway runs on the cluster"):
        cluster.gateway._own_cluster()
    cluster.gateway._folder = Path("unused")
    cluster.gateway.close()
    assert done == ["leave"]
