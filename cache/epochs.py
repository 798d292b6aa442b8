"""What a replica knows of the epochs, and since when."""

from __future__ import annotations

from collections import OrderedDict

from cache.identity import Epochs, Scopes


class EpochBook:
    """Never goes back: a store that was restarted empty does not revive what had been invalidated."""

    def __init__(self, *, check_seconds: float, scopes: int = 10_000) -> None:
        self._check_seconds = check_seconds
        self._scopes = scopes
        self._known: OrderedDict[Scopes, tuple[Epochs, float]] = OrderedDict()
        self._everything = 0
        self._local = 0

    def known(self, scopes: Scopes) -> Epochs:
        kept = self._known.get(scopes)
        epochs = kept[0] if kept else Epochs()
        return Epochs(self._everything, epochs.model, epochs.tenant, self._local)

    def recent(self, scopes: Scopes, monotonic_seconds: float) -> bool:
        """Whether they were read recently enough to serve from process memory without asking."""
        kept = self._known.get(scopes)
        return kept is not None and monotonic_seconds - kept[1] < self._check_seconds

    def learn(self, scopes: Scopes, read: Epochs, monotonic_seconds: float) -> tuple[Epochs, bool]:
        """The epochs in force, and whether process memory has to be emptied."""
        before = self.known(scopes)
        now = before.latest(read)
        forget = now.local > self._local
        self._everything, self._local = now.everything, now.local
        self._known[scopes] = (now, monotonic_seconds)
        self._known.move_to_end(scopes)
        if len(self._known) > self._scopes:
            self._known.popitem(last=False)
        return now, forget

    def forget_checks(self) -> None:
        """Ask again before the next answer from process memory."""
        self._known = OrderedDict((scopes, (epochs, float("-inf"))) for scopes, (epochs, _) in self._known.items())
