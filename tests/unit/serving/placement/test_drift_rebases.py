from __future__ import annotations

import pytest
from ray.experimental import internal_kv

from serving.placement.drift_rebases import RayRebases


def test_what_one_replica_writes_another_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[bytes, bytes] = {}

    def put(key: bytes, value: bytes, *, overwrite: bool, namespace: bytes) -> None:
        assert overwrite
        stored[key] = value

    monkeypatch.setattr(internal_kv, "_internal_kv_put", put)
    monkeypatch.setattr(internal_kv, "_internal_kv_get", lambda key, *, namespace: stored.get(key))
    assert RayRebases().read("org/m") == 0.0
    RayRebases().write("org/m", 1_700_000_000.123456)
    assert RayRebases().read("org/m") == 1_700_000_000.123456
    assert RayRebases().read("n") == 0.0
    assert list(stored) == [b"drift-rebased:org/m"]
