from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.config import GatewayConfig
from serving.placement.redis_servers import RedisServers, RedisUrls, accounts_folder
from serving.placement.supervisor import _ends_with_the_run

OWN, OTHER = "redis://here:6379/0", "redis://there:6379/0"
KEYS = {"api_keys": {"acme": "key"}}
LIMITED = {"default_tenant": {"limits": {"grams_per_day": 1}}}


@pytest.mark.parametrize(
    ("settings", "urls"),
    [
        ({"cache": {"tier": "off"}}, RedisUrls()),
        ({"cache": {"tier": "off", "redis": OWN}}, RedisUrls()),
        ({"cache": {"redis": OWN}}, RedisUrls(cache=OWN, accounts=OWN)),
        ({"cache": {"redis": OWN}, "limits": {"redis": OTHER}}, RedisUrls(cache=OWN, accounts=OTHER)),
        ({"cache": {"tier": "off"}, "limits": {"redis": OTHER}, "access": LIMITED}, RedisUrls(accounts=OTHER)),
        ({"cache": {"tier": "off"}, "limits": {"redis": OTHER}}, RedisUrls(accounts=OTHER)),
        ({"cache": {"tier": "off", "redis": OWN}, "server": {"replicas": 2}}, RedisUrls(cache=OWN, accounts=OWN)),
        ({"cache": {"tier": "off", "redis": OWN}, "access": KEYS}, RedisUrls(cache=OWN, accounts=OWN)),
    ],
)
def test_nothing_is_started_where_none_is_needed_or_one_is_there(
    settings: dict[str, Any], urls: RedisUrls, tmp_path: Path
) -> None:
    said: list[str] = []
    assert RedisServers(GatewayConfig.model_validate(settings), tmp_path, said.append).start() == urls
    assert said == []


def test_an_embedded_one_is_not_shared_between_machines() -> None:
    assert RedisUrls.shared(GatewayConfig()) == RedisUrls()


def test_gateways_on_two_ports_have_accounts_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert accounts_folder(8000) == tmp_path / "wattgate" / "accounts-8000"
    assert accounts_folder(8001) != accounts_folder(8000)


def test_with_a_drawn_port_what_is_kept_by_port_goes_with_the_run(tmp_path: Path) -> None:
    drawn = _ends_with_the_run(GatewayConfig(), tmp_path)
    assert drawn.limits.folder == tmp_path / "accounts"
    assert drawn.batches.folder == tmp_path / "batches"
    chosen = GatewayConfig.model_validate(
        {"limits": {"folder": "/srv/accounts"}, "batches": {"folder": "/srv/batches"}}
    )
    assert _ends_with_the_run(chosen, tmp_path) == chosen
