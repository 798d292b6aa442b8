"""Searching the space: Optuna's multi-objective TPE with the SLO as constraints, resumable, within a time budget.

Where the bench has an engine model of its runs, most trials are that model's proposals; the sampler keeps every fifth,
for what the model does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna

from metering.errors import BadInput
from serving.tuning.bench import Bench, CannotStart
from serving.tuning.goal import TOKENS_KEY, Goal, Tried, errors_of, incomplete, judge, tolerated_errors
from serving.tuning.guide import Seen, between, candidates, propose
from serving.tuning.setting import Setting, Space
from serving.tuning.slo import Slo
from serving.tuning.study import Stopwatch, finished
from serving.tuning.workload import Workload

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
_MOST_OF_THE_RUN = 0.9
_OF_THE_LOAD = ("HTTP 408", "HTTP 429")
"""Refusals that another setting may not give; all others from 400 to 499 are of the requests."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Whichever ends first."""

    trials: int = 30
    seconds: float = math.inf
    """Of all sittings of a study together."""
    repeats: int = 0
    """Pairs of runs to come afterwards: time for them is kept back, up to half of all."""

    def over(self, watch: Stopwatch, trial_seconds: float) -> bool:
        """Whether a trial more would be too long."""
        kept_back = min(self.seconds / 2, 2 * self.repeats * trial_seconds)
        return watch.seconds + trial_seconds + kept_back > self.seconds


def search(
    bench: Bench,
    workload: Workload,
    goal: Goal,
    space: Space,
    current: Setting,
    study: optuna.Study,
    budget: Budget,
    *,
    watch: Stopwatch | None = None,
    told: Callable[[Tried], None] = lambda tried: None,
    failed: Callable[[Setting, str], None] = lambda setting, why: None,
    seed: int = 0,
) -> list[Tried]:
    """Try settings until the budget is spent or the space is; the current setting first, also one outside of the
    space. All trials, earlier ones of a resumed study included.

    Raises:
        BadInput: the first setting shows that nothing could be compared: the objective's figure is unknown, or the
            requests themselves are refused.
    """
    watch = watch or Stopwatch(study)
    tried = trials_of(study, goal.slo)
    goal = goal.counting_as(one.figures for one in tried)
    seen = {one.setting for one in tried}
    dead = _Dead(study)
    while len(tried) < budget.trials and not (tried and budget.over(watch, trial_seconds(study))):
        first = current not in seen and current.shell not in dead
        wanted = current if first else _guided(bench, workload, goal, space, tried, seen, dead)
        if wanted is not None and wanted in space:
            study.enqueue_trial(_parameters(wanted, space))
        # outside of the space the sampler has nothing to learn: its trial is without parameters
        trial, setting = (study.ask(), current) if first and current not in space else _unseen(study, space, seen, dead)
        if trial is None or setting is None:
            break
        seen.add(setting)
        began = watch.seconds
        try:
            figures = bench.run(setting, workload, seed=seed + trial.number, hopeless=bool(tried))
        except BaseException as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            watch.note()
            # a knob's value that the engine does not take; where nothing has run yet, or this has, it is not the knob
            if (
                not isinstance(error, CannotStart)
                or not tried
                or any(one.setting.shell == setting.shell for one in tried)
            ):
                raise
            dead.add(setting.shell)
            failed(setting, str(error))
            continue
        dead.keep()
        goal = goal.counting_as([figures])
        if not tried:
            _check_comparable(goal, figures, setting, study, trial)
        one = judge(trial.number, setting, goal.rated(figures, setting), goal.slo)
        trial.set_user_attr("setting", asdict(setting))
        trial.set_user_attr("wall_seconds", watch.seconds - began)
        trial.set_user_attr("figures", one.figures)
        _tell(study, trial, one, goal, inside=setting in space)
        watch.note()
        tried.append(one)
        told(one)
    return tried


def trial_seconds(study: optuna.Study) -> float:
    """Mean over the trials so far, starts of gateways included; 0 without any."""
    seconds = [float(trial.user_attrs.get("wall_seconds", 0.0)) for trial in finished(study)]
    return sum(seconds) / len(seconds) if seconds else 0.0


def not_starting(study: optuna.Study) -> list[Setting]:
    """Shells that were left out in this and in earlier sittings."""
    return [Setting(**values) for values in study.user_attrs.get("cannot_start", ())]


class _Dead:
    """Shells that do not start. They are kept in the study once anything has run in this sitting: before that it may be
    the machine.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._shells = set(not_starting(study))
        self._kept = True

    def __contains__(self, shell: object) -> bool:
        return shell in self._shells

    def add(self, shell: Setting) -> None:
        self._shells.add(shell)
        self._kept = False

    def keep(self) -> None:
        if not self._kept:
            self._study.set_user_attr("cannot_start", [asdict(shell) for shell in self._shells])
            self._kept = True


def _check_comparable(
    goal: Goal, figures: dict[str, Any], setting: Setting, study: optuna.Study, trial: optuna.Trial
) -> None:
    """Raises ``BadInput`` where the first run says that no setting's could be compared."""
    refused = {
        error: count
        for error, count in (figures.get("errors") or {}).items()
        if error.startswith("HTTP 4") and error not in _OF_THE_LOAD
    }
    why = None
    count = sum(refused.values())
    if count > tolerated_errors(figures):
        why = (
            f"{count} of {figures['requests']} requests are refused ({errors_of({'errors': refused})}), "
            "which no setting mends: look at their lengths (engine.vllm.max_context_tokens), the model's name and the "
            "API key"
        )
    elif figures["completed"] and math.isinf(goal.value(goal.rated(figures, setting))):
        why = f"{goal.key} is unknown here: choose another --objective, as tokens"
    if why is not None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        raise BadInput(why)


