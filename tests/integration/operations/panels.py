"""A Grafana dashboard as plots: each panel's own queries against a Prometheus, laid out as the JSON says."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from tests.integration.operations.prometheus_process import PrometheusProcess

UNITS = {"none": "", "joule": "J", "watt": "W", "s": "s", "ops": "1/s", "percentunit": "", "flops": "FLOP/s"}
COLUMNS = 24
"""Of Grafana's grid."""


def filled(expression: str) -> str:
    """The query with the dashboard's variables as they stand at first."""
    return expression.replace("$model", ".*").replace("$__rate_interval", "15s")


def series_of(prometheus: PrometheusProcess, target: dict[str, Any], seconds: float) -> list[tuple[str, list[Any]]]:
    """Legend and points (seconds before now, value) of each series."""
    end = time.time()
    found = prometheus.api(
        "query_range", query=filled(target["expr"]), start=f"{end - seconds}", end=f"{end}", step="1s"
    )["result"]
    out = []
    for one in found:
        legend = target.get("legendFormat", "")
        for name in re.findall(r"\{\{(\w+)\}\}", legend):
            legend = legend.replace(f"{{{{{name}}}}}", one["metric"].get(name, ""))
        points = [(at - end, float(value)) for at, value in one["values"] if value not in ("NaN", "+Inf", "-Inf")]
        if points:
            out.append((legend.strip(), points))
    return out


def render(prometheus: PrometheusProcess, board: Path, picture: Path, seconds: float) -> list[str]:
    """Draw the whole dashboard; returns the titles of panels that had nothing to draw."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    content = json.loads(board.read_text())
    panels = [panel for panel in content["panels"] if panel["type"] != "row"]
    rows = sorted({panel["gridPos"]["y"] for panel in panels})
    figure = Figure(figsize=(15, 2.5 * len(rows)), layout="constrained")
    figure.suptitle(f"{content['title']}: {content.get('description') or ''}", fontsize=11)
    grid = figure.add_gridspec(len(rows), COLUMNS)
    empty = []
    for panel in panels:
        place = panel["gridPos"]
        axes = figure.add_subplot(grid[rows.index(place["y"]), place["x"] : place["x"] + place["w"]])
        unit = UNITS.get(panel["fieldConfig"]["defaults"].get("unit", "none"), "")
        drawn = [found for target in panel["targets"] for found in series_of(prometheus, target, seconds)]
        if not drawn:
            empty.append(panel["title"])
        for legend, points in drawn:
            axes.plot([at for at, _ in points], [value for _, value in points], linewidth=1.2, label=legend or None)
        last = f"  now {drawn[0][1][-1][1]:.3g}" if panel["type"] == "stat" and drawn else ""
        axes.set_title(f"{panel['title']}{f' [{unit}]' if unit else ''}{last}", fontsize=8, loc="left")
        axes.tick_params(labelsize=6)
        axes.set_xlim(-seconds, 0)
        if drawn:
            axes.set_ylim(bottom=min(0.0, min(value for _, points in drawn for _, value in points)))
        if any(legend for legend, _ in drawn):
            axes.legend(fontsize=5.5, loc="upper left", frameon=False)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(picture, dpi=72)
    return empty
