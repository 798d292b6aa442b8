from __future__ import annotations

import pytest
from redis import exceptions

from cache.observer import Loss
from cache.redis_errors import loss_of


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (TimeoutError(), Loss.TIMEOUT),
        (exceptions.TimeoutError(), Loss.TIMEOUT),
        (exceptions.ConnectionError("refused"), Loss.CONNECTION),
        (ConnectionRefusedError(), Loss.CONNECTION),
        (FileNotFoundError("no socket"), Loss.CONNECTION),
        (exceptions.BusyLoadingError("loading"), Loss.LOADING),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), Loss.READ_ONLY),
        (exceptions.OutOfMemoryError("command not allowed"), Loss.FULL),
        (exceptions.NoPermissionError("no permissions"), Loss.UNSUPPORTED),
        (exceptions.ResponseError("unknown command 'VSIM', with args beginning with:"), Loss.UNSUPPORTED),
        (exceptions.ResponseError("-OOM command not allowed when used memory > 'maxmemory'. script: f"), Loss.FULL),
        (exceptions.ResponseError("READONLY You can't write against a read only replica. script: f"), Loss.READ_ONLY),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), Loss.REFUSED),
        (exceptions.InvalidResponse("?"), Loss.REFUSED),
    ],
)
def test_each_error_has_its_name(error: Exception, loss: Loss) -> None:
    assert loss_of(error) is loss
