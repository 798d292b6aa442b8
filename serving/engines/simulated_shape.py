"""A shape whose FLOPs are those of a fitted engine model, which has kept the count's coefficients and no shape."""

from __future__ import annotations

from typing import Any

from serving.tuning.engine_model import FlopCount


def shape_with(flops: FlopCount) -> dict[str, Any]:
    """The config of a model of one layer and a hidden size of 1: then each coefficient is one dimension's.

    A query against a key is 4 FLOPs a head dimension, a row of logits 2 a word, and a token 2 a weight of its matrices:
    query, key, value and output of that head, and three of the MLP. Its weights are as many as the fitted model's; of
    its keys and values it says nothing.
    """
    head = max(1, round(flops.per_pair / 4))
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 1,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": head,
        "intermediate_size": max(1, round((flops.per_token / 2 - 4 * head) / 3)),
        "vocab_size": max(1, round(flops.per_row / 2)),
        "tie_word_embeddings": True,
    }
