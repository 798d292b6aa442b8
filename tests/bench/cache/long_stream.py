"""Ten thousand requests through ``wattgate cache replay``: ``python -m tests.bench.cache.long_stream [--out DIR]``.

Intents are the families of ``heldout.jsonl`` and ``adversarial.jsonl`` (every trap one of its own) and questions filled
in from ``TEMPLATES``, where each filling is an intent, so that hundreds of neighbours differ in a number, a date, a
name, a direction or a negation alone. Popularity falls as 1/rank^0.7 over five tenants. Four requests in ten are
written in another way: in capitals, without marks, with manners, with a slip of the finger. One in twenty follows a
turn of a conversation, one in fifty says ``no-store``, one in a hundred asks for the answer in another language. The
same seed gives the same stream. The first half's labels calibrate a second run at each budget, as ``--calibration``
does for who exports his own; its second half is what the promise is read on.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from cache.calibration import Calibration, Label, wilson
from cache.replay import Replayed, read_stream
from serving.cache_replay import run_replay
from serving.cache_settings import CacheSettings
from tests.bench.cache import heldout

BUDGETS = (0.01, 0.02, 0.05)
TENANTS = ("red", "green", "blue", "white", "black")
CITIES = ("Lisbon", "Oslo", "Prague", "Dublin", "Athens", "Vienna")
TEMPLATES: tuple[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], ...] = (
    (
        ("Where is my parcel {0}?", "Can you track parcel {0}?", "what's the status of parcel {0}"),
        (("40213", "40231", "42013", "40312", "50213", "40214", "4021", "140213"),),
    ),
    (
        ("How long is the flight from {0} to {1}?", "What's the flight time from {0} to {1}?"),
        (CITIES, CITIES),
    ),
    (
        ("Book a table for {0} on {1} at {2}", "I'd like to reserve a table for {0} on {1} at {2}"),
        (("two", "three", "six"), ("Monday", "Friday"), ("7 pm", "8 pm", "8:30 pm")),
    ),
    (
        ("What changed in version {0} of the {1}?", "What's new in {1} {0}?"),
        (("2.1", "2.10", "2.2", "3.1"), ("SDK", "driver", "firmware")),
    ),
    (
        ("Can {0} see {1} messages?", "Are {0} able to see {1} messages?"),
        (("admins", "guests", "members"), ("deleted", "private", "archived")),
    ),
    (
        ("Quanto custa enviar {0} kg de {1} para {2}?", "Qual é o preço para enviar {0} kg de {1} para {2}?"),
        (("2", "5", "12"), ("Lisboa", "Recife"), ("Porto", "Manaus", "Recife", "Lisboa")),
    ),
    (
        ("¿A qué hora abre la tienda de {0} el {1}?", "¿A qué hora abren la tienda de {0} el {1}?"),
        (("Sevilla", "Bilbao"), ("lunes", "sábado", "domingo")),
    ),
    (
        ("Wie viel kostet ein Zimmer für {0} Nächte im {1}?", "Was kostet ein Zimmer für {0} Nächte im {1}?"),
        (("2", "3", "10"), ("Mai", "Juni", "August")),
    ),
    (
        ("Le magasin de {0} est-il ouvert le {1} ?", "Est-ce que le magasin de {0} est ouvert le {1} ?"),
        (("Nantes", "Lille"), ("lundi", "samedi", "dimanche")),
    ),
)
_MANNERS = ("Hi, {}", "hello! {}", "{} thank you", "Please help: {}")
_OTHER_LANGUAGES = ("Answer in Spanish.", "Please answer in French.", "Reply in German.")


def intents() -> list[tuple[str, list[str]]]:
    """Names and texts. Families of the two files that have a text in common ask the same: they are one intent."""
    out: list[tuple[str, list[str]]] = []
    for name in ("heldout", "adversarial"):
        path = Path(__file__).parent / f"{name}.jsonl"
        out += [(f"{name}-{intent}", texts) for intent, texts in heldout.intents(path)]
    for number, (texts, slots) in enumerate(TEMPLATES):
        for filling in product(*slots):
            if len(set(filling)) == len(filling):  # from Oslo to Oslo is no question
                out.append((f"template-{number}-{'/'.join(filling)}", [text.format(*filling) for text in texts]))
    return joined(out)


def joined(named: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """Each text once, under the first of the names that share one of its family's texts."""
    of_text: dict[str, str] = {}
    families: dict[str, dict[str, str]] = {}
    for name, texts in named:
        keys = {text.casefold().strip(" ?!."): text for text in texts}
        known = [of_text[key] for key in keys if key in of_text]
        into = known[0] if known else name
        family = families.setdefault(into, {})
        for other in {*known} - {into}:
            family |= families.pop(other)
        family |= {key: text for key, text in keys.items() if key not in family}
        of_text |= dict.fromkeys(family, into)
    return [(name, list(family.values())) for name, family in families.items()]


def written_otherwise(text: str, rng: random.Random) -> str:
    """As another person types it, or in another moment; never another meaning."""
    choice = rng.randrange(5)
    if choice == 0:
        return text.upper() if rng.random() < 0.3 else text.lower()
    if choice == 1:
        return text.rstrip("?.! ")
    if choice == 2 and text.isascii():
        return rng.choice(_MANNERS).format(text)
    if choice == 3:
        words = text.split(" ")
        long = [place for place, word in enumerate(words) if len(word) >= 7 and word.isalpha() and word.islower()]
        if long:
            place, at = rng.choice(long), rng.randrange(2, 5)
            word = words[place]
            words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            return " ".join(words)
    return f"  {text} "


