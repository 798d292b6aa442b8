"""When operators asked for new references of drift, for every replica of the cluster to see."""

from __future__ import annotations

_NAMESPACE = b"wattgate"
_PREFIX = b"drift-rebased:"


class RayRebases:
    """In the key-value store of Ray's control service, as caps that are held. Blocks."""

    def read(self, model: str) -> float:
        from ray.experimental.internal_kv import _internal_kv_get

        found = _internal_kv_get(_PREFIX + model.encode(), namespace=_NAMESPACE)
        return float(found) if found else 0.0

    def write(self, model: str, at_seconds: float) -> None:
        from ray.experimental.internal_kv import _internal_kv_put

        value = repr(at_seconds).encode()
        _internal_kv_put(_PREFIX + model.encode(), value, overwrite=True, namespace=_NAMESPACE)
