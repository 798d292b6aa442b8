"""A batch that runs through the kills: each of its lines must end once."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter

import httpx

from tests.bench.chaos.ends import PATH

LINES_PER_SECOND = 4.0
"""A replica runs eight lines of a second and a half at a time: the batch lasts for most of the load, and no longer."""
TOKENS = 64
FINISH_SECONDS = 300.0
NOT_ENDED = ("validating", "in_progress", "finalizing")


class RunningBatch:
    """Handed in before the first kill. Requests of ours that a kill hits are asked again."""

    def __init__(self, url: str, model: str, seconds: float) -> None:
        self.lines = max(8, int(LINES_PER_SECOND * seconds))
        self._client = httpx.Client(base_url=url, timeout=30)
        body = {"model": model, "max_tokens": TOKENS}
        requests = [
            {
                "custom_id": f"line-{number}",
                "method": "POST",
                "url": PATH,
                "body": body | {"messages": [{"role": "user", "content": f"Of the batch: {number}"}]},
            }
            for number in range(self.lines)
        ]
        content = "\n".join(json.dumps(request) for request in requests).encode()
        file = self._client.post("/v1/files", files={"file": ("lines.jsonl", content)}, data={"purpose": "batch"})
        file.raise_for_status()
        asked = {"input_file_id": file.json()["id"], "endpoint": PATH, "completion_window": "24h"}
        begun = self._client.post("/v1/batches", json=asked)
        begun.raise_for_status()
        self._id = begun.json()["id"]

    def finished(self) -> tuple[dict[str, object], list[str]]:
        """After the load: its figures, and what is not as it should be, in words."""
        end = time.monotonic() + FINISH_SECONDS
        while (batch := self._client.get(f"/v1/batches/{self._id}").json())["status"] in NOT_ENDED:
            if time.monotonic() > end:
                return batch["request_counts"], [f"the batch is not done: {batch['request_counts']}"]
            time.sleep(0.5)
        with contextlib.closing(self._client):
            files = [batch[key] for key in ("output_file_id", "error_file_id") if batch.get(key)]
            texts = [self._client.get(f"/v1/files/{file}/content").raise_for_status().text for file in files]
        ended = Counter(json.loads(line)["custom_id"] for text in texts for line in text.splitlines())
        missing, twice = self.lines - len(ended), sum(count - 1 for count in ended.values())
        defects = [] if batch["status"] == "completed" else [f"the batch ended {batch['status']}"]
        if missing or twice:
            defects.append(f"of the batch's {self.lines} lines {missing} are missing and {twice} ended twice")
        return batch["request_counts"], defects