def _tell(study: optuna.Study, trial: optuna.Trial, one: Tried, goal: Goal, *, inside: bool) -> None:
    if not inside:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    for bound, excess in zip(goal.slo.bounds, goal.slo.excesses(one.figures), strict=True):
        trial.set_constraint(str(bound), min(excess, _WORST))
    trial.set_constraint("complete", 0.0 if one.meets or not incomplete(one.figures) else 1.0)
    latency = one.figures.get(goal.latency_key) or _WORST
    study.tell(trial, [min(goal.value(one.figures), _WORST), min(latency, _WORST)])


def _guided(
    bench: Bench,
    workload: Workload,
    goal: Goal,
    space: Space,
    tried: Sequence[Tried],
    seen: set[Setting],
    dead: Container[Setting],
) -> Setting | None:
    """The engine model's proposal; None in the sampler's turn, or without a model.

    In turn: what the model holds for the best a little beyond the bound, where it is not sure, and within it; and
    halfway between the best cap that kept the promise and the least above that did not. While nothing has kept it,
    each miss makes the model more careful.
    """
    turn = len(tried) % _SAMPLER_EVERY
    if turn == 0:
        return None
    runs = [Seen(one.setting, one.figures) for one in tried if not incomplete(one.figures)]
    meeting = any(one.meets for one in tried)
    if turn == _HALFWAY:
        halfway = between([(one.setting, one.meets, goal.value(one.figures)) for one in tried])
        if halfway is not None and halfway not in seen and halfway in space:
            return halfway
    slack = (_SLACK if turn in _BEYOND else 0.0) if meeting else -_CARE * (len(tried) - 1)
    head = workload.head(_GUIDED_REQUESTS)
    return propose(
        runs,
        candidates(space, seen, dead),
        lambda settings: bench.predict(settings, head),
        # an engine model knows nothing embodied: what a run has beyond its prediction is learnt as their ratio
        lambda figures, setting: goal.value(replace(goal, carbon=None).rated(dict(figures), setting)),
        goal.slo,
        slack=slack,
    )


def arrival_bound(workload: Workload, tried: Sequence[Tried]) -> float | None:
    """Tokens/s of the fastest that met the SLO where an open loop's arrivals set them: requests came nearly as long as
    its run lasted, so that the engine was never behind.
    """
    met = [one for one in tried if one.meets and one.figures.get(TOKENS_KEY)]
    if not met:
        return None
    fastest = max(met, key=lambda one: float(one.figures[TOKENS_KEY]))
    bound = workload.span_seconds >= _MOST_OF_THE_RUN * fastest.figures["seconds"]
    return float(fastest.figures[TOKENS_KEY]) if bound else None


def trials_of(study: optuna.Study, slo: Slo) -> list[Tried]:
    """All that ran, of earlier sittings too."""
    return [
        judge(trial.number, Setting(**trial.user_attrs["setting"]), trial.user_attrs["figures"], slo)
        for trial in finished(study)
    ]


def _unseen(
    study: optuna.Study, space: Space, seen: set[Setting], dead: Container[Setting]
) -> tuple[optuna.Trial | None, Setting | None]:
    """A setting that was not tried: a deterministic repeat teaches a sampler nothing, and repeats come at the end."""
    left = _left(space, seen, dead)
    if left is None:
        return None, None
    for _ in range(_REASKED):
        trial = study.ask()
        setting = _suggest(trial, space)
        if setting not in seen and setting.shell not in dead:
            return trial, setting
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    study.enqueue_trial(_parameters(left, space))
    trial = study.ask()
    return trial, _suggest(trial, space)


def _left(space: Space, seen: set[Setting], dead: Container[Setting]) -> Setting | None:
    """Of what was not tried the middle of the candidates; of a large space those are not all."""
    found = candidates(space, seen, dead)
    if found:
        return found[len(found) // 2]
    shells = [shell for shell in space.shells() if shell not in dead]
    every = (replace(shell, cap=cap) for shell in shells for cap in space.caps)
    return next((setting for setting in every if setting not in seen), None)


def _suggest(trial: optuna.Trial, space: Space) -> Setting:
    cap = trial.suggest_int("cap", space.lowest_cap, space.highest_cap, log=True)
    chosen: dict[str, Any] = {}
    for name, choices in space.choices().items():
        # by index: a categorical of Optuna compares None and True oddly
        index = trial.suggest_categorical(name, list(range(len(choices)))) if len(choices) > 1 else 0
        chosen[name] = choices[index]
    return Setting(cap, **chosen)


def _parameters(setting: Setting, space: Space) -> dict[str, Any]:
    parameters: dict[str, Any] = {"cap": setting.cap}
    for name, choices in space.choices().items():
        if len(choices) > 1:
            parameters[name] = choices.index(getattr(setting, name))
    return parameters
