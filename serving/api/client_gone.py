"""A client that goes away ends its request at once, an unary one too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from serving.api.body import ClientGone, Receive


@contextlib.contextmanager
def cancelled_when_gone(receive: Receive) -> Iterator[None]:
    """Cancel the body when the client closes the connection; raises ``ClientGone`` then."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()
