from __future__ import annotations

import sys
from enum import StrEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from serving.placement import applications
from serving.placement.applications import Application, ApplicationFailed, all_run, run_applications

ONE, OTHER = Application("one", "/one", "bound"), Application("other", "/other", "bound")


class Status(StrEnum):
    DEPLOYING = "DEPLOYING"
    RUNNING = "RUNNING"
    DEPLOY_FAILED = "DEPLOY_FAILED"


def state(status: Status, message: str = "", **deployments: str) -> Any:
    told = {name: SimpleNamespace(message=text) for name, text in deployments.items()}
    return SimpleNamespace(status=status, message=message, deployments=told)


class Serve(ModuleType):
    """What stands for Ray Serve: each look finds the next of the states, the last for good."""

    def __init__(self) -> None:
        super().__init__("ray.serve")
        self.states: list[dict[str, Any]] = []
        self.handed: list[str] = []
        self.refuses: Exception | None = None
        self.proxies_waited_for = 0

    def RunTarget(self, target: Any, name: str, route_prefix: str) -> str:  # noqa: N802  # Ray's name
        return f"{name} at {route_prefix}"

    def run_many(self, targets: list[str], **waits: bool) -> None:
        assert set(waits.values()) == {False}, "it would wait beyond our reach"
        if self.refuses is not None:
            raise self.refuses
        self.handed += targets

    def status(self) -> Any:
        return SimpleNamespace(applications=self.states.pop(0) if len(self.states) > 1 else self.states[0])

    def wait_for_proxies_serving(self) -> None:
        self.proxies_waited_for += 1


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    made = Serve()
    ray = ModuleType("ray")
    ray.serve = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", made)
    monkeypatch.setitem(sys.modules, "ray.serve.schema", SimpleNamespace(ApplicationStatus=Status))
    monkeypatch.setitem(sys.modules, "ray.serve.context", SimpleNamespace(_get_global_client=lambda: made))
    monkeypatch.setattr(applications, "time", SimpleNamespace(sleep=lambda seconds: None))
    return made


def test_it_waits_until_all_run_and_the_proxy_knows_them(serve: Serve) -> None:
    running, deploying = state(Status.RUNNING), state(Status.DEPLOYING)
    serve.states = [{}, {"one": running}, {"one": running, "other": deploying}, {"one": running, "other": running}]
    looks: list[int] = []
    run_applications([ONE, OTHER], lambda: looks.append(serve.proxies_waited_for))
    assert serve.handed == ["one at /one", "other at /other"]
    assert looks == [0, 0, 0]
    assert serve.proxies_waited_for == 1


def test_nothing_to_run_asks_nothing(serve: Serve) -> None:
    serve.states = [{}]
    run_applications([])
    assert (serve.handed, serve.proxies_waited_for) == ([], 0)


def test_one_that_fails_is_told_in_the_last_line_of_its_own_words(serve: Serve) -> None:
    failed = state(
        Status.DEPLOY_FAILED, "a deployment failed", healthy="", gateway="Traceback\n  ValueError: no disk\n"
    )
    serve.states = [{"one": state(Status.DEPLOYING)}, {"one": failed}]
    with pytest.raises(ApplicationFailed, match=r"^ValueError: no disk$"):
        run_applications([ONE])


def test_what_ray_serve_does_not_take_is_one_line(serve: Serve) -> None:
    serve.refuses = RuntimeError("the controller\nis away\n")
    with pytest.raises(ApplicationFailed, match=r"^is away$"):
        run_applications([ONE])


def test_whoever_looks_meanwhile_may_end_the_waiting(serve: Serve) -> None:
    serve.states = [{"one": state(Status.DEPLOYING)}]

    def look() -> None:
        raise TimeoutError("too long")

    with pytest.raises(TimeoutError):
        run_applications([ONE], look)
    assert not all_run([ONE])
