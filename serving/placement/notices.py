"""What replicas have to say to whoever started the gateway."""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from serving.engines.base import EngineStartError


class Notices:
    """Lines for whoever started the gateway: progress, and why a start failed. A file of the run's folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tell(self, text: str, kind: str = "progress") -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": time.time(), "pid": os.getpid(), "kind": kind, "text": text}) + "\n")

    @contextlib.contextmanager
    def of_failure(self, what: str) -> Iterator[None]:
        """Tell why a start failed, and let it fail."""
        try:
            yield
        except EngineStartError as error:
            self.tell(str(error), "failed")
            raise
        except Exception as error:
            self.tell("".join(traceback.format_exception(error)), "detail")
            first = (str(error).splitlines() or [""])[0]
            self.tell(f"{what} failed: {type(error).__name__}: {first}", "failed")
            raise
