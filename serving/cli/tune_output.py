"""What ``wattgate tune`` writes and says when it has found something."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.config import GatewayConfig
    from serving.tuning.bench import Bench, GatewayBench
    from serving.tuning.goal import Goal, Tried
    from serving.tuning.load_curve import LoadCurve
    from serving.tuning.setting import Setting
    from serving.tuning.slo import Slo
    from serving.tuning.tune import Recommendation
    from serving.tuning.workload import Workload

UNJUDGED = "how well the variants answer was not looked at: judge that on your own prompts before you change over"


def write(
    folder: Path,
    config: GatewayConfig,
    tried: Sequence[Tried],
    found: Recommendation,
    goal: Goal,
    bench: Bench,
    simulate: str | None,
    *,
    alone: bool,
) -> tuple[list[Path], tuple[str, ...]]:
    """The files, and the secrets that the written configuration lacks. ``alone``: the gateway was not tune's own."""
    from metering.errors import BadInput
    from serving.tuning.bench import GatewayBench
    from serving.tuning.frontier import Picture, write_all
    from serving.tuning.recommended import recommended_yaml

    title = f"{bench.identity}; SLO {goal.slo}" + (" (simulated)" if simulate else "")
    picture = Picture(tuple(tried), found.front, goal, found.current, found.setting, found.knee, title)
    left_out: tuple[str, ...] = ()
    try:
        written = write_all(picture, folder)
        if found.setting is not None:
            path = folder / "recommended.yaml"
            why = found.why if found.setting.model is None else f"{found.why}\nOf a variant: {UNJUDGED}."
            why = f"{why}\nOf a running gateway: put the cap into its own configuration." if alone else why
            text, left_out = recommended_yaml(found.setting.applied(config), why)
            path.write_text(text, encoding="utf-8")
            written.append(path)
        if isinstance(bench, GatewayBench) and not alone:
            written += _fit(folder, bench, found.setting or found.current)
    except OSError as error:
        raise BadInput(f"cannot write into {folder}: {error.strerror}; name another folder with --out") from None
    return written, left_out


def load_curves(bench: Bench, asked: Workload, found: Recommendation, goal: Goal) -> list[LoadCurve]:
    """Of each setting whose engine is known well enough; the recommended one's under its own name."""
    from metering.intensity.static import StaticIntensity
    from metering.site import Site
    from serving.tuning.bench import GatewayBench, SimulatedBench
    from serving.tuning.load_curve import load_curve

    named = {"current": found.current}
    if found.setting is not None and found.setting != found.current:
        named["recommended"] = found.setting
    curves = []
    for name, setting in named.items():
        engine = None
        if isinstance(bench, SimulatedBench):
            engine = bench.engine
        elif isinstance(bench, GatewayBench):
            engine = bench.engine_model(setting)
        if engine is not None:
            site = Site(StaticIntensity("WORLD").reading)
            curves.append(load_curve(name, engine, setting, asked, goal.slo, site))
    return curves


def drawn(curves: Sequence[LoadCurve], slo: Slo, folder: Path) -> list[Path]:
    from metering.errors import BadInput
    from serving.tuning.load_curve import write_all

    try:
        return write_all(curves, slo, folder)
    except OSError as error:
        raise BadInput(f"cannot write into {folder}: {error.strerror}; name another folder with --out") from None


def _fit(folder: Path, bench: GatewayBench, setting: Setting) -> list[Path]:
    """The engine model under ``setting``, where its runs had enough steps: beside the pictures, and in the user's
    library.
    """
    from serving.tuning.engine_library import keep

    fitted = bench.engine_model(setting)
    if fitted is None:
        return []
    path = folder / "engine_model.json"
    fitted.save(path)
    return [path, keep(fitted)]


def notes_of(
    goal: Goal, asked: Workload, clients: int | None, tried: Sequence[Tried], dead: Sequence[Setting]
) -> list[str]:
    """What a reader has to know beside the figures."""
    from serving.tuning.search import arrival_bound

    notes = [] if goal.carbon is None else [f"{goal.carbon}."]
    rate = arrival_bound(asked, tried) if clients is None and goal.objective == "tokens" else None
    if rate is not None:
        notes.append(
            f"tokens/s are those that arrive ({rate:.3g}): the engine keeps up at the best setting, and a better one "
            "cannot show; send more (--rate), or use a closed loop (--clients)."
        )
    if dead:
        knobs = "; ".join(str(shell).partition(", ")[2] for shell in dead)
        notes.append(f"Did not start, and was left out at every cap ({knobs}): a new --study asks it again.")
    provisional = sum(one.figures.get("provisional_receipts") or 0 for one in tried)
    if provisional:
        notes.append(
            f"{provisional} receipts were not final when they were read: joules and grams of theirs may change."
        )
    return notes
