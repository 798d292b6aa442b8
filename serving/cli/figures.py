"""Printing figures: one JSON object for machines, a table for people; bad input is one line and exit code 2."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table


@contextmanager
def bad_input_exits() -> Iterator[None]:
    """Turn a ``ValueError`` (the library's ``BadInput``) into one line on stderr and exit code 2."""
    try:
        yield
    except ValueError as error:
        typer.echo(f"wattgate: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error


def print_figures(figures: Mapping[str, Any], *, as_json: bool, title: str) -> None:
    """One JSON object, or a table of name and value with the notes beneath."""
    if as_json:
        typer.echo(json.dumps(figures, indent=2, allow_nan=False))
        return
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right", overflow="fold")
    for name, value in _flat(figures):
        table.add_row(name, _text(value))
    console = Console()
    console.print(table)
    for note in figures.get("notes") or ():
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False)


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if name == "notes":
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, one in enumerate(value, 1):
                yield from _flat(one, f"{prefix}{name}.{number}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e15 else f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
