"""A gateway that is running already, as tuning uses it: its live cap is held, nothing else of it is changed."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from metering.errors import BadInput
from serving.config import GatewayConfig
from serving.operations.cap_pages import CapList, CapState
from serving.tuning.bench import CannotStart
from serving.tuning.measure import GatewayAway
from serving.without_secrets import address_alone

LEASE_SECONDS = 120.0
"""A tune that is killed holds the cap no longer."""
RENEWED_SECONDS = 30.0
TAKEN_SECONDS = 2.0
"""Every replica looks once a second for what is held."""
_ANSWERED_SECONDS = 30.0
_CAPS = "/v1/control/caps"


class AttachedGateway:
    """A ``RunningGateway``. From ``begin`` to ``close`` it holds the cap by a lease, which a thread renews."""

    run_folder: Path | None = None

    def __init__(
        self,
        http: httpx.Client,
        state: CapState,
        tell: Callable[[str], None],
        *,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """``state``: of its model, from ``attach``."""
        self._http = http
        self._state = state
        self._tell = tell
        self._wait = wait
        self._by = f"wattgate tune {os.getpid()}@{socket.gethostname()}"[:128]
        self._cap: int | None = None
        self._lost: str | None = None
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return str(self._http.base_url).rstrip("/")

    @property
    def shown_url(self) -> str:
        """For files and people."""
        return _shown(self._http)

    @property
    def model(self) -> str:
        return self._state.model

    @property
    def configured_cap(self) -> int:
        return self._state.configured_cap

    @property
    def highest_cap(self) -> int:
        return self._state.highest_cap

    def begin(self, config: GatewayConfig) -> AttachedGateway:
        """Hold the cap of ``config``.

        Raises:
            CannotStart: it is not to be held; with the gateway's reason.
        """
        if self._state.controller == "on":
            self._tell("the gateway's controller pauses until tune is done")
        try:
            self.apply(config)
        except GatewayAway as error:
            raise CannotStart(str(error)) from error
        except BaseException:
            # whoever called has nothing yet that it could close
            self.close()
            raise
        self._ended.clear()
        self._thread = threading.Thread(target=self._renew_until_the_end, daemon=True)
        self._thread.start()
        return self

    def apply(self, config: GatewayConfig) -> None:
        """
        Raises:
            GatewayAway: it is gone, or the cap is held by another.
        """
        self.confirm()
        with self._renewing:
            self._hold(config.admission.max_concurrency)
            # a renewal before that might be answered by a replica that has not looked, and take its hold for lost
            self._wait(TAKEN_SECONDS)

    def confirm(self) -> None:
        """Raises ``GatewayAway`` where the cap was not held throughout: what was measured meanwhile does not count."""
        if self._cap is not None:
            self.renew()
        if self._lost is not None:
            raise GatewayAway(self._lost)

    def renew(self) -> None:
        """A gateway that does not answer now is asked again; a hold that is gone is not taken back."""
        with self._renewing:
            if self._cap is None or self._lost is not None:
                return
            try:
                held = _state(self._http, self.model).held
                if held is None or (held.by, held.cap) != (self._by, self._cap):
                    by = "nobody" if held is None else held.by
                    self._lost = f"the cap of {self.model} at {self.shown_url} is no longer held by tune, but by {by}"
                    return
                self._hold(self._cap)
            except (GatewayAway, BadInput) as error:
                self._tell(f"the hold of the cap is not renewed: {error}")

    def close(self) -> None:
        """Let the cap go back to what it was, unless another holds it by now. Idempotent."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._cap is None:
            return
        self._cap = None
        try:
            # a release is of whoever holds it
            held = _state(self._http, self.model).held
            if held is not None and held.by == self._by:
                _ask(self._http, "DELETE", params={"model": self.model})
        except (GatewayAway, BadInput) as error:
            self._tell(f"the cap goes back by itself within {LEASE_SECONDS:.0f} s, it could not be given back: {error}")

    def _hold(self, cap: int) -> None:
        body = {
            "model": self.model,
            "cap": cap,
            "seconds": LEASE_SECONDS,
            "by": self._by,
            "pause_controller": self._state.controller == "on",
        }
        # before it is asked: of an interrupted request nobody knows whether it arrived
        before, self._cap = self._cap, cap
        try:
            _ask(self._http, "PUT", json=body)
        except GatewayAway:
            self._cap = before
            raise

    def _renew_until_the_end(self) -> None:
        while not self._ended.wait(RENEWED_SECONDS):
            self.renew()


def attach(
    url: str,
    model: str | None,
    admin_key: str | None,
    tell: Callable[[str], None],
    *,
    wait: Callable[[float], None] = time.sleep,
) -> AttachedGateway:
    """``model``: served name; may be left out where there is one.

    Raises:
        GatewayAway: no gateway there that lets its cap be held with this key.
        BadInput: no such model, several and none named, or no address.
    """
    headers = {} if admin_key is None else {"authorization": f"Bearer {admin_key}"}
    base = url.rstrip("/").removesuffix("/v1")
    if not base.startswith(("http://", "https://")):
        raise _no_address(url)
    try:
        http = httpx.Client(base_url=base, headers=headers, timeout=_ANSWERED_SECONDS)
    except httpx.InvalidURL:
        raise _no_address(url) from None
    try:
        return AttachedGateway(http, _state(http, model), tell, wait=wait)
    except BaseException:
        http.close()
        raise


def _no_address(url: str) -> BadInput:
    return BadInput(f"--url {address_alone(url)} is no address of a gateway: write http://HOST:PORT")


def _state(http: httpx.Client, model: str | None) -> CapState:
    try:
        states = CapList.model_validate(_ask(http, "GET")).data
    except ValidationError:
        raise _no_page(http) from None
    names = ", ".join(state.model for state in states)
    if model is None and len(states) > 1:
        raise BadInput(f"{_shown(http)} serves several models: name one with --model ({names})")
    found = [state for state in states if model in (None, state.model)]
    if not found:
        raise BadInput(f"{_shown(http)} does not serve {model!r}: it has {names or 'none'}")
    return found[0]


def _ask(http: httpx.Client, method: str, **request: Any) -> object:
    """The answer's JSON."""
    try:
        reply = http.request(method, _CAPS, **request)
        body = reply.json()
    except httpx.HTTPError as error:
        raise GatewayAway(f"no gateway answers at {_shown(http)} ({type(error).__name__}): see --url") from None
    except ValueError:
        raise _no_page(http) from None
    if not reply.is_success:
        key = " (WATTGATE_ADMIN_KEY is sent, if set)" if reply.status_code in (401, 403) else ""
        raise GatewayAway(f"{_shown(http)}: {_told(body) or f'HTTP {reply.status_code}'}{key}")
    found: object = body
    return found


def _told(body: object) -> str | None:
    """Why it was refused: as a gateway says it, or in the plain text of another server."""
    error = body.get("error") if isinstance(body, dict) else None
    told = error.get("message") if isinstance(error, dict) else error
    return told if isinstance(told, str) else None


def _no_page(http: httpx.Client) -> GatewayAway:
    return GatewayAway(f"{_shown(http)}{_CAPS} is no page of a wattgate gateway: see --url")


def _shown(http: httpx.Client) -> str:
    return address_alone(str(http.base_url)).rstrip("/")
