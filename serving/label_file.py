"""Labels of shadow verification on disk: JSON lines that several replicas append to."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cache.calibration import Label


class LabelFile:
    """One short line a label, appended in one write, so that replicas do not tear each other's lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Label]:
        """Lines that are no labels are left out: a crash may have cut the last. Raises OSError."""
        if not self.path.exists():
            return []
        out = []
        for line in self.path.read_text("utf-8", errors="replace").splitlines():
            try:
                data = json.loads(line)
                score, right = float(data["score"]), data["right"]
            except (ValueError, KeyError, TypeError):
                continue
            if 0.0 <= score <= 1.0 and isinstance(right, bool):
                out.append(Label(score, right))
        return out

    def append(self, score: float, right: bool, served: bool) -> None:
        """Raises OSError."""
        line = json.dumps({"score": round(score, 5), "right": right, "served": served}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
