"""Embodied carbon of a device from its parts: the ACT model (Gupta et al. 2022, ISCA).

    logic = (area x (CI_fab x EPA + GPA + MPA) / yield + packaging x ICs) x count
    DRAM, SSD, HDD = (CPS x GB / yield + packaging x ICs) x count

Areas in cm2; EPA kWh/cm2, GPA and MPA g/cm2, CPS g/GB, packaging 150 g per integrated circuit, not divided by yield.
Constants are in ``embodied.yaml``, each with its source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from metering.errors import BadInput, nearest

Kind = Literal["logic", "dram", "ssd", "hdd"]


@dataclass(frozen=True, slots=True)
class EmbodiedPart:
    """One line of a bill of parts, ``count`` included. Grams of CO2e."""

    kind: Kind
    label: str
    silicon_grams: float
    """Of the wafer or the storage, divided by yield."""
    packaging_grams: float
    count: int

    @property
    def grams(self) -> float:
        return self.silicon_grams + self.packaging_grams


@dataclass(frozen=True, slots=True)
class EmbodiedDevice:
    """A device built from parts."""

    parts: tuple[EmbodiedPart, ...]

    @property
    def kilograms(self) -> float:
        return sum(part.grams for part in self.parts) / 1000


@cache
def act_data() -> Mapping[str, Any]:
    """The constants of ``embodied.yaml``."""
    text = resources.files(__package__).joinpath("embodied.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    return data


def carbon_per_area(node_nm: float, *, fab: str = "taiwan", gas_abatement: int = 97, die_yield: float = 0.875) -> float:
    """CPA = (CI_fab x EPA + GPA + MPA) / yield, g of CO2e per cm2 of logic.

    >>> round(carbon_per_area(7), 2)
    2318.23

    Raises:
        BadInput: a node, fab or abatement that the data does not have, or a yield outside 0..1.
    """
    energy, gas = _process(node_nm, gas_abatement)
    return _area_grams(_fab(fab), energy, gas, act_data()["materials_g_cm2"], die_yield)


def logic(
    area_mm2: float,
    *,
    node_nm: float | None = None,
    fab: str = "taiwan",
    gas_abatement: int = 97,
    die_yield: float | None = None,
    ics: int = 1,
    count: int = 1,
    epa_kwh_cm2: float | None = None,
    gpa_g_cm2: float | None = None,
    mpa_g_cm2: float | None = None,
) -> EmbodiedPart:
    """A die of ``area_mm2``, its constants by node or given directly.

    >>> part = logic(145, node_nm=10, gas_abatement=95, die_yield=0.943543)
    >>> round(part.grams, 4)
    2608.7022

    Raises:
        BadInput: see :func:`carbon_per_area`; or neither a node nor EPA and GPA.
    """
    data = act_data()
    _positive("area_mm2", area_mm2)
    if node_nm is None and (epa_kwh_cm2 is None or gpa_g_cm2 is None):
        raise BadInput("a logic part needs node_nm, or epa_kwh_cm2 and gpa_g_cm2")
    energy, gas = (0.0, 0.0) if node_nm is None else _process(node_nm, gas_abatement)
    energy = energy if epa_kwh_cm2 is None else _not_negative("epa_kwh_cm2", epa_kwh_cm2)
    gas = gas if gpa_g_cm2 is None else _not_negative("gpa_g_cm2", gpa_g_cm2)
    materials = data["materials_g_cm2"] if mpa_g_cm2 is None else _not_negative("mpa_g_cm2", mpa_g_cm2)
    each = area_mm2 / 100 * _area_grams(_fab(fab), energy, gas, materials, die_yield)
    label = f"{area_mm2:g} mm2" + (f" at {node_nm:g} nm" if node_nm is not None else "") + f", {fab}"
    return _part("logic", label, each, ics, count)


def memory(
    kind: Literal["dram", "ssd", "hdd"],
    gb: float,
    technology: str,
    *,
    die_yield: float | None = None,
    ics: int = 1,
    count: int = 1,
) -> EmbodiedPart:
    """DRAM, SSD or HDD of ``gb`` gigabytes.

    Raises:
        BadInput: an unknown technology, with the nearest; a size that is not positive; a yield outside 0..1.
    """
    known: Mapping[str, float] = act_data()["storage_g_per_gb"][kind]
    by_fold = {_fold(name): name for name in known}
    if _fold(technology) not in by_fold:
        near = nearest(technology, known) or f"; known: {', '.join(known)}"
        raise BadInput(f"unknown {kind} technology {technology!r}{near}")
    _positive("gb", gb)
    name = by_fold[_fold(technology)]
    return _part(kind, f"{gb:g} GB {name}", known[name] * gb / _yield(die_yield), ics, count)


def device_from_parts(parts: Sequence[Mapping[str, Any]]) -> EmbodiedDevice:
    """A device from a list of mappings, as ``estimate embodied`` reads them; ``ics`` is per piece and everything is
    multiplied by ``count``.

    Raises:
        BadInput: names the part (counted from 1) and what is wrong with it.
    """
    if not parts:
        raise BadInput("no parts: give at least one of logic, dram, ssd or hdd")
    return EmbodiedDevice(tuple(_parse_part(number, part) for number, part in enumerate(parts, 1)))


def load_parts(path: str | Path) -> EmbodiedDevice:
    """A device from a YAML file with a list ``parts``.

    Raises:
        BadInput: no such file, not YAML, no list of parts, or a bad part.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    parts = content.get("parts") if isinstance(content, Mapping) else None
    if not isinstance(parts, list):
        raise BadInput(f"{file} has no list named parts: write parts: followed by one entry per part")
    return device_from_parts(parts)


