"""Workloads from JSONL files: conversations (ShareGPT's form) and the gateway's log of lengths and arrival times.

Times count from the first arrival, whatever the file counts them from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from metering.errors import BadInput
from serving.tuning.workload import Floats, Workload

_ERRORS_SHOWN = 5
_TOKENS_PER_WORD = 4 / 3
"""OpenAI's rule of thumb for English, 100 tokens are about 75 words; the gateway's own count replaces it in results."""
_Row = tuple[float | None, int, int, int, int]
"""Arrival (None: not said), prompt, output, prefix, repeat of."""
_Logged = tuple[float, int, int, bool]
"""Arrival, prompt, output, hit."""


def read_workload(path: Path) -> Workload:
    """Read a file, one JSON object a line, empty lines skipped.

    Lines of the gateway's own log (``telemetry.workload_log``) have ``arrived_at_seconds`` (Unix time) in place of
    ``arrival_seconds``, in the order in which requests ended, and ``hit`` where the cache answered: they are put in
    order of arrival, and a hit repeats the latest request before it of the same lengths.

    A line is either ``{"arrival_seconds": 0.5, "prompt_tokens": 80, "output_tokens": 40}`` (optionally
    ``prefix_tokens`` and ``repeat_of``, a line's index from 0), which carries no text, or a conversation
    ``{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}`` (also ``messages`` with
    ``role`` and ``content``), of which only the first question is asked, and as many tokens as its answer has are
    asked for. Conversations may have ``arrival_seconds``, all of them or none: then the workload is not ``timed``.

    Raises:
        BadInput: unreadable, empty or broken lines, each with its number.
    """
    try:
        with path.open("rb") as file:
            return parse_workload(file, str(path))
    except OSError as error:
        raise BadInput(f"cannot read the workload {path}: {error.strerror}") from None


def parse_workload(lines: Iterable[bytes], name: str) -> Workload:
    """See :func:`read_workload`."""
    rows: list[_Row] = []
    numbers: list[int] = []
    """The line of each row."""
    logged: list[_Logged] = []
    texts: list[str] = []
    faults: list[str] = []
    kinds: dict[str, int] = {}
    """The first line of each kind."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
            if isinstance(value, dict) and "arrived_at_seconds" in value:
                logged.append(_logged(value))
                kinds.setdefault("a line of a gateway's log", number)
                continue
            row, text = _row(value, len(rows))
        except orjson.JSONDecodeError:
            faults.append(f"line {number}: not JSON")
            continue
        except ValueError as error:
            faults.append(f"line {number}: {error}")
            continue
        rows.append(row)
        numbers.append(number)
        kinds.setdefault("lengths alone" if text is None else "a conversation", number)
        if text is not None:
            texts.append(text)
    if faults:
        more = f"; and {len(faults) - _ERRORS_SHOWN} more" if len(faults) > _ERRORS_SHOWN else ""
        raise BadInput(f"{name}: {'; '.join(faults[:_ERRORS_SHOWN])}{more}")
    if len(kinds) > 1:
        found = ", ".join(f"line {number} is {kind}" for kind, number in kinds.items())
        raise BadInput(f"{name} mixes kinds of lines ({found}): use one kind")
    if logged:
        rows = _in_order(logged)
    if not rows:
        raise BadInput(f"{name} has no requests: write one JSON object a line")
    arrivals = _arrivals(rows, numbers, name)
    prompt, output, prefix, repeats = (np.array(column) for column in list(zip(*rows, strict=True))[1:])
    return Workload(
        np.zeros(len(rows)) if arrivals is None else arrivals - arrivals[0],
        prompt.astype(np.int64),
        output.astype(np.int64),
        prefix.astype(np.int64),
        repeats.astype(np.int64),
        tuple(texts) if texts else None,
        name,
        timed=arrivals is not None,
    )


def _arrivals(rows: list[_Row], numbers: list[int], name: str) -> Floats | None:
    """None where no row has one."""
    said = [row[0] for row in rows if row[0] is not None]
    if not said:
        return None
    if len(said) < len(rows):
        first = next(number for row, number in zip(rows, numbers, strict=True) if row[0] is None)
        raise BadInput(f"{name}: line {first} has no arrival_seconds, and others have: all need it, or none")
    arrivals = np.array(said, dtype=np.float64)
    early = np.flatnonzero(np.diff(arrivals) < 0)
    if len(early):
        first = numbers[int(early[0]) + 1]
        raise BadInput(f"{name}: line {first} arrives before the one above it: sort the file by arrival_seconds")
    return arrivals


def write_workload(workload: Workload) -> Iterator[bytes]:
    """Lines of the length form: what a log of the gateway holds; no text."""
    columns = zip(
        workload.arrival_seconds.tolist(),
        workload.prompt_tokens.tolist(),
        workload.output_tokens.tolist(),
        workload.prefix_tokens.tolist(),
        workload.repeat_of.tolist(),
        strict=True,
    )
    for arrival, prompt, output, prefix, repeat in columns:
        row: dict[str, Any] = {"arrival_seconds": arrival, "prompt_tokens": prompt, "output_tokens": output}
        if prefix:
            row["prefix_tokens"] = prefix
        if repeat >= 0:
            row["repeat_of"] = repeat
        yield orjson.dumps(row) + b"\n"


def _logged(value: dict[str, Any]) -> _Logged:
    hit = value.get("hit", False)
    if not isinstance(hit, bool):
        raise ValueError(f"hit must be true or false, got {hit!r}")
    arrived = _number(value, "arrived_at_seconds", None)
    return arrived, _whole(value, "prompt_tokens", 1), _whole(value, "output_tokens", 1), hit


def _in_order(logged: list[_Logged]) -> list[_Row]:
    """By arrival, from 0 on."""
    logged = sorted(logged, key=lambda one: one[0])
    latest: dict[tuple[int, int], int] = {}
    rows: list[_Row] = []
    for index, (arrived, prompt, output, hit) in enumerate(logged):
        original = latest.get((prompt, output), -1) if hit else -1
        rows.append((round(arrived - logged[0][0], 3), prompt, output, 0, original))
        if original < 0:
            latest[prompt, output] = index
    return rows


def _row(value: Any, index: int) -> tuple[_Row, str | None]:
    if not isinstance(value, dict):
        raise ValueError("expected an object")
    if "conversations" in value or "messages" in value:
        prompt, answer = _conversation(value)
        arrival = None if "arrival_seconds" not in value else _number(value, "arrival_seconds", None)
        return (arrival, _estimate(prompt), _estimate(answer), 0, -1), prompt
    arrival = _number(value, "arrival_seconds", None)
    prompt_tokens, output_tokens = _whole(value, "prompt_tokens", 1), _whole(value, "output_tokens", 1)
    prefix = _whole(value, "prefix_tokens", 0, 0)
    if prefix > prompt_tokens:
        raise ValueError("prefix_tokens is more than prompt_tokens")
    repeat = _whole(value, "repeat_of", -1, -1)
    if repeat >= index:
        raise ValueError(f"repeat_of {repeat} is not an earlier request")
    return (arrival, prompt_tokens, output_tokens, prefix, repeat), None


def _conversation(value: dict[str, Any]) -> tuple[str, str]:
    """The first question and its answer."""
    turns = value.get("conversations", value.get("messages"))
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("conversations must be a list of turns")
    said = [(turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))) for turn in turns]
    question = next((text for who, text in said if who in ("human", "user")), None)
    answer = next((text for who, text in said if who in ("gpt", "assistant", "chatgpt", "bing", "bard")), None)
    if not isinstance(question, str) or not question.strip():
        raise ValueError("no turn of a human with text")
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError("no answer with text: its length is needed")
    return question, answer


def _estimate(text: str) -> int:
    return max(1, round(len(text.split()) * _TOKENS_PER_WORD))


def _number(value: dict[str, Any], key: str, default: float | None) -> float:
    found = value.get(key, default)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < float("inf"):
        raise ValueError(f"{key} must be a number of at least 0, got {found!r}")
    return float(found)


def _whole(value: dict[str, Any], key: str, minimum: int, default: int | None = None) -> int:
    found = value.get(key, default)
    if isinstance(found, bool) or not isinstance(found, int) or found < minimum:
        raise ValueError(f"{key} must be a whole number of at least {minimum}, got {found!r}")
    return found
