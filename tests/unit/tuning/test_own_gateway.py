from pathlib import Path

from serving.config_sources import load_config
from serving.tuning.own_gateway import own_gateway

THEIRS = {
    "server.host": "0.0.0.0",
    "access.api_keys": {"t": "secret"},
    "access.default_tenant": {"limits": {"requests_per_minute": 1}},
    "limits.folder": "/data/accounts",
    "limits.redis": "redis://accounts:6379/0",
    "batches.folder": "/data/batches",
    "cache.redis": "redis://cache:6379/0",
    "cache.shadow_labels": "/data/labels.jsonl",
    "telemetry.workload_log": "/data/workload.jsonl",
    "telemetry.request_log": "/data/requests.jsonl",
    "telemetry.otlp_endpoint": "http://collector:4318",
    "metering.history": {"path": "/data/history.sqlite3"},
    "metering.zone": "FRA",
    "admission.max_queue": 77,
}


def test_drawn_requests_are_kept_nowhere_of_the_users_and_what_works_is_as_they_have_it():
    config = load_config(None, THEIRS, environment={}).config
    own = own_gateway(config)
    kept = own.model_dump()
    assert own.server.port == 0
    assert own.server.host == "127.0.0.1"
    assert own.access.keyless
    assert not own.access.limited
    assert (own.limits.folder, own.limits.redis, own.batches.folder) == (None, None, None)
    assert own.cache.redis == "embedded"
    assert not own.metering.history.enabled
    assert (own.metering.zone, own.admission.max_queue) == ("FRA", 77)
    paths = [value for section in kept.values() if isinstance(section, dict) for value in section.values()]
    assert not [path for path in paths if isinstance(path, Path)]
    assert (own.telemetry.request_log, own.telemetry.otlp_endpoint) == (None, None)
