"""FLOPs of a forward pass, by part: matrix multiplications only, one multiply-add is 2 FLOPs.

The parts are those of Chowdhery et al. 2023 (PaLM, appendix B) and of vLLM's estimator (``vllm/v1/metrics/perf.py``):
projections to q, k, v; output projection; scores and weighted sum; feed-forward with its router; LM head. The input
embedding is a lookup and costs nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from metering.errors import BadInput, require_tokens
from metering.pairs import causal_pairs, decode_pairs, full_pairs
from metering.shape import ModelArchitecture
from metering.traffic import BytesMoved, decode_bytes, prefill_bytes, weight_read_bytes

__all__ = [
    "AttentionConvention", "BytesMoved", "FlopsByPart", "decode_bytes", "decode_flops", "encode_flops",
    "prefill_bytes", "prefill_flops", "verify_flops", "weight_read_bytes",
]  # fmt: skip

AttentionConvention = Literal["causal", "full"]


@dataclass(frozen=True, slots=True)
class FlopsByPart:
    """FLOPs executed, by part. ``attention_convention``: ``causal`` counts the pairs that the mask lets through;
    ``full`` bills computed tokens x context, as vLLM's own estimator does."""

    qkv: int = 0
    output: int = 0
    attention: int = 0
    ffn: int = 0
    head: int = 0
    attention_convention: AttentionConvention = "causal"

    @property
    def total(self) -> int:
        return self.qkv + self.output + self.attention + self.ffn + self.head

    def __add__(self, other: FlopsByPart) -> FlopsByPart:
        """Sum by part.

        Raises:
            BadInput: the two were counted under different conventions.
        """
        if self.attention_convention != other.attention_convention:
            raise BadInput("FLOPs of the causal and the full convention do not add up: count both under one")
        return FlopsByPart(
            self.qkv + other.qkv,
            self.output + other.output,
            self.attention + other.attention,
            self.ffn + other.ffn,
            self.head + other.head,
            self.attention_convention,
        )

    def as_dict(self) -> dict[str, int | str]:
        return {**asdict(self), "total": self.total}


def prefill_flops(
    architecture: ModelArchitecture,
    tokens: int,
    cached_tokens: int = 0,
    *,
    attention: AttentionConvention = "causal",
    logits_rows: int = 1,
) -> FlopsByPart:
    """FLOPs of computing ``tokens`` prompt tokens after ``cached_tokens`` whose keys and values are there already.

    ``tokens`` are those computed, as ``WorkRecord.prefill_tokens``: a prompt of N with K cached is
    ``prefill_flops(a, N - K, K)``, N(N+1)/2 - K(K+1)/2 causal pairs; a chunk of a chunked prefill is counted the
    same way, with ``logits_rows=0`` for all chunks but the last. No tokens, no FLOPs.

    >>> from metering.architecture import architecture_from_config
    >>> llama = architecture_from_config({"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    ...     "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
    ...     "dtype": "bfloat16"})
    >>> prefill_flops(llama, 1000).total == prefill_flops(llama, 600, logits_rows=0).total + \\
    ...     prefill_flops(llama, 400, 600).total
    True

    Raises:
        BadInput: a negative or fractional number of tokens or rows.
    """
    require_tokens("prompt tokens", tokens)
    require_tokens("cached tokens", cached_tokens)
    require_tokens("rows of logits", logits_rows)
    if tokens == 0:
        return FlopsByPart(attention_convention=attention)
    pairs = causal_pairs if attention == "causal" else full_pairs
    attended = sum(
        group.count * group.attention.pair_flops * pairs(tokens, cached_tokens, group.attention.window)
        for group in architecture.layers
    )
    return _linear(architecture, tokens, attended, logits_rows, attention)


def decode_flops(architecture: ModelArchitecture, tokens: int, first_context_tokens: int) -> FlopsByPart:
    """FLOPs of ``tokens`` decode steps whose contexts are c, c+1, ... (each includes its own token).

    Each step sees one row of logits. Both attention conventions agree on single-token steps.

    >>> from metering.architecture import architecture_from_config
    >>> llama = architecture_from_config({"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    ...     "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
    ...     "dtype": "bfloat16"})
    >>> decode_flops(llama, 1, 1024).total
    15546187776

    Raises:
        BadInput: a negative or fractional number of tokens, or a context below 1.
    """
    require_tokens("decode tokens", tokens)
    if tokens == 0:
        return FlopsByPart()
    require_tokens("the context of a decode step", first_context_tokens, 1)
    attended = sum(
        group.count * group.attention.pair_flops * decode_pairs(tokens, first_context_tokens, group.attention.window)
        for group in architecture.layers
    )
    return _linear(architecture, tokens, attended, tokens, "causal")


def encode_flops(architecture: ModelArchitecture, tokens: int) -> FlopsByPart:
    """FLOPs of embedding one text of ``tokens`` tokens: no LM head, and the pooling is not counted.

    An encoder attends in both directions, ``tokens`` squared pairs; a decoder used for embeddings stays causal.

    Raises:
        BadInput: a negative or fractional number of tokens.
    """
    require_tokens("tokens", tokens)
    convention: AttentionConvention = "full" if architecture.kind == "encoder" else "causal"
    return prefill_flops(architecture, tokens, attention=convention, logits_rows=0)


def verify_flops(architecture: ModelArchitecture, tokens: int, first_context_tokens: int) -> FlopsByPart:
    """FLOPs of one speculative step that checks ``tokens`` positions at once, the first at ``first_context_tokens``.

    All of them are executed (hardware utilisation, HFU); only those accepted are useful (MFU). The useful part of
    a step that accepted ``a`` positions is ``decode_flops(architecture, a, first_context_tokens)``, and the draft
    model's own work is counted with its own architecture.
    """
    return decode_flops(architecture, tokens, first_context_tokens)


def _linear(
    architecture: ModelArchitecture, tokens: int, attended: int, logits_rows: int, convention: AttentionConvention
) -> FlopsByPart:
    qkv = output = ffn = 0
    for group in architecture.layers:
        qkv += group.count * (group.attention.qkv_weights + group.lora_qkv_weights)
        output += group.count * (group.attention.output_weights + group.lora_output_weights)
        ffn += group.count * (group.ffn.weights_active + group.lora_ffn_weights)
    return FlopsByPart(
        qkv=2 * tokens * qkv,
        output=2 * tokens * output,
        attention=attended,
        ffn=2 * tokens * ffn,
        head=2 * logits_rows * architecture.head_weights,
        attention_convention=convention,
    )
