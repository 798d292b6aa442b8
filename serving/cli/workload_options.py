"""Options that say which requests: shared by ``load``, ``plan`` and ``tune``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.output import err
from serving.tuning.workload import Workload


class ArrivalsOption(StrEnum):
    POISSON = "poisson"
    GAMMA = "gamma"
    DIURNAL = "diurnal"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadOptions:
    """To be ``spread`` into a command's signature."""

    workload: Annotated[
        Path | None,
        typer.Option(help="JSONL: conversations, or lines of arrival_seconds, prompt_tokens, output_tokens."),
    ] = None
    requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Requests to draw (tune: 64, load: 100, plan: 10,000 if not said), or to take of the file (all).",
        ),
    ] = None
    rate: Annotated[float | None, typer.Option(help="Mean arrivals per second; stretches a file's arrivals.")] = None
    arrivals: Annotated[ArrivalsOption, typer.Option(help="How requests arrive.")] = ArrivalsOption.POISSON
    prompt_tokens: Annotated[str, typer.Option(help="128, uniform:10-200 or lognormal:MEAN,VARIATION.")]
    output_tokens: Annotated[str, typer.Option(help="As --prompt-tokens.")]
    prefix_tokens: Annotated[int, typer.Option(min=0, help="Common beginning of some prompts.")] = 0
    prefix_ratio: Annotated[float, typer.Option(min=0, max=1, help="Share of those prompts.")] = 0.0
    repeat_ratio: Annotated[float, typer.Option(min=0, max=1, help="Share of requests equal to an earlier one.")] = 0.0
    burstiness: Annotated[float, typer.Option(help="gamma: coefficient of variation of the gaps.")] = 2.0
    day_seconds: Annotated[float, typer.Option(help="diurnal: one period.")] = 86_400.0
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same requests.")] = 0

    def chosen(self, drawn: int) -> Workload:
        """``drawn``: requests to draw where ``--requests`` says none; of a file that takes all.

        Raises:
            BadInput: a broken file or a value out of its range.
        """
        from serving.tuning.lengths import Lengths
        from serving.tuning.synthetic import Synthetic
        from serving.tuning.workload_file import read_workload

        if self.workload is not None:
            workload = read_workload(self.workload)
            if self.requests is not None and len(workload) > self.requests:
                err.print(f"took {self.requests} of the {len(workload)} requests in {self.workload}", soft_wrap=True)
                workload = workload.head(self.requests)
            return workload if self.rate is None else workload.at_rate(self.rate)
        return Synthetic(
            requests=drawn if self.requests is None else self.requests,
            rate_per_second=1.0 if self.rate is None else self.rate,
            prompt=Lengths.parse(self.prompt_tokens, "--prompt-tokens"),
            output=Lengths.parse(self.output_tokens, "--output-tokens"),
            arrivals=self.arrivals.value,
            burstiness=self.burstiness,
            day_seconds=self.day_seconds,
            prefix_tokens=self.prefix_tokens,
            prefix_ratio=self.prefix_ratio,
            repeat_ratio=self.repeat_ratio,
            seed=self.seed,
        ).workload()
