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
        architecture, weight_bytes, kv_bytes = self.architecture, self.weight_bytes_each, self.kv_bytes_each
        widths_known = bool(weight_bytes and kv_bytes)
        flops_prefill = flops_decode = 0
        kv_prefill = kv_decode = weights_prefill = 0.0
        # a record is mostly all prefill or all decode; what it has none of is not computed
        if record.prefill_tokens or record.cached_tokens:
            new, reused = record.prefill_tokens, record.cached_tokens
            flops_prefill = prefill_flops(architecture, new, reused, attention=self.attention).total
            if widths_known:
                assert weight_bytes
                assert kv_bytes
                moved = prefill_bytes(architecture, new, reused, weight_bytes_each=weight_bytes, kv_bytes_each=kv_bytes)
                kv_prefill, weights_prefill = moved.kv_read + moved.kv_write, moved.weights
        if record.decode_tokens:
            new, context = record.decode_tokens, record.first_context_tokens
            flops_decode = decode_flops(architecture, new, context).total
            if widths_known:
                assert weight_bytes
                assert kv_bytes
                moved = decode_bytes(architecture, new, context, weight_bytes_each=weight_bytes, kv_bytes_each=kv_bytes)
                kv_decode = moved.kv_read + moved.kv_write
        return ExecutedWork(
            flops_prefill=flops_prefill,
            flops_decode=flops_decode,
            kv_bytes_prefill=kv_prefill,
            kv_bytes_decode=kv_decode,
            weight_bytes_prefill=weights_prefill,
        )
