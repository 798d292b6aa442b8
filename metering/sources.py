"""What has been heard from each replica: each batch booked once, gaps tolerated, silence noticed."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_AHEAD = 4096
"""Batches kept beyond a gap before the gap is given up, so that a lost batch cannot hold memory for ever."""
MOST_GIVEN_UP = 1024
"""Ranges of given-up sequence numbers that are remembered, so that a straggler is still booked, and once."""


@dataclass(slots=True)
class Source:
    """One replica's batches. Sequences may come twice, out of order, or never."""

    name: str
    heard_seconds: float
    alive: bool = True
    watermark_seconds: float = float("-inf")
    """Of the last batch before the first gap: a batch beyond a gap promises nothing about those missing."""
    lost: int = 0
    """Sequences that were given up; falls again when one of them arrives after all."""
    last: int | None = None
    """Sequence of the batch that said it is the source's last."""
    _elsewhere: int = 0
    """Up to here batches were for a meter before this one: none of them is awaited, or lost."""
    _upto: int = 0
    _ahead: dict[int, float] = field(default_factory=dict)
    _given_up: list[tuple[int, int]] = field(default_factory=list)
    _gap_since: float | None = None

    @property
    def missing(self) -> bool:
        """Whether a batch is being waited for."""
        return bool(self._ahead)

    @property
    def left(self) -> bool:
        """Whether it has ended in order, and all that it sent is in or given up."""
        return self.last is not None and self._upto >= self.last

    def take(self, sequence: int, watermark_seconds: float, now_seconds: float, *, last: bool = False) -> bool:
        """Note a batch; False where it was booked before.

        Raises:
            ValueError: sequences count from 1.
        """
        if sequence < 1:
            raise ValueError(f"batch sequence of {self.name} must be 1 or more, got {sequence}")
        self.hear(now_seconds)
        if last:
            self.last = sequence
        if sequence <= self._upto:
            return self._take_straggler(sequence)
        if sequence in self._ahead:
            return False
        self._ahead[sequence] = watermark_seconds
        self._advance(now_seconds)
        if len(self._ahead) > MOST_AHEAD:
            self._give_up(now_seconds)
        return True

    def hear(self, now_seconds: float) -> None:
        """It lives; one that has left does not live again for a batch that was under way."""
        self.heard_seconds = max(self.heard_seconds, now_seconds)
        self.alive = not self.left

    def resume(self, sequence: int) -> None:
        """Begin with this batch: those before it were for a meter before this one. One that comes yet is booked."""
        self._elsewhere = self._upto = sequence - 1
        self._given_up = [(1, self._upto)]

    def give_up_gaps(self, now_seconds: float, patience_seconds: float) -> None:
        """Stop waiting for batches that have been missing for longer than the patience."""
        while self._gap_since is not None and now_seconds - self._gap_since >= patience_seconds:
            since = self._gap_since
            self._give_up(now_seconds)
            if self._gap_since is not None:
                self._gap_since = since

    def _advance(self, now_seconds: float) -> None:
        while self._upto + 1 in self._ahead:
            self._upto += 1
            self.watermark_seconds = max(self.watermark_seconds, self._ahead.pop(self._upto))
        if not self._ahead:
            self._gap_since = None
        elif self._gap_since is None:
            self._gap_since = now_seconds

    def _give_up(self, now_seconds: float) -> None:
        first = min(self._ahead)
        self.lost += first - 1 - self._upto
        self._given_up.append((self._upto + 1, first - 1))
        del self._given_up[:-MOST_GIVEN_UP]
        self._upto = first - 1
        self._gap_since = None
        self._advance(now_seconds)

    def _take_straggler(self, sequence: int) -> bool:
        for index, (low, high) in enumerate(self._given_up):
            if low <= sequence <= high:
                rest = [(low, sequence - 1), (sequence + 1, high)]
                self._given_up[index : index + 1] = [(a, b) for a, b in rest if a <= b]
                self.lost -= sequence > self._elsewhere
                return True
        return False
