"""``x-request-id``: the client's own where it is harmless, else ours."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

HEADER = b"x-request-id"
_HARMLESS = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True, slots=True)
class RequestIds:
    """The client's may come twice: it is told and logged, and nothing is booked under it."""

    ours: str
    client: str | None

    @property
    def shown(self) -> str:
        """In the answer's header."""
        return self.client or self.ours


def request_ids(headers: Mapping[bytes, bytes]) -> RequestIds:
    sent = headers.get(HEADER, b"").decode("latin-1")
    return RequestIds(uuid.uuid4().hex, sent if _HARMLESS.fullmatch(sent) else None)
