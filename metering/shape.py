"""The shape of a transformer as the FLOP, byte and parameter counts need it; no tensor, no framework."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from metering.errors import BadInput

LoraTarget = Literal["q", "k", "v", "o", "gate", "up", "down"]


@dataclass(frozen=True, slots=True)
class Attention:
    """One layer's attention. ``weights`` are elements of matrices that a token is multiplied with."""

    query_heads: int
    kv_heads: int
    head_size: int
    """Of queries and keys; MLA: without plus with rotation."""
    value_head_size: int
    qkv_weights: int
    """Projections from the hidden state to queries, keys and values; MLA: the low-rank chain of both paths."""
    output_weights: int
    kv_elements: int
    """Elements kept in the KV cache per token; MLA: the latent vector and the rotated key."""
    window: int | None = None
    """Positions that a token sees, itself included; None: all."""

    @property
    def pair_flops(self) -> int:
        """FLOPs of one query attending to one position: score and weighted sum, over all heads."""
        return 2 * self.query_heads * (self.head_size + self.value_head_size)


@dataclass(frozen=True, slots=True)
class FeedForward:
    """One layer's feed-forward block: dense is one expert that always runs."""

    intermediate_size: int
    """Width of one expert."""
    expert_weights: int
    """Elements of the matrices of one expert: hidden x intermediate, three times if gated, twice if not."""
    experts: int = 1
    experts_per_token: int = 1
    shared_weights: int = 0
    """Of all experts that every token runs, with their gate."""
    router_weights: int = 0
    expert_biases: int = 0
    """Of one expert; no FLOPs are counted for them."""

    @property
    def weights(self) -> int:
        return self.experts * self.expert_weights + self.shared_weights + self.router_weights

    def weights_read(self, tokens: int) -> int:
        """Elements touched by a pass over ``tokens`` tokens whose routing is balanced: min(tokens x k, experts)."""
        touched = min(tokens * self.experts_per_token, self.experts)
        return touched * self.expert_weights + self.shared_weights + self.router_weights

    @property
    def weights_active(self) -> int:
        return self.weights_read(1)


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """``count`` layers of the same shape."""

    count: int
    attention: Attention
    ffn: FeedForward
    other_parameters: int = 0
    """Norms, biases and attention sinks of one layer: parameters without a matrix multiplication."""
    lora_qkv_weights: int = 0
    lora_output_weights: int = 0
    lora_ffn_weights: int = 0


