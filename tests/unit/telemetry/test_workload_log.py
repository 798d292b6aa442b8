"""The gateway's own traffic as a workload: written without a word of it, read as it was asked."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from metering.errors import BadInput
from serving.config_sources import load_config
from serving.limits.book import Use
from serving.telemetry.ended import Ended
from serving.telemetry.workload_log import line, workload_log
from serving.tuning.workload_file import parse_workload, read_workload


def ended(at: float, prompt: int = 80, output: int = 40, status: int = 200, cache: str = "MISS") -> Ended:
    use = Use(prompt_tokens=prompt, output_tokens=output)
    return Ended(
        "request-7", "/v1/chat/completions", status, None, at, 1.5, tenant="acme", model="m", cache=cache, use=use
    )


def test_a_log_is_read_as_the_workload_that_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "workload.jsonl"
    log = workload_log(path, 1_000_000)
    # in the order in which they ended
    log.ended(ended(1_700_000_002.5, prompt=30, output=9))
    log.ended(ended(1_700_000_001.0))
    log.ended(ended(1_700_000_004.0, cache="HIT-EXACT"))
    log.ended(ended(1_700_000_003.0, status=503))
    log.close()
    workload = read_workload(path)
    assert workload.arrival_seconds.tolist() == [0.0, 1.5, 3.0]
    assert workload.prompt_tokens.tolist() == [80, 30, 80]
    assert workload.output_tokens.tolist() == [40, 9, 40]
    assert workload.repeat_of.tolist() == [-1, -1, 0]


def test_a_line_holds_a_time_and_lengths_and_nothing_else() -> None:
    assert line(ended(1_700_000_000.1234)) == {
        "arrived_at_seconds": 1_700_000_000.123,
        "prompt_tokens": 80,
        "output_tokens": 40,
    }


def test_a_full_file_is_put_aside_once(tmp_path: Path) -> None:
    path = tmp_path / "workload.jsonl"
    for batch in range(5):
        log = workload_log(path, 500)
        for number in range(20):
            log.ended(ended(1_700_000_000.0 + 20 * batch + number))
        log.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["workload.jsonl.1"]
    assert len(read_workload(tmp_path / "workload.jsonl.1")) == 20


def test_broken_lines_of_a_log_are_named() -> None:
    good = orjson.dumps({"arrived_at_seconds": 1.0, "prompt_tokens": 3, "output_tokens": 4})
    lines = [good, b'{"arrived_at_seconds": 1, "prompt_tokens": 0, "output_tokens": 4}', good[:-1] + b',"hit":1}']
    with pytest.raises(BadInput, match=r"line 2: prompt_tokens .* line 3: hit must be true or false"):
        parse_workload(lines, "log")
    with pytest.raises(BadInput, match="line 1 is a line of a gateway's log, line 2 is lengths alone"):
        parse_workload([good, b'{"arrival_seconds": 0, "prompt_tokens": 3, "output_tokens": 4}'], "log")


def test_the_switch_is_in_the_config(tmp_path: Path) -> None:
    telemetry = load_config(None, {"telemetry.workload_log": "here.jsonl"}, environment={}).config.telemetry
    assert telemetry.workload_log == Path("here.jsonl").absolute()
    assert load_config(None, environment={}).config.telemetry.workload_log is None
