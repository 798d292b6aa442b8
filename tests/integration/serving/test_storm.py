"""The storm of malformed requests, short: see ``tests/bench/faults/storm.py`` for its full size."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.bench.faults.storm import started, storm

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.redis]

MOST_GROWTH_MIB = 48.0
"""Allocators keep some of what the largest bodies took; a leak of every request's body would be far more."""


def test_malformed_requests_through_the_proxy_leave_nothing_behind(tmp_path: Path) -> None:
    gateway = started(tmp_path)
    try:
        report = asyncio.run(storm(gateway, 700, 7, loris=20, step=7))
    finally:
        gateway.stop()
    assert report["failures"] == []
    assert report["server_errors"] == report["hung"] == 0
    assert report["statuses"]["400"] > 100
    assert report["after"]["replica_rss_mib"] - report["before"]["replica_rss_mib"] < MOST_GROWTH_MIB
    assert report["after"]["descriptors"] <= report["before"]["descriptors"] + 10
