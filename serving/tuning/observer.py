"""From what a replica sees of its requests to the controller's windows."""

from __future__ import annotations

import numpy as np

from serving.tuning.controller import Window


class WindowObserver:
    """Collects one window at a time; on one event loop, so nothing is locked."""

    def __init__(self, now_seconds: float) -> None:
        self._open(now_seconds)

    def _open(self, now_seconds: float) -> None:
        self._opened = now_seconds
        self._ttft: list[float] = []
        self._itl: list[float] = []
        self._tokens = 0
        self._running: list[int] = []
        self._waiting: list[int] = []

    def answered(self, ttft_seconds: float | None, per_token_seconds: float | None, tokens: int) -> None:
        """A request that the engine answered (a hit is not one): its figures, queue included in the first."""
        if ttft_seconds is not None:
            self._ttft.append(ttft_seconds)
        if per_token_seconds is not None:
            self._itl.append(per_token_seconds)
        self._tokens += tokens

    def sampled(self, running: int, waiting: int) -> None:
        """Requests inside the engine and before the cap, at regular times."""
        self._running.append(running)
        self._waiting.append(waiting)

    def close(
        self, now_seconds: float, *, mfu_ratio: float | None = None, intensity_grams_per_kwh: float | None = None
    ) -> Window:
        """The window up to now; the next one begins."""
        window = Window(
            ended_seconds=now_seconds,
            ttft_p95_seconds=float(np.percentile(self._ttft, 95)) if self._ttft else None,
            itl_p95_seconds=float(np.percentile(self._itl, 95)) if self._itl else None,
            tokens=self._tokens,
            seconds=now_seconds - self._opened,
            running_mean=float(np.mean(self._running)) if self._running else 0.0,
            waiting_mean=float(np.mean(self._waiting)) if self._waiting else 0.0,
            mfu_ratio=mfu_ratio,
            intensity_grams_per_kwh=intensity_grams_per_kwh,
        )
        self._open(now_seconds)
        return window
