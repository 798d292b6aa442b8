from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.access import KeyRing
from serving.cli import app
from serving.config import AccessSettings
from serving.errors import Forbidden, Unauthenticated
from serving.placement.key_watch import build_keys
from serving.tenancy.keys import KeyFile, KeyFileError, StoredKey
from serving.tenancy.tenant import Priority, TenantSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def ring(file: KeyFile, at: datetime = NOW) -> KeyRing:
    return KeyRing({}, stored=file.read(), closed=True, now=lambda: at)


def opens(ring: KeyRing, key: str) -> bool:
    try:
        return bool(ring.tenant(f"Bearer {key}"))
    except Unauthenticated:
        return False


def test_a_created_key_opens_and_is_not_in_the_file(file: KeyFile) -> None:
    stored, key = file.create("acme", NOW)
    assert ring(file).tenant(f"Bearer {key}") == "acme"
    text = file.path.read_text()
    assert key not in text
    assert key.rsplit("-", 1)[1] not in text
    assert stored.id in key
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_a_revoked_key_opens_nothing(file: KeyFile) -> None:
    stored, key = file.create("acme", NOW)
    _, other = file.create("acme", NOW)
    assert file.revoke(stored.id, NOW).revoked is not None
    assert not opens(ring(file), key)
    assert opens(ring(file), other)
    assert file.revoke(stored.id, NOW + timedelta(days=1)).revoked == NOW.isoformat()


def test_a_key_expires(file: KeyFile) -> None:
    _, key = file.create("acme", NOW, timedelta(days=1))
    assert opens(ring(file, NOW + timedelta(hours=23)), key)
    assert not opens(ring(file, NOW + timedelta(hours=24)), key)


def test_rotation_overlaps_and_then_ends_the_old_key(file: KeyFile) -> None:
    stored, old = file.create("acme", NOW)
    successor, new = file.rotate(stored.id, NOW, timedelta(hours=2))
    assert successor.tenant == "acme"
    soon, late = ring(file, NOW + timedelta(hours=1)), ring(file, NOW + timedelta(hours=2))
    assert (opens(soon, old), opens(soon, new)) == (True, True)
    assert (opens(late, old), opens(late, new)) == (False, True)
    with pytest.raises(KeyFileError, match="expired"):
        file.rotate(stored.id, NOW + timedelta(hours=3), timedelta(0))


def test_rotation_never_prolongs_a_key(file: KeyFile) -> None:
    stored, old = file.create("acme", NOW, timedelta(hours=1))
    file.rotate(stored.id, NOW, timedelta(hours=5))
    assert not opens(ring(file, NOW + timedelta(hours=2)), old)


def test_changes_at_the_same_time_all_count(file: KeyFile) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: file.create(f"t{number}", NOW), range(24)))
    assert {key.id for key in file.read()} == {stored.id for stored, _ in made}


@pytest.mark.parametrize("tenant", ["", "a b", "../x", "é", "x" * 65, "-a", "a\n"])
def test_a_tenants_name_is_plain(file: KeyFile, tenant: str) -> None:
    with pytest.raises(KeyFileError, match="letters"):
        file.create(tenant, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 1}',
        '{"version": 9, "keys": []}',
        '{"version": 1, "keys": [{}]}',
        '{"version": 1, "keys": [{"id": "a", "tenant": "b", "digest": "00", "created": "2026-01-01T00:00:00+00:00"}]}',
    ],
)
def test_a_damaged_file_is_refused_and_never_overwritten(file: KeyFile, text: str) -> None:
    file.path.write_text(text)
    with pytest.raises(KeyFileError):
        file.read()
    with pytest.raises(KeyFileError):
        file.create("acme", NOW)
    assert file.path.read_text() == text


def test_a_configured_but_empty_file_opens_to_nobody(file: KeyFile) -> None:
    keys, _ = build_keys(AccessSettings(key_file=file.path))
    assert not keys.open
    with pytest.raises(Unauthenticated):
        keys.tenant("Bearer x")


async def test_a_running_gateway_follows_the_file(file: KeyFile) -> None:
    keys, watch = build_keys(AccessSettings(key_file=file.path, api_keys={"zeta": "configured"}))
    stored, key = file.create("acme", datetime.now(UTC))
    assert not opens(keys, key)
    await watch.refresh()
    assert opens(keys, key)
    assert opens(keys, "configured")
    file.revoke(stored.id, datetime.now(UTC))
    await watch.refresh()
    assert not opens(keys, key)
    assert opens(keys, "configured")


