"""Who carries the idle energy: the policies, and the pool in which idle waits for requests to share it.

The policies differ in what becomes of idle that was booked:

``none``
    It stays with the node; receipts hold only what work used.
``by_time``, ``by_flops``
    The idle of a window is shared over the requests that worked in that window, by the time that their
    sequences were scheduled or by their FLOPs. Windows without a request stay with the node, so the outcome
    depends on the length of the window.
``reserved`` (default)
    Idle, that of empty windows included, is carried forward in a pool and given out to later requests by
    time, at most ``busy / release_seconds`` of the pool in one window: a single request after a quiet night is
    not handed the night. What has not been given out is the node's ``carried`` line.

SCI (ISO/IEC 21031) counts the energy of the hardware *reserved*, idle included, and so does ``reserved``: it
is the SCI-conformant choice, its receipts add up to the meter in the long run whatever the window, and it is
the default for both reasons. Under the others an SCI score has to add the node's idle line to the receipts;
the report, whose groups cannot tell whose idle that was, gives none.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from metering.ledger import Amounts, integer_weights
from metering.windows import NANO


class IdlePolicy(StrEnum):
    NONE = "none"
    BY_FLOPS = "by_flops"
    BY_TIME = "by_time"
    RESERVED = "reserved"


class IdleBook:
    """The idle of one component: what was booked, shared, kept by the node, and is still carried."""

    def __init__(self, policy: IdlePolicy, release_seconds: float) -> None:
        if release_seconds <= 0:
            raise ValueError(f"release_seconds must be above zero, got {release_seconds}")
        self.policy = policy
        self.booked = Amounts()
        self.shared = Amounts()
        self.node = Amounts()
        self.carried = Amounts()
        self._release_nanoseconds = round(release_seconds * NANO)

    def share(
        self, idle: Amounts, busy_nanoseconds: int, seconds: Sequence[float], flops: Sequence[float]
    ) -> list[Amounts]:
        """Book a window's idle; returns what each request gets, parallel to ``seconds`` and ``flops``."""
        self.booked.add(idle)
        weights = integer_weights(seconds)
        if self.policy is IdlePolicy.BY_FLOPS and any(value > 0 for value in flops):
            weights = integer_weights(flops)
        if self.policy is IdlePolicy.RESERVED:
            self.carried.add(idle)
            given = self.carried.part(busy_nanoseconds, self._release_nanoseconds)
        else:
            given = idle
        if self.policy is IdlePolicy.NONE or sum(weights) == 0:
            if self.policy is not IdlePolicy.RESERVED:
                self.node.add(idle)
            return [Amounts() for _ in weights]
        if self.policy is IdlePolicy.RESERVED:
            self.carried.subtract(given)
        self.shared.add(given)
        return given.divide(weights)
