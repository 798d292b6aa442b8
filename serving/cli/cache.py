"""``wattgate cache``: what the response cache would decide, offline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from serving.cli import cache_control
from serving.cli.option_groups import spread

app = typer.Typer(help="The response cache: evaluate, replay, inspect.", no_args_is_help=True)
app.command("stats")(cache_control.stats)
app.command("inspect")(cache_control.inspect)
app.command("invalidate")(cache_control.invalidate)
app.command("export-labels")(cache_control.export_labels)


@app.callback()
def cache() -> None:
    """The response cache: evaluate, replay, inspect."""


class PolicyChoice(StrEnum):
    conformal = "conformal"
    threshold = "threshold"


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """What decides on a hit; to be ``spread`` into a command's signature."""

    max_wrong: Annotated[float, typer.Option(help="Budget: wrong answers over answers served.")] = 0.02
    policy: Annotated[
        PolicyChoice,
        typer.Option(
            help="How the score becomes a decision. (vcache learns while it serves: nothing to judge offline.)"
        ),
    ] = PolicyChoice.conformal
    threshold: Annotated[float, typer.Option(help="Score to exceed, for --policy threshold.")] = 0.9
    calibration: Annotated[
        Path | None,
        typer.Option(help="Labels to calibrate on, as `export-labels` writes them; default: the shipped ones."),
    ] = None
    embedder: Annotated[str, typer.Option(help="minilm-int8, minilm-fp32, or a sentence-transformers folder.")] = (
        "minilm-int8"
    )


_JUDGE = JudgeOptions()


@app.command("eval")
@spread
def evaluate_pairs(
    pairs: Annotated[
        Path, typer.Argument(help='JSON lines {"id", "a", "b", "same_answer"}; a and b text or messages.')
    ],
    judge: JudgeOptions = _JUDGE,
    decisions: Annotated[Path | None, typer.Option(help='Write lines {"id", "hit", "score", "why"} here.')] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Judge labelled pairs with the code that serves: for each, an empty cache, A stored, B asked.

    Of a conversation as from its second request on: a gateway indexes no history that it has seen once.
    """
    from cache.calibration import Calibration, Calibrator, shipped_calibration
    from cache.embedders import ThreadedEmbedder, load_encoder
    from cache.evaluate import PairsError, evaluate, read_pairs, report
    from cache.judge import ConformalPolicy, GuardedJudge, Policy, ThresholdPolicy

    try:
        labelled = read_pairs(pairs.read_bytes().splitlines())
    except OSError as error:
        _refuse(f"{pairs}: cannot be read ({error.strerror})")
    except PairsError as error:
        _refuse(f"{pairs}: {error}")
    try:
        labels = (
            shipped_calibration()
            if judge.calibration is None
            else Calibration.from_bytes(judge.calibration.read_bytes())
        )
        calibrator = Calibrator(
            labels, judge.max_wrong, prior=shipped_calibration() if labels.on_your_traffic else None
        )
        chosen: Policy
        if judge.policy is PolicyChoice.conformal:
            chosen = ConformalPolicy(calibrator)
        else:
            chosen = ThresholdPolicy(judge.threshold)
        encoder = ThreadedEmbedder(load_encoder(judge.embedder))
    except OSError as error:
        _refuse(f"{judge.calibration or judge.embedder}: cannot be read ({error.strerror or error})")
    except (ValueError, RuntimeError) as error:
        _refuse(f"{judge.calibration}: {error}" if str(error).startswith("calibration: ") else str(error))
    try:
        judged = evaluate(labelled, GuardedJudge(chosen), encoder)
    finally:
        encoder.close()
    if decisions is not None:
        _write_lines(decisions, [each.line() for each in judged])
    result = {
        "max_wrong": judge.max_wrong,
        "policy": judge.policy.value,
        "threshold": chosen.threshold,
        "calibration": {"source": labels.source, "note": labels.note, "labels": len(labels.labels)},
        "embedder": encoder.id,
        **report(judged),
    }
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        _show(result)


@app.command("replay")
@spread
def replay_stream(
    stream: Annotated[
        Path, typer.Argument(help='JSON lines {"id", "t", "tenant", "messages", "intent_id", "no_cache"?}, in order.')
    ],
    judge: JudgeOptions = _JUDGE,
    ttl_seconds: Annotated[float, typer.Option("--ttl", help="Life of an answer on the stream's clock, s.")] = 86400.0,
    decisions: Annotated[
        Path | None, typer.Option(help='Write lines {"id", "hit", "source", "why", "score", "nearest"} here.')
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Write what the judgements would have taught here, as --calibration takes it: replay the first half "
            "of a stream with this, the second half with that."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Send a recorded stream through the whole cache, on a Redis of its own, without a model."""
    from cache.calibration import wilson
    from cache.replay import StreamError, labels_of, read_stream, report
    from serving.cache_replay import ReplayRefused, run_replay
    from serving.cache_settings import CacheSettings

    try:
        requests = read_stream(stream.read_bytes().splitlines())
        settings = CacheSettings(
            tier="semantic",
            max_wrong=judge.max_wrong,
            policy=judge.policy.value,
            score_threshold=judge.threshold,
            calibration=judge.calibration,
            ttl_seconds=ttl_seconds,
            embedder=judge.embedder,
        )
        results, seconds, calibrated = run_replay(requests, settings)
    except OSError as error:
        _refuse(f"{stream}: cannot be read ({error.strerror})")
    except StreamError as error:
        _refuse(f"{stream}: {error}")
    except ReplayRefused as error:
        _refuse(str(error))
    except ValueError as error:
        _refuse(_first_problem(error))
    if decisions is not None:
        _write_lines(decisions, [each.line() for each in results])
    if labels is not None:
        _write_lines(labels, [labels_of(results, f"replay of {stream.name}").as_dict()])
    result = {
        "max_wrong": judge.max_wrong,
        "policy": judge.policy.value,
        "calibration": calibrated,
        **report(results, seconds),
    }
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    low, high = wilson(result["wrong"], result["hits"])
    console = Console()
    console.print(f"hits: {result['hit_rate']:.1%} ({result['hits']}/{result['requests']})")
    console.print(
        f"wrong of hits: {result['wrong_of_hits']:.1%} ({low:.1%} to {high:.1%}); budget {judge.max_wrong:.1%}"
    )
    console.print(f"{calibrated['note']}; {result['lookups_per_second']:.0f} lookups/s")


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    try:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    except OSError as error:
        _refuse(f"{path}: cannot be written ({error.strerror})")


def _first_problem(error: ValueError) -> str:
    problems = getattr(error, "errors", None)
    if problems is None:
        return str(error)
    first = problems()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _refuse(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)


def _show(result: dict[str, Any]) -> None:
    console = Console()
    table = Table(title=f"policy {result['policy']}, max_wrong {result['max_wrong']}: {result['calibration']['note']}")
    for column in ("", "hits of should-hit", "wrong of traps"):
        table.add_column(column)
    for name, part in [("all", result), *result["categories"].items()]:
        table.add_row(name, _cell(part["hits"]), _cell(part["wrong"]))
    console.print(table)
    console.print(f"wrong of served: {_cell(result['wrong_of_served'])}")


def _cell(figure: dict[str, Any]) -> str:
    if figure["rate"] is None:
        return "-"
    low, high = figure["wilson"]
    return f"{figure['rate']:.1%} ({figure['count']}/{figure['total']}; {low:.1%} to {high:.1%})"
