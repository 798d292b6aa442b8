"""Labels of shadow verification on disk: JSON lines that several replicas append to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cache.evidence import KINDS, VerifiedLabel

UNVERSIONED = "unversioned"
"""Lines that do not say which judge and embedder gave the score."""


class LabelFile:
    """One short line a label, appended in one write, so that replicas do not tear each other's lines.

    ``version``: of judge and embedder, whose scores cannot be mixed.
    """

    def __init__(self, path: Path, *, version: str) -> None:
        self.path = path
        self.version = version

    def read(self) -> tuple[list[VerifiedLabel], int]:
        """(labels of this version, oldest first; how many are of another). Raises OSError."""
        found = read_versions(self.path)
        mine = found.pop(self.version, [])
        return mine, sum(map(len, found.values()))

    def append(self, label: VerifiedLabel) -> None:
        """Raises OSError."""
        fields = {
            "kind": label.kind,
            "score": round(label.score, 5),
            "right": label.agreed,
            "version": self.version,
        }
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(fields) + "\n").encode())
        finally:
            os.close(descriptor)


def read_versions(path: Path) -> dict[str, list[VerifiedLabel]]:
    """Labels by version, oldest first; none where there is no file. Raises OSError.

    Lines that are no labels are left out: a crash may have cut the last.
    """
    if not path.exists():
        return {}
    out: dict[str, list[VerifiedLabel]] = {}
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            data = json.loads(line)
        except ValueError:
            continue
        label = _label(data)
        if label is not None:
            out.setdefault(str(data.get("version", UNVERSIONED)), []).append(label)
    return out


def _label(data: Any) -> VerifiedLabel | None:
    if not isinstance(data, dict):
        return None
    score, right = data.get("score"), data.get("right")
    # a line without a kind says instead whether the answer was served
    named = data.get("kind", "served" if data.get("served") else "refused")
    kind = next((known for known in KINDS if known == named), None)
    if kind is None or not isinstance(right, bool) or isinstance(score, bool) or not isinstance(score, int | float):
        return None
    return VerifiedLabel(kind, float(score), right) if 0.0 <= score <= 1.0 else None
