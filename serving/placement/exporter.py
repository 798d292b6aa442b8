"""A node's `/metrics` on a port of its own, and where the nodes of a cluster are."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.access import KeyRing
from serving.errors import GatewayError
from serving.placement.node_meters import meters_alive
from serving.placement.recently_seen import RecentlySeen


class NodeExporter:
    """Serves ``scrape`` (text of the exposition; it may block) to the holders of keys, on the running event loop."""

    def __init__(self, keys: KeyRing, scrape: Callable[[], tuple[bytes, str]], host: str, port: int) -> None:
        self._keys = keys
        self._scrape = scrape
        self._address = (host, port)
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> int:
        """Returns the port it listens on. Raises ``OSError`` where the port is taken, naming it."""
        listening = socket.socket(socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(self._address)
        except OSError as error:
            listening.close()
            host, port = self._address
            raise OSError(f"server.metrics_port: cannot listen on {host}:{port}: {error.strerror}") from None
        app = Starlette(routes=[Route("/metrics", self._metrics)])
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", access_log=False))
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]), name="node-exporter")
        return int(listening.getsockname()[1])

    async def _metrics(self, request: Request) -> Response:
        try:
            self._keys.see_figures(request.headers.get("authorization"))
        except GatewayError as error:
            return Response(str(error), error.status, media_type="text/plain")
        body, content_type = await asyncio.to_thread(self._scrape)
        return Response(body, headers={"content-type": content_type})

    async def close(self) -> None:
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task


class Targets:
    """Addresses of the nodes' exporters. ``living`` asks Ray (it blocks): the addresses of nodes with a meter.

    A node that is gone stays a target for a while: else Prometheus would forget it before the alert that it is down.
    ``seen`` is what all replicas share: the proxy asks one after the other, and one of them may have come since.
    """

    def __init__(self, living: Callable[[], Iterable[str]], seen: RecentlySeen | None = None) -> None:
        self._living = living
        self._seen = seen or RecentlySeen()

    def __call__(self) -> list[str]:
        return self._seen(self._living())


def living_nodes(port: int) -> list[str]:
    """The addresses of their exporters."""
    import ray

    alive = meters_alive()
    return [f"{node['NodeManagerAddress']}:{port}" for node in ray.nodes() if node["NodeID"] in alive]
