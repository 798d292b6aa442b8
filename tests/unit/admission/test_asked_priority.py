from __future__ import annotations

import pytest

from serving.access import KeyRing
from serving.api.body import asked_priority, estimated_prompt_tokens
from serving.errors import InvalidRequest
from serving.tenancy.tenant import Priority, TenantSettings
from tests.unit.serving.conftest import House

INTERACTIVE, STANDARD, BATCH = Priority


@pytest.mark.parametrize(
    ("header", "tier", "granted", "given"),
    [
        (None, None, STANDARD, STANDARD),
        (None, "auto", BATCH, BATCH),
        (None, "default", INTERACTIVE, INTERACTIVE),
        (None, "flex", INTERACTIVE, BATCH),
        (None, "priority", INTERACTIVE, INTERACTIVE),
        (None, "priority", STANDARD, STANDARD),
        (None, ["odd"], STANDARD, STANDARD),
        ("batch", "priority", INTERACTIVE, BATCH),
        (" Interactive ", None, STANDARD, STANDARD),
        ("interactive", None, INTERACTIVE, INTERACTIVE),
    ],
)
def test_a_class_can_be_asked_for_up_to_what_is_granted(
    header: str | None, tier: object, granted: Priority, given: Priority
) -> None:
    assert asked_priority(header, {"service_tier": tier}, granted) is given


def test_a_class_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="interactive, standard, batch"):
        asked_priority("urgent", {}, INTERACTIVE)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}}


@pytest.mark.parametrize(
    ("payload", "tokens"),
    [
        ({}, 0),
        ({"prompt": "abcde"}, 2),
        ({"prompt": [1, 2, 3]}, 3),
        ({"prompt": [[1, 2], [3]]}, 3),
        ({"prompt": ["abcd", "efgh"]}, 2),
        ({"messages": [{"content": "x" * 400}]}, 100),
        ({"messages": [{"content": [{"text": "x" * 400}]}]}, 100),
        ({"messages": [{"content": [{"text": "x" * 400}, IMAGE]}]}, 865),
        ({"input": [{"content": [{"type": "input_image", "image_url": "data:image/png;base64," + "A" * 10**6}]}]}, 765),
        ({"tools": [{"type": ["object"]}]}, 2),
    ],
)
def test_a_prompts_tokens_are_estimated_before_they_are_counted(payload: dict[str, object], tokens: int) -> None:
    assert estimated_prompt_tokens(payload) == tokens


async def test_the_tenants_class_decides_who_goes_first() -> None:
    keys = KeyRing({"slow": "s", "fast": "f"}, tenants={"fast": TenantSettings(priority=INTERACTIVE)})
    there = House(keys=keys, cap=1)
    there.engine.gate.clear()
    first = there.begin(there.chat("1"), authorization="Bearer s")
    await there.engine.entered.wait()
    slow = there.begin(there.chat("2"), authorization="Bearer s")
    while there.cap.waiting < 1:
        await _turn()
    fast = there.begin(there.chat("3"), authorization="Bearer f")
    while there.cap.waiting < 2:
        await _turn()
    there.engine.gate.set()
    for exchange in (first, slow, fast):
        assert (await exchange.end()).status == 200
    assert [request.tenant for request in there.engine.requests] == ["slow", "fast", "slow"]


async def _turn() -> None:
    import asyncio

    await asyncio.sleep(0)
