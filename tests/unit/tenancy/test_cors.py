from __future__ import annotations

import pytest

from tests.unit.serving.conftest import House

PAGE = "https://app.example.org"


async def test_without_origins_no_page_of_another_origin_may_read() -> None:
    there = House()
    reply = await there.send(there.chat(), origin=PAGE)
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(("origin", "allowed"), [(PAGE, True), ("https://elsewhere.example.org", False)])
async def test_a_configured_origin_may_ask_and_read_refusals_too(origin: str, allowed: bool) -> None:
    there = House(keys={"acme": "key"}, cors_origins=(PAGE,))
    for headers, status in (({"authorization": "Bearer key"}, 200), ({}, 401)):
        reply = await there.send(there.chat(), origin=origin, **headers)
        assert reply.status == status
        assert (reply.headers.get("access-control-allow-origin") == PAGE) is allowed
        assert "access-control-allow-credentials" not in reply.headers
    stream = await there.send(there.chat(stream=True), origin=origin, authorization="Bearer key")
    assert stream.done
    assert "x-ratelimit-remaining-tokens" in stream.headers.get("access-control-expose-headers", "") or not allowed


async def test_a_browsers_question_before_is_answered_without_a_key() -> None:
    there = House(keys={"acme": "key"}, cors_origins=(PAGE,))
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "authorization,content-type"}
    reply = await there.send(raw=b"", method="OPTIONS", origin=PAGE, **asked)
    assert reply.status == 200
    assert "authorization" in reply.headers["access-control-allow-headers"]
    assert there.engine.requests == []
