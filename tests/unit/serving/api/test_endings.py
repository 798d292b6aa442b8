from __future__ import annotations

from typing import Any

import pytest

from serving.api.endings import endings_of


@pytest.mark.parametrize(
    ("body", "endings"),
    [
        ({"choices": [{"finish_reason": "stop", "message": {"content": "a"}}]}, ["stop"]),
        ({"choices": [{"finish_reason": "length", "text": "a"}, {"finish_reason": "stop"}]}, ["length", "stop"]),
        ({"choices": [{"finish_reason": "stop", "message": {"refusal": "No."}}]}, ["refusal", "stop"]),
        ({"choices": [{"finish_reason": "stop", "message": {"refusal": None}}]}, ["stop"]),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, ["length"]),
        ({"incomplete_details": {"reason": "content_filter"}, "output": []}, ["content_filter"]),
        ({"output": [{"content": [{"type": "refusal", "refusal": "No."}]}], "incomplete_details": None}, ["refusal"]),
        ({"output": [{"type": "reasoning", "content": None}]}, []),
        ({"data": [{"embedding": []}]}, []),
    ],
)
def test_how_an_answer_ended(body: dict[str, Any], endings: list[str]) -> None:
    assert endings_of(body) == endings
