"""What differs between the endpoints in how a call asks for its length and how its stream ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving.api.frames import StreamEnd
from serving.api.responses import EventsEnd
from serving.engines.response_events import RESPONSES


@dataclass(frozen=True, slots=True)
class Form:
    length_param: str
    """Field in which a client bounds the answer's length."""
    usage_is_an_option: bool
    """Whether a stream tells its usage only where ``stream_options`` asks for it."""
    stream_end: Callable[[bool], StreamEnd | EventsEnd]
    """For one stream; told whether the client asked for its usage."""


_COMPLETIONS = Form("max_tokens", usage_is_an_option=True, stream_end=StreamEnd)
_RESPONSES = Form("max_output_tokens", usage_is_an_option=False, stream_end=lambda _: EventsEnd())


def form_of(path: str) -> Form:
    return _RESPONSES if path == RESPONSES else _COMPLETIONS
