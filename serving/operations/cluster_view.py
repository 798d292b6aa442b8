"""The series of all nodes of a cluster on one page, each under its node's address."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence

import httpx

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_NODE_SECONDS = 2.0
"""For a node to answer; one that does not is left out, and said to be."""


def labelled(exposition: str, instance: str) -> Iterator[str]:
    """The samples with the label ``instance``; comments are dropped, for a series may come from several nodes."""
    for line in exposition.splitlines():
        found = _SAMPLE.fullmatch(line)
        if found is not None:
            name, labels, value = found.groups()
            yield f'{name}{{instance="{instance}"{f",{labels}" if labels else ""}}} {value}'


class ClusterView:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def __call__(self, targets: Sequence[str], authorization: str | None) -> str:
        """Asks with the reader's own key. ``wattgate_node_up`` says which nodes answered."""
        headers = {} if authorization is None else {"authorization": authorization}
        texts = await asyncio.gather(*(self._ask(target, headers) for target in targets))
        lines: list[str] = []
        for target, text in zip(targets, texts, strict=True):
            lines.append(f'wattgate_node_up{{instance="{target}"}} {0 if text is None else 1}')
            lines += labelled(text or "", target)
        return "\n".join(lines) + "\n"

    async def _ask(self, target: str, headers: dict[str, str]) -> str | None:
        try:
            answer = await self._client.get(f"http://{target}/metrics", headers=headers, timeout=_NODE_SECONDS)
        except httpx.HTTPError:
            return None
        return answer.text if answer.status_code == 200 else None
