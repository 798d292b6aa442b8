"""The Serve applications of a run: handed over, waited for, and why one did not start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

GATEWAY = "wattgate"
"""Name of the gateway's application."""
_LOOK_SECONDS = 0.2


class ApplicationFailed(Exception):
    """Ray Serve could not start an application; one line, the replica's own where it said why."""


@dataclass(frozen=True, slots=True)
class Application:
    """A Serve application of ours."""

    name: str
    route: str
    target: Any
    """What ``bind`` returned."""


def hand_over(applications: Sequence[Application]) -> None:
    """Have them run side by side; returns at once. Again with other live settings, it only changes those.

    Raises:
        ApplicationFailed: Ray Serve does not take them.
    """
    from ray import serve

    if applications:
        with _in_one_line():
            serve.run_many(
                [serve.RunTarget(target=one.target, name=one.name, route_prefix=one.route) for one in applications],
                wait_for_ingress_deployment_creation=False,
                wait_for_applications_running=False,
            )


def all_run(applications: Sequence[Application]) -> bool:
    """Whether what was handed over runs, each replica as it was asked for.

    Raises:
        ApplicationFailed: one of them will not.
    """
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    with _in_one_line():
        states = serve.status().applications
    for one in applications:
        state = states.get(one.name)
        if state is None:
            return False
        if state.status == ApplicationStatus.DEPLOY_FAILED:
            said = [state.message, *(deployment.message for deployment in state.deployments.values())]
            raise ApplicationFailed(_last_line("\n".join(said)))
        if state.status != ApplicationStatus.RUNNING:
            return False
    return True


def run_applications(applications: Sequence[Application], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Have them run side by side, and wait until all do and the proxy knows the way to them.

    It waits here and not in a thread: one that is still in Ray's native code when Ray is shut down aborts the process.
    ``meanwhile`` is called while it waits, and may raise.

    Raises:
        ApplicationFailed: one of them does not start.
    """
    from ray.serve.context import _get_global_client

    hand_over(applications)
    while not all_run(applications):
        meanwhile()
        time.sleep(_LOOK_SECONDS)
    if applications:
        # `serve.run` waits for it too, and nothing that is public does alone
        _get_global_client().wait_for_proxies_serving()


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ApplicationFailed(_last_line(str(error))) from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
