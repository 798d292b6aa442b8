"""``wattgate load``: put a workload to a running gateway and say what came of it."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Annotated

import typer

from serving.cli.figures import bad_input_exits, print_figures
from serving.cli.option_groups import spread
from serving.cli.output import bar, fail
from serving.cli.workload_options import WorkloadOptions

_DRAWN_REQUESTS = 100
_WORKLOAD = WorkloadOptions(prompt_tokens="lognormal:128,0.6", output_tokens="lognormal:64,0.6")


@spread
def load(
    url: Annotated[str, typer.Option(help="Address of the gateway.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="Served model; the first one if not said.")] = None,
    clients: Annotated[
        int | None, typer.Option(min=1, help="Closed loop: so many clients, each waiting for its answer.")
    ] = None,
    slo: Annotated[
        list[str] | None,
        typer.Option(
            help="Bound, as ttft_p95<=500ms; may be repeated. itl is of the gaps between tokens: of all answers' for "
            "the run, of each answer's own for the goodput."
        ),
    ] = None,
    warm_up: Annotated[int, typer.Option(min=0, help="Requests before, not counted.")] = 0,
    peak_flops: Annotated[
        str | None,
        typer.Option(help="Peak of what the engine runs on, as 100TFLOP/s: the MFU over it."),
    ] = None,
    natural: Annotated[
        bool, typer.Option("--natural", help="Answers end by themselves; default: at their exact length.")
    ] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Ask the gateway's response cache nothing.")] = False,
    workload: WorkloadOptions = _WORKLOAD,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Latency from when each request should have been sent, throughput, goodput, joules and grams.
    MFU and MBU are the gateway's own, from /metrics. WATTGATE_API_KEY is sent if set, and WATTGATE_ADMIN_KEY for
    /metrics."""
    from metering.units import FLOP_RATE, parse_quantity
    from serving.tuning.measure import Drive, GatewayAway, measure
    from serving.tuning.slo import Slo
    from serving.tuning.statistics import DevicePeaks, summarise
    from serving.tuning.utilisation import UtilisationWatch

    with bad_input_exits():
        bounds = Slo.parse(slo or ())
        peak = (
            None
            if peak_flops is None
            else parse_quantity(peak_flops, FLOP_RATE, bare_unit="FLOP/s", name="--peak-flops")
        )
        asked = workload.chosen(_DRAWN_REQUESTS)
        drive = Drive(
            clients=clients,
            warm_up_requests=warm_up,
            natural=natural,
            use_cache=not no_cache,
            api_key=os.environ.get("WATTGATE_API_KEY"),
            seed=workload.seed,
        )
        watch = UtilisationWatch(os.environ.get("WATTGATE_ADMIN_KEY"))
        answers = itertools.count(1)
        with bar("answers", len(asked)) as done:
            try:
                name, outcomes = asyncio.run(
                    measure(url, asked, drive, lambda outcome: done(next(answers)), model=model, watch=watch)
                )
            except GatewayAway as error:
                fail(str(error), status=1)
        figures = {
            "model": name,
            "loop": "open" if clients is None else f"closed, {clients} clients",
            "workload": asked.describe(),
            **summarise(outcomes, bounds, DevicePeaks(peak)),
        }
        told = watch.figures()
        figures |= {"mbu_ratio": told["mbu_ratio"]} | ({} if peak is not None else {"mfu_ratio": told["mfu_ratio"]})
    print_figures(figures, as_json=as_json, title=f"Load on {name}")
    if not figures["completed"]:
        fail(f"no request was answered: {figures['errors']}", status=1)
