from __future__ import annotations

import json
from pathlib import Path

from serving.placement.ray_runtime import environment, write_error_page


def test_two_runs_share_no_path_no_port_and_no_token(tmp_path: Path) -> None:
    one = environment(tmp_path / "one", longest_request_seconds=300)
    two = environment(tmp_path / "two", longest_request_seconds=300)
    own = [key for key in one if key.endswith(("_PATH", "_LOC", "_BASE", "_FILE", "_TOKEN", "_DIR"))]
    own += ["RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"]
    assert len(own) >= 8
    assert [key for key in own if one[key] == two[key]] == []


def test_a_reload_of_the_proxy_outlasts_the_longest_request(tmp_path: Path) -> None:
    assert int(environment(tmp_path, longest_request_seconds=300)["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) > 300


def test_the_proxys_own_error_is_an_openai_envelope(tmp_path: Path) -> None:
    (tmp_path / "haproxy").mkdir()
    write_error_page(tmp_path)
    head, _, body = (tmp_path / "haproxy" / "500.http").read_bytes().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert f"content-length: {len(body)}".encode() in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
