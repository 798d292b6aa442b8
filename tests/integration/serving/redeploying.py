"""A gateway whose replicas are replaced at each SIGUSR1, one after the other, as an upgrade does it.

``python -m tests.integration.serving.redeploying gateway.yaml``
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

from serving.config_sources import load_config
from serving.placement.replica import serve_deployment
from serving.placement.supervisor import Supervisor


class Upgraded(Supervisor):
    """Its gateway replicas are of ``version``; ``apply`` after another one replaces them."""

    version = 1

    def _gateway(self) -> Any:
        return serve_deployment(self.config, self._redis_urls, self._link, str(self.version))


def main() -> None:
    stop, again, wake = threading.Event(), threading.Event(), threading.Event()
    for number, event in ((signal.SIGTERM, stop), (signal.SIGUSR1, again)):
        signal.signal(number, lambda *_, event=event: (event.set(), wake.set()))
    with Upgraded(load_config(Path(sys.argv[1])).config, print) as supervisor:
        print(f"ready on {supervisor.url}/v1", flush=True)
        while not stop.is_set():
            wake.wait(1.0)
            wake.clear()
            supervisor.watch()
            if again.is_set():
                again.clear()
                supervisor.version += 1
                supervisor.apply(supervisor.config)
                print(f"version {supervisor.version} runs", flush=True)


if __name__ == "__main__":
    main()
