"""Questions written to test the judge, never to train it: families of ``heldout.jsonl`` as pairs and as a stream.

A family is a handful of texts that one answer fits, and near questions that it does not, each with what is changed.
``part`` says who has seen what: the guards were mended after looking at the mistakes on ``seen``; nobody looked at
single results of ``unseen`` before its figures were written down. ``adversarial.jsonl`` is a second file of the same
kind, half of it traps, in domains and languages that the first one has not (two of them without a lexicon here):
``second`` was written before anybody looked, then looked at and mended by class of mistake; ``third`` was written at
the same time and never looked at, but families of its kind were added to the training data later; ``fresh`` was written
by the same hand after most mends, and its results were not looked at for the last few. No family shares a text with
``cache/training``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

PATH = Path(__file__).parent / "heldout.jsonl"
ADVERSARIAL = Path(__file__).parent / "adversarial.jsonl"


@dataclass(frozen=True, slots=True)
class HeldOutFamily:
    part: str
    """``seen`` or ``unseen``; ``second``, ``third`` or ``fresh``."""
    language: str
    domain: str
    same: tuple[str, ...]
    traps: tuple[tuple[str, str], ...]
    """(what is changed, text)."""


def families(path: Path = PATH) -> list[HeldOutFamily]:
    out = []
    for line in path.read_text("utf-8").splitlines():
        data = json.loads(line)
        traps = tuple((kind, text) for kind, text in data["traps"])
        out.append(HeldOutFamily(data["part"], data["language"], data["domain"], tuple(data["same"]), traps))
    return out


def pair_lines(part: str, path: Path = PATH) -> list[str]:
    """As ``wattgate cache eval`` reads them: each ordered pair of one family, and each text against each trap."""
    out = []
    for number, family in enumerate(families(path)):
        if family.part != part:
            continue
        rows = [(a, b, True, "paraphrase") for a, b in permutations(family.same, 2)]
        rows += [(text, trap, False, kind) for text in family.same for kind, trap in family.traps]
        for place, (a, b, same, category) in enumerate(rows):
            line = {"id": f"{number}-{place}", "a": a, "b": b, "same_answer": same, "category": category}
            out.append(json.dumps({**line, "language": family.language}, ensure_ascii=False))
    return out


def intents(path: Path = PATH) -> list[tuple[str, list[str]]]:
    """(name, texts) of each intent: the families, and every trap by itself."""
    out: list[tuple[str, list[str]]] = []
    for number, family in enumerate(families(path)):
        out.append((f"family-{number}", list(family.same)))
        out += [(f"family-{number}-{place}", [text]) for place, (_, text) in enumerate(family.traps)]
    return out
