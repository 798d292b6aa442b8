from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from serving.access import KeyRing
from serving.errors import GatewayError
from serving.operations.drift_pages import PATH, DriftPages, DriftReferenceList
from serving.operations.drift_references import OwnRebases, References
from serving.operations.drift_telling import Telling
from serving.operations.drift_watch import DriftWatch, DriftWatches
from tests.unit.operations.test_cap_pages import ADMIN, envelope
from tests.unit.operations.test_drift import traffic


class Rebases(OwnRebases):
    away = False

    def write(self, model: str, at_seconds: float) -> None:
        if self.away:
            raise RuntimeError("the control service is away")
        super().write(model, at_seconds)


@pytest.fixture
def rebases() -> Rebases:
    return Rebases()


@pytest.fixture
def watches(rebases: Rebases) -> DriftWatches:
    references = References(rebases=rebases)
    watches = DriftWatches(
        lambda model: DriftWatch(Telling(lambda *event: None), model, size=60, references=references), references
    )
    for model in ("m", "n"):
        for seen in traffic(0, 60).requests:
            watches.ended(model, seen)
    return watches


def client(watches: DriftWatches | None) -> TestClient:
    pages = DriftPages(KeyRing({"a": "tenant"}, admin_key="admin"), watches, lambda: ["m", "n"])
    return TestClient(Starlette(routes=pages.routes(), exception_handlers={GatewayError: envelope}))


def counts(answer: Any) -> dict[str, int]:
    return {one.model: one.requests for one in DriftReferenceList.model_validate(answer.json()).data}


def test_an_operator_lets_one_model_s_reference_go(watches: DriftWatches) -> None:
    http = client(watches)
    assert counts(http.get(PATH, headers=ADMIN)) == {"m": 60, "n": 60}
    assert counts(http.delete(f"{PATH}?model=m", headers=ADMIN)) == {"m": 0, "n": 60}
    assert counts(http.delete(PATH, headers=ADMIN)) == {"m": 0, "n": 0}


def test_a_tenant_sees_and_changes_nothing(watches: DriftWatches) -> None:
    http, tenant = client(watches), {"authorization": "Bearer tenant"}
    assert http.get(PATH, headers=tenant).status_code == 403
    assert http.delete(PATH, headers=tenant).status_code == 403
    assert http.delete(PATH).status_code == 401
    assert counts(http.get(PATH, headers=ADMIN)) == {"m": 60, "n": 60}


def test_what_cannot_be_done_is_said(watches: DriftWatches, rebases: Rebases) -> None:
    assert client(watches).delete(f"{PATH}?model=x", headers=ADMIN).status_code == 404
    assert client(None).delete(PATH, headers=ADMIN).json()["error"]["code"] == "no_drift_watch"
    assert counts(client(None).get(PATH, headers=ADMIN)) == {}
    rebases.away = True
    answer = client(watches).delete(PATH, headers=ADMIN)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "drift_unavailable")
