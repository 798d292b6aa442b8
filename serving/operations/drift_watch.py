"""The watch over traffic: fills windows of requests, of each model by itself, and tells what moved."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from serving.operations.drift import Finding, Limits, Seen, Vector, Window, compare
from serving.operations.drift_references import ALL, References
from serving.operations.drift_telling import Telling

VERDICTS = "verdicts"
FORGOTTEN_SECONDS = 3600.0
"""After so long without a window nothing is known of how it is now."""
LOOK_SECONDS = 10.0
_MOST_VERDICTS = 200
"""A window of verified hits: few hits are verified, and a day's worth of them would tell nothing in time."""


@dataclass(slots=True)
class DriftWatch:
    """Of one model. Fills windows of ``size`` requests; where there is no reference the first becomes it.

    ``telling`` is of this watch alone, and called from wherever ``later`` runs.
    """

    telling: Telling
    model: str = ALL
    size: int = 500
    limits: Limits = field(default_factory=Limits)
    of: str = ""
    """Which of the model's references."""
    later: Callable[[Callable[[], None]], object] = lambda work: work()
    """Where comparing is done: some ten milliseconds that an event loop should not stand still for."""
    references: References = field(default_factory=References)
    wall: Callable[[], float] = time.time
    findings: list[Finding] = field(default_factory=list)
    """Of the last full window."""
    _began_seconds: float | None = None
    _seen_seconds: float = 0.0
    _requests: list[Seen] = field(default_factory=list)
    _embeddings: list[Vector] = field(default_factory=list)
    _encoder: str = ""
    _verified: list[bool] = field(default_factory=list)

    def embedded(self, vector: Vector, encoder: str) -> None:
        """A prompt's vector, where something embeds prompts. As many as requests fill a window, too."""
        if encoder != self._encoder:
            self._embeddings, self._encoder = [], encoder
        self._begun()
        self._embeddings.append(vector)
        if len(self._embeddings) >= self.size:
            self._full()

    def verified(self, wrong: bool) -> None:
        """What verifying a semantic hit has shown."""
        self._begun()
        self._verified.append(wrong)
        if len(self._verified) >= min(self.size, _MOST_VERDICTS):
            self._full()

    def ended(self, seen: Seen) -> None:
        self._begun()
        self._requests.append(seen)
        if len(self._requests) >= self.size:
            self._full()

    def clear(self) -> None:
        """Begin a window anew: after a rebase."""
        self._requests, self._embeddings, self._verified = [], [], []
        self._began_seconds, self.findings = None, []
        self.later(self.telling.forget_all)

    def look(self) -> None:
        """To be called now and then: nothing is told of what has no reference any more, or was not seen for long."""
        if not self.telling.any_moved:
            return
        if self.wall() - self._seen_seconds > FORGOTTEN_SECONDS:
            self.clear()
        else:
            self.later(self._let_go)

    def _let_go(self) -> None:
        if self.references.shown(self.model, self.of) is None:
            self.telling.forget_all()

    def _begun(self) -> None:
        self._seen_seconds = self.wall()
        if self._began_seconds is None:
            self._began_seconds = self._seen_seconds

    def _full(self) -> None:
        window = Window(
            tuple(self._requests),
            embeddings=tuple(self._embeddings),
            encoder=self._encoder,
            verified_wrong=tuple(self._verified),
        )
        began = self._began_seconds or self.wall()
        self._requests, self._embeddings, self._verified, self._began_seconds = [], [], [], None
        self.later(lambda: self._conclude(began, window))

    def _conclude(self, began_seconds: float, window: Window) -> None:
        reference = self.references.settle(self.model, began_seconds, window, self.of)
        if reference is None:
            self.telling.forget_all()
            return
        model = None if self.model == ALL else self.model
        self.findings = [replace(finding, model=model) for finding in compare(reference, window, self.limits)]
        self.telling.tell(self.findings)


class DriftWatches:
    """One for each model: a second model, or another share of it, is no change of the first."""

    def __init__(self, new: Callable[[str], DriftWatch], references: References) -> None:
        self._new = new
        self.references = references
        self._watches: dict[str, DriftWatch] = {}
        self._all = new(ALL)
        """Prompts' vectors: who embeds, and who verifies, does not know the model."""
        self._verdicts = new(ALL)
        """By themselves, for there are far fewer."""
        self._verdicts.of = VERDICTS
        self._looked_seconds = 0.0

    def ended(self, model: str, seen: Seen) -> None:
        """``model``: one that is served, and no client's own text."""
        watch = self._watches.get(model)
        if watch is None:
            watch = self._watches[model] = self._new(model)
        watch.ended(seen)

    def embedded(self, vector: Vector, encoder: str) -> None:
        self._all.embedded(vector, encoder)

    def verified(self, wrong: bool) -> None:
        self._verdicts.verified(wrong)

    def rebase(self, model: str | None = None) -> None:
        """After a change that was meant: the next full window becomes the reference, in every replica; None: of every
        model.
        """
        at_seconds = self._all.wall()
        self.clear(model)
        # it writes files and asks the cluster's store
        self._all.later(lambda: self.references.rebase(model, at_seconds))

    def look(self) -> None:
        """As often as one likes: what has moved is looked at every ``LOOK_SECONDS``, for that reads a file."""
        now = self._all.wall()
        if now - self._looked_seconds < LOOK_SECONDS:
            return
        self._looked_seconds = now
        for watch in (*self._watches.values(), self._all, self._verdicts):
            watch.look()

    def clear(self, model: str | None = None) -> None:
        """Leave the windows that are being filled."""
        for name, watch in (*self._watches.items(), (ALL, self._all), (ALL, self._verdicts)):
            if model in (None, name):
                watch.clear()
