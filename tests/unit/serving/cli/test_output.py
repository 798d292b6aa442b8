from __future__ import annotations

import io

import pytest
from rich.console import Console

from serving.cli.output import quantity, receipt_table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"), (0, "0 J"), (1.5, "1.5 J"), (0.00042, "420 µJ"), (-3200.0, "-3.2 kJ"),
        (9.86e9, "9.86 GJ"), (2e-9, "2 nJ"),
    ],
)  # fmt: skip
def test_quantities_read_as_engineers_write_them(value: float | None, text: str) -> None:
    assert quantity(value, "J") == text


def printed(usage: dict[str, object]) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(receipt_table(usage, seconds=2.0, first_token_seconds=0.1))
    return console.export_text()


def test_an_unknown_energy_is_said_not_shown_as_zero() -> None:
    text = printed({"prompt_tokens": 3, "completion_tokens": 4, "wattgate": {"cache": "MISS", "notes": ["no meter"]}})
    assert "unknown" in text
    assert "0 J" not in text
    assert "no meter" in text


def test_a_hit_shows_what_it_avoided_and_no_work() -> None:
    receipt = {
        "cache": "HIT-EXACT",
        "avoided_joules": 40.0,
        "avoided_grams": 0.005,
        "flops_prefill": 0,
        "flops_decode": 0,
    }
    text = printed({"prompt_tokens": 3, "completion_tokens": 4, "wattgate": receipt})
    assert "avoided 40 J and 5 mgCO2e" in text
    assert "MFU" not in text
