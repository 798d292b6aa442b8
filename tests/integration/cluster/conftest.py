from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cluster.network import require_namespaces
from tests.integration.cluster.nodes import Cluster

SIMULATED = {
    "kind": "simulated",
    "simulated": {"prefix_cache_tokens": 65536, "step_seconds": 0.02, "step_seconds_per_sequence": 0.001},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_namespaces()
    sections = {"engine": SIMULATED, "admission": {"max_concurrency": 8}}
    with Cluster(tmp_path_factory.mktemp("cluster"), sections) as cluster:
        yield cluster
