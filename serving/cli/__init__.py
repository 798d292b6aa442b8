"""The ``wattgate`` command."""

from __future__ import annotations

import sys

import typer

from serving.cli import (
    cache,
    chat,
    configuration,
    demo,
    estimate,
    hardware,
    keys,
    load,
    node,
    plan,
    report,
    serve,
    tune,
)

app = typer.Typer(
    name="wattgate",
    help="An OpenAI-compatible gateway that batches, caches and meters every request.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("serve")(serve.serve)
app.command("node")(node.node)
app.command("chat")(chat.chat)
app.command("config")(configuration.config)
app.command("demo")(demo.demo)
app.command("report")(report.report)
app.command("load")(load.load)
app.command("plan")(plan.plan)
app.command("tune")(tune.tune)
app.add_typer(estimate.app, name="estimate")
app.add_typer(hardware.app, name="hardware")
app.add_typer(keys.app, name="keys")
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Entry point: errors that have a readable reason are one line and exit status 2."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
