"""Searching the space: Optuna's multi-objective TPE with the SLO as constraints, resumable, within a time budget.

Where the bench has an engine model of its runs, most trials are that model's proposals; the sampler keeps every fifth,
for what the model does not know.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna

from metering.errors import BadInput
from serving.tuning.bench import Bench, CannotStart
from serving.tuning.guide import Seen, between, candidates, propose
from serving.tuning.setting import Setting, Space
from serving.tuning.slo import Slo
from serving.tuning.workload import Workload

Objective = Literal["grams", "joules", "tokens", "cost"]
_KEYS: dict[Objective, str] = {
    "grams": "grams_per_1k_output_tokens",
    "joules": "joules_per_output_token",
    "tokens": "output_tokens_per_second",
    "cost": "cost_per_1k_output_tokens",
}
_WORST = 1e9
"""Stands for a figure that a run did not give: worse than any."""
_REASKED = 20
_SAMPLER_EVERY = 5
_GUIDED_REQUESTS = 500
"""Simulated for a proposal, of each of at most 64 settings: a second or so."""
_SLACK = 0.1
_CARE = 0.05
_HALFWAY = 4
_BEYOND = (1, 3)


class StudyMismatch(BadInput):
    """A study file of another model, device, promise or workload."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted, within what."""

    objective: Objective
    slo: Slo
    price_per_device_hour: float | None = None
    """For runs whose receipts tell no cost: devices only, without electricity."""
    devices: int = 1
    """Of one replica; only for that cost."""

    @property
    def key(self) -> str:
        return _KEYS[self.objective]

    @property
    def latency_key(self) -> str:
        """The frontier's other axis: what the SLO bounds first; without an SLO the whole answer's p95."""
        return self.slo.bounds[0].key if self.slo.bounds else "e2e_p95_seconds"

    def priced(self, figures: dict[str, Any], setting: Setting) -> dict[str, Any]:
        """The figures with the cost of 1k tokens where a price is known: the receipts' where they tell it."""
        cost = figures.get("cost_per_1k_output_tokens")
        rate = figures.get("output_tokens_per_second")
        if cost is None and self.price_per_device_hour is not None and rate:
            hourly = self.price_per_device_hour * self.devices * (setting.replicas or 1)
            cost = hourly / 3600 / rate * 1000
        return {**figures, "cost_per_1k_output_tokens": cost}

    def value(self, figures: dict[str, Any]) -> float:
        """To be minimised; tokens/s count negative. Infinite where unknown."""
        found = figures.get(self.key)
        if found is None:
            return math.inf
        return -float(found) if self.objective == "tokens" else float(found)


@dataclass(frozen=True)
class Tried:
    """One trial. ``meets``: every bound held, nothing failed, and it ran to its end."""

    number: int
    setting: Setting
    figures: dict[str, Any]
    meets: bool
    worst_excess: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "setting": asdict(self.setting),
            "meets_slo": self.meets,
            "worst_excess": None if math.isinf(self.worst_excess) else self.worst_excess,
            "figures": self.figures,
        }


@dataclass(frozen=True, slots=True)
class Budget:
    """Whichever ends first."""

    trials: int = 30
    seconds: float = math.inf


