from __future__ import annotations

import json
import subprocess
from pathlib import Path

from serving.placement.proxy_launcher import error_page, find_haproxy, write_launcher

RAYS = """frontend f
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \'%[path]\' not found."
"""


def test_the_proxys_own_error_is_an_openai_envelope() -> None:
    head, _, body = error_page().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5" in head
    assert f"content-length: {len(body)}".encode() in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_the_launcher_puts_the_configuration_right_and_becomes_the_proxy(tmp_path: Path) -> None:
    real = tmp_path / "real proxy"
    real.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    real.chmod(0o700)
    folder = tmp_path / "proxy"
    folder.mkdir()
    launcher = write_launcher(folder, real)
    assert launcher is not None
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(RAYS)
    (tmp_path / "500.http").write_text("Internal Server Error")
    arguments = ["-db", "-f", str(configuration), "-sf", "12"]
    for _ in range(2):
        done = subprocess.run([launcher, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == arguments
        text = configuration.read_text()
        assert "404" not in text
        assert "status 503 content-type application/json" in text
        assert text.count("http-request disable-l7-retry if { path_beg /v1/batches /v1/files /internal/ }") == 1
        assert (tmp_path / "500.http").read_bytes() == error_page()


def test_haproxy_accepts_the_corrected_rule(tmp_path: Path) -> None:
    haproxy = find_haproxy()
    assert haproxy is not None
    launcher = write_launcher(tmp_path, haproxy)
    configuration = tmp_path / "haproxy.cfg"
    head = "defaults\n    mode http\n    timeout client 1s\n    timeout server 1s\n    timeout connect 1s\n"
    configuration.write_text(head + RAYS.replace("frontend f\n", "frontend f\n    bind 127.0.0.1:18999\n"))
    command = [str(launcher), "-c", "-f", str(configuration)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
