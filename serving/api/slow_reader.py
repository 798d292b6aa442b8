"""A client that does not read its answer is cut: what waits for it is bounded in time, as the buffers are in bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

from serving.api.body import ClientGone, Message

Send = Callable[[Message], Awaitable[None]]


class SlowReader(ClientGone):
    """The client took nothing for too long."""


class Sending:
    """The way to one client. A stuck send is noticed by a timer: a frame costs two assignments and a look at the clock.

    Args:
        most_seconds: that one send may wait for the client.
    """

    def __init__(
        self,
        send: Send,
        most_seconds: float,
        *,
        clock: Callable[[], float] | None = None,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._send = send
        self._most_seconds = most_seconds
        self._clock = clock or loop.time
        self._call_later = call_later or loop.call_later
        self._since: float | None = None

    async def __call__(self, message: Message) -> None:
        self._since = self._clock()
        await self._send(message)
        self._since = None

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """End the body when one of its sends is stuck; raises ``SlowReader`` then."""
        task = asyncio.current_task()
        assert task is not None
        slow = False
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal slow, timer
            stuck = 0.0 if self._since is None else self._clock() - self._since
            if stuck >= self._most_seconds:
                slow = True
                task.cancel()
            else:
                timer = self._call_later(self._most_seconds - stuck, look)

        timer = self._call_later(self._most_seconds, look)
        try:
            yield
        except asyncio.CancelledError:
            if slow and task.uncancel() == 0:
                raise SlowReader from None
            raise
        finally:
            timer.cancel()
