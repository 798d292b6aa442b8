"""What commands share: progress to people, errors to scripts, receipts as tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich import progress as bars
from rich.console import Console
from rich.table import Table

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"))
_BOUNDARIES = ("accelerator", "host", "idle", "overhead")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def fail(message: str, status: int = 2) -> NoReturn:
    """One line on stderr, and out."""
    err.print(f"[red]wattgate:[/red] {message}", soft_wrap=True, markup=True)
    raise typer.Exit(status)


class Progress:
    """Timed lines on stderr."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        err.print(f"[dim]{time.monotonic() - self._started:6.1f} s[/dim]  {text}", soft_wrap=True)


@contextmanager
def bar(what: str, total: int, note: str = "") -> Iterator[Callable[[int], None]]:
    """A bar on stderr that goes with its end; yields what tells it how many are done. Lines of ``err`` stand above."""
    columns = (bars.TextColumn(what), bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeElapsedColumn())
    with bars.Progress(*columns, bars.TextColumn(note), console=err, transient=True) as shown:
        task = shown.add_task("", total=total)
        yield lambda done: shown.update(task, completed=done)


def quantity(value: float | None, unit: str) -> str:
    """Engineering notation: ``quantity(0.00042, "J")`` is ``420 µJ``; unknown is said so."""
    if value is None:
        return "unknown"
    if value == 0:
        return f"0 {unit}"
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value * 1e9:.3g} n{unit}"


def receipt_table(usage: Mapping[str, Any], *, seconds: float, first_token_seconds: float | None) -> Table:
    """A receipt as people read it."""
    receipt: Mapping[str, Any] = usage.get("wattgate") or {}
    energy = receipt.get("energy_joules") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    output = usage.get("completion_tokens") or 0
    table = Table(show_header=False, box=None, padding=(0, 2), pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    hit = str(receipt.get("cache", "")).startswith("HIT")
    table.add_row("tokens", f"{usage.get('prompt_tokens')} prompt ({cached} of them cached), {output} output")
    speed = f", {output / seconds:.1f} tokens/s" if seconds > 0 and output else ""
    ttft = "" if first_token_seconds is None else f"first token {first_token_seconds * 1000:.0f} ms, "
    table.add_row("time", f"{ttft}{seconds * 1000:.0f} ms in all{speed}")
    flops = [receipt.get("flops_prefill"), receipt.get("flops_decode")]
    known = [figure for figure in flops if figure is not None]
    if len(known) == len(flops) and not hit:
        mfu = receipt.get("mfu_ratio")
        table.add_row("work", f"{quantity(sum(known), 'FLOP')}, MFU {'unknown' if mfu is None else f'{mfu:.1%}'}")
    parts = ", ".join(f"{name} {quantity(energy[name], 'J')}" for name in _BOUNDARIES if energy.get(name))
    table.add_row("energy", f"{quantity(energy.get('total'), 'J')}{f' ({parts})' if parts else ''}")
    operational, embodied = receipt.get("operational_grams"), receipt.get("embodied_grams")
    grams = f"{quantity(operational, 'gCO2e')} operational, {quantity(embodied, 'gCO2e')} embodied"
    intensity = receipt.get("intensity_grams_per_kwh")
    where = "" if intensity is None else f" ({receipt.get('zone')}, {intensity:g} g/kWh)"
    table.add_row("carbon", f"{grams}{where}")
    cost = receipt.get("cost")
    if cost is not None:
        causes = ", ".join(f"{cause} {amount:.3g}" for cause, amount in cost.items() if cause != "total")
        table.add_row("cost", f"{cost['total']:.3g} ({causes}), in the currency of the gateway's prices")
    verdict = str(receipt.get("cache", "?"))
    if hit:
        avoided_joules, avoided_grams = receipt.get("avoided_joules"), receipt.get("avoided_grams")
        verdict += f", avoided {quantity(avoided_joules, 'J')} and {quantity(avoided_grams, 'gCO2e')}"
    table.add_row("cache", verdict)
    table.add_row("made by", f"{receipt.get('method')}, {receipt.get('estimator')}, {receipt.get('status')}")
    for note in receipt.get("notes") or ():
        table.add_row("note", note)
    return table
