"""The engine models of a user: one file a model and device, made by tuning, used by plans and the simulated engine."""

from __future__ import annotations

import re
from pathlib import Path

import platformdirs

from metering.errors import BadInput, nearest
from serving.tuning.engine_model import EngineModel


def library() -> Path:
    """The folder of this user's engine models, one file a model and device."""
    return Path(platformdirs.user_data_dir("wattgate")) / "engine-models"


def library_name(model: str, device: str) -> str:
    """``smollm2-135m-instruct@amd-epyc``: how a kept model is asked for."""
    slug = [re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-") or "unknown" for part in (model, device)]
    return "@".join(slug)


def keep(model: EngineModel) -> Path:
    """Save into the library, in place of an earlier one of the same model and device.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = library()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{library_name(model.model, model.device)}.json"
    draft = path.with_suffix(".draft")
    model.save(draft)
    draft.replace(path)
    return path


def find_engine_model(name: str) -> EngineModel:
    """By path, or by a name in the library.

    Raises:
        BadInput: neither; the nearest kept ones are named.
    """
    if Path(name).is_file():
        return EngineModel.load(Path(name))
    kept = {path.stem: path for path in sorted(library().glob("*.json"))}
    if name in kept:
        return EngineModel.load(kept[name])
    if name.endswith(".json") or "/" in name:
        return EngineModel.load(Path(name))
    hint = nearest(name, kept) or (f"; kept: {', '.join(kept)}" if kept else "; `wattgate tune` makes one")
    raise BadInput(f"there is no engine model {name!r}: neither a file nor in {library()}{hint}")
