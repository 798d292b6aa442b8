"""The judge on labelled pairs it never saw: ``python -m tests.bench.cache.judgement [--out DIR]``.

Runs the 600 pairs and the conversation set of the package ``fow-cache`` (Mabon ap Gwyn, CC BY 4.0) through the code
that serves, beside three rules of others on the same pairs and the same encoder (bundled MiniLM, int8):

- cosine 0.90, what people set by hand;
- RedisVL's ``SemanticCache`` default, cosine distance <= 0.1: with one and the same encoder it is cosine 0.90 again
  (its own default encoder is another one, which does not travel as a package);
- GPTCache's defaults: ``SearchDistanceEvaluation`` (4 - squared L2 distance) at similarity_threshold 0.8, that is a
  squared distance of at most 0.8, on unit vectors cosine >= 0.6; and only the last message is looked at.

Nothing is trained or calibrated on these pairs. ``heldout.jsonl`` and ``adversarial.jsonl`` were written for
this bench (see ``heldout.py``).
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from cache.calibration import Calibrator, shipped_calibration
from cache.embedders import ThreadedEmbedder, load_encoder
from cache.evaluate import Decision, LabelledPair, evaluate, rate, read_pairs, report
from cache.judge import ConformalPolicy, GuardedJudge
from cache.judgement import Neighbour
from cache.language.analysis import analyse
from tests.bench.cache import heldout

BUDGETS = (0.01, 0.02, 0.05, 0.1)
COSINE_RULES = {"cosine 0.90": 0.90, "RedisVL default (distance 0.1)": 0.90, "GPTCache default": 0.60}


def fow_cache() -> tuple[list[str], list[str]]:
    """(lines of the pairs, lines of the conversations)."""
    spec = find_spec("fow_cache")
    if spec is None or spec.origin is None:
        raise SystemExit("error: package fow-cache is not installed; run `make install`")
    data = Path(spec.origin).parent / "data"
    pairs = (data / "pairs.jsonl").read_text("utf-8").splitlines()
    conversations = []
    for path in sorted(data.glob("conv-*/*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            item = json.loads(line)
            conversations.append(json.dumps({**item, "category": item["subtype"]}))
    return pairs, conversations


def last_text(messages: list[dict[str, Any]]) -> str:
    return str(messages[-1]["content"])


def cosine_rules(pairs: list[LabelledPair], encoder: ThreadedEmbedder) -> tuple[dict[str, Any], list[float]]:
    """Reports of the rules of others, which look at the last message alone, and the cosines."""
    texts = sorted({last_text(side) for pair in pairs for side in (pair.a, pair.b)})
    vectors = dict(zip(texts, encoder.encode_now(texts), strict=True))
    cosines = []
    for pair in pairs:
        a, b = vectors[last_text(pair.a)], vectors[last_text(pair.b)]
        cosines.append(float(np.dot(a, b)) if a is not None and b is not None else 0.0)
    rules = {
        name: report(
            [
                Decision(pair.id, cosine >= least, cosine, "cosine", pair.same_answer, pair.category)
                for pair, cosine in zip(pairs, cosines, strict=True)
            ]
        )
        for name, least in COSINE_RULES.items()
    }
    return rules, cosines


def curve(scores: np.ndarray, right: np.ndarray) -> tuple[list[float], list[float]]:
    """(wrong of traps, hits of should-hit) at every threshold; a score of 0 is never served."""
    levels = np.unique(scores[scores > 0])[::-1]
    return (
        [float((scores[~right] >= level).mean()) for level in levels],
        [float((scores[right] >= level).mean()) for level in levels],
    )


def draw_curve(path: Path, ours: np.ndarray, cosine: np.ndarray, right: np.ndarray, chosen: dict[float, Any]) -> None:
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for scores, name in ((ours, "guards and score"), (cosine, "cosine alone")):
        axes.plot(*curve(scores, right), label=name)
    for budget, result in chosen.items():
        axes.plot(result["wrong"]["rate"], result["hits"]["rate"], "o", color="tab:blue")
        axes.annotate(
            f"max_wrong {budget}",
            (result["wrong"]["rate"], result["hits"]["rate"]),
            textcoords="offset points",
            xytext=(6, -10),
        )
    for name, least in COSINE_RULES.items():
        axes.plot((cosine[~right] >= least).mean(), (cosine[right] >= least).mean(), "x", label=name)
    axes.axvline(0.05, color="grey", linestyle=":", linewidth=1)
    axes.set(
        xlabel="wrong: share of traps served",
        ylabel="hits: share of should-hit pairs served",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.set_title("fow-cache, 600 pairs, none of them trained on")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_reliability(path: Path, ours: np.ndarray, right: np.ndarray, whys: list[str]) -> list[dict[str, float]]:
    judged = np.array([why in ("served", "score") for why in whys])
    scores, good = ours[judged], right[judged]
    edges = np.linspace(0, 1, 11)
    bins = []
    for low, high in pairwise(edges):
        inside = (scores >= low) & ((scores < high) | (high == 1))
        if inside.any():
            bins.append(
                {"score": float(scores[inside].mean()), "right": float(good[inside].mean()), "pairs": int(inside.sum())}
            )
    figure, axes = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.plot([b["score"] for b in bins], [b["right"] for b in bins], "o-")
    for b in bins:
        axes.annotate(
            str(b["pairs"]), (b["score"], b["right"]), textcoords="offset points", xytext=(5, -12), fontsize=8
        )
    axes.set(xlabel="score", ylabel="share of pairs that one answer fits", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Reliability on fow-cache (pairs that no guard refused)")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return bins


def timings(pairs: list[LabelledPair], judge: GuardedJudge) -> dict[str, float]:
    """Processor milliseconds of guards and score a neighbour: asked text new, neighbours seen before or new."""
    texts = [(last_text(pair.a), last_text(pair.b)) for pair in pairs]
    out = {}
    for name, known in (("neighbour_known_ms", True), ("neighbour_new_ms", False)):
        analyse.cache_clear()
        if known:
            for stored, _ in texts:
                analyse(stored)
        taken = []
        for stored, asked in texts:
            start = time.thread_time()
            judge.decide(asked, [Neighbour(stored, 0.9)])
            taken.append((time.thread_time() - start) * 1000)
        out[f"{name}_p50"], out[f"{name}_p99"] = (round(float(np.percentile(taken, q)), 3) for q in (50, 99))
    return out


def encoder_timings(texts: list[str]) -> dict[str, dict[str, float]]:
    out = {}
    for name in ("minilm-int8", "minilm-fp32"):
        encoder = load_encoder(name)
        encoder.encode(texts[:5])
        taken = []
        for text in texts:
            start = time.thread_time()
            encoder.encode([text])
            taken.append((time.thread_time() - start) * 1000)
        out[encoder.id] = {f"p{q}_ms": round(float(np.percentile(taken, q)), 2) for q in (50, 99)}
    return out


def table(result: dict[str, Any]) -> str:
    def row(name: str, part: dict[str, Any]) -> str:
        cells = []
        for key in ("hits", "wrong", "wrong_of_served"):
            figure = part[key]
            low, high = figure["wilson"]
            cells.append("-" if figure["rate"] is None else f"{figure['rate']:.1%} ({low:.1%} to {high:.1%})")
        return f"| {name} | " + " | ".join(cells) + " |"

    lines = [
        "# The judge beside others' rules",
        "",
        "Written by `python -m tests.bench.cache.judgement`; its docstring says what each rule is.",
        "",
    ]
    for name, dataset in (
        ("fow-cache: 600 question pairs", "pairs"),
        ("fow-cache: conversations", "conversations"),
        ("heldout.jsonl, families whose mistakes were looked at", "heldout_seen"),
        ("heldout.jsonl, families kept apart", "heldout_unseen"),
        ("adversarial.jsonl, families whose mistakes were looked at", "adversarial_second"),
        (
            "adversarial.jsonl, families never looked at; the training data has had others of their kind since",
            "adversarial_third",
        ),
        ("adversarial.jsonl, written last, before the last few mends", "adversarial_fresh"),
    ):
        lines += [
            f"## {name}",
            "",
            "| rule | hits of should-hit | wrong of traps | wrong of served |",
            "| --- | --- | --- | --- |",
        ]
        lines += [row(f"wattgate, max_wrong {budget}", part) for budget, part in result[dataset]["wattgate"].items()]
        lines += [row(rule, part) for rule, part in result[dataset]["others"].items()]
        lines.append("")
    lines += ["## By category, max_wrong 0.05", "", "| set | category | hits | wrong |", "| --- | --- | --- | --- |"]
    for dataset in ("pairs", "conversations", "heldout_unseen", "adversarial_second", "adversarial_fresh"):
        for name, part in result[dataset]["wattgate"]["0.05"]["categories"].items():
            cells = ("-" if part[key]["rate"] is None else f"{part[key]['rate']:.1%}" for key in ("hits", "wrong"))
            lines.append(f"| {dataset} | {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Guards and score, processor milliseconds a neighbour: {json.dumps(result['timings'])}",
        "",
        f"Encoders, one thread, one text, processor time: {json.dumps(result['encoders'])}",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    service = ThreadedEmbedder(load_encoder())
    shipped = shipped_calibration()
    result: dict[str, Any] = {"encoder": service.id, "calibration": shipped.note}
    fow_pairs, fow_conversations = fow_cache()
    sources = {
        "pairs": fow_pairs,
        "conversations": fow_conversations,
        "heldout_seen": heldout.pair_lines("seen"),
        "heldout_unseen": heldout.pair_lines("unseen"),
        **{
            f"adversarial_{part}": heldout.pair_lines(part, heldout.ADVERSARIAL)
            for part in ("second", "third", "fresh")
        },
    }
    for name, lines in sources.items():
        pairs = read_pairs(lines)
        ours, decisions = {}, {}
        for budget in BUDGETS:
            judge = GuardedJudge(ConformalPolicy(Calibrator(shipped, budget)))
            decisions[budget] = evaluate(pairs, judge, service)
            ours[str(budget)] = report(decisions[budget])
        others, cosines = cosine_rules(pairs, service)
        result[name] = {"wattgate": ours, "others": others}
        if name == "pairs":
            right = np.array([pair.same_answer for pair in pairs])
            scores = np.array([decision.score for decision in decisions[0.05]])
            chosen = {budget: ours[str(budget)] for budget in BUDGETS}
            draw_curve(out / "hit_wrong_curve.png", scores, np.array(cosines), right, chosen)
            result["reliability"] = draw_reliability(
                out / "reliability.png", scores, right, [d.why for d in decisions[0.05]]
            )
            wrong, hits = curve(scores, right)
            result["best_hits_at_wrong_of_traps"] = {
                str(budget): max((hit for bad, hit in zip(wrong, hits, strict=True) if bad <= budget), default=0.0)
                for budget in BUDGETS
            }
            result["timings"] = timings(pairs, judge)
            result["encoders"] = encoder_timings([last_text(pair.a) for pair in pairs[:100]])
            admitted = [d for d in decisions[0.05] if not d.why.startswith("admission")]
            kept = [d for d in admitted if d.same_answer]
            result["hits_of_admitted"] = rate(sum(d.hit for d in kept), len(kept))
    service.close()
    (out / "judgement.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (out / "judgement.md").write_text(table(result), "utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
