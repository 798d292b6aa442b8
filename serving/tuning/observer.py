"""From what a replica sees of its requests to the controller's windows."""

from __future__ import annotations

import numpy as np

from serving.tuning.controller import Window
from serving.tuning.gap_histogram import GapHistogram


class WindowObserver:
    """Collects one window at a time; on one event loop, so nothing is locked."""

    def __init__(self, now_seconds: float) -> None:
        self.gaps = GapHistogram()
        """Of the open window: tokens that are seen as they come go in here themselves, and count in it."""
        self.reset(now_seconds)

    def reset(self, now_seconds: float) -> None:
        """Give up what was seen; the next window begins."""
        self._opened = now_seconds
        self.gaps.clear()
        self._ttft: list[float] = []
        self._tokens = 0
        """Of those that are not in ``gaps``."""
        self._running: list[int] = []
        self._waiting: list[int] = []

    def first_token(self, ttft_seconds: float) -> None:
        """A request's first token came now: a surge is seen then, not an answer later."""
        self._ttft.append(ttft_seconds)
        self._tokens += 1

    def answered(self, ttft_seconds: float | None, per_token_seconds: float | None, tokens: int) -> None:
        """A request that the engine answered (a hit is not one) and whose tokens were not seen as they came: its
        figures, queue included in the first. Its mean time of a token stands for each of its gaps.
        """
        if ttft_seconds is not None:
            self._ttft.append(ttft_seconds)
        if per_token_seconds is not None and tokens > 1:
            self.gaps.add_many(per_token_seconds, tokens - 1)
            tokens = 1
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
            itl_p95_seconds=self.gaps.percentile(95),
            tokens=self._tokens + self.gaps.total,
            seconds=now_seconds - self._opened,
            running_mean=float(np.mean(self._running)) if self._running else 0.0,
            waiting_mean=float(np.mean(self._waiting)) if self._waiting else 0.0,
            mfu_ratio=mfu_ratio,
            intensity_grams_per_kwh=intensity_grams_per_kwh,
        )
        self.reset(now_seconds)
        return window
