"""Latency against offered load, of a few settings: simulated, by the engine model of their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from metering.site import Site
from serving.tuning.bench import predicted
from serving.tuning.engine_model import EngineModel
from serving.tuning.setting import Setting
from serving.tuning.slo import Slo
from serving.tuning.workload import Workload

SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1)
"""Of what the setting can do at most; beyond 1 the queue grows as long as requests come."""
_REQUESTS = 1000
"""Of one point: a queue near saturation is longer than a search's few requests show."""
_FIGURES = {
    "ttft_p95_seconds": "first token p95, s",
    "itl_p95_seconds": "inter-token p95, s",
    "e2e_p95_seconds": "end to end p95, s",
}


@dataclass(frozen=True, slots=True)
class LoadCurve:
    """``points``: figures by rising load, with ``offered_per_second``."""

    name: str
    setting: Setting
    points: Sequence[Mapping[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        keys = ("offered_per_second", "output_tokens_per_second", "goodput_ratio", *_FIGURES)
        return {
            "name": self.name,
            "setting": str(self.setting),
            "method": "simulated",
            "points": [{key: point[key] for key in keys} for point in self.points],
        }


def load_curve(
    name: str, engine: EngineModel, setting: Setting, workload: Workload, slo: Slo, site: Site, *, seed: int = 0
) -> LoadCurve:
    """The workload's lengths, over and over, in Poisson arrivals: from a tenth of what ``setting`` can do to more than
    that.
    """
    asked = _repeated(workload)
    full = predicted(engine, setting, asked, setting.cap * (setting.replicas or 1), slo, site)
    most = float(full["requests_per_second"])
    gaps = np.random.default_rng(seed).exponential(1.0, len(asked))
    points = []
    for share in SHARES:
        # the same draw at each load: what differs between points is the load alone
        offered = replace(asked, arrival_seconds=np.cumsum(gaps) / (share * most))
        figures = predicted(engine, setting, offered, None, slo, site)
        points.append({**figures, "offered_per_second": share * most})
    return LoadCurve(name, setting, points)


def _repeated(workload: Workload) -> Workload:
    times = -(-_REQUESTS // len(workload))
    count = len(workload)
    offsets = np.repeat(np.arange(times) * count, count)
    repeat_of = np.tile(workload.repeat_of, times)
    return Workload(
        np.zeros(times * count),
        np.tile(workload.prompt_tokens, times),
        np.tile(workload.output_tokens, times),
        np.tile(workload.prefix_tokens, times),
        np.where(repeat_of < 0, -1, repeat_of + offsets),
        name=workload.name,
    )


def markdown(curves: Sequence[LoadCurve]) -> str:
    lines = [
        "Simulated: Poisson arrivals of the workload's lengths.",
        "",
        "| setting | offered requests/s | output tokens/s | " + " | ".join(_FIGURES.values()) + " | goodput |",
        "| --- |" + " ---: |" * (3 + len(_FIGURES)),
    ]
    for curve in curves:
        for point in curve.points:
            cells = ["unknown" if point[key] is None else f"{point[key]:.4g}" for key in _FIGURES]
            lines.append(
                f"| {curve.name}: {curve.setting} | {point['offered_per_second']:.4g} | "
                f"{point['output_tokens_per_second']:.4g} | {' | '.join(cells)} | {point['goodput_ratio']:.1%} |"
            )
    return "\n".join(lines) + "\n"


def write_all(curves: Sequence[LoadCurve], slo: Slo, folder: Path) -> list[Path]:
    """``load_curve.html`` and ``load_curve.md`` in ``folder``."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for curve in curves:
        for key, label in _FIGURES.items():
            figure.add_trace(
                go.Scatter(
                    x=[point["offered_per_second"] for point in curve.points],
                    y=[point[key] for point in curve.points],
                    mode="lines+markers",
                    name=f"{label}, {curve.name} (cap {curve.setting.cap})",
                )
            )
    for bound in slo.bounds:
        figure.add_hline(y=bound.seconds, line_dash="dot", annotation_text=str(bound))
    figure.update_xaxes(title_text="offered requests/s")
    figure.update_yaxes(title_text="seconds", type="log")
    figure.update_layout(title="Latency against offered load (simulated)", template="plotly_white", hovermode="closest")
    folder.mkdir(parents=True, exist_ok=True)
    html, table = folder / "load_curve.html", folder / "load_curve.md"
    figure.write_html(html, include_plotlyjs=True, full_html=True)
    table.write_text(markdown(curves), encoding="utf-8")
    return [html, table]
