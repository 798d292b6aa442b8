"""A client that goes away ends its request at once, an unary one too; so does one that reads nothing for too long:
what waits for it is bounded in time, as the buffers are in bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

from serving.api.body import ClientGone, Message, Receive

Send = Callable[[Message], Awaitable[None]]


class SlowReader(ClientGone):
    """The client took nothing for too long."""


@contextlib.contextmanager
def _ended_as(error: type[ClientGone]) -> Iterator[Callable[[], None]]:
    """Yields what cancels the body, which raises ``error`` then."""
    task = asyncio.current_task()
    assert task is not None
    ended = False

    def end() -> None:
        nonlocal ended
        ended = True
        task.cancel()

    try:
        yield end
    except asyncio.CancelledError:
        if ended and task.uncancel() == 0:
            raise error from None
        raise


@contextlib.contextmanager
def cancelled_when_gone(receive: Receive) -> Iterator[None]:
    """Cancel the body when the client closes the connection; raises ``ClientGone`` then."""

    async def watch(end: Callable[[], None]) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        end()

    with _ended_as(ClientGone) as end:
        watcher = asyncio.create_task(watch(end))
        try:
            yield
        finally:
            watcher.cancel()


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
        timer: asyncio.TimerHandle

        def look(end: Callable[[], None]) -> None:
            nonlocal timer
            stuck = 0.0 if self._since is None else self._clock() - self._since
            if stuck >= self._most_seconds:
                end()
            else:
                timer = self._call_later(self._most_seconds - stuck, lambda: look(end))

        with _ended_as(SlowReader) as end:
            timer = self._call_later(self._most_seconds, lambda: look(end))
            try:
                yield
            finally:
                timer.cancel()
