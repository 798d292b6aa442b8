"""Stand-ins for what surrounds the serving modules."""

from __future__ import annotations

import asyncio


class ManualClock:
    """Monotonic seconds, moved by hand or by the delays asked of it."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)
