"""A model folder of Llama-3.1-8B's shape for a machine that can fetch none: no weights, another model's tokenizer.

    python -m tests.bench.gpu.random_model FOLDER --tokenizer FOLDER_OF_A_MODEL

vLLM fills it with random weights (``load-format: dummy``): what is computed, and its watts and seconds, are those of an
8B model in bfloat16; its text is noise. ``llama-8b-shape.yaml`` serves it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
    "initializer_range": 0.02,
}
"""Llama-3.1-8B's config.json; the vocabulary is the tokenizer's, so that its ids can be turned into text."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(arguments.tokenizer / name, arguments.folder / name)
    tokens = json.loads((arguments.tokenizer / "tokenizer.json").read_text())["model"]["vocab"]
    shape = SHAPE | {"vocab_size": len(tokens)}
    (arguments.folder / "config.json").write_text(json.dumps(shape, indent=1) + "\n")


if __name__ == "__main__":
    main()