@pytest.mark.parametrize("loss", ["damaged", "gone"])
async def test_a_file_that_breaks_while_running_changes_nothing(file: KeyFile, loss: str) -> None:
    _, key = file.create("acme", datetime.now(UTC))
    keys, watch = build_keys(AccessSettings(key_file=file.path))
    if loss == "gone":
        file.path.unlink()
    else:
        file.path.write_text("{")
    await watch.refresh()
    assert opens(keys, key)
    assert not keys.open


async def test_a_revocation_that_could_not_be_read_at_first_takes_effect_and_the_fault_is_told_once(
    file: KeyFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored, key = file.create("acme", datetime.now(UTC))
    faults: list[None] = []
    keys, watch = build_keys(AccessSettings(key_file=file.path), lambda: faults.append(None))
    file.revoke(stored.id, datetime.now(UTC))

    def fails(_: KeyFile) -> tuple[StoredKey, ...]:
        raise KeyFileError("cannot be read")

    with monkeypatch.context() as patched:
        patched.setattr(KeyFile, "read", fails)
        await watch.refresh()
        await watch.refresh()
    assert opens(keys, key)
    assert (len(faults), len(caplog.records)) == (2, 1)
    await watch.refresh()
    assert not opens(keys, key)


def test_the_admin_key_is_apart() -> None:
    keys = KeyRing({"acme": "tenant-key"}, admin_key="admin-key")
    assert keys.is_admin("Bearer admin-key")
    assert not keys.is_admin("Bearer tenant-key")
    assert not keys.is_admin(None)
    with pytest.raises(Forbidden):
        keys.tenant("Bearer admin-key")
    assert not KeyRing({}).is_admin("Bearer ")


def test_models_and_priority_are_the_tenants() -> None:
    keys = KeyRing(
        {"acme": "a", "zeta": "z"},
        tenants={"acme": TenantSettings(models=("m1",), priority=Priority.INTERACTIVE)},
        default=TenantSettings(priority=Priority.BATCH),
    )
    keys.check_model("acme", "m1")
    keys.check_model("zeta", "anything")
    with pytest.raises(Forbidden) as refused:
        keys.check_model("acme", "m2")
    assert refused.value.status == 403
    assert keys.settings("acme").priority is Priority.INTERACTIVE
    assert keys.settings("zeta").priority is Priority.BATCH
    keys.grant({}, TenantSettings())
    keys.check_model("acme", "m2")


@pytest.mark.parametrize("asked", list(Priority))
@pytest.mark.parametrize("granted", list(Priority))
def test_nobody_asks_for_more_urgency_than_granted(asked: Priority, granted: Priority) -> None:
    assert asked.at_most(granted).rank == max(asked.rank, granted.rank)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["keys", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_commands_make_list_rotate_and_revoke(tmp_path: Path) -> None:
    path = str(tmp_path / "k.json")
    code, printed, _ = run("create", "acme", "--file", path)
    assert code == 0
    assert opens(ring(KeyFile(Path(path)), datetime.now(UTC)), printed.strip())
    code, listed, _ = run("list", "--file", path, "--json")
    (row,) = json.loads(listed)
    assert (row["tenant"], row["state"]) == ("acme", "valid")
    assert printed.strip() not in listed
    _, rotated, _ = run("rotate", row["id"], "--file", path, "--overlap-hours", "0", "--json")
    assert json.loads(rotated)["tenant"] == "acme"
    run("revoke", json.loads(rotated)["id"], "--file", path)
    states = [entry["state"] for entry in json.loads(run("list", "--file", path, "--json")[1])]
    assert states == ["expired", "revoked"]
    assert row["id"] in run("list", "--file", path)[1]


def test_the_config_names_the_file(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"access:\n  key_file: {tmp_path}/k.json\n")
    assert run("create", "acme", "--config", str(config))[0] == 0
    assert len(KeyFile(tmp_path / "k.json").read()) == 1


@pytest.mark.parametrize(
    "arguments", [("list",), ("revoke", "nope", "--file", "{}/k.json"), ("create", "a b", "--file", "{}/k.json")]
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, _, said = run(*(argument.format(tmp_path) for argument in arguments))
    assert code == 2
    assert len(said.strip().splitlines()) == 1
