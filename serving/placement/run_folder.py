"""What a run has on disk, and that nothing of it is left: neither files nor processes."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from serving.placement.janitor import Janitor, sweep
from serving.placement.processes import end_descendants


class RunFolder:
    """A folder of this run with a janitor beside it, for the case that the run is killed."""

    def __init__(self) -> None:
        # Ray puts sockets below it: the path must stay short
        self.path = Path(tempfile.mkdtemp(prefix="wg-", dir="/tmp" if os.path.isdir("/tmp") else None))
        self._janitor = Janitor(self.path)

    @property
    def janitor_pid(self) -> int:
        return self._janitor.pid

    def close(self) -> None:
        """End every process below this one, and whatever else bears the run's mark; remove its files."""
        end_descendants({self._janitor.pid})
        sweep(self.path)
        self._janitor.dismiss()


class Started(ABC):
    """Started while its context is open; a start that fails is closed like any other."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Idempotent, also after half a start."""
