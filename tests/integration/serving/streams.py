"""Streams under way while something happens to the gateway."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.integration.serving.gateway_process import GatewayProcess


class Streams:
    """Clients that each read one stream to its end, in threads."""

    def __init__(
        self,
        gateway: GatewayProcess,
        model: str,
        *,
        count: int,
        tokens: int,
        begun: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Returns when ``begun`` of them (None: all) have brought their first token."""
        self.begun = threading.Semaphore(0)
        self._pool = ThreadPoolExecutor(count)
        self._tokens = tokens
        self._gateway = gateway
        self._model = model
        self._headers = headers or {}
        self._ends = [self._pool.submit(self._read, number) for number in range(count)]
        for _ in range(count if begun is None else begun):
            assert self.begun.acquire(timeout=60)

    def _read(self, number: int) -> list[str]:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": f"Stream {number}."}],
            "max_tokens": self._tokens,
            "ignore_eos": True,
            "stream": True,
        }
        frames = []
        url = f"{self._gateway.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=self._headers, timeout=60) as answer:
            for line in answer.iter_lines():
                if line:
                    frames.append(line)
                    if len(frames) == 2:
                        self.begun.release()
        return frames

    def complete(self) -> bool:
        frames = [end.result(timeout=90) for end in self._ends]
        # the role, the tokens, the end with usage, [DONE]
        return all(one[-1] == "data: [DONE]" and len(one) == self._tokens + 3 for one in frames)