def open_study(path: Path | None, identity: dict[str, str], seed: int) -> optuna.Study:
    """A study in memory, or continued from (or begun in) a journal file.

    Raises:
        StudyMismatch: the file's study was made under another identity; the difference is named.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=None if path is None else _journal(path),
            study_name="wattgate",
            directions=["minimize", "minimize"],
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=6),
        )
    except OSError as error:
        raise BadInput(f"cannot keep the study in {path}: {error.strerror}; name another file with --study") from None
    except (ValueError, KeyError, json.JSONDecodeError):
        raise BadInput(f"{path} is not a study of `wattgate tune`: name another with --study") from None
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", identity)
    elif known != identity:
        name = next(key for key in identity if known.get(key) != identity[key])
        raise StudyMismatch(
            f"the study {path} is of another {name} ({known.get(name)}, now {identity[name]}): "
            "name another file with --study"
        )
    # a run that was cut off leaves its trial open
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _journal(path: Path) -> optuna.storages.JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


def search(
    bench: Bench,
    workload: Workload,
    goal: Goal,
    space: Space,
    current: Setting,
    study: optuna.Study,
    budget: Budget,
    *,
    clock: Callable[[], float] = time.monotonic,
    told: Callable[[Tried], None] = lambda tried: None,
    failed: Callable[[Setting, str], None] = lambda setting, why: None,
    seed: int = 0,
) -> list[Tried]:
    """Try settings until the budget is spent or the space is; the current setting first. All trials, earlier ones of
    a resumed study included.

    Raises:
        BadInput: the objective's figure is unknown for the first setting: nothing could be compared.
    """
    tried = _earlier(study)
    seen = {one.setting for one in tried}
    until = clock() + budget.seconds
    if not tried and _inside(current, space):
        study.enqueue_trial(_parameters(current, space))
    while len(tried) < budget.trials and clock() < until and len(seen) < space.size:
        guided = _guided(bench, workload, goal, space, tried, seen)
        if guided is not None:
            study.enqueue_trial(_parameters(guided, space))
        trial, setting = _unseen(study, space, seen)
        if trial is None or setting is None:
            break
        seen.add(setting)
        try:
            figures = bench.run(setting, workload, seed=seed + trial.number, hopeless=bool(tried))
        except BaseException as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            # a knob's value that the engine does not take; where nothing has run yet, it is not the knob
            if not isinstance(error, CannotStart) or not tried:
                raise
            failed(setting, str(error))
            continue
        figures = goal.priced(figures, setting)
        if not tried and math.isinf(goal.value(figures)):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise BadInput(f"{goal.key} is unknown here: choose another --objective, as tokens")
        one = _judge(trial.number, setting, figures, goal.slo)
        trial.set_user_attr("setting", asdict(setting))
        trial.set_user_attr("figures", figures)
        trial.set_user_attr("meets", one.meets)
        for bound, excess in zip(goal.slo.bounds, goal.slo.excesses(figures), strict=True):
            trial.set_constraint(str(bound), min(excess, _WORST))
        trial.set_constraint("complete", 0.0 if one.meets or not _incomplete(figures) else 1.0)
        study.tell(trial, [min(goal.value(figures), _WORST), min(figures.get(goal.latency_key) or _WORST, _WORST)])
        tried.append(one)
        told(one)
    return tried


def _guided(
    bench: Bench, workload: Workload, goal: Goal, space: Space, tried: Sequence[Tried], seen: set[Setting]
) -> Setting | None:
    """The engine model's proposal; None in the sampler's turn, or without a model.

    In turn: what the model holds for the best a little beyond the bound, where it is not sure, and within it; and
    halfway between the best cap that kept the promise and the least above that did not. While nothing has kept it,
    each miss makes the model more careful.
    """
    turn = len(tried) % _SAMPLER_EVERY
    if turn == 0:
        return None
    runs = [Seen(one.setting, one.figures) for one in tried if not _incomplete(one.figures)]
    meeting = any(one.meets for one in tried)
    if turn == _HALFWAY:
        halfway = between([(one.setting, one.meets, goal.value(one.figures)) for one in tried])
        if halfway is not None and halfway not in seen:
            return halfway
    slack = (_SLACK if turn in _BEYOND else 0.0) if meeting else -_CARE * (len(tried) - 1)
    head = workload.head(_GUIDED_REQUESTS)
    return propose(
        runs,
        candidates(space, seen),
        lambda settings: bench.predict(settings, head),
        lambda figures, setting: goal.value(goal.priced(dict(figures), setting)),
        goal.slo,
        slack=slack,
    )


def pareto(tried: Sequence[Tried], goal: Goal) -> list[Tried]:
    """Trials that meet the SLO and that no other of them beats in both the objective and the latency."""
    candidates = [one for one in tried if one.meets]
    points = [(goal.value(one.figures), one.figures.get(goal.latency_key) or math.inf) for one in candidates]
    front = [
        one
        for one, mine in zip(candidates, points, strict=True)
        if not any(other[0] <= mine[0] and other[1] <= mine[1] and other != mine for other in points)
    ]
    return sorted(front, key=lambda one: one.figures.get(goal.latency_key) or math.inf)


def knee(front: Sequence[Tried], goal: Goal) -> Tried | None:
    """Where the frontier bends: farthest from the line between its ends, both axes scaled to 0..1 (Satopaa et al.
    2011). None below three points.
    """
    if len(front) < 3:
        return None
    latency = [float(one.figures[goal.latency_key]) for one in front]
    value = [goal.value(one.figures) for one in front]
    wide, high = latency[-1] - latency[0], value[0] - value[-1]
    if wide <= 0 or high <= 0:
        return None
    depth = [1 - (x - latency[0]) / wide - (y - value[-1]) / high for x, y in zip(latency, value, strict=True)]
    best = max(range(len(front)), key=lambda index: depth[index])
    return front[best] if depth[best] > 0 else None


def kept(figures: dict[str, Any], slo: Slo) -> bool:
    """Whether a run kept the promise: every bound held, nothing failed, and it ran to its end."""
    return slo.met(figures) and not _incomplete(figures)


def _judge(number: int, setting: Setting, figures: dict[str, Any], slo: Slo) -> Tried:
    return Tried(number, setting, figures, kept(figures, slo), slo.worst_excess(figures))


def _incomplete(figures: dict[str, Any]) -> bool:
    return bool(figures.get("stopped_early")) or figures["completed"] < figures["requests"]


def finished_trials(study: optuna.Study) -> int:
    """Of an interrupted search that goes on."""
    return len(_complete(study))


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]


def _earlier(study: optuna.Study) -> list[Tried]:
    slo = Slo.parse(part for part in study.user_attrs["identity"]["slo"].split(", ") if part != "none")
    return [
        _judge(trial.number, Setting(**trial.user_attrs["setting"]), trial.user_attrs["figures"], slo)
        for trial in _complete(study)
    ]


def _unseen(study: optuna.Study, space: Space, seen: set[Setting]) -> tuple[optuna.Trial | None, Setting | None]:
    """A setting that was not tried: a deterministic repeat teaches a sampler nothing, and repeats come at the end."""
    for _ in range(_REASKED):
        trial = study.ask()
        setting = _suggest(trial, space)
        if setting not in seen:
            return trial, setting
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    caps = range(space.lowest_cap, space.highest_cap + 1)
    base = next(iter(seen))
    left = [cap for cap in caps if Setting(**{**asdict(base), "cap": cap}) not in seen]
    if not left:
        return None, None
    study.enqueue_trial(_parameters(Setting(**{**asdict(base), "cap": left[len(left) // 2]}), space))
    trial = study.ask()
    return trial, _suggest(trial, space)


def _suggest(trial: optuna.Trial, space: Space) -> Setting:
    cap = trial.suggest_int("cap", space.lowest_cap, space.highest_cap, log=True)
    chosen: dict[str, Any] = {}
    for name, choices in space.choices().items():
        # by index: a categorical of Optuna compares None and True oddly
        index = trial.suggest_categorical(name, list(range(len(choices)))) if len(choices) > 1 else 0
        chosen[name] = choices[index]
    return Setting(cap, **chosen)


def _inside(setting: Setting, space: Space) -> bool:
    within = space.lowest_cap <= setting.cap <= space.highest_cap
    return within and all(
        len(choices) == 1 or getattr(setting, name) in choices for name, choices in space.choices().items()
    )


def _parameters(setting: Setting, space: Space) -> dict[str, Any]:
    parameters: dict[str, Any] = {"cap": setting.cap}
    for name, choices in space.choices().items():
        if len(choices) > 1:
            parameters[name] = choices.index(getattr(setting, name))
    return parameters
