"""Pictures of a tuning run: the frontier and latency against load, as HTML that needs nothing else and as PNG, and a
table for a ticket.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.tuning.goal import Goal, Tried
from serving.tuning.setting import Setting

_AXES = {
    "grams_per_1k_output_tokens": "gCO2e per 1k output tokens",
    "joules_per_output_token": "joules per output token",
    "output_tokens_per_second": "output tokens/s",
    "cost_per_1k_output_tokens": "cost per 1k output tokens",
    "e2e_p95_seconds": "end to end p95, s",
    "ttft_p95_seconds": "first token p95, s",
    "itl_p95_seconds": "inter-token p95, s",
}
_COLOURS = {
    "frontier": "#1b7837",
    "tried": "#9e9e9e",
    "current": "#d95f02",
    "recommended": "#7570b3",
    "knee": "#e7298a",
}
_DASHES = ("-", "--", "-.", ":")
_LATENCIES = ("ttft_p95_seconds", "itl_p95_seconds", "e2e_p95_seconds")


@dataclass(frozen=True)
class Picture:
    """What is drawn. Trials without the drawn figures are left out and counted."""

    tried: tuple[Tried, ...]
    front: tuple[Tried, ...]
    goal: Goal
    current: Setting
    recommended: Setting | None
    knee: Tried | None
    title: str

    @property
    def drawable(self) -> tuple[Tried, ...]:
        return tuple(one for one in self.tried if _has(one, self.goal.key) and _has(one, self.goal.latency_key))

    def marks(self) -> list[tuple[str, Tried]]:
        """The named points, in the order of drawing."""
        by_setting = {one.setting: one for one in self.drawable}
        marks = [("current", by_setting.get(self.current))]
        if self.recommended is not None:
            marks.append(("recommended", by_setting.get(self.recommended)))
        marks.append(("knee", self.knee))
        return [(name, one) for name, one in marks if one is not None]


def knee_sentence(goal: Goal) -> str:
    """What the knee means, in the objective's own words."""
    if goal.objective == "tokens":
        return (
            "Knee: left of it much throughput goes for little latency, right of it much latency for little throughput."
        )
    amount = {"grams": "carbon", "joules": "energy", "cost": "cost"}[goal.objective]
    return (
        f"Knee: left of it latency falls little for much more {amount}, "
        f"right of it {amount} falls little for much more latency."
    )


def hover(one: Tried) -> str:
    """A point in words, lines apart by ``<br>``."""
    shown = [f"<b>{one.setting}</b>"]
    for key in (*_AXES, "mfu_ratio", "goodput_ratio"):
        value = one.figures.get(key)
        if value is not None:
            shown.append(f"{_AXES.get(key, key.replace('_', ' '))}: {value:.4g}")
    shown.append("meets the SLO" if one.meets else "breaks the SLO")
    return "<br>".join(shown)


def write_html(picture: Picture, path: Path) -> None:
    """Frontier and latency against load, with hover; plotly's script is inside the file."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    key, x = picture.goal.key, picture.goal.latency_key
    figure = make_subplots(rows=1, cols=2, subplot_titles=("Frontier", "Latency against throughput"))
    others = [one for one in picture.drawable if one not in picture.front]
    drawn = [("tried", "tried", others, "markers")]
    drawn += [(f"frontier{label}", "frontier", points, "lines+markers") for label, points in _lines(picture.front)]
    for name, kind, points, mode in drawn:
        figure.add_trace(
            go.Scatter(
                x=[one.figures[x] for one in points],
                y=[one.figures[key] for one in points],
                text=[hover(one) for one in points],
                hoverinfo="text",
                mode=mode,
                name=name,
                marker={
                    "color": _COLOURS[kind],
                    "size": 9,
                    "symbol": ["circle" if one.meets else "x" for one in points],
                },
            ),
            row=1,
            col=1,
        )
    for name, one in picture.marks():
        figure.add_trace(
            go.Scatter(
                x=[one.figures[x]],
                y=[one.figures[key]],
                text=[f"{name}<br>{hover(one)}" + (f"<br>{knee_sentence(picture.goal)}" if name == "knee" else "")],
                hoverinfo="text",
                mode="markers",
                name=name,
                marker={"color": _COLOURS[name], "size": 17, "symbol": "circle-open", "line": {"width": 3}},
            ),
            row=1,
            col=1,
        )
    for name, latency, curve in _curves(picture):
        figure.add_trace(
            go.Scatter(
                x=[one.figures["output_tokens_per_second"] for one in curve],
                y=[one.figures[latency] for one in curve],
                text=[hover(one) for one in curve],
                hoverinfo="text",
                mode="lines+markers",
                name=name,
            ),
            row=1,
            col=2,
        )
    figure.update_xaxes(title_text=_axis(x), row=1, col=1)
    figure.update_yaxes(title_text=_AXES[key], row=1, col=1)
    figure.update_xaxes(title_text=_AXES["output_tokens_per_second"], row=1, col=2)
    figure.update_yaxes(title_text="seconds", type="log", row=1, col=2)
    figure.update_layout(title=picture.title, template="plotly_white", hovermode="closest")
    figure.write_html(path, include_plotlyjs=True, full_html=True)


def write_png(picture: Picture, path: Path, *, dots_per_inch: int = 130) -> None:
    """The same two panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    key, x = picture.goal.key, picture.goal.latency_key
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for met, symbol in ((True, "o"), (False, "x")):
        points = [one for one in picture.drawable if one.meets is met]
        left.scatter(
            [one.figures[x] for one in points],
            [one.figures[key] for one in points],
            marker=symbol,
            color=_COLOURS["tried"],
            label="tried, meets the SLO" if met else "tried, breaks the SLO",
        )
    for (label, points), dashes in zip(_lines(picture.front), itertools.cycle(_DASHES)):
        left.plot(
            [one.figures[x] for one in points],
            [one.figures[key] for one in points],
            f"o{dashes}",
            color=_COLOURS["frontier"],
            label=f"frontier{label}",
        )
    for size, (name, one) in zip((150, 270, 420), picture.marks(), strict=False):
        left.scatter(
            [one.figures[x]],
            [one.figures[key]],
            s=size,
            facecolors="none",
            edgecolors=_COLOURS[name],
            linewidths=2.5,
            label=f"{name} (cap {one.setting.cap})",
        )
    left.set(xlabel=_axis(x), ylabel=_AXES[key], title="Frontier")
    left.legend()
    for name, latency, curve in _curves(picture):
        right.plot(
            [one.figures["output_tokens_per_second"] for one in curve],
            [one.figures[latency] for one in curve],
            "o-",
            label=name,
        )
    right.set(xlabel=_AXES["output_tokens_per_second"], ylabel="seconds", title="Latency against throughput")
    right.set_yscale("log")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(picture.title)
    if picture.knee is not None:
        figure.supxlabel(knee_sentence(picture.goal), fontsize="small")
    figure.savefig(path, dpi=dots_per_inch)


