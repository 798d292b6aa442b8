"""The controller on the real engine: load steps, a change of mix and of the promise, against static caps.

    python -m tests.bench.tuning.control --out tests/bench/tuning/results

Each way drives the same arrivals through one gateway, its live settings changed in between; judged by windows of five
seconds as the clients saw them. Some twelve minutes on one core. Writes ``control.json`` and ``control.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.config import GatewayConfig
from serving.control_settings import CapControlSettings
from serving.placement.metering_setup import node_hardware
from serving.tuning.bench import start_supervised
from serving.tuning.measure import Drive, measure
from serving.tuning.outcome import Outcome
from serving.tuning.slo import Slo
from serving.tuning.statistics import DevicePeaks, summarise
from tests.bench.tuning.recorded import joined, piece
from tests.bench.tuning.stage import configuration, machine, tell

WINDOW_SECONDS = 5.0
FIRST, TIGHT = ("ttft_p95<=3s", "itl_p95<=400ms"), ("ttft_p95<=3s", "itl_p95<=250ms")
"""The tight one can be kept by a cap of about 8 (``results/live.json``), and not by one of 32."""
PHASES = (
    ("quiet", 0.6, 25, 16, 32, FIRST),
    ("load x4", 2.4, 40, 16, 32, FIRST),
    ("back", 0.6, 25, 16, 32, FIRST),
    ("mix: long prompts, short answers", 1.2, 30, 60, 16, FIRST),
    ("promise tightened", 1.6, 30, 16, 32, TIGHT),
)
"""Name, requests/s, seconds, words of a prompt, tokens of an answer, the promise."""


@dataclass(frozen=True, slots=True)
class Way:
    name: str
    cap: int
    controlled: bool


WAYS = (
    Way("static 8", 8, False),
    Way("controller from 8", 8, True),
    Way("static 16", 16, False),
    Way("static 32, the default", 32, False),
    Way("controller from 32", 32, True),
)


def control(way: Way, promise: Sequence[str]) -> CapControlSettings:
    if not way.controlled:
        return CapControlSettings()
    return CapControlSettings(mode="on", slo=tuple(promise), window_seconds=WINDOW_SECONDS, lowest_cap=2)


def settings(config: GatewayConfig, way: Way, promise: Sequence[str]) -> GatewayConfig:
    admission = config.admission.model_copy(update={"max_concurrency": way.cap})
    return config.model_copy(update={"admission": admission, "control": control(way, promise)})


def bounds() -> list[float]:
    """When each phase begins, and the end."""
    return [0.0, *np.cumsum([phase[2] for phase in PHASES]).tolist()]


def judged(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """By when tokens came: p95 of the time to the first and of the gaps to others, as the promise bounds them."""
    good = [one for one in outcomes if one.error is None and one.first_token_seconds is not None]
    firsts = np.array([one.first_token_seconds for one in good])
    waits = np.array([one.ttft_seconds for one in good])
    gaps = np.concatenate([one.token_gaps_seconds for one in good])
    came = np.concatenate([one.first_token_seconds + np.cumsum(one.token_gaps_seconds) for one in good])
    edges, windows = bounds(), []
    for number in range(int(came.max() // WINDOW_SECONDS) + 1):
        begin = number * WINDOW_SECONDS
        phase = min(int(np.searchsorted(edges, begin, side="right")) - 1, len(PHASES) - 1)
        ttft, itl = (
            float(np.percentile(values, 95)) if values.size else None
            for values in (
                waits[(firsts >= begin) & (firsts < begin + WINDOW_SECONDS)],
                gaps[(came >= begin) & (came < begin + WINDOW_SECONDS)],
            )
        )
        if ttft is None and itl is None:
            continue
        kept = Slo.parse(PHASES[phase][5]).request_met(ttft or 0.0, itl, 0.0)
        windows.append(
            {
                "at_seconds": begin,
                "phase": PHASES[phase][0],
                "ttft": ttft,
                "itl": itl,
                "kept": kept,
            }
        )
    return windows


def recovery(windows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Of each phase: seconds from its begin to the first window from which on all windows of the phase kept the
    promise; None where the last one did not.
    """
    found: dict[str, float | None] = {}
    for (name, *_), begin in zip(PHASES, bounds(), strict=False):
        mine = [window for window in windows if window["phase"] == name]
        broken = [window["at_seconds"] for window in mine if not window["kept"]]
        if not broken:
            found[name] = 0.0
        elif mine[-1]["kept"]:
            found[name] = max(0.0, max(broken) + WINDOW_SECONDS - begin)
        else:
            found[name] = None
    return found


