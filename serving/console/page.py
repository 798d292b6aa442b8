"""``/console``: one self-contained page. It holds no data: what it shows it asks for with the reader's key."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def page() -> str:
    """The page, complete: styles and script within, nothing loaded from anywhere."""
    return files("serving.console").joinpath("page.html").read_text(encoding="utf-8")


def security_policy(html: str) -> str:
    """A Content-Security-Policy under which only the page's own style and script run, and only this host is asked."""

    def digests(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(p.encode()).digest()).decode()}'" for p in parts)

    return (
        f"default-src 'none'; script-src {digests('script')}; style-src {digests('style')}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def console_routes() -> list[Route]:
    html = page()
    body = html.encode()
    headers = {
        "content-security-policy": security_policy(html),
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }

    async def console(request: Request) -> Response:
        return Response(body, headers=headers, media_type="text/html")

    return [Route("/console", console)]
