"""Gateways that several modules share, one after the other: an idle one takes a fifth of a core from what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.integration.serving.gateway_process import GatewayProcess

SHARED = ("changing_gateway", "simulated_gateway", "watched_gateway", "real_gateway")
"""In the order in which they run; tests that need none of them come before."""
THROUGH = {"prometheus": "watched_gateway"}
"""Fixtures that ask for theirs only when they run."""

StartShared = Callable[..., GatewayProcess]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        names = getattr(item, "fixturenames", ())
        wanted = {THROUGH.get(name, name) for name in names} & set(SHARED)
        return max((SHARED.index(name) + 1 for name in wanted), default=0)

    items.sort(key=turn)


@pytest.fixture(scope="session")
def start_shared() -> Iterator[StartShared]:
    """Starts a gateway and ends the one that was started before it."""
    running: list[GatewayProcess] = []

    def end() -> None:
        while running:
            running.pop().stop()

    def start(*arguments: str) -> GatewayProcess:
        end()
        running.append(GatewayProcess(*arguments))
        return running[0].wait_ready()

    yield start
    end()
