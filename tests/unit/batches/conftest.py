from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from serving.access import KeyRing
from serving.batches.files import FileStore
from serving.batches.journal import Journal
from serving.batches.pages import BatchPages
from serving.batches.record import Batch
from serving.batches.runner import BatchRunner
from serving.batches.settings import BatchSettings
from serving.batches.store import BatchStore
from tests.unit.serving.conftest import CHAT, Exchange, House
from tests.unit.serving.fakes import ManualClock

NOON = 1_767_268_800.0
BOUNDARY = "the-boundary"


def line(number: int, text: str = "Hi", **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": f"{text} {number}"}], "temperature": 0}
    return {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": {**body, **fields}}


def jsonl(*lines: Any) -> bytes:
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)


async def until(condition: Callable[[], bool]) -> None:
    """What the event loop and its threads bring about by themselves."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (many places may bring it about)
            await asyncio.sleep(0)


class BatchHouse(House):
    """A gateway with files and batches over a held engine; time passes by hand or by the pauses asked for."""

    def __init__(
        self,
        root: Path,
        *,
        clock: ManualClock | None = None,
        keys: KeyRing | None = None,
        settings: dict[str, Any] | None = None,
        **house: Any,
    ) -> None:
        self.wall = clock or ManualClock(NOON)
        self.root = root
        chosen = BatchSettings(folder=root, **({"concurrent_lines": 2} | (settings or {})))
        keep = chosen.keep_days
        files = FileStore(root, max_tenant_bytes=chosen.max_tenant_bytes, keep_days=keep, wall=self.wall)
        self.batches = BatchStore(root, files, keep_days=keep, wall=self.wall)
        ring = keys or KeyRing({})
        pages = BatchPages(
            self.batches, ring, chosen, request_timeout_seconds=house.get("request_timeout_seconds", 30.0)
        )
        super().__init__(keys=ring, more_routes=pages.routes(), **house)
        self.runner = BatchRunner(
            self.batches, chosen, self.metrics, ring.settings, wall=self.wall, sleep=self.wall.sleep
        )
        self.runner.serve(self.app)

    async def upload(
        self,
        content: bytes,
        purpose: str = "batch",
        name: str = "in.jsonl",
        *,
        parts: int = 4,
        ends: bool = True,
        **headers: str,
    ) -> Exchange:
        """``parts``: 1, or one for each piece of the form."""
        form = [
            f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'.encode(),
            f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode(),
            content,
            f"\r\n--{BOUNDARY}--\r\n".encode(),
        ]
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        raw = form if parts > 1 else [b"".join(form)]
        return await self.send(raw=raw, path="/v1/files", content_type=kind, ends=ends, **headers)

    async def batch_of(self, *lines: Any, window: str = "24h", **headers: str) -> str:
        uploaded = await self.upload(jsonl(*lines), **headers)
        assert uploaded.status == 200, uploaded.body
        asked = {"input_file_id": uploaded.json["id"], "endpoint": CHAT, "completion_window": window}
        made = await self.send(asked, path="/v1/batches", **headers)
        assert made.status == 200, made.body
        assert made.json["status"] == "validating"
        return str(made.json["id"])

    async def run(self) -> None:
        """Everything that waits, to its end."""
        await self.runner.scan()
        async with asyncio.timeout(30):
            await self.runner.idle()

    async def seen(self, batch_id: str, **headers: str) -> dict[str, Any]:
        return dict((await self.get(f"/v1/batches/{batch_id}", **headers)).json)

    def kept(self, batch_id: str, tenant: str = "default") -> Batch:
        batch = self.batches.get(tenant, batch_id)
        assert batch is not None
        return batch

    def journal(self, batch_id: str, tenant: str = "default") -> Journal:
        (folder,) = self.root.glob(f"tenants/*/batches/{batch_id}")
        return Journal(folder)

    async def results(self, file_id: str, **headers: str) -> dict[str, Any]:
        """By custom id."""
        content = await self.get(f"/v1/files/{file_id}/content", **headers)
        assert content.status == 200
        found = [json.loads(raw) for raw in content.body.splitlines()]
        assert len({one["custom_id"] for one in found}) == len(found), "a line came twice"
        return {one["custom_id"]: one for one in found}


Opener = Callable[..., BatchHouse]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens gateways; those of one test share one folder."""
    made: list[BatchHouse] = []

    def make(**kw: Any) -> BatchHouse:
        made.append(BatchHouse(tmp_path / "batches", **kw))
        return made[-1]

    yield make
    for house in made:
        await house.runner.close()
        assert house.settled()
