from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.access import ANONYMOUS, KeyRing
from serving.errors import Unauthenticated

RING = KeyRing({"acme": "key-1", "zeta": "key-2"})


@pytest.mark.parametrize("header", [None, "", "Bearer x", "nonsense"])
def test_without_keys_everybody_is_the_one_tenant(header: str | None) -> None:
    ring = KeyRing({})
    assert ring.open
    assert ring.tenant(header) == ANONYMOUS


@pytest.mark.parametrize(
    ("header", "tenant"),
    [("Bearer key-1", "acme"), ("Bearer key-2", "zeta"), ("bearer key-2", "zeta"), ("BEARER  key-1 ", "acme")],
)
def test_a_key_is_its_tenants(header: str, tenant: str) -> None:
    assert not RING.open
    assert RING.tenant(header) == tenant


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "key-1", "Basic key-1", "Bearer\tkey-1"])
def test_a_missing_key_is_told_how_to_be_sent(header: str | None) -> None:
    with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
        RING.tenant(header)


@given(st.text(max_size=20).filter(lambda key: key.strip() not in ("", "key-1", "key-2")))
def test_no_other_key_is_known_nor_repeated_in_the_answer(key: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        RING.tenant(f"Bearer {key}")
    assert refused.value.status == 401
    assert len(key) < 5 or key not in refused.value.message


@pytest.mark.parametrize("sent", ["schlüssel", "key-1\u00e9", "\udcff", "клю\u0447"])
def test_a_key_that_no_key_can_be_is_told_why(sent: str) -> None:
    with pytest.raises(Unauthenticated, match="ASCII") as refused:
        RING.tenant(f"Bearer {sent}")
    assert refused.value.code == "invalid_api_key"
    assert not RING.is_admin(f"Bearer {sent}")


def test_keys_are_not_kept() -> None:
    assert "key-1" not in repr(vars(RING))
    assert "key-1" not in repr(vars(RING)["_digests"])
