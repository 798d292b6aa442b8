"""The report as one HTML file: no script, no font, nothing fetched; plots are inline SVG, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources
from string import Template
from typing import Any

from metering.report import BOUNDARIES, HOW, JOULES_PER_KWH, Line, Report, joules_of

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 230, 62, 34, 10


def report_html(report: Report) -> str:
    """The whole document; texts from outside (models, tenants) are escaped."""
    figures = report.as_dict()
    template = Template(resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        since=escape(figures["since"]),
        until=escape(figures["until"]),
        by=escape(", ".join(report.by) or "nothing"),
        totals="".join(_tiles(total) for total in figures["totals"]) or "<p>Nothing was recorded in this period.</p>",
        plots=_plots(report),
        groups=_groups(figures["groups"], report.by),
        savings=_savings(figures["totals"]),
        node=_node(figures["node"], figures["not_given_to_requests_kwh"]),
        missing=_missing(figures),
        how=_table(("figure", "how it is made"), HOW, text=2),
    )


def number(value: float | None, unit: str = "") -> str:
    """Four significant digits; unknown is said so.

    >>> number(1234.567), number(0.00012345, "kWh"), number(None)
    ('1,235', '0.0001234 kWh', 'unknown')
    """
    if value is None:
        return "unknown"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{text} {unit}".rstrip()


def _tiles(total: Mapping[str, Any]) -> str:
    tiles = (
        ("requests", f"{number(total['requests'])} ({number(total['hits'])} hits)"),
        ("tokens answered", number(total["tokens"]["total"])),
        ("energy", number(total["energy_kwh"]["total"], "kWh")),
        ("operational", number(total["grams"]["operational"], "gCO2e")),
        ("embodied", number(total["grams"]["embodied"], "gCO2e")),
        ("per 1,000 tokens", number(total["per_1k_tokens"]["operational_grams"], "gCO2e")),
        ("SCI score", number(total["per_1k_tokens"]["sci_grams"], "g/1k tokens")),
        ("MFU", "unknown" if total["mfu_ratio"] is None else f"{total['mfu_ratio']:.2%}"),
    )
    boxes = "".join(f'<div class="tile"><span class="dim">{name}</span><b>{value}</b></div>' for name, value in tiles)
    sources = "; ".join(total["sources"]) or "no intensity"
    words = (
        f"{total['method']}, by {total['estimator'] or 'no meter'}; {total['signal']} intensity "
        f"{number(total['intensity_grams_per_kwh'], 'g/kWh')} of {', '.join(total['zones']) or 'an unknown zone'} "
        f"({sources})"
    )
    return f'<p class="dim">{escape(words)}</p><div class="tiles">{boxes}</div>'


def _plots(report: Report) -> str:
    if not report.series:
        return "<p>Nothing to draw.</p>"

    def energy(line: Line) -> dict[str, float]:
        return {name: joules / JOULES_PER_KWH for name, joules in joules_of(line.usage).items()}

    def grams(line: Line) -> dict[str, float]:
        return {"operational": line.usage.operational_nanograms / 1e9, "embodied": line.usage.embodied_nanograms / 1e9}

    return _bars(report, "Energy, kWh", BOUNDARIES, energy) + _bars(
        report, "Carbon, gCO2e", ("operational", "embodied"), grams
    )


def _bars(report: Report, title: str, names: Sequence[str], values: Callable[[Line], Mapping[str, float]]) -> str:
    """Stacked bars over time."""
    rows = [(start, values(line)) for start, line in report.series]
    most = max((sum(row.values()) for _, row in rows), default=0.0) or 1.0
    first, last = rows[0][0], rows[-1][0]
    slots = round((last - first) / report.interval_seconds) + 1
    plot_width, plot_height = WIDTH - LEFT - 10, HEIGHT - BOTTOM - TOP
    slot = plot_width / slots
    marks: list[str] = []
    for start, row in rows:
        left = LEFT + (start - first) / report.interval_seconds * slot
        level = float(HEIGHT - BOTTOM)
        for name in names:
            height = row[name] / most * plot_height
            level -= height
            words = f"{_when(start)}: {name} {number(row[name])}"
            marks.append(
                f'<rect class="{name}" x="{left:.1f}" y="{level:.2f}" width="{max(1.0, slot * 0.86):.1f}" '
                f'height="{height:.2f}"><title>{words}</title></rect>'
            )
    for step in (0.0, 0.5, 1.0):
        y = HEIGHT - BOTTOM - step * plot_height
        marks.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(most * step)}</text>')
    marks.append(f'<text x="{LEFT}" y="{HEIGHT - 20}">{_when(first)}</text>')
    marks.append(f'<text x="{WIDTH - 10}" y="{HEIGHT - 20}" text-anchor="end">{_when(last)}</text>')
    for index, name in enumerate(names):
        x = LEFT + index * 110
        marks.append(f'<rect class="{name}" x="{x}" y="{HEIGHT - 13}" width="9" height="9"/>')
        marks.append(f'<text x="{x + 13}" y="{HEIGHT - 5}">{name}</text>')
    label = f"{title}, per {_span(report.interval_seconds)}"
    return (
        f"<figure><figcaption>{escape(label)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(marks)}</svg></figure>'
    )


def _groups(groups: Iterable[Mapping[str, Any]], by: Sequence[str]) -> str:
    header = (
        *by, "method", "requests", "hits", "tokens", "kWh", *BOUNDARIES, "gCO2e operational", *BOUNDARIES,
        "gCO2e embodied", "cost", "J/1k tokens", "gCO2e/1k tokens", "SCI g/1k tokens", "cost/1k tokens", "MFU",
    )  # fmt: skip
    rows = [
        (
            *(line[name] for name in by),
            f"{line['method']} ({line['estimator']}), {line['signal']}",
            number(line["requests"]),
            number(line["hits"]),
            number(line["tokens"]["total"]),
            number(line["energy_kwh"]["total"]),
            *(number(line["energy_kwh"][name]) for name in BOUNDARIES),
            number(line["grams"]["operational"]),
            *(number(line["grams"][name]) for name in BOUNDARIES),
            number(line["grams"]["embodied"]),
            number(line["cost"]["total"]),
            number(line["per_1k_tokens"]["joules"]),
            number(line["per_1k_tokens"]["operational_grams"]),
            number(line["per_1k_tokens"]["sci_grams"]),
            number(line["per_1k_tokens"]["cost"]),
            "unknown" if line["mfu_ratio"] is None else f"{line['mfu_ratio']:.2%}",
        )
        for line in groups
    ]
    return _table(header, rows, text=len(by) + 1)


def _savings(totals: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for total in totals:
        saved = total["savings"]
        if saved is None:
            continue
        rows = (
            ("model: response cache", f"{saved['response_cache']:.3f}"),
            ("model: prefix cache", f"{saved['prefix_cache']:.3f}"),
            ("machine: batching, idle spread", f"{saved['machine']:.3f}"),
            ("mechanization: PUE", f"{saved['mechanization']:.3f}"),
            ("map: grid", f"{saved['map']:.3f}"),
            ("total, the product of these", f"{saved['total']:.3f}"),
            ("operational carbon saved", number(saved["saved_grams"], "gCO2e")),
        )
        baseline = "; ".join(saved["baseline"])
        parts.append(f'<p class="dim">{escape(total["method"])}, modelled. Baseline: {escape(baseline)}.</p>')
        parts.append(_table(("factor", "times less"), rows, text=1))
    return "".join(parts) or "<p>Unknown: see what is missing.</p>"


def _node(components: Iterable[Mapping[str, Any]], not_given_kwh: float) -> str:
    header = ("component", "boundary", "method", "by", "kWh", "of it idle", "unattributed", "busy", "gap s")
    rows = [
        (
            one["component"],
            one["boundary"],
            one["method"],
            one["estimator"],
            number(one["metered_kwh"]),
            number(one["idle_kwh"]),
            number(one["unattributed_kwh"]),
            "unknown" if one["busy_ratio"] is None else f"{one['busy_ratio']:.1%}",
            number(one["gap_seconds"]),
        )
        for one in components
    ]
    words = f"In no receipt: {number(not_given_kwh, 'kWh')} (idle that is kept or carried, and what nobody used)."
    return _table(header, rows, text=4) + f'<p class="dim">{words}</p>'


def _missing(figures: Mapping[str, Any]) -> str:
    found = list(figures["notes"])
    for line in figures["totals"]:
        found += [f"{text} ({line['method']})" for text in line["missing"]]
    items = "".join(f"<li>{escape(text)}</li>" for text in dict.fromkeys(found))
    return f"<ul>{items}</ul>" if items else "<p>Nothing.</p>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, text: int) -> str:
    """The first ``text`` columns are words, the others figures."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if index < text else ''}>{escape(value)}</{tag}>"
            for index, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', header)}</tr></thead><tbody>{body}</tbody></table>"


def _when(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%d %H:%MZ")


def _span(seconds: float) -> str:
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit:
            count = round(seconds / unit)
            return name if count == 1 else f"{count} {name}s"
    return f"{seconds:g} s"
