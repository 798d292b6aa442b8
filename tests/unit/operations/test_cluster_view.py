from __future__ import annotations

import httpx

from serving.operations.cluster_view import ClusterView, labelled

EXPOSITION = """# HELP wattgate_power_watts Watts.
# TYPE wattgate_power_watts gauge
wattgate_power_watts{component="gpu"} 50.0
wattgate_event_loop_lag_seconds 0.001
"""


def test_each_sample_says_its_node_and_comments_are_dropped() -> None:
    assert list(labelled(EXPOSITION, "a:1")) == [
        'wattgate_power_watts{instance="a:1",component="gpu"} 50.0',
        'wattgate_event_loop_lag_seconds{instance="a:1"} 0.001',
    ]


async def test_a_node_that_does_not_answer_is_said_to_and_the_others_are_shown() -> None:
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("authorization"))
        if request.url.host == "b":
            raise httpx.ConnectError("gone")
        return httpx.Response(401 if request.url.host == "c" else 200, text=EXPOSITION)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        text = await ClusterView(client)(["a:1", "b:1", "c:1"], "Bearer key")
    assert asked == ["Bearer key"] * 3
    assert 'wattgate_node_up{instance="a:1"} 1' in text
    assert 'wattgate_node_up{instance="b:1"} 0' in text
    assert 'wattgate_node_up{instance="c:1"} 0' in text
    assert text.count("wattgate_power_watts") == 1
