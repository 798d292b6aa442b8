"""What a run of the engine leaves behind, and a run that one call has to itself."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from metering.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run of the engine leaves to everyone who shares it."""

    receipt: Receipt
    """Of the request that it ran for."""
    first_token_seconds: float | None
    """Monotonic."""


class RunAlone:
    """What ``Seat`` is to a shared run, for one that is not shared."""

    leader = True

    def __init__(self, context: AbstractAsyncContextManager[object]) -> None:
        self._context: AbstractAsyncContextManager[object] | None = context
        self.flight = self
        self.result: Ran | None = None

    async def close(self, *error: Any) -> None:
        """Ends the run, once."""
        context, self._context = self._context, None
        if context is not None:
            await context.__aexit__(*(error or (None, None, None)))

    async def __aenter__(self) -> RunAlone:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(kind, error, trace)
