"""``wattgate keys``: create, list, rotate and revoke API keys in the gateway's key file."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from serving.cli.output import err, fail, out
from serving.config import ConfigError
from serving.config_sources import load_config
from serving.tenancy.keys import KeyFile, KeyFileError, StoredKey

_T = TypeVar("_T")

app = typer.Typer(help="API keys: create, list, rotate, revoke.", no_args_is_help=True)

FileOption = Annotated[Path | None, typer.Option("--file", help="The key file; default: the config's access.key_file.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file that names access.key_file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DaysOption = Annotated[
    float | None, typer.Option("--expires-days", min=0, help="Life of the new key; default: endless.")
]


@app.command("create")
def create(
    tenant: Annotated[str, typer.Argument(help="Whose key it is.")],
    expires_days: DaysOption = None,
    file: FileOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this once."""
    lifetime = None if expires_days is None else timedelta(days=expires_days)
    stored, key = _do(lambda: _file(file, config).create(tenant, _now(), lifetime))
    _show_new(stored, key, as_json)


@app.command("list")
def list_keys(file: FileOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the keys' ids, tenants and state; the keys themselves are not kept."""
    now = _now()
    rows = [_row(key, now) for key in _do(_file(file, config).read)]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for column in ("id", "tenant", "state", "created", "expires"):
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(row[column] or "-") for column in ("id", "tenant", "state", "created", "expires")))
    out.print(table)


@app.command("rotate")
def rotate(
    key_id: Annotated[str, typer.Argument(help="Id of the key to replace.")],
    overlap_hours: Annotated[
        float, typer.Option("--overlap-hours", min=0, help="The old key stays valid so long.")
    ] = 24,
    expires_days: DaysOption = None,
    file: FileOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a successor of a key and print it, this once."""
    lifetime = None if expires_days is None else timedelta(days=expires_days)
    overlap = timedelta(hours=overlap_hours)
    stored, key = _do(lambda: _file(file, config).rotate(key_id, _now(), overlap, lifetime))
    _show_new(stored, key, as_json)


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key to end.")],
    file: FileOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key; a running gateway refuses it within seconds."""
    stored = _do(lambda: _file(file, config).revoke(key_id, _now()))
    if as_json:
        print(json.dumps(_row(stored, _now()), indent=2))
    else:
        err.print(f"revoked {stored.id} of {stored.tenant}")


def _now() -> datetime:
    return datetime.now(UTC)


def _file(file: Path | None, config: Path | None) -> KeyFile:
    if file is None and config is not None:
        try:
            file = load_config(config).config.access.key_file
        except ConfigError as error:
            fail(str(error))
    if file is None:
        fail("no key file: name it with --file, or with --config and access.key_file in it")
    return KeyFile(file)


def _do(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except KeyFileError as error:
        fail(str(error))


def _row(key: StoredKey, now: datetime) -> dict[str, Any]:
    state = "valid" if key.valid(now) else "revoked" if key.revoked is not None else "expired"
    return {"id": key.id, "tenant": key.tenant, "state": state, "created": key.created, "expires": key.expires}


def _show_new(stored: StoredKey, key: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_row(stored, _now()) | {"key": key}, indent=2))
        return
    err.print(f"key {stored.id} of {stored.tenant}; it is shown this once:")
    print(key)
