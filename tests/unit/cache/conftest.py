from __future__ import annotations

import pytest

from cache.tiers import ResponseCache
from tests.unit.cache.replicas import Kit


@pytest.fixture
def kit() -> Kit:
    return Kit()


@pytest.fixture
def cache(kit: Kit) -> ResponseCache:
    return kit.replica()
