"""What it costs a stream that the cap's controller looks on: nanoseconds a frame, least of some repeats.

python tests/bench/tuning/token_watch.py
"""

from __future__ import annotations

import time
import timeit
from types import SimpleNamespace

from serving.placement.cap_control import _Stream
from serving.tuning.observer import WindowObserver

FRAME = (
    b'data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" water"},"logprobs":null,"finish_reason":null}]}\n\n'
)


def main() -> None:
    call = SimpleNamespace(received_seconds=time.monotonic(), told_tokens=0)
    answer = SimpleNamespace(first_token_seconds=lambda: 0.0)
    frame = _Stream(call, answer, WindowObserver(0.0), time.monotonic).frame
    count = 100_000
    seconds = min(timeit.repeat(lambda: frame(FRAME), timer=time.process_time, number=count, repeat=7))
    print(f"{seconds / count * 1e9:.0f} ns of CPU a frame")


if __name__ == "__main__":
    main()
