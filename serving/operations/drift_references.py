"""What traffic and engines are compared with: reference windows of a model, kept where they outlive who saw them.

A roll-out replaces the replicas: a reference that went with them would make the new version its own yardstick.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from serving.operations.drift import Seen, Window

DRIFT = "drift"
"""The folder's name in the run's."""
ALL = ""
"""In place of a model's name: of the prompts' vectors and the verified hits of all models."""


class Rebases(Protocol):
    """When operators asked for new references, for all replicas of a cluster to see."""

    def read(self, model: str) -> float:
        """Unix time; 0 for never."""

    def write(self, model: str, at_seconds: float) -> None: ...


@dataclass(slots=True)
class OwnRebases:
    """Of one process."""

    _at: dict[str, float] = field(default_factory=dict)

    def read(self, model: str) -> float:
        return self._at.get(model, 0.0)

    def write(self, model: str, at_seconds: float) -> None:
        self._at[model] = at_seconds


@dataclass(frozen=True, slots=True)
class Reference:
    began_seconds: float
    """Unix time of its first request."""
    window: Window


class References:
    """Shared by a node's replicas: whoever fills the first window writes it. Blocks for a small file."""

    def __init__(
        self,
        folder: Path | None = None,
        vectors_folder: Path | None = None,
        rebases: Rebases | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Without folders references are this process' own. ``vectors_folder`` is for what is made of prompts' text:
        it should end with the run.
        """
        self._folder = folder
        self._vectors_folder = vectors_folder
        self._rebases = rebases or OwnRebases()
        self._wall = wall
        self._own: dict[tuple[str, str], Reference] = {}
        """For a folder that cannot be written."""
        self._swept: dict[str, float] = {}
        """Up to which rebase a model's files were removed."""

    def settle(self, model: str, began_seconds: float, window: Window, of: str = "") -> Window | None:
        """What a full window is to be compared with; None where it has become the reference itself, or is of both
        before and after a rebase.

        ``of``: which of the model's references; a rebase of the model is one of all of them.
        """
        since = self._since(model)
        if began_seconds < since:
            return None
        kept = self._read(model, of) or self._own.get((model, of))
        if kept is not None and kept.began_seconds >= since and _same_space(kept.window, window):
            return kept.window
        self._write(model, of, Reference(began_seconds, window))
        return None

    def rebase(self, model: str | None = None, at_seconds: float | None = None) -> None:
        """The next full window that began after ``at_seconds`` (default: now) becomes the reference; None: of every
        model. Raises where other replicas cannot be told.
        """
        name, at = _EVERY if model is None else model, self._wall() if at_seconds is None else at_seconds
        # each replica asks for the same: a later one must not take the window that another has begun
        if at <= self._rebases.read(name):
            return
        # first, for it is what counts: a file that is older than this is no reference any more
        self._rebases.write(name, at)
        with contextlib.suppress(OSError):
            for file in self._files(model):
                file.unlink(missing_ok=True)

    def shown(self, model: str, of: str = "") -> Reference | None:
        kept = self._read(model, of) or self._own.get((model, of))
        return kept if kept is not None and kept.began_seconds >= self._since(model) else None

    def _since(self, model: str) -> float:
        # a board that is away: what was read before still holds
        since = self._swept.get(model, 0.0)
        with contextlib.suppress(Exception):
            since = max(self._rebases.read(model), self._rebases.read(_EVERY))
        if since > self._swept.get(model, 0.0):
            self._sweep(model, since)
        return since

    def _sweep(self, model: str, since: float) -> None:
        # the board ends with the run: what was let go from another node would be back after a restart
        with contextlib.suppress(OSError):
            for file in self._files(model):
                if file.stat().st_mtime < since:
                    file.unlink(missing_ok=True)
            self._swept[model] = since

    def _file(self, model: str, of: str = "") -> Path | None:
        folder = self._vectors_folder if model == ALL else self._folder
        return None if folder is None else folder / f"{_digest(model)}{f'-{_digest(of)}' if of else ''}.npz"

    def _files(self, model: str | None) -> list[Path]:
        named = "*.npz" if model is None else f"{_digest(model)}*.npz"
        folders = [folder for folder in (self._folder, self._vectors_folder) if folder is not None]
        return [file for folder in folders for file in folder.glob(named)]

    def _read(self, model: str, of: str = "") -> Reference | None:
        file = self._file(model, of)
        if file is None:
            return None
        # a damaged file is no reference: the next window takes its place
        with (
            contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
            # opened here: of a damaged one numpy would leave it open
            file.open("rb") as content,
            np.load(content, allow_pickle=False) as arrays,
        ):
            return _reference(arrays)
        return None

    def _write(self, model: str, of: str, reference: Reference) -> None:
        self._own[model, of] = reference
        file = self._file(model, of)
        if file is None:
            return
        with contextlib.suppress(OSError):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # never half a file for another replica to read
            part = file.with_suffix(f".{os.getpid()}")
            with part.open("wb") as out:
                _save(out, reference)
            part.replace(file)


def _same_space(one: Window, other: Window) -> bool:
    """Whether the vectors, where both have some, are of one encoder: another begins anew."""
    return not one.embeddings or not other.embeddings or one.encoder == other.encoder


_EVERY = "*"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _save(out: IO[bytes], reference: Reference) -> None:
    window = reference.window
    rows = [(s.prompt_tokens, s.answer_tokens, s.refused, s.truncated, s.hit) for s in window.requests]
    np.savez(
        out,
        began_seconds=np.array(reference.began_seconds),
        requests=np.array(rows, dtype=np.int64).reshape(-1, 5),
        embeddings=np.array(window.embeddings, dtype=np.float32),
        encoder=np.array(window.encoder, dtype=np.str_),
        verified_wrong=np.array(window.verified_wrong, dtype=np.bool_),
        mfu_ratios=np.array(window.mfu_ratios, dtype=np.float64),
        joules_per_token=np.array(window.joules_per_token, dtype=np.float64),
    )


def _reference(arrays: np.lib.npyio.NpzFile) -> Reference:
    requests = tuple(
        Seen(int(prompt), int(answer), bool(refused), bool(truncated), bool(hit))
        for prompt, answer, refused, truncated, hit in arrays["requests"]
    )
    wrong = tuple(bool(value) for value in arrays["verified_wrong"])
    return Reference(
        float(arrays["began_seconds"]),
        Window(
            requests,
            mfu_ratios=tuple(map(float, arrays["mfu_ratios"])),
            joules_per_token=tuple(map(float, arrays["joules_per_token"])),
            embeddings=tuple(arrays["embeddings"]),
            encoder=str(arrays["encoder"]),
            verified_wrong=wrong,
        ),
    )
