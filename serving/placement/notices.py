"""What replicas have to say to whoever started the gateway."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path


class Notices:
    """Lines for whoever started the gateway: progress, and why a start failed. A file of the run's folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tell(self, text: str, kind: str = "progress") -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": time.time(), "pid": os.getpid(), "kind": kind, "text": text}) + "\n")
