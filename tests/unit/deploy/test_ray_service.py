from __future__ import annotations

from pathlib import Path

import pytest

from serving.config import ConfigError
from serving.placement import ray_service
from serving.placement.redis_servers import RedisUrls


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WATTGATE_REDIS_URL", "redis://redis:6379/0")
    monkeypatch.setenv("WATTGATE_CACHE_SECRET", "shared-by-all-nodes")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    monkeypatch.setattr(ray_service, "serve_deployment", lambda *arguments: arguments)
    path = tmp_path / "gateway.yaml"
    path.write_text("engine: {kind: simulated}\n")
    return path


def test_replicas_share_redis_and_each_node_has_an_exporter(config: Path) -> None:
    loaded, redis = ray_service.build({"config": str(config)})
    assert redis == RedisUrls(cache="redis://redis:6379/0", accounts="redis://redis:6379/0")
    assert loaded.engine.kind == "simulated"
    assert loaded.server.metrics_port == 9464, "each pod's own series"
    assert loaded.metering.leave_idle_node_seconds == 180, "the autoscaler takes a node with a meter for busy"


@pytest.mark.parametrize("missing", ["WATTGATE_REDIS_URL", "WATTGATE_CACHE_SECRET", "PROMETHEUS_MULTIPROC_DIR"])
def test_what_only_one_machine_has_is_refused_by_name(
    config: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(ConfigError, match=missing):
        ray_service.build({"config": str(config)})