def markdown(picture: Picture) -> str:
    """All trials, best first; the named points marked."""
    names: dict[int, list[str]] = {}
    for name, one in picture.marks():
        names.setdefault(one.number, []).append(name)
    keys = [key for key in _AXES if any(_has(one, key) for one in picture.tried)]
    lines = [
        "| setting | " + " | ".join(_AXES[key] for key in keys) + " | SLO | |",
        "| --- |" + " ---: |" * len(keys) + " --- | --- |",
    ]
    for one in sorted(picture.tried, key=lambda one: (not one.meets, picture.goal.value(one.figures))):
        cells = [f"{one.figures[key]:.4g}" if _has(one, key) else "unknown" for key in keys]
        met = "met" if one.meets else ("ended early" if one.figures.get("stopped_early") else "broken")
        lines.append(f"| {one.setting} | {' | '.join(cells)} | {met} | {', '.join(names.get(one.number, []))} |")
    if picture.knee is not None:
        lines += ["", knee_sentence(picture.goal)]
    return "\n".join(lines) + "\n"


def write_all(picture: Picture, folder: Path) -> list[Path]:
    """``frontier.html``, ``frontier.png`` and ``frontier.md`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"frontier.{ending}" for ending in ("html", "png", "md")]
    write_html(picture, paths[0])
    write_png(picture, paths[1])
    paths[2].write_text(markdown(picture), encoding="utf-8")
    return paths


def _curves(picture: Picture) -> list[tuple[str, str, list[Tried]]]:
    """Name, latency and points of one curve a latency and engine, along the live cap."""
    points = sorted(picture.drawable, key=lambda one: one.setting.cap)
    curves = []
    for latency in _LATENCIES:
        shown = [one for one in points if _has(one, latency) and _has(one, "output_tokens_per_second")]
        curves += [(f"{_AXES[latency]}{label}", latency, curve) for label, curve in _lines(shown)]
    return curves


def _lines(points: Sequence[Tried]) -> list[tuple[str, list[Tried]]]:
    """Those of each engine in their order, for a line joins what only the live cap lies between; beside each the knobs
    in which the engines differ.
    """
    shells = list(dict.fromkeys(one.setting.shell for one in points))
    knobs = [asdict(shell) for shell in shells]
    differ = [name for name in (knobs[0] if knobs else {}) if len({each[name] for each in knobs}) > 1]
    labels = ["".join(f", {name} {each[name]}" for name in differ) for each in knobs]
    return [
        (label, [one for one in points if one.setting.shell == shell])
        for shell, label in zip(shells, labels, strict=True)
    ]


def _axis(key: str) -> str:
    if key in _AXES:
        return _AXES[key]
    metric, percentile, _ = key.split("_")
    return f"{metric} {percentile}, s"


def _has(one: Tried, key: str) -> bool:
    value: Any = one.figures.get(key)
    return value is not None
