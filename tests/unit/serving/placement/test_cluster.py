from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.config import ConfigError
from serving.config_sources import load_config
from serving.placement.cluster import cluster_config, cluster_token, node_environment, version_of

SECRETS = {
    "WATTGATE_REDIS_URL": "redis://redis:6379/0",
    "WATTGATE_CACHE_SECRET": "shared-by-all-nodes",
    "WATTGATE_API_KEYS": "alice=key",
}


def config(**flags: Any) -> Any:
    wanted = {"engine.kind": "simulated", "server.host": "0.0.0.0"}
    return load_config(None, wanted | {key.replace("__", "."): value for key, value in flags.items()}, SECRETS).config


@pytest.mark.parametrize("token", ["", "short"])
def test_a_missing_or_short_token_is_refused_by_name(token: str) -> None:
    with pytest.raises(ConfigError, match="WATTGATE_CLUSTER_TOKEN"):
        cluster_token({"WATTGATE_CLUSTER_TOKEN": token})


def test_each_node_gets_an_exporter_unless_its_port_is_set() -> None:
    assert cluster_config(config()).server.metrics_port == 9464
    assert cluster_config(config(server__metrics_port=9000)).server.metrics_port == 9000


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"server__host": "127.0.0.1"}, "server.host"),
        ({"server__port": 0}, "server.port"),
        ({"cache__redis": "embedded"}, "WATTGATE_REDIS_URL"),
    ],
)
def test_what_only_one_machine_has_is_refused_by_name(flags: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        cluster_config(config(**flags))


def test_live_settings_and_the_number_of_replicas_are_the_same_version() -> None:
    live = config(admission__max_concurrency=5, server__replicas=7)
    assert version_of(live) == version_of(config())


@pytest.mark.parametrize("flags", [{"engine__revision": "b"}, {"cache__tier": "off"}, {"metering__pue": 1.2}])
def test_other_settings_are_another_version(flags: dict[str, Any]) -> None:
    assert version_of(config(**flags)) != version_of(config())


def test_a_changed_secret_is_another_version() -> None:
    other = load_config(
        None, {"engine.kind": "simulated", "server.host": "0.0.0.0"}, SECRETS | {"WATTGATE_API_KEYS": "alice=other"}
    )
    assert version_of(other.config) != version_of(config())


def test_nodes_share_the_token_and_nothing_that_lies_on_one_of_them(tmp_path: Path) -> None:
    one = node_environment(config(), tmp_path / "one", "the-shared-secret")
    two = node_environment(config(), tmp_path / "two", "the-shared-secret")
    assert one["RAY_AUTH_TOKEN"] == two["RAY_AUTH_TOKEN"] == "the-shared-secret"
    own = [key for key in one if key.endswith(("_PATH", "_LOC", "_BASE", "_FILE", "_DIR"))]
    assert own
    assert [key for key in own if one[key] == two[key]] == []
    assert "tcp-ut" in one["RAY_SERVE_HAPROXY_RETRY_ON"]
