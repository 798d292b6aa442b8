from __future__ import annotations

import pytest

from serving.placement.watch import Watch


async def test_a_step_that_fails_holds_up_neither_the_others_nor_the_next_round(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done, faults, errors = list[str](), list[str](), [OSError("one"), OSError("one"), None, OSError("one")]

    async def keys() -> None:
        if (error := errors.pop(0)) is not None:
            raise error
        done.append("keys")

    async def gauges() -> None:
        done.append("gauges")

    watch = Watch({"keys": keys, "gauges": gauges}, faults.append)
    for _ in range(4):
        await watch.round()
    assert done == ["gauges", "gauges", "keys", "gauges", "gauges"]
    assert faults == ["keys"] * 3
    # the same fault again is no news until it has been well in between
    assert len(caplog.records) == 2
