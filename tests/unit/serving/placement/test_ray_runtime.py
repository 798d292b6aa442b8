from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from serving.placement.ray_runtime import enter_ray, environment, lasting_port, proxy_environment, reason


def test_two_runs_share_no_path_and_no_port(tmp_path: Path) -> None:
    one = environment(tmp_path / "one", longest_request_seconds=300)
    two = environment(tmp_path / "two", longest_request_seconds=300)
    own = [key for key in one if key.endswith(("_PATH", "_LOC", "_BASE", "_FILE", "_DIR"))]
    own += ["RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"]
    assert len(own) >= 8
    assert [key for key in own if one[key] == two[key]] == []


def test_a_reload_of_the_proxy_outlasts_the_longest_request(tmp_path: Path) -> None:
    assert int(environment(tmp_path, longest_request_seconds=300)["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) > 300


def test_ports_for_later_are_none_that_linux_gives_to_others() -> None:
    assert {lasting_port() < 32768 for _ in range(5)} == {True}


def test_conversations_are_hashed_only_where_asked_for(tmp_path: Path) -> None:
    key = "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"
    assert key not in proxy_environment(tmp_path, longest_request_seconds=300)
    asked = proxy_environment(tmp_path, longest_request_seconds=300, affinity="conversation")
    assert asked[key].startswith("hash lua.conversation")


class TakesSigterm:
    """What stands for Ray: ``init`` puts a handler of its own in place, as Ray does."""

    def __init__(self, during: BaseException | None = None) -> None:
        self.during = during

    def init(self, **how: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        if self.during is not None:
            raise self.during


@pytest.mark.parametrize(
    ("during", "told"),
    [(None, None), (SystemExit(15), KeyboardInterrupt), (ConnectionError(), ConnectionError)],
)
def test_sigterm_belongs_to_who_had_it_whatever_ray_does(
    monkeypatch: pytest.MonkeyPatch, during: BaseException | None, told: type[BaseException] | None
) -> None:
    monkeypatch.setitem(sys.modules, "ray", TakesSigterm(during))

    def ours(number: int, frame: object) -> None:
        raise AssertionError("nobody sends it")

    before = signal.signal(signal.SIGTERM, ours)
    try:
        with contextlib.nullcontext() if told is None else pytest.raises(told):
            enter_ray()
        assert signal.getsignal(signal.SIGTERM) is ours
        # it is for this process: what Ray starts keeps its traces of faults
        assert "RAY_DISABLE_FAILURE_SIGNAL_HANDLER" not in os.environ
    finally:
        signal.signal(signal.SIGTERM, before)


class RaisedElsewhere(Exception):
    """What Ray raises for an error of another process: its text is a traceback that begins with the process."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"ray::Proxy.ready() (pid=1, actor_id=2)\n  File x, line 3\n{type(cause).__name__}: {cause}")
        self.cause = cause


def test_the_reason_of_a_failed_start_is_the_other_processs_error_on_one_line() -> None:
    error = RaisedElsewhere(RuntimeError("HAProxy crashed:\n  cannot bind socket [127.0.0.1:8000]\n"))
    assert reason(error) == "HAProxy crashed: cannot bind socket [127.0.0.1:8000]"
    assert reason(TimeoutError()) == "TimeoutError"


def test_runs_that_follow_each_other_in_a_process_have_one_token(tmp_path: Path) -> None:
    tokens = {environment(tmp_path / run, longest_request_seconds=1)["RAY_AUTH_TOKEN"] for run in ("first", "second")}
    assert len(tokens) == 1
