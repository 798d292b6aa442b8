from __future__ import annotations

import pytest

from metering.work import Method
from serving.engines.base import EngineStatus
from serving.engines.several import SeveralEngines
from serving.errors import EngineUnavailable
from tests.unit.serving.engines.contract import EngineKit
from tests.unit.serving.fakes import HeldEngine


class Failing(HeldEngine):
    closed = False

    async def start(self) -> None:
        raise RuntimeError("no model")


class Closing(HeldEngine):
    closed = False

    async def close(self) -> None:
        self.closed = True


async def test_a_request_goes_to_the_engine_of_its_model() -> None:
    a, b = HeldEngine("a"), HeldEngine("b")
    several = SeveralEngines([a, b])
    for name in ("b", "a", "b"):
        kit = EngineKit(several, name)
        await kit.ask(kit.chat())
    assert ([r.model for r in a.requests], [r.model for r in b.requests]) == (["a"], ["b", "b"])
    assert [model.name for model in several.models()] == ["a", "b"]


async def test_a_model_that_nobody_serves_is_unavailable() -> None:
    kit = EngineKit(SeveralEngines([HeldEngine("a")]), "c")
    with pytest.raises(EngineUnavailable):
        await kit.ask(kit.chat())


def test_it_is_ready_while_one_is_and_says_what_is_wrong_with_the_others() -> None:
    a, b = HeldEngine("a"), HeldEngine("b")
    several = SeveralEngines([a, b])
    b.now = EngineStatus(ready=False, reason="the upstream is gone", running=2)
    assert several.status() == EngineStatus(ready=True, reason="b: the upstream is gone", running=2)
    a.now = EngineStatus(ready=False, reason="dead", fatal=True)
    status = several.status()
    assert (status.ready, status.fatal) == (False, True)
    assert "a: dead" in status.reason


def test_its_kind_and_method_are_those_of_all() -> None:
    a, b = HeldEngine("a"), HeldEngine("b")
    assert (SeveralEngines([a, b]).kind, SeveralEngines([a, b]).method) == ("held", Method.MEASURED)
    b.kind, b.method = "other", Method.SIMULATED
    assert (SeveralEngines([a, b]).kind, SeveralEngines([a, b]).method) == ("several", Method.SIMULATED)


async def test_a_start_that_fails_leaves_none_started() -> None:
    first = Closing("a")
    with pytest.raises(RuntimeError, match="no model"):
        await SeveralEngines([first, Failing("b")]).start()
    assert first.closed
