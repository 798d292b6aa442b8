"""JSON lines that people hand in: every way in which one can be bad names its line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

_DEEPEST = 100
"""Levels of lists and objects: no request has as many, and what reads one later recurses."""


def read_json_lines(lines: Iterable[bytes | str], error: type[ValueError]) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each line that is not blank; ``error`` naming the line where one is no JSON."""
    for number, raw in enumerate(lines, start=1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8") if isinstance(raw, bytes) else raw
        except UnicodeDecodeError:
            raise error(f"line {number}: not UTF-8") from None
        if not text.strip():
            continue
        try:
            data = json.loads(text)
        except json.JSONDecodeError as problem:
            raise error(f"line {number}: not JSON ({problem.msg})") from None
        except RecursionError:
            raise error(f"line {number}: not JSON (nested too deeply)") from None
        except ValueError:
            raise error(f"line {number}: a number has too many digits") from None
        if text.count("[") + text.count("{") > _DEEPEST and not _shallow(data):
            raise error(f"line {number}: not JSON (nested too deeply)")
        yield number, data


def finite(value: Any) -> bool:
    """A number that JSON can hold, and a clock can show."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def name_or_number(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)) or finite(value)


def apart(value: Any) -> str:
    """A name for a string or number under which 1 and "1" stay two."""
    if isinstance(value, str):
        return value
    whole = isinstance(value, float) and value.is_integer()
    return f"\0{int(value) if whole else value}"


def _shallow(data: Any) -> bool:
    level = [data]
    for _ in range(_DEEPEST):
        level = [
            inner
            for value in level
            if isinstance(value, list | dict)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return True
    return False
