"""A cap that something else may hold for a while, over whatever else moves it."""

from __future__ import annotations

from serving.admission.queue import AdmissionQueue, QueuePolicy


class HoldableCap:
    """The cap of a queue as its movers (the configuration, the controller) see it. While it is held they move what it
    goes back to.
    """

    def __init__(self, queue: AdmissionQueue) -> None:
        self._queue = queue
        self._unheld = queue.cap
        self._held: int | None = None

    @property
    def cap(self) -> int:
        """Without the hold."""
        return self._unheld

    @property
    def held(self) -> int | None:
        """None where nothing holds it."""
        return self._held

    @property
    def in_force(self) -> int:
        return self._queue.cap

    @property
    def running(self) -> int:
        return self._queue.running

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    def resize(self, cap: int, *, policy: QueuePolicy | None = None) -> None:
        self._unheld = cap
        self._queue.resize(cap if self._held is None else self._held, policy=policy)

    def hold(self, cap: int | None) -> None:
        """At ``cap``, whatever it is moved to meanwhile; None: no longer."""
        self._held = cap
        self._queue.resize(self._unheld if cap is None else cap)
