"""A LoRA adapter in PEFT's form, drawn at random: it changes every answer, and teaches nothing."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

RANK = 8


def random_adapter(folder: Path, model: Path, *, seed: int, strength: float = 0.5) -> Path:
    """Over the query and value projections of a Llama checkpoint."""
    config = json.loads((model / "config.json").read_text())
    hidden, heads, width = config["hidden_size"], config["num_attention_heads"], config["head_dim"]
    rows = {"q_proj": heads * width, "v_proj": config["num_key_value_heads"] * width}
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        for name, out in rows.items():
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{key}.lora_A.weight"] = torch.randn(RANK, hidden, generator=generator) / hidden**0.5
            weights[f"{key}.lora_B.weight"] = strength * torch.randn(out, RANK, generator=generator) / RANK**0.5
    folder.mkdir(parents=True)
    save_file(weights, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": str(model),
                "r": RANK,
                "lora_alpha": 2 * RANK,
                "lora_dropout": 0.0,
                "bias": "none",
                "target_modules": sorted(rows),
            }
        )
    )
    return folder
