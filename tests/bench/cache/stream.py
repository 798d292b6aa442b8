"""A stream with labels, replayed: ``python -m tests.bench.cache.stream [--out DIR] [--requests N]``.

The stream is drawn from the pairs of the package ``fow-cache`` (Mabon ap Gwyn, CC BY 4.0). Texts joined by pairs that
one answer fits are one intent; popularity falls with the rank as 1/rank (Zipf), 3 tenants, one request in fifty with
``no-store``. Its first half calibrates, its second half is reported: wrong semantic answers over semantic answers
served, with the Wilson interval, which is what ``max_wrong`` promises. Nothing is trained on these texts.
"""

from __future__ import annotations

import argparse
import json
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cache.calibration import Calibration
from cache.replay import Recorded, Replayed, report
from serving.cache_replay import run_replay
from serving.cache_settings import CacheSettings

BUDGETS = (0.01, 0.02, 0.05)
TENANTS = ("red", "green", "blue")


def intents() -> list[tuple[str, list[str]]]:
    """(name, texts) of each intent."""
    spec = find_spec("fow_cache")
    if spec is None or spec.origin is None:
        raise SystemExit("error: package fow-cache is not installed; run `make install`")
    lines = (Path(spec.origin).parent / "data" / "pairs.jsonl").read_text("utf-8").splitlines()
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        parent.setdefault(text, text)
        while parent[text] != text:
            text = parent[text]
        return text

    for line in lines:
        pair = json.loads(line)
        a, b = root(pair["a"]), root(pair["b"])
        if pair["same_answer"]:
            parent[a] = b
    groups: dict[str, list[str]] = {}
    for text in parent:
        groups.setdefault(root(text), []).append(text)
    return [(f"intent-{number}", texts) for number, (_, texts) in enumerate(sorted(groups.items()))]


def draw(count: int, seed: int) -> list[Recorded]:
    rng = random.Random(seed)
    known = intents()
    rng.shuffle(known)
    weights = [1.0 / (rank + 1) ** 0.7 for rank in range(len(known))]
    out = []
    for number, (name, texts) in enumerate(rng.choices(known, weights, k=count)):
        messages: list[Any] = [{"role": "user", "content": rng.choice(texts)}]
        tenant, no_cache = rng.choice(TENANTS), rng.random() < 0.02
        out.append(Recorded(f"r{number}", float(number), tenant, messages, name, no_cache))
    return out


def experiment(count: int, seed: int, folder: Path) -> dict[str, Any]:
    stream = draw(count, seed)
    half = count // 2
    # serving everything that no guard refuses shows labels over the whole range of scores, as shadowing misses does
    open_settings = CacheSettings(tier="semantic", policy="threshold", score_threshold=0.0)
    seen, _, _ = run_replay(stream[:half], open_settings)
    labels = tuple(label for result in seen if (label := result.label) is not None)
    path = folder / "stream-labels.json"
    path.write_text(json.dumps(Calibration(labels, "first half of the stream", True).as_dict()), "utf-8")
    rows = []
    for budget in BUDGETS:
        for name, calibration in (("shipped", None), ("first half", path)):
            settings = CacheSettings(tier="semantic", max_wrong=budget, calibration=calibration)
            results, seconds, calibrated = run_replay(stream, settings)
            rows.append(_row(name, budget, calibrated["threshold"], results[half:], seconds * half / count))
    path.unlink()
    return {"requests": count, "seed": seed, "labels": len(labels), "rows": rows}


def _row(name: str, budget: float, threshold: float, results: list[Replayed], seconds: float) -> dict[str, Any]:
    figures = report(results, seconds)
    return {
        "calibration": name,
        "max_wrong": budget,
        "threshold": threshold,
        "hit_rate": figures["hit_rate"],
        "semantic": figures["semantic"],
        "kept": figures["semantic"]["wilson"][0] <= budget,
        "no_cache_violations": figures["no_cache_violations"],
        "tenant_violations": figures["tenant_violations"],
        "lookups_per_second": figures["lookups_per_second"],
    }


def markdown(result: dict[str, Any]) -> str:
    out = [
        f"Stream of {result['requests']} requests drawn from fow-cache; second half reported, "
        f"{result['labels']} labels "
        "from the first half. The machine was shared: rates of lookups are lower bounds.",
        "",
        "| calibration | max_wrong | threshold | hit rate | semantic hits | wrong of them | Wilson 95 % | kept |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        semantic = row["semantic"]
        low, high = semantic["wilson"]
        out.append(
            f"| {row['calibration']} | {row['max_wrong']} | {row['threshold']:.3f} | {row['hit_rate']:.1%} | "
            f"{semantic['hits']} | {semantic['wrong']} ({semantic['wrong_of_hits']:.2%}) | {low:.2%} to {high:.2%} | "
            f"{'yes' if row['kept'] else 'no'} |"
        )
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    result = experiment(arguments.requests, arguments.seed, arguments.out)
    (arguments.out / "stream.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    (arguments.out / "stream.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


if __name__ == "__main__":
    main()
