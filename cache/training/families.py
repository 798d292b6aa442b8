"""Families: questions that one answer fits, with near questions that it does not.

``data/families_LANGUAGE.jsonl``, one family a line: ``{"domain", "same": [...], "trap": [...]}``. Written by hand for
this project; none is taken from a benchmark. Domains are the sources that the data is split by.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Family:
    language: str
    domain: str
    same: tuple[str, ...]
    trap: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    a: str
    b: str
    right: bool
    kind: str
    """``paraphrase``, ``repeat``, ``trap``, ``mutation`` or ``narrowing``."""
    language: str
    domain: str


def load_families(folder: Path = DATA) -> list[Family]:
    """Raises ValueError naming file and line of a family that cannot be read."""
    out: list[Family] = []
    for path in sorted(folder.glob("families_*.jsonl")):
        language = path.stem.removeprefix("families_")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            try:
                data = json.loads(line)
                family = Family(data.get("lang", language), data["domain"], tuple(data["same"]), tuple(data["trap"]))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path.name} line {number}: not a family ({error})") from None
            out.append(family)
    return out


def family_pairs(family: Family) -> list[Pair]:
    """Every two that mean the same, and every one against every trap."""
    source = (family.language, family.domain)
    same = [Pair(a, b, True, "paraphrase", *source) for a, b in combinations(family.same, 2)]
    return same + [Pair(a, trap, False, "trap", *source) for a in family.same for trap in family.trap]
