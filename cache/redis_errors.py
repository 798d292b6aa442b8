"""From what redis-py raises to the names of losses."""

from __future__ import annotations

from redis.exceptions import (
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cache.observer import Loss

TRIPPING = frozenset({Loss.TIMEOUT, Loss.CONNECTION, Loss.LOADING})
"""Losses that say the server is not there: they open the breaker. An error reply says that it is."""

# Most specific first: redis-py derives BusyLoadingError from its ConnectionError.
_KINDS: tuple[tuple[tuple[type[BaseException], ...], Loss], ...] = (
    ((BusyLoadingError,), Loss.LOADING),
    ((ReadOnlyError,), Loss.READ_ONLY),
    ((OutOfMemoryError,), Loss.FULL),
    ((NoPermissionError,), Loss.UNSUPPORTED),
    ((RedisTimeoutError, TimeoutError), Loss.TIMEOUT),
    ((RedisConnectionError, OSError), Loss.CONNECTION),
)
# Error replies from within a script keep their code somewhere in the text.
_CODES = (
    ("unknown command", Loss.UNSUPPORTED),
    ("Unknown Redis command", Loss.UNSUPPORTED),
    ("NOPERM", Loss.UNSUPPORTED),
    ("READONLY", Loss.READ_ONLY),
    ("read only replica", Loss.READ_ONLY),
    ("NOREPLICAS", Loss.READ_ONLY),
    ("MISCONF", Loss.READ_ONLY),
    ("OOM", Loss.FULL),
    ("LOADING", Loss.LOADING),
)


def loss_of(error: BaseException) -> Loss:
    """The name under which a failed call is counted."""
    for kinds, loss in _KINDS:
        if isinstance(error, kinds):
            return loss
    if isinstance(error, ResponseError):
        text = str(error)
        for code, loss in _CODES:
            if code in text:
                return loss
    return Loss.REFUSED
