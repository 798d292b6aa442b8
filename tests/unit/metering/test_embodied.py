"""Embodied carbon by parts: what each field does, and clear refusals. Worked figures are in test_worked_numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.embodied import EmbodiedDevice, carbon_per_area, device_from_parts, load_parts, logic, memory
from metering.errors import BadInput

DIE: dict[str, Any] = {"kind": "logic", "area_mm2": 100, "node_nm": 7}


def test_packaging_is_per_piece_and_not_divided_by_yield() -> None:
    one, three = logic(100, node_nm=7, ics=1), logic(100, node_nm=7, ics=3)
    assert three.grams - one.grams == pytest.approx(300)
    assert logic(100, node_nm=7, die_yield=0.5).packaging_grams == 150


def test_count_multiplies_silicon_and_packaging() -> None:
    one, four = logic(100, node_nm=7, ics=2), logic(100, node_nm=7, ics=2, count=4)
    assert four.grams == pytest.approx(4 * one.grams)
    assert four.packaging_grams == 4 * 2 * 150


def test_ninety_seven_percent_abatement_is_the_mean_of_its_neighbours() -> None:
    low, middle, high = (carbon_per_area(7, gas_abatement=percent) for percent in (95, 97, 99))
    assert middle == pytest.approx((low + high) / 2)


def test_constants_given_directly_replace_those_of_the_node() -> None:
    given_directly = logic(100, epa_kwh_cm2=2.15, gpa_g_cm2=275, mpa_g_cm2=500)
    assert given_directly.grams == pytest.approx(logic(100, node_nm=7).grams)
    assert logic(100, node_nm=7, mpa_g_cm2=0).grams < logic(100, node_nm=7).grams


@pytest.mark.parametrize(
    ("kind", "technology", "grams"),
    [
        ("dram", "ddr4_10nm", 65), ("dram", "lpddr4", 48), ("ssd", "nand_10nm", 10), ("ssd", "tlc_v3", 6.3),
        ("ssd", "nand_1z_tlc", 5.6), ("hdd", "Exos x16", 1.334), ("hdd", "BarraCuda", 4.57),
    ],
)  # fmt: skip
def test_storage_by_technology_in_any_spelling(kind: Any, technology: str, grams: float) -> None:
    part = memory(kind, 1000, technology)
    assert part.silicon_grams == pytest.approx(grams * 1000 / 0.875)
    assert part.packaging_grams == 150


def test_storage_takes_its_own_yield() -> None:
    assert memory("dram", 32, "ddr4_10nm", die_yield=1.0, ics=0).grams == 32 * 65


@given(st.lists(st.tuples(st.floats(1, 900), st.sampled_from([3, 5, 7, 28]), st.integers(1, 5)), min_size=1))
def test_a_device_is_the_sum_of_its_parts(parts: list[tuple[float, int, int]]) -> None:
    device = EmbodiedDevice(tuple(logic(area, node_nm=node, count=count) for area, node, count in parts))
    each = [logic(area, node_nm=node).grams * count for area, node, count in parts]
    assert device.kilograms == pytest.approx(sum(each) / 1000)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({**DIE, "kind": "logix"}, r"part 1: kind must be logic, dram, ssd or hdd, got 'logix'"),
        ({**DIE, "fab": "taiwann"}, "unknown fab 'taiwann'; nearest: taiwan"),
        ({**DIE, "node_nm": 6}, "no data for a node of 6 nm"),
        ({**DIE, "gas_abatement": 96}, "gas_abatement must be 95, 97 or 99"),
        ({**DIE, "yield": 0}, "yield must be above 0"),
        ({**DIE, "yield": 1.2}, "at most 1"),
        ({**DIE, "area_mm2": -5}, "area_mm2 must be positive"),
        ({**DIE, "area_mm2": "big"}, "area_mm2 must be a number"),
        ({**DIE, "aera_mm2": 5}, "no field 'aera_mm2'; nearest: area_mm2"),
        ({**DIE, "count": 0}, "count must be a whole number of at least 1"),
        ({**DIE, "count": 1.5}, "count must be a whole number"),
        ({**DIE, "ics": -1}, "ics must be"),
        ({"kind": "logic", "node_nm": 7}, "needs area_mm2"),
        ({"kind": "logic", "area_mm2": 5}, "needs node_nm, or epa_kwh_cm2 and gpa_g_cm2"),
        ({"kind": "dram", "gb": 32}, "needs technology"),
        ({"kind": "dram", "gb": 32, "technology": "hbm3"}, "unknown dram technology 'hbm3'"),
        ({"kind": "ssd", "gb": 0, "technology": "nand_10nm"}, "gb must be positive"),
        ("logic", "part 1 is not a mapping"),
    ],
)
def test_bad_part_is_refused_by_number_and_reason(part: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        device_from_parts([part])


@pytest.mark.parametrize(
    ("text", "says"),
    [("parts: [", "is not YAML"), ("pieces: []", "no list named parts"), ("parts: []", "no parts"), ("3", "no list")],
)
def test_bad_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(BadInput, match=says):
        load_parts(tmp_path / "spec.yaml")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        load_parts(tmp_path / "none.yaml")