@dataclass(frozen=True, slots=True)
class ModelArchitecture:
    """A model's layers and sizes, enough to count its parameters, FLOPs and bytes.

    Built by :func:`metering.architecture.architecture_from_config`; sizes in elements unless the name says bytes.
    """

    model_type: str
    kind: Literal["decoder", "encoder"]
    hidden_size: int
    vocabulary_size: int
    layers: tuple[LayerGroup, ...]
    head_weights: int
    """Matrix of the LM head, counted as a multiplication even when tied; 0 for an encoder."""
    head_tied: bool
    embedding_parameters: int
    """Token, position and segment tables: lookups."""
    other_parameters: int
    """Final norm, head bias, pooler: outside the layers."""
    dtype: str
    """Of activations and KV cache."""
    dtype_bytes: float
    weight_bytes_each: float
    """Of one weight; below ``dtype_bytes`` where the config declares a quantisation."""
    max_context_tokens: int | None = None
    notes: tuple[str, ...] = ()
    """Assumptions made while reading the config, one sentence each."""

    @property
    def layer_count(self) -> int:
        return sum(group.count for group in self.layers)

    def matmul_parameters_read(self, tokens: int) -> int:
        """Matrix elements that one forward pass over ``tokens`` tokens reads, LM head included."""
        return self.head_weights + sum(
            group.count
            * (
                group.attention.qkv_weights
                + group.attention.output_weights
                + group.ffn.weights_read(tokens)
                + group.lora_qkv_weights
                + group.lora_output_weights
                + group.lora_ffn_weights
            )
            for group in self.layers
        )

    @property
    def matmul_parameters_active(self) -> int:
        """N of the rule of thumb 2N FLOPs per token."""
        return self.matmul_parameters_read(1)

    @property
    def matmul_parameters(self) -> int:
        """All matrices that a token can be multiplied with, every expert included."""
        return self.matmul_parameters_active + self._idle_expert_weights

    @property
    def _idle_expert_weights(self) -> int:
        return sum(
            group.count * (group.ffn.experts - group.ffn.experts_per_token) * group.ffn.expert_weights
            for group in self.layers
        )

    @property
    def parameters_total(self) -> int:
        """Every parameter: embeddings, norms, biases and router included; a tied head is counted once."""
        tied = self.head_weights if self.head_tied else 0
        biases = sum(group.count * group.ffn.experts * group.ffn.expert_biases for group in self.layers)
        others = self.other_parameters + sum(group.count * group.other_parameters for group in self.layers)
        return self.matmul_parameters - tied + self.embedding_parameters + others + biases

    @property
    def parameters_active(self) -> int:
        """``parameters_total`` without the experts that a token does not run."""
        idle_biases = sum(
            group.count * (group.ffn.experts - group.ffn.experts_per_token) * group.ffn.expert_biases
            for group in self.layers
        )
        return self.parameters_total - self._idle_expert_weights - idle_biases

    def kv_bytes_per_token(self, kv_bytes_each: float | None = None) -> int:
        """KV-cache bytes that one token adds over all layers; ``kv_bytes_each`` defaults to the config's dtype."""
        each = self.dtype_bytes if kv_bytes_each is None else kv_bytes_each
        return round(each * sum(group.count * group.attention.kv_elements for group in self.layers))

    def with_lora(self, rank: int, targets: tuple[LoraTarget, ...] = ("q", "v")) -> ModelArchitecture:
        """The model with an unmerged LoRA adapter (Hu et al. 2021): each target W gains A and B, rank x (in + out).

        Raises:
            BadInput: rank < 1, an unknown target, MLA (its low-rank chain has no q, k, v) or a feed-forward
                target on a mixture of experts (adapters there differ by library).
        """
        if rank < 1:
            raise BadInput(f"LoRA rank must be at least 1, got {rank}")
        unknown = set(targets) - {"q", "k", "v", "o", "gate", "up", "down"}
        if unknown:
            raise BadInput(f"unknown LoRA target {sorted(unknown)[0]!r}: use q, k, v, o, gate, up or down")
        return replace(self, layers=tuple(self._with_lora(group, rank, targets) for group in self.layers))

    def _with_lora(self, group: LayerGroup, rank: int, targets: tuple[LoraTarget, ...]) -> LayerGroup:
        attention, hidden = group.attention, self.hidden_size
        queries = attention.query_heads * attention.head_size
        values_in = attention.query_heads * attention.value_head_size
        keys = attention.kv_heads * attention.head_size
        values = attention.kv_heads * attention.value_head_size
        on_ffn = [target for target in targets if target in ("gate", "up", "down")]
        if any(target in ("q", "k", "v") for target in targets) and attention.kv_elements != keys + values:
            raise BadInput("LoRA on q, k or v of multi-head latent attention is not modelled: use target o")
        if on_ffn and group.ffn.experts > 1:
            raise BadInput("LoRA on the experts of a mixture is not modelled: use attention targets q, k, v, o")
        sides = {"q": queries, "k": keys, "v": values}
        return replace(
            group,
            lora_qkv_weights=sum(rank * (hidden + sides[target]) for target in targets if target in sides),
            lora_output_weights=rank * (values_in + hidden) if "o" in targets else 0,
            lora_ffn_weights=len(on_ffn) * rank * (hidden + group.ffn.intermediate_size),
        )
