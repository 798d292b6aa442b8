"""Options that say which requests: shared by ``load``, ``plan`` and ``tune``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.output import err
from serving.tuning.arrivals import DAY_SECONDS, ArrivalProcess
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
        typer.Option(
            help="JSONL: conversations (their first question is asked, and no more), or lines of arrival_seconds, "
            "prompt_tokens, output_tokens. Times count from the first."
        ),
    ] = None
    requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Requests to draw (tune: 64, load: 100, plan: 10,000 if not said), or to take of the file (all).",
        ),
    ] = None
    rate: Annotated[
        float | None,
        typer.Option(help="Mean arrivals per second (1 if not said); stretches a file's arrivals."),
    ] = None
    arrivals: Annotated[
        ArrivalsOption | None,
        typer.Option(
            help="How requests arrive: poisson if not said, but a file's own times stay. diurnal begins at the mean "
            "rate and rises; --requests / --rate below --day-seconds are less than a day."
        ),
    ] = None
    prompt_tokens: Annotated[str, typer.Option(help="128, uniform:10-200 or lognormal:MEAN,VARIATION.")]
    output_tokens: Annotated[str, typer.Option(help="As --prompt-tokens.")]
    prefix_tokens: Annotated[int, typer.Option(min=0, help="Common beginning of some prompts.")] = 0
    prefix_ratio: Annotated[float, typer.Option(min=0, max=1, help="Share of those prompts.")] = 0.0
    repeat_ratio: Annotated[float, typer.Option(min=0, max=1, help="Share of requests equal to an earlier one.")] = 0.0
    burstiness: Annotated[float, typer.Option(help="gamma: coefficient of variation of the gaps.")] = 2.0
    day_seconds: Annotated[float, typer.Option(help="diurnal: one period.")] = DAY_SECONDS
    amplitude: Annotated[
        float, typer.Option(min=0, max=1, help="diurnal: the peak is so much of the mean above it, the night below.")
    ] = 0.8
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same requests.")] = 0

    def chosen(self, drawn: int) -> Workload:
        """``drawn``: requests to draw where ``--requests`` says none; of a file that takes all.

        Raises:
            BadInput: a broken file or a value out of its range.
        """
        from serving.tuning.lengths import Lengths
        from serving.tuning.synthetic import Synthetic

        if self.workload is not None:
            return self._of_file(self.workload)
        process = self._process(self.rate)
        synthetic = Synthetic(
            requests=drawn if self.requests is None else self.requests,
            rate_per_second=process.rate_per_second,
            prompt=Lengths.parse(self.prompt_tokens, "--prompt-tokens"),
            output=Lengths.parse(self.output_tokens, "--output-tokens"),
            arrivals=process.arrivals,
            burstiness=process.burstiness,
            day_seconds=process.day_seconds,
            amplitude=process.amplitude,
            prefix_tokens=self.prefix_tokens,
            prefix_ratio=self.prefix_ratio,
            repeat_ratio=self.repeat_ratio,
            seed=self.seed,
        )
        _warn_of_part_of_a_day(process, synthetic.requests)
        return synthetic.workload()

    def _of_file(self, path: Path) -> Workload:
        import numpy as np

        from serving.tuning.workload_file import read_workload

        workload = read_workload(path)
        if self.requests is not None and len(workload) > self.requests:
            err.print(f"took {self.requests} of the {len(workload)} requests in {path}", soft_wrap=True)
            workload = workload.head(self.requests)
        if workload.timed and self.arrivals is None:
            return workload if self.rate is None else workload.at_rate(self.rate)
        process = self._process((workload.rate_per_second or None) if self.rate is None else self.rate)
        if not workload.timed:
            err.print(
                f"{path} says no arrival times: drawn, {process.arrivals}, {process.rate_per_second:g} requests/s",
                soft_wrap=True,
            )
        _warn_of_part_of_a_day(process, len(workload))
        times = process.draw(np.random.default_rng(self.seed), len(workload))
        return workload.arriving(times, f"{process.arrivals}, {process.rate_per_second:g} requests/s, seed {self.seed}")

    def _process(self, rate: float | None) -> ArrivalProcess:
        return ArrivalProcess(
            1.0 if rate is None else rate,
            (self.arrivals or ArrivalsOption.POISSON).value,
            self.burstiness,
            self.day_seconds,
            self.amplitude,
        )


def _warn_of_part_of_a_day(process: ArrivalProcess, count: int) -> None:
    share = process.part_of_a_day(count)
    if share is not None:
        whole = math.ceil(process.rate_per_second * process.day_seconds)
        err.print(
            f"[yellow]note:[/yellow] these {count} requests are the first {share:.2%} of a day of "
            f"{process.day_seconds:g} s, which begins at the mean rate; a whole day is --requests {whole}, or say a "
            "shorter --day-seconds",
            soft_wrap=True,
        )
