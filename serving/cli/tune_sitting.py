"""One sitting of ``wattgate tune``: search and repeats under progress bars, and what comes of them if cut short."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.cli.output import Progress, bar

if TYPE_CHECKING:
    import optuna

    from serving.tuning.bench import Bench
    from serving.tuning.goal import Goal, Tried
    from serving.tuning.search import Budget
    from serving.tuning.setting import Setting, Space
    from serving.tuning.tune import Recommendation
    from serving.tuning.workload import Workload


@dataclass(frozen=True)
class Sitting:
    """What is searched, for what, and how long."""

    bench: Bench
    workload: Workload
    goal: Goal
    space: Space
    current: Setting
    study: optuna.Study
    """What earlier sittings have tried is in it."""
    budget: Budget
    seed: int


@dataclass(frozen=True)
class Cut:
    """Why it ended before its end."""

    why: str
    status: int


def tuned(sitting: Sitting, progress: Progress) -> tuple[list[Tried], Recommendation, Cut | None]:
    """Search and repeats; where they are cut short, what comes of what there is."""
    from serving.tuning.bench import CannotStart
    from serving.tuning.measure import GatewayAway
    from serving.tuning.search import search, trial_seconds, trials_of
    from serving.tuning.study import Pairs, Stopwatch, finished_trials
    from serving.tuning.tune import recommend

    study, budget, goal = sitting.study, sitting.budget, sitting.goal
    watch = Stopwatch(study)
    if finished_trials(study):
        progress(f"going on after {finished_trials(study)} trials and {watch.seconds / 60:.1f} min")

    def over() -> str | None:
        watch.note()
        # both runs of a pair
        late = watch.seconds + 2 * trial_seconds(study) > budget.seconds
        return "the --minutes are over" if late else None

    def settle(over: Callable[[], str | None], told: Callable[[str], None]) -> Recommendation:
        return recommend(
            sitting.bench,
            sitting.workload,
            goal,
            sitting.current,
            trials_of(study, goal.slo),
            repeats=budget.repeats,
            told=told,
            pairs=Pairs(study),
            over=over,
        )

    try:
        with bar("trials", budget.trials, f"of at most {budget.seconds / 60:g} min") as done:

            def told(one: Tried) -> None:
                progress(_line(one, goal, budget.trials))
                done(finished_trials(study))

            done(finished_trials(study))
            search(
                sitting.bench,
                sitting.workload,
                goal,
                sitting.space,
                sitting.current,
                study,
                budget,
                watch=watch,
                told=told,
                failed=lambda setting, why: progress(f"{setting} does not start, and is left out at any cap: {why}"),
                seed=sitting.seed,
            )
        with bar("repeats", 2 * budget.repeats) as done:
            begun = itertools.count()

            def repeating(text: str) -> None:
                progress(text)
                # the next best begins anew
                done(next(begun) % max(1, 2 * budget.repeats))

            found = settle(over, repeating)
    except KeyboardInterrupt:
        cut = Cut("interrupted" if finished_trials(study) else "interrupted before the first trial was over", 130)
    except (CannotStart, GatewayAway) as error:
        cut = Cut(str(error), 1)
    else:
        return trials_of(study, goal.slo), found, None
    finally:
        watch.note()
    return trials_of(study, goal.slo), settle(lambda: cut.why, progress), cut


def _line(one: Tried, goal: Goal, trials: int) -> str:
    from serving.tuning.goal import errors_of

    value = one.figures.get(goal.key)
    shown = "unknown" if value is None else f"{value:.4g}"
    verdict = "meets the SLO" if one.meets else ("ended early" if one.figures["stopped_early"] else "breaks the SLO")
    failed = errors_of(one.figures)
    return (
        f"trial {one.number + 1} of at most {trials}: {one.setting}: {goal.key} {shown}, {verdict}"
        f"{f'; failed: {failed}' if failed else ''}"
    )
