"""A search's memory: an Optuna study, in a journal file where it is to outlive an interruption, and what is kept in it
beside its trials.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna

from metering.errors import BadInput

_SHOWN = 4
Details = Mapping[str, Mapping[str, str]]


class Stopwatch:
    """Seconds that a study has taken, over all its sittings."""

    def __init__(self, study: optuna.Study, clock: Callable[[], float] = time.monotonic) -> None:
        self._study = study
        self._clock = clock
        self._before = float(study.user_attrs.get("used_seconds", 0.0))
        self._began = clock()

    @property
    def seconds(self) -> float:
        return self._before + self._clock() - self._began

    def note(self) -> None:
        """Into the study, for its next sitting."""
        self._study.set_user_attr("used_seconds", self.seconds)


class StudyMismatch(BadInput):
    """A study file of another model, device, promise, workload or configuration."""


def open_study(
    path: Path | None,
    identity: Mapping[str, str],
    seed: int,
    details: Details | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> optuna.Study:
    """A study in memory, or continued from (or begun in) a journal file. ``details``: what some parts of the identity
    are made of, for a refusal to name what differs.

    Raises:
        StudyMismatch: the file's study was made under another identity; the difference is named.
        BadInput: the file is no study, or a damaged one; with the mend.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if path is not None:
            _mend(path, tell)
        study = optuna.create_study(
            storage=None if path is None else _journal(path),
            study_name="wattgate",
            directions=["minimize", "minimize"],
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=6),
        )
    except OSError as error:
        raise BadInput(f"cannot keep the study in {path}: {error.strerror}; name another file with --study") from None
    except BadInput:
        raise
    except (ValueError, KeyError):
        raise BadInput(f"{path} is not a study of `wattgate tune`: name another with --study") from None
    _claim(study, path, dict(identity), {name: dict(parts) for name, parts in (details or {}).items()})
    # a run that was cut off leaves its trial open
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


class Pairs:
    """Repeats: runs of two settings after one another, as ``{"setting", "figures"}`` in the order that they ran."""

    def __init__(self, study: optuna.Study | None) -> None:
        """Without a study they are forgotten."""
        self._study = study
        self._kept: list[dict[str, Any]] = [] if study is None else list(study.user_attrs.get("repeats", ()))

    def find(self, key: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        return next((list(pair["runs"]) for pair in self._kept if pair["of"] == key), None)

    def add(self, key: Mapping[str, Any], runs: list[dict[str, Any]]) -> None:
        """A whole pair: half of one that was interrupted has nothing of its hour to be compared with."""
        self._kept.append({"of": dict(key), "runs": runs})
        if self._study is not None:
            self._study.set_user_attr("repeats", self._kept)


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that ran. By their figures, not their state: a setting outside of the space has no parameters there, and
    is told to Optuna as failed.
    """
    return [trial for trial in study.trials if "figures" in trial.user_attrs]


def finished_trials(study: optuna.Study) -> int:
    """Of an interrupted search that goes on."""
    return len(finished(study))


def _claim(study: optuna.Study, path: Path | None, identity: dict[str, str], details: dict[str, Any]) -> None:
    known = study.user_attrs.get("identity")
    if known is not None and known != identity and finished(study):
        before = study.user_attrs.get("details", {})
        names = [name for name in dict.fromkeys((*identity, *known)) if known.get(name) != identity.get(name)]
        differences = (
            _difference(known.get(name), identity.get(name), before.get(name), details.get(name)) for name in names
        )
        told = "; ".join(f"of another {name} ({what})" for name, what in zip(names, differences, strict=True))
        raise StudyMismatch(
            f"the study {path} is {told}: name another file with --study, or remove this one to begin anew"
        )
    # of a study in which nothing ran there is nothing to compare with
    if known != identity:
        study.set_user_attr("identity", identity)
        study.set_user_attr("details", details)


def _difference(
    before: str | None, now: str | None, parts_before: Mapping[str, str] | None, parts_now: Mapping[str, str] | None
) -> str:
    if parts_before is not None and parts_now is not None:
        keys = [
            key for key in dict.fromkeys((*parts_now, *parts_before)) if parts_before.get(key) != parts_now.get(key)
        ]
        if keys:
            shown = [f"{key} {parts_before.get(key, 'unset')}, now {parts_now.get(key, 'unset')}" for key in keys]
            more = f"; and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            return "; ".join(shown[:_SHOWN]) + more
    return f"{before or 'not told'}, now {now or 'not told'}"


def _mend(path: Path, tell: Callable[[str], None]) -> None:
    """Cut off a last line whose writing was interrupted, as by a loss of power: the next would be written behind it.

    Raises:
        BadInput: no journal of Optuna, or one that is damaged elsewhere.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return
    content = path.read_bytes()
    if not content.startswith(b'{"op_code"'):
        raise BadInput(f"{path} is not a study of `wattgate tune`: name another with --study")
    lines = content.splitlines(keepends=True)
    broken = [number for number, line in enumerate(lines, 1) if not (line.endswith(b"\n") and _is_json(line))]
    if not broken:
        return
    if broken != [len(lines)]:
        number = broken[0]
        raise BadInput(
            f"line {number} of the study {path} is damaged: the {number - 1} before it are whole, so go on with "
            f"`head -n {number - 1} {path} > FILE` and --study FILE"
        )
    os.truncate(path, len(content) - len(lines[-1]))
    tell(f"the last line of {path} was written in part only, and is cut off: at most one trial is lost")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _journal(path: Path) -> optuna.storages.JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))
