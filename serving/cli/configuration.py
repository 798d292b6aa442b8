"""``wattgate config``: the effective configuration, with where each value comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr
from rich.table import Table

from serving.cli.option_groups import spread
from serving.cli.output import out
from serving.cli.serve import GatewayOptions
from serving.config import GatewayConfig, walk

_NOTHING_SAID = GatewayOptions()


@spread
def config(
    options: GatewayOptions = _NOTHING_SAID,
    as_json: Annotated[bool, typer.Option("--json", help="One object: key to value, source and meaning.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The reference table of the README.")] = False,
) -> None:
    """Print every setting: its value, where that comes from, and what it means. Secrets are not shown."""
    if markdown:
        print(reference_markdown())
        return
    loaded = options.gathered()
    rows = {
        key: {"value": _plain(value), "source": loaded.sources.get(key, "default"), "meaning": meaning}
        for key, value, meaning in walk(loaded.config)
    }
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for column in ("setting", "value", "source", "meaning"):
        table.add_column(column, overflow="fold")
    for key, row in rows.items():
        style = None if row["source"] == "default" else "bold"
        table.add_row(key, json.dumps(row["value"]), row["source"], row["meaning"], style=style)
    out.print(table)


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "(set)"
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def reference_markdown() -> str:
    """The configuration reference, from the fields' own documentation."""
    rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for key, value, meaning in walk(GatewayConfig()):
        cell = meaning.replace("|", "\\|")
        rows.append(f"| `{key}` | `{json.dumps(_plain(value))}` | {cell} |")
    return "\n".join(rows)
