"""Streams with labels, replayed: ``python -m tests.bench.cache.stream [--out DIR] [--requests N]``.

One is drawn from the pairs of the package ``fow-cache`` (Mabon ap Gwyn, CC BY 4.0), texts joined by pairs that one
answer fits being one intent; answers served across families that no pair compares ("flight ticket" for "plane ticket")
are counted apart, since nobody has labelled them. The other is drawn from the questions of ``heldout.jsonl``. In both
every trap is an intent of its own, so near duplicates that want different answers compete for each other's; popularity
falls with the rank as 1/rank^0.7, 3 tenants, one request in fifty with ``no-store``. The first half calibrates, the
second half is reported: wrong semantic answers over semantic answers served, with the Wilson interval, which is what
``max_wrong`` promises. Nothing is trained on these texts.
"""

from __future__ import annotations

import argparse
import json
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from cache.calibration import Calibration
from cache.replay import Recorded, Replayed, report
from serving.cache_replay import run_replay
from serving.cache_settings import CacheSettings
from tests.bench.cache import heldout

BUDGETS = (0.01, 0.02, 0.05)
TENANTS = ("red", "green", "blue")


def fow_cache_intents() -> list[tuple[str, list[str]]]:
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
    group_of = {text: name for name, texts in groups.items() for text in texts}
    family = {name: name for name in groups}

    def head(name: str) -> str:
        while family[name] != name:
            name = family[name]
        return name

    for line in lines:
        pair = json.loads(line)
        family[head(group_of[pair["a"]])] = head(group_of[pair["b"]])
    return [(f"{head(name)}{_INTENT}{name}", texts) for name, texts in sorted(groups.items())]


_INTENT = " // "


def _unlabelled(result: Replayed) -> bool:
    """Judged against a text of another family of ``fow-cache``: no pair of it says whether one answer fits both."""
    if result.nearest is None or _INTENT not in result.request.intent_id:
        return False
    ours, theirs = (each.intent_id.partition(_INTENT)[0] for each in (result.request, result.nearest))
    return ours != theirs


Intents = list[tuple[str, list[str]]]


def draw(known: Intents, count: int, seed: int) -> list[Recorded]:
    rng = random.Random(seed)
    known = list(known)
    rng.shuffle(known)
    weights = [1.0 / (rank + 1) ** 0.7 for rank in range(len(known))]
    out = []
    for number, (name, texts) in enumerate(rng.choices(known, weights, k=count)):
        messages: list[Any] = [{"role": "user", "content": rng.choice(texts)}]
        tenant, no_cache = rng.choice(TENANTS), rng.random() < 0.02
        out.append(Recorded(f"r{number}", float(number), tenant, messages, name, no_cache))
    return out


def experiment(known: Intents, count: int, seed: int, folder: Path) -> dict[str, Any]:
    stream = draw(known, count, seed)
    half = count // 2
    # as a gateway labels: of what the shipped calibration served, and of the misses that a neighbour came near to
    seen, _, _ = run_replay(stream[:half], CacheSettings(tier="semantic"))
    labels = tuple(label for result in seen if not _unlabelled(result) and (label := result.label) is not None)
    path = folder / "stream-labels.json"
    path.write_text(json.dumps(Calibration(labels, "first half of the stream", True).as_dict()), "utf-8")
    rows = []
    curves: dict[str, list[dict[str, float]]] = {}
    for budget in BUDGETS:
        for name, calibration in (("shipped", None), ("first half", path)):
            settings = CacheSettings(tier="semantic", max_wrong=budget, calibration=calibration)
            results, seconds, calibrated = run_replay(stream, settings)
            rows.append(_row(name, budget, calibrated["threshold"], results[half:], seconds * half / count))
            curves[name] = semantic_curve(results[half:])
    path.unlink()
    return {"requests": count, "seed": seed, "labels": len(labels), "rows": rows, "curve": curves["shipped"]}


def semantic_curve(results: list[Replayed]) -> list[dict[str, float]]:
    """What other thresholds of the score would have served of the same judgements; the cache's state is this run's."""
    labels = [label for result in results if not _unlabelled(result) and (label := result.label) is not None]
    points = []
    for step in range(101):
        served = [label.right for label in labels if label.score > step / 100]
        wrong = sum(not right for right in served) / len(served) if served else 0.0
        points.append({"threshold": step / 100, "semantic_hits": len(served) / len(results), "wrong_of_served": wrong})
    return points


def draw_curves(path: Path, parts: dict[str, dict[str, Any]]) -> None:
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for (name, part), colour in zip(parts.items(), ("tab:blue", "tab:orange"), strict=True):
        points = [point for point in part["curve"] if point["semantic_hits"] > 0]
        axes.plot(
            [point["wrong_of_served"] for point in points],
            [point["semantic_hits"] for point in points],
            color=colour,
            label=name,
        )
        for row in part["rows"]:
            semantic = row["semantic"]
            axes.plot(
                semantic["wrong_of_hits"],
                semantic["hits"] / (part["requests"] - part["requests"] // 2),
                "o" if row["calibration"] == "shipped" else "s",
                color=colour,
                fillstyle="none",
            )
            axes.annotate(str(row["max_wrong"]), (semantic["wrong_of_hits"], semantic["hits"] / (part["requests"] / 2)))
    axes.set(xlabel="wrong of semantic answers served", ylabel="semantic hits, share of all requests")
    axes.set_title("Second half of a stream; o: shipped calibration, square: first half's labels")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _row(name: str, budget: float, threshold: float, results: list[Replayed], seconds: float) -> dict[str, Any]:
    known = [result for result in results if not (result.semantic and _unlabelled(result))]
    figures = report(known, seconds)
    return {
        "calibration": name,
        "max_wrong": budget,
        "threshold": threshold,
        "hit_rate": figures["hit_rate"],
        "semantic": figures["semantic"],
        "semantic_unlabelled": len(results) - len(known),
        "kept": figures["semantic"]["wilson"][0] <= budget,
        "no_cache_violations": figures["no_cache_violations"],
        "tenant_violations": figures["tenant_violations"],
        "lookups_per_second": figures["lookups_per_second"],
    }


def markdown(name: str, result: dict[str, Any]) -> str:
    out = [
        f"## {name}",
        "",
        f"{result['requests']} requests; second half reported, {result['labels']} labels from the first half.",
        "",
        "| calibration | max_wrong | threshold | hit rate | semantic hits | wrong of them | Wilson 95 % | kept "
        "| unlabelled |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        semantic = row["semantic"]
        low, high = semantic["wilson"]
        out.append(
            f"| {row['calibration']} | {row['max_wrong']} | {row['threshold']:.3f} | {row['hit_rate']:.1%} | "
            f"{semantic['hits']} | {semantic['wrong']} ({semantic['wrong_of_hits']:.2%}) | {low:.2%} to {high:.2%} | "
            f"{'yes' if row['kept'] else 'no'} | {row['semantic_unlabelled']} |"
        )
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--requests", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    parts = {
        name: experiment(known, arguments.requests, arguments.seed, arguments.out)
        for name, known in (("fow-cache", fow_cache_intents()), ("held-out questions", heldout.intents()))
    }
    text = "# Streams, replayed\n\nWritten by `python -m tests.bench.cache.stream`.\n\n"
    text += "\n".join(markdown(name, part) for name, part in parts.items())
    draw_curves(arguments.out / "stream_curve.png", parts)
    (arguments.out / "stream.json").write_text(json.dumps(parts, indent=2) + "\n", "utf-8")
    (arguments.out / "stream.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
