from __future__ import annotations

import pytest

from serving.config import GatewayConfig
from serving.operations.events import changes
from serving.placement.replica import live_settings, of_admission


@pytest.mark.parametrize(
    ("later", "of_it"),
    [
        ({"admission": {"max_concurrency": 4}}, True),
        ({"admission": {"max_queue": 4}}, True),
        ({"access": {"tenants": {"admission": {"priority": "batch"}}}}, False),
        ({"control": {"mode": "dry_run", "slo": ["itl_p95<=50ms"]}}, False),
    ],
)
def test_only_a_change_of_admission_is_one_of_what_traffic_is_compared_with(
    later: dict[str, object], of_it: bool
) -> None:
    before, after = (live_settings(GatewayConfig.model_validate(settings)) for settings in ({}, later))
    told = changes("config", before, after)
    assert told
    assert {of_admission(change) for change in told} == {of_it}


def test_a_model_s_own_admission_is_one_too() -> None:
    assert of_admission("models.a.b.admission.max_concurrency: 8 -> 4")
    assert not of_admission("access.tenants.models.admission.requests_per_minute: None -> 4")