def lines(count: int, seed: int) -> list[str]:
    """As ``wattgate cache replay`` reads them."""
    rng = random.Random(seed)
    known = intents()
    rng.shuffle(known)
    weights = [1.0 / (rank + 1) ** 0.7 for rank in range(len(known))]
    out = []
    for number, (name, texts) in enumerate(rng.choices(known, weights, k=count)):
        text = rng.choice(texts)
        if rng.random() < 0.4:
            text = written_otherwise(text, rng)
        intent = name
        if rng.random() < 0.01:
            asked = rng.choice(_OTHER_LANGUAGES)
            text, intent = f"{text} {asked}", f"{name} {asked.split()[-1]}"
        messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
        if rng.random() < 0.05:
            topic = rng.choice(("my first order", "the other account"))
            history = [{"role": "user", "content": f"This is about {topic}."}, {"role": "assistant", "content": "OK."}]
            messages, intent = history + messages, f"{intent} ({topic})"
        line = {"id": f"r{number}", "t": 1.7e9 + number * 3.0, "tenant": rng.choice(TENANTS)}
        line |= {"messages": messages, "intent_id": intent}
        if rng.random() < 0.02:
            line["no_cache"] = True
        out.append(json.dumps(line, ensure_ascii=False))
    return out


def by_command(path: Path, max_wrong: float, *more: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(what ``--json`` printed, decisions)."""
    with tempfile.TemporaryDirectory() as folder:
        decisions = Path(folder) / "decisions.jsonl"
        command = [str(Path(sys.executable).parent / "wattgate"), "cache", "replay", str(path)]
        command += ["--max-wrong", str(max_wrong), "--json", "--decisions", str(decisions), *more]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return json.loads(printed), [json.loads(line) for line in decisions.read_text("utf-8").splitlines()]


def labels_of(results: list[Replayed]) -> tuple[Label, ...]:
    return tuple(label for result in results if (label := result.label) is not None)


def second_half(stream: list[str], decisions: list[dict[str, Any]]) -> dict[str, Any]:
    """Wrong of semantic answers and of all, in the second half."""
    intent = {json.loads(line)["id"]: json.loads(line)["intent_id"] for line in stream}
    half = decisions[len(decisions) // 2 :]
    out: dict[str, Any] = {"requests": len(half)}
    for name in ("semantic", "all"):
        hits = [each for each in half if each["hit"] and name in (each["why"], "all")]
        wrong = sum(intent[each["id"]] != intent[each["source"]] for each in hits)
        low, high = wilson(wrong, len(hits))
        out[name] = {"hits": len(hits), "wrong": wrong, "wilson": [low, high]}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS)
    parser.add_argument("--shipped", action="store_true", help="without the second run, on the first half's labels")
    arguments = parser.parse_args()
    stream = lines(arguments.lines, arguments.seed)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path, calibration = Path(folder) / "stream.jsonl", Path(folder) / "labels.json"
        path.write_text("\n".join(stream) + "\n", "utf-8")
        # as a gateway labels: of what the shipped calibration served, and of the misses that a neighbour came near to
        labels: tuple[Label, ...] = ()
        kinds: list[tuple[str, tuple[str, ...]]] = [("shipped", ())]
        if not arguments.shipped:
            seen, _, _ = run_replay(read_stream(stream[: len(stream) // 2]), CacheSettings(tier="semantic"))
            labels = labels_of(seen)
            kinds.append(("first half", ("--calibration", str(calibration))))
        calibration.write_text(json.dumps(Calibration(labels, "first half of the stream", True).as_dict()), "utf-8")
        for budget in arguments.budgets:
            for name, more in kinds:
                printed, decisions = by_command(path, budget, *more)
                printed.pop("curve")
                rows.append({"calibration_from": name, **printed, "second_half": second_half(stream, decisions)})
                print(json.dumps(rows[-1]["second_half"]), flush=True)
    result = {"lines": arguments.lines, "seed": arguments.seed, "labels": len(labels), "rows": rows}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "long_stream.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    (arguments.out / "long_stream.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    out = [
        f"# {result['lines']} requests through `wattgate cache replay`",
        "",
        "Written by `python -m tests.bench.cache.long_stream`; its docstring says what the stream is made of. "
        f"{result['labels']} labels from the first half. The machine had other work meanwhile.",
        "",
        "| calibration | max_wrong | threshold | hit rate | wrong of hits | semantic hits, second half | wrong of them "
        "| Wilson 95 % | kept | no-store, tenant violations | lookups/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        semantic = row["second_half"]["semantic"]
        low, high = semantic["wilson"]
        kept = "yes" if low <= row["max_wrong"] else "no"
        share = semantic["wrong"] / semantic["hits"] if semantic["hits"] else 0.0
        out.append(
            f"| {row['calibration_from']} | {row['max_wrong']} | {row['calibration']['threshold']:.3f} | "
            f"{row['hit_rate']:.1%} | {row['wrong_of_hits']:.2%} | {semantic['hits']} | "
            f"{semantic['wrong']} ({share:.2%}) | {low:.2%} to {high:.2%} | {kept} | "
            f"{row['no_cache_violations']}, {row['tenant_violations']} | {row['lookups_per_second']:.0f} |"
        )
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    main()
