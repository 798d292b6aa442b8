"""An encoder on its device, as the meter needs to know it: one pass over each text, no keys and values kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from metering.flops import encode_flops, weight_read_bytes
from metering.shape import ModelArchitecture
from metering.weights import ExecutedWork
from metering.work import WorkRecord


@dataclass(frozen=True)
class EncoderProfile:
    """A ``WorkModel`` of an embedding model; a record is one text, its tokens are ``prefill_tokens``."""

    name: str
    """Served model name, as in ``WorkRecord.model``."""
    architecture: ModelArchitecture | None = None
    """None where the config is of no known family: no FLOPs, weights fall back to tokens."""
    weight_bytes_each: float | None = None
    """Bytes of one weight at the precision in use."""
    peak_flops: float | None = None
    """FLOP/s of the cores that one encoder computes on, at the precision in use."""
    bandwidth_bytes_per_second: float | None = None
    """Of the same cores."""
    _known: dict[int, ExecutedWork] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By length: an encoder's window is short and its texts are many."""

    def step_weight_bytes(self, sequences: float) -> float | None:
        """Weights read by one pass; None where unknown."""
        if self.architecture is None or not self.weight_bytes_each:
            return None
        return weight_read_bytes(self.architecture, 1, weight_bytes_each=self.weight_bytes_each)

    def flops(self, tokens: int) -> int:
        """Of one text; 0 where the architecture is unknown.

        Raises:
            BadInput: negative tokens.
        """
        return 0 if self.architecture is None else encode_flops(self.architecture, tokens).total

    def work(self, record: WorkRecord) -> ExecutedWork | None:
        """FLOPs and bytes of one text; None where the architecture is unknown.

        Raises:
            BadInput: negative tokens.
        """
        if self.architecture is None:
            return None
        tokens = record.prefill_tokens
        if tokens not in self._known:
            self._known[tokens] = ExecutedWork(
                flops_prefill=self.flops(tokens),
                flops_decode=0,
                kv_bytes_prefill=0.0,
                kv_bytes_decode=0.0,
                weight_bytes_prefill=self.step_weight_bytes(1.0) or 0.0 if tokens else 0.0,
            )
        return self._known[tokens]
