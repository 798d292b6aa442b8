"""What the gateway is measured against: the same bytes from next to nothing.

``python -m tests.bench.serving.floor uvicorn PORT REPLAY`` is a bare uvicorn app; ``... replica PORT REPLAY`` is
an empty ASGI replica on Ray Serve behind the same HAProxy, with the gateway's own environment.
REPLAY is a JSON file of recorded answers: {"unary": "...", "frames": ["...", ...]}.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]


def replay_app(replay: dict[str, Any]) -> Any:
    unary = replay["unary"].encode()
    frames = [frame.encode() for frame in replay["frames"]]

    async def app(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if json.loads(body).get("stream"):
            headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for frame in frames:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(unary)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": unary, "more_body": False})

    return app


def bare_uvicorn(port: int, replay: dict[str, Any]) -> None:
    import uvicorn

    uvicorn.run(replay_app(replay), host="127.0.0.1", port=port, log_level="error", access_log=False, loop="uvloop")


def empty_replica(port: int, replay: dict[str, Any]) -> None:
    import os

    from serving.placement import ray_runtime
    from serving.placement.applications import GATEWAY, Application, run_applications
    from serving.placement.janitor import RUN_VARIABLE
    from serving.placement.processes import adopt_orphans
    from serving.placement.run_folder import RunFolder

    adopt_orphans()
    folder = RunFolder()
    os.environ[RUN_VARIABLE] = str(folder.path)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        ray_runtime.start_ray(folder.path, ray_runtime.environment(folder.path, longest_request_seconds=300))
        ray_runtime.start_serve("127.0.0.1", port)
        from ray import serve

        def build() -> Any:
            return replay_app(replay)

        deployment = serve.deployment(
            serve.ingress(build)(), name="empty", max_ongoing_requests=8192, ray_actor_options={"num_cpus": 0}
        )
        run_applications([Application(GATEWAY, "/", deployment.bind())])
        print("up", flush=True)
        stop.wait()
    finally:
        ray_runtime.stop_all([GATEWAY])
        folder.close()


def main() -> None:
    kind, port, path = sys.argv[1:4]
    replay = json.loads(Path(path).read_text())
    (bare_uvicorn if kind == "uvicorn" else empty_replica)(int(port), replay)


if __name__ == "__main__":
    main()
