"""Why an engine core did not start: it says so in its own process's log only, and vLLM's error in ours says "above"."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

_STREAMS = (Path("/proc/self/fd/1"), Path("/proc/self/fd/2"))
_READ_BYTES = 1 << 20
_RAISED = re.compile(
    r"^.*\((?:EngineCore|Worker)[^)]*\) ERROR [^\]]*\]\s(?P<cause>[A-Za-z_.]*(?:Error|Exception)\b(?:: .+)?)$",
    re.MULTILINE,
)
_ELSEWHERE = "root cause"
"""In the words of those who only pass on that another process has failed."""
_LONGEST = 500


def told_elsewhere(reason: str) -> bool:
    """Whether vLLM's error only says that another process has failed."""
    return _ELSEWHERE in reason


def core_cause(log: str) -> str | None:
    """The last exception that an engine core or a worker of it wrote, as ``TypeError: ...``; None: none did.

    >>> core_cause("(EngineCore pid=7) ERROR 11-22 15:37:11 [core.py:1510] ModuleNotFoundError: No module named 'x'")
    "ModuleNotFoundError: No module named 'x'"
    """
    found = [cause.strip() for cause in _RAISED.findall(log) if not told_elsewhere(cause)]
    return found[-1][:_LONGEST] if found else None


def marks(streams: Iterable[Path] = _STREAMS) -> dict[Path, int]:
    """Where this process's output ends now, of those streams that are files (a Ray worker's are)."""
    out = {}
    for stream in streams:
        try:
            status = stream.stat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            out[stream] = status.st_size
    return out


def written_since(before: Mapping[Path, int]) -> str:
    """What this process and its children wrote to their output since; its last mebibyte."""
    texts = []
    for stream, start in before.items():
        try:
            with stream.open("rb") as file:
                file.seek(max(start, stream.stat().st_size - _READ_BYTES))
                texts.append(file.read().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(texts)
