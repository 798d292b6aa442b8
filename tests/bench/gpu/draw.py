"""Draws ``results/decode.json``: batch size against grams and gaps between tokens, on a GPU.

python -m tests.bench.gpu.draw
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    matplotlib.use("Agg")
    runs = sorted(json.loads((RESULTS / "decode.json").read_text())["runs"], key=lambda run: run["cap"])
    caps = [run["cap"] for run in runs]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    left.plot(caps, [run["joules_per_output_token"] for run in runs], "o-", color="tab:red")
    left.set(xscale="log", yscale="log", xlabel="cap (sequences in a batch)", ylabel="joules per output token")
    left.set_title("Energy")
    right.plot(caps, [run["output_tokens_per_second"] for run in runs], "o-", color="tab:blue", label="tokens/s")
    right.set(xscale="log", xlabel="cap (sequences in a batch)", ylabel="output tokens/s")
    gaps = right.twinx()
    gaps.plot(caps, [1000 * run["itl_p95_seconds"] for run in runs], "s--", color="tab:gray")
    gaps.set_ylabel("p95 gap between tokens, ms (dashed)")
    right.set_title("Throughput and latency")
    for axes in (left, right):
        axes.set_xticks(caps, [str(cap) for cap in caps])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.suptitle("8B shape in bfloat16, vLLM 0.32 on one H100 SXM; GPU measured (NVML), host modelled")
    figure.tight_layout()
    figure.savefig(RESULTS / "decode.png", dpi=70)


if __name__ == "__main__":
    main()