_LOGIC_KEYS = {
    "area_mm2": "area_mm2", "node_nm": "node_nm", "fab": "fab", "gas_abatement": "gas_abatement", "yield": "die_yield",
    "ics": "ics", "count": "count", "epa_kwh_cm2": "epa_kwh_cm2", "gpa_g_cm2": "gpa_g_cm2", "mpa_g_cm2": "mpa_g_cm2",
}  # fmt: skip
_MEMORY_KEYS = {"gb": "gb", "technology": "technology", "yield": "die_yield", "ics": "ics", "count": "count"}


def _parse_part(number: int, part: Any) -> EmbodiedPart:
    if not isinstance(part, Mapping):
        raise BadInput(f"part {number} is not a mapping: write kind, then its sizes")
    kind = str(part.get("kind", "")).casefold()
    if kind not in ("logic", "dram", "ssd", "hdd"):
        raise BadInput(f"part {number}: kind must be logic, dram, ssd or hdd, got {part.get('kind')!r}")
    keys = _LOGIC_KEYS if kind == "logic" else _MEMORY_KEYS
    unknown = [key for key in part if key not in keys and key not in ("kind", "name")]
    if unknown:
        raise BadInput(f"part {number} ({kind}) has no field {unknown[0]!r}{nearest(str(unknown[0]), keys)}")
    values = {keys[key]: value for key, value in part.items() if key in keys and value is not None}
    required = ("area_mm2",) if kind == "logic" else ("gb", "technology")
    missing = [name for name in required if name not in values]
    if missing:
        raise BadInput(f"part {number} ({kind}) needs {missing[0]}")
    for name, value in values.items():
        if name not in ("fab", "technology") and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise BadInput(f"part {number} ({kind}): {name} must be a number, got {value!r}")
    try:
        if kind == "logic":
            return logic(**values)
        return memory(kind, **values)  # type: ignore[arg-type]
    except BadInput as error:
        raise BadInput(f"part {number} ({kind}): {error}") from error


def _part(kind: Kind, label: str, grams_each: float, ics: int, count: int) -> EmbodiedPart:
    for name, value, least in (("ics", ics, 0), ("count", count, 1)):
        if not isinstance(value, int) or value < least:
            raise BadInput(f"{name} must be a whole number of at least {least}, got {value!r}")
    packaging = float(act_data()["packaging_g_per_ic"])
    return EmbodiedPart(kind, label, grams_each * count, packaging * ics * count, count)


def _area_grams(intensity: float, energy: float, gas: float, materials: float, die_yield: float | None) -> float:
    return (intensity * energy + gas + materials) / _yield(die_yield)


def _yield(value: float | None) -> float:
    if value is None:
        return float(act_data()["yield"])
    if not 0 < value <= 1:
        raise BadInput(f"yield must be above 0 and at most 1, got {value}")
    return value


def _fab(name: str) -> float:
    known: Mapping[str, float] = act_data()["fab_grams_per_kwh"]
    if str(name).casefold() not in known:
        raise BadInput(f"unknown fab {name!r}{nearest(str(name), known) or '; known: ' + ', '.join(known)}")
    return float(known[str(name).casefold()])


def _process(node_nm: float, gas_abatement: int) -> tuple[float, float]:
    """EPA and GPA of a node."""
    nodes: Mapping[float, Mapping[str, float]] = act_data()["logic_nodes_nm"]
    if node_nm not in nodes:
        close = min(nodes, key=lambda known: abs(known - node_nm))
        known = ", ".join(f"{one:g}" for one in nodes)
        raise BadInput(f"no data for a node of {node_nm:g} nm: known are {known}; nearest {close:g}")
    row = nodes[node_nm]
    gases = {95: row["gpa95"], 99: row["gpa99"], 97: (row["gpa95"] + row["gpa99"]) / 2}
    if gas_abatement not in gases:
        raise BadInput(f"gas_abatement must be 95, 97 or 99 percent, got {gas_abatement}")
    return row["epa"], gases[gas_abatement]


def _fold(name: str) -> str:
    """Spelling aside: ``nand_1z_tlc`` and ``tlc_1z``, ``Exos x16`` and ``exos_x16`` are the same."""
    tokens = re.split(r"[^a-z0-9]+", str(name).casefold())
    return " ".join(sorted(token for token in tokens if token not in ("", "nand", "enterprise", "consumer")))


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise BadInput(f"{name} must be positive, got {value}")


def _not_negative(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise BadInput(f"{name} must be at least 0, got {value}")
    return value
