"""A served model on its device, as the meter needs to know it."""

from __future__ import annotations

from dataclasses import dataclass, field

from metering.flops import (
    AttentionConvention,
    decode_bytes,
    decode_flops,
    prefill_bytes,
    prefill_flops,
    weight_read_bytes,
)
from metering.shape import ModelArchitecture
from metering.weights import ExecutedWork
from metering.work import Method, WorkRecord


@dataclass(frozen=True)
class ModelProfile:
    """A ``WorkModel`` from an architecture. Whatever is unknown is None: it is then left out, never guessed."""

    name: str
    """Served model name, as in ``WorkRecord.model``."""
    architecture: ModelArchitecture | None = None
    """None for an upstream engine that does not tell: no FLOPs, weights fall back to tokens."""
    weight_bytes_each: float | None = None
    """Bytes of one weight at the precision in use, quantisation included."""
    kv_bytes_each: float | None = None
    """Bytes of one element of the KV cache."""
    peak_flops: float | None = None
    """FLOP/s of all the devices (or cores) that one engine runs on, at the precision in use."""
    bandwidth_bytes_per_second: float | None = None
    """Of the same devices."""
    method: Method = Method.MODELLED
    """How peak and bandwidth were obtained: ``measured`` when calibrated."""
    attention: AttentionConvention = "causal"
    _step_bytes: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def step_weight_bytes(self, sequences: float) -> float | None:
        """Weights read by one decode step over so many sequences; None where unknown."""
        if self.architecture is None or not self.weight_bytes_each or not self.kv_bytes_each:
            return None
        tokens = max(1, round(sequences))
        if tokens not in self._step_bytes:
            self._step_bytes[tokens] = weight_read_bytes(
                self.architecture, tokens, weight_bytes_each=self.weight_bytes_each
            )
        return self._step_bytes[tokens]

    def work(self, record: WorkRecord) -> ExecutedWork | None:
        """FLOPs and bytes of a record; None where the architecture is unknown.

        Bytes are zero where their widths are unknown; ``step_weight_bytes`` then says None and no roofline is drawn.

        Raises:
            BadInput: negative tokens, or a decode context below 1.
        """
        if self.architecture is None:
            return None
        prefill = prefill_flops(
            self.architecture, record.prefill_tokens, record.cached_tokens, attention=self.attention
        ).total
        decode = decode_flops(self.architecture, record.decode_tokens, record.first_context_tokens).total
        if not self.weight_bytes_each or not self.kv_bytes_each:
            return ExecutedWork(prefill, decode, 0.0, 0.0)
        moved_prefill = prefill_bytes(
            self.architecture,
            record.prefill_tokens,
            record.cached_tokens,
            weight_bytes_each=self.weight_bytes_each,
            kv_bytes_each=self.kv_bytes_each,
        )
        moved_decode = decode_bytes(
            self.architecture,
            record.decode_tokens,
            record.first_context_tokens,
            weight_bytes_each=self.weight_bytes_each,
            kv_bytes_each=self.kv_bytes_each,
        )
        return ExecutedWork(
            flops_prefill=prefill,
            flops_decode=decode,
            kv_bytes_prefill=moved_prefill.kv_read + moved_prefill.kv_write,
            kv_bytes_decode=moved_decode.kv_read + moved_decode.kv_write,
            weight_bytes_prefill=moved_prefill.weights,
        )