async def driven(gateway: Any, way: Way, workload: Any, seed: int) -> list[Outcome]:
    tight_at = bounds()[len(PHASES) - 1]

    async def tighten() -> None:
        await asyncio.sleep(tight_at)
        await asyncio.to_thread(gateway.apply, settings(gateway.config, way, TIGHT))

    change = asyncio.create_task(tighten()) if way.controlled else None
    _, outcomes = await measure(gateway.url, workload, Drive(use_cache=False, seed=seed))
    if change is not None:
        await change
    return outcomes


def decisions(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/v1/control", timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    config = configuration()
    detected = node_hardware(config).detected
    peak = detected.peak_for("float32") if detected else None
    workload = joined(*(
        piece(rate, seconds, begin, 10 + number, prompt=prompt, output=output)
        for number, ((_, rate, seconds, prompt, output, _), begin) in enumerate(zip(PHASES, bounds(), strict=False))
    ))  # fmt: skip
    document: dict[str, Any] = {"machine": machine(), "phases": PHASES, "window_seconds": WINDOW_SECONDS, "ways": {}}
    gateway: Any = start_supervised(config, tell)
    try:
        warm = joined(piece(2.0, 3, 0, 1, prompt=16, output=16))
        asyncio.run(measure(gateway.url, warm, Drive(use_cache=False, clients=4, seed=5)))
        for number, way in enumerate(WAYS):
            gateway.apply(settings(gateway.config, way, FIRST))
            before = len(decisions(gateway.url))
            outcomes = asyncio.run(driven(gateway, way, workload, seed=300 + number))
            windows = judged(outcomes)
            figures = summarise(outcomes, Slo.parse(FIRST), DevicePeaks(peak.value if peak else None))
            kept = sum(window["kept"] for window in windows) / len(windows)
            document["ways"][way.name] = {
                "windows_kept_ratio": kept,
                "recovery_seconds": recovery(windows),
                "figures": figures,
                "windows": windows,
                "decisions": decisions(gateway.url)[before:],
            }
            tell(f"{way.name}: {kept:.0%} of the windows kept, MFU {figures['mfu_ratio']:.3f}")
            write(document, arguments.out)
    finally:
        gateway.close()


def write(document: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "control.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "control.md").write_text(table(document))


def table(document: dict[str, Any]) -> str:
    names = [phase[0] for phase in PHASES]
    lines = [
        "| way | windows kept | TTFT p95 s | ITL p95 s | MFU | J/token | moves | "
        + " | ".join(f"recovered in: {name}" for name in names)
        + " |",
        "| --- |" + " ---: |" * (6 + len(names)),
    ]
    for name, one in document["ways"].items():
        figures, moves = one["figures"], [line for line in one["decisions"] if line["applied"]]
        back = [one["recovery_seconds"][phase] for phase in names]
        lines.append(
            f"| {name} | {one['windows_kept_ratio']:.0%} | {figures['ttft_p95_seconds']:.2f} | "
            f"{figures['itl_p95_seconds']:.3f} | {figures['mfu_ratio']:.1%} | "
            f"{figures['joules_per_output_token']:.3f} | {len(moves)} | "
            + " | ".join("not" if seconds is None else f"{seconds:.0f} s" for seconds in back)
            + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
