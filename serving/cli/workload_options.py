"""Options that say which requests: shared by ``load``, ``plan`` and ``tune``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from serving.tuning.workload import Workload


class ArrivalsOption(StrEnum):
    POISSON = "poisson"
    GAMMA = "gamma"
    DIURNAL = "diurnal"


FileOption = Annotated[
    Path | None,
    typer.Option("--workload", help="JSONL: conversations, or lines of arrival_seconds, prompt_tokens, output_tokens."),
]
RequestsOption = Annotated[int, typer.Option("--requests", min=1, help="Requests to draw, or to take of the file.")]
RateOption = Annotated[
    float | None, typer.Option("--rate", help="Mean arrivals per second; stretches a file's arrivals.")
]
ArrivalsChoice = Annotated[ArrivalsOption, typer.Option("--arrivals", help="How requests arrive.")]
PromptOption = Annotated[str, typer.Option("--prompt-tokens", help="128, uniform:10-200 or lognormal:MEAN,VARIATION.")]
OutputOption = Annotated[str, typer.Option("--output-tokens", help="As --prompt-tokens.")]
PrefixOption = Annotated[int, typer.Option("--prefix-tokens", min=0, help="Common beginning of some prompts.")]
PrefixRatioOption = Annotated[float, typer.Option("--prefix-ratio", min=0, max=1, help="Share of those prompts.")]
RepeatOption = Annotated[
    float, typer.Option("--repeat-ratio", min=0, max=1, help="Share of requests equal to an earlier one.")
]
BurstOption = Annotated[float, typer.Option("--burstiness", help="gamma: coefficient of variation of the gaps.")]
DayOption = Annotated[float, typer.Option("--day-seconds", help="diurnal: one period.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Same seed, same requests.")]


def chosen_workload(
    file: Path | None,
    requests: int,
    rate: float | None,
    arrivals: ArrivalsOption,
    prompt: str,
    output: str,
    prefix_tokens: int,
    prefix_ratio: float,
    repeat_ratio: float,
    burstiness: float,
    day_seconds: float,
    seed: int,
) -> Workload:
    """
    Raises:
        BadInput: a broken file or a value out of its range.
    """
    from serving.tuning.lengths import Lengths
    from serving.tuning.synthetic import Synthetic
    from serving.tuning.workload_file import read_workload

    if file is not None:
        workload = read_workload(file)
        if len(workload) > requests:
            workload = workload.head(requests)
        return workload if rate is None else workload.at_rate(rate)
    return Synthetic(
        requests=requests,
        rate_per_second=1.0 if rate is None else rate,
        prompt=Lengths.parse(prompt, "--prompt-tokens"),
        output=Lengths.parse(output, "--output-tokens"),
        arrivals=arrivals.value,
        burstiness=burstiness,
        day_seconds=day_seconds,
        prefix_tokens=prefix_tokens,
        prefix_ratio=prefix_ratio,
        repeat_ratio=repeat_ratio,
        seed=seed,
    ).workload()
