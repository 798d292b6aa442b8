"""``wattgate report``: what was used, by whom, from the history that the gateway keeps."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from serving.cli.figures import bad_input_exits

if TYPE_CHECKING:
    from metering.history import History
    from metering.report import Report
    from metering.report_savings import Baseline


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    HTML = "html"


def report(
    since: Annotated[str, typer.Option(help="90m, 24h, 7d or 4w back, or a date or time (ISO 8601).")] = "24h",
    until: Annotated[str | None, typer.Option(help="End of the period, in the same form; now by default.")] = None,
    by: Annotated[str, typer.Option(help="Groups, with commas: model, tenant, day, hour.")] = "model,tenant",
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    store: Annotated[Path | None, typer.Option(help="History file; the gateway's own by default.")] = None,
    prometheus: Annotated[
        str | None,
        typer.Option(help="Address of a Prometheus that scrapes the gateways: read its history instead, of all nodes."),
    ] = None,
    baseline_zone: Annotated[
        str | None, typer.Option(help="Compare with this zone's annual mean, as WORLD or POL.")
    ] = None,
    baseline_pue: Annotated[float | None, typer.Option(help="Compare with a site of this PUE.")] = None,
) -> None:
    """Tokens, energy and carbon, how each figure was made, and what is missing."""
    from metering.errors import BadInput
    from metering.history import parse_since
    from metering.report import build_report

    with bad_input_exits():
        now = time.time()
        start = parse_since(since, now)
        end = parse_since(until, now) if until is not None else now
        if end <= start:
            raise BadInput(f"the period ends ({until}) before it begins ({since})")
        groups = [name.strip() for name in by.split(",") if name.strip()]
        history = _history(store, prometheus, start, end)
        made = build_report(
            history,
            since_epoch_seconds=start,
            until_epoch_seconds=end,
            by=groups,
            baseline=_baseline(baseline_zone, baseline_pue),
        )
        wanted = Format.JSON if as_json else format
        if wanted is Format.TABLE and output is None:
            _print(made, Console())
            return
        text = _text(made, wanted)
        if output is None:
            typer.echo(text)
            return
        try:
            output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise BadInput(f"cannot write {output}: {error.strerror or error}") from error
        typer.echo(f"wrote {output}", err=True)


def _history(store: Path | None, prometheus: str | None, start: float, end: float) -> History:
    from metering.errors import BadInput
    from metering.history import HistoryStore, HistoryUnavailable
    from serving.placement.history import history_file
    from serving.telemetry.prometheus_history import PrometheusHistory, PrometheusUnavailable

    if store is not None and prometheus is not None:
        raise BadInput("--store and --prometheus are two histories of the same: give one")
    try:
        if prometheus is not None:
            return PrometheusHistory(prometheus).read(start, end)
        return HistoryStore(store or history_file()).read(start, end)
    except (HistoryUnavailable, PrometheusUnavailable) as error:
        raise BadInput(str(error)) from error


def _baseline(zone: str | None, pue: float | None) -> Baseline:
    from metering.intensity.static import find_zone
    from metering.report_savings import Baseline

    if zone is None:
        return Baseline(pue=pue)
    found = find_zone(zone)
    return Baseline(pue, found.grams_per_kwh, f"{found.code}, {found.label}")


def _text(made: Report, wanted: Format) -> str:
    from metering.report_html import report_html

    if wanted is Format.HTML:
        return report_html(made)
    if wanted is Format.CSV:
        return _csv(made)
    if wanted is Format.JSON:
        return json.dumps(made.as_dict(), indent=2, allow_nan=False)
    console = Console(file=io.StringIO(), width=160)
    _print(made, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip()


def _csv(made: Report) -> str:
    """One row a group; nested figures as ``energy_kwh.host``; unknown is empty."""
    rows = [dict(_flat(line)) for line in made.as_dict()["groups"]]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns or ["method"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", "; ".join(map(str, value))
        else:
            yield f"{prefix}{name}", value


def _print(made: Report, console: Console) -> None:
    from metering.report_html import number

    figures = made.as_dict()
    rows = [(" / ".join(line[name] for name in made.by), line) for line in figures["groups"]] if made.by else []
    rows += [(f"total {line['method']}", line) for line in figures["totals"]]
    period = f"{figures['since']} to {figures['until']}"
    who = " / ".join(made.by) or "all"
    work = _table(period, who, "method", "requests", "hits", "tokens", "FLOP", "MFU")
    priced = any(line["cost"]["total"] is not None for _, line in rows)
    spent = _table("", who, "kWh", "gCO2e", "embodied g", *(["cost"] if priced else []), "J/1k", "gCO2e/1k", "SCI g/1k")
    for name, line in rows:
        per, mfu = line["per_1k_tokens"], line["mfu_ratio"]
        method = line["method"] + (", marginal" if line["signal"] == "marginal" else "")
        tokens = number(line["tokens"]["total"])
        ratio = "unknown" if mfu is None else f"{mfu:.2%}"
        flops = "unknown" if line["flops"] is None else f"{line['flops']:.3g}"
        work.add_row(name, method, number(line["requests"]), number(line["hits"]), tokens, flops, ratio)
        values = [line["energy_kwh"]["total"], line["grams"]["operational"], line["grams"]["embodied"]]
        values += [line["cost"]["total"]] if priced else []
        values += [per["joules"], per["operational_grams"], per["sci_grams"]]
        spent.add_row(name, *(number(value) for value in values))
    console.print(work)
    console.print(spent)
    for total in figures["totals"]:
        _print_total(total, console)
    for one in figures["node"]:
        console.print(
            f"{one['component']} ({one['boundary']}): {number(one['metered_kwh'], 'kWh')}, of it idle "
            f"{number(one['idle_kwh'], 'kWh')}; {one['method']} by {one['estimator']}",
            markup=False, highlight=False,
        )  # fmt: skip
    console.print(f"in no receipt: {number(figures['not_given_to_requests_kwh'], 'kWh')}", highlight=False)
    for note in figures["notes"]:
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False)


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left")
    table.add_column(first, overflow="fold")
    for name in columns:
        # names give way before figures do
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=name != "method")
    return table


def _print_total(total: Mapping[str, Any], console: Console) -> None:
    from metering.report import BOUNDARIES
    from metering.report_html import number

    def tell(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False)

    tell(f"{total['method']} total, by {total['estimator'] or 'no meter'}:")
    tell("  kWh    " + ", ".join(f"{name} {number(total['energy_kwh'][name])}" for name in BOUNDARIES))
    tell("  gCO2e  " + ", ".join(f"{name} {number(total['grams'][name])}" for name in BOUNDARIES))
    tell(
        f"  intensity {number(total['intensity_grams_per_kwh'], 'g/kWh')}, {total['signal']}: "
        f"{', '.join(total['zones']) or 'unknown zone'} ({'; '.join(total['sources']) or 'no source'})"
    )
    saved = total["savings"]
    if saved is not None:
        tell(
            f"  saved {number(saved['saved_grams'], 'gCO2e')}: {saved['total']:.3f} times less = model "
            f"{saved['model']:.3f} (response cache {saved['response_cache']:.3f} x prefix cache "
            f"{saved['prefix_cache']:.3f}) x machine {saved['machine']:.3f} (batching, idle) x mechanization "
            f"{saved['mechanization']:.3f} (PUE) x map {saved['map']:.3f} (grid)"
        )
        tell("  baseline: " + "; ".join(saved["baseline"]), "dim")
    for text in total["missing"]:
        tell(f"  missing: {text}", "yellow")
