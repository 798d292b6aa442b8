"""The scope of a request that an application in this process is asked with, without a server in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def post_scope(path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Of a POST with a JSON body."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"content-type", b"application/json"),
            *((name.encode(), value.encode("latin-1")) for name, value in headers.items()),
        ],
        "client": None,
        "server": None,
        "state": {},
    }
