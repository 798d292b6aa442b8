"""The ``wattgate`` command."""

from __future__ import annotations

import sys

import typer

from serving.cli import chat, configuration, demo, estimate, hardware, keys, report, serve

app = typer.Typer(
    name="wattgate",
    help="An OpenAI-compatible gateway that batches, caches and meters every request.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("serve")(serve.serve)
app.command("chat")(chat.chat)
app.command("config")(configuration.config)
app.command("demo")(demo.demo)
app.command("report")(report.report)
app.add_typer(estimate.app, name="estimate")
app.add_typer(hardware.app, name="hardware")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Entry point: errors that have a readable reason are one line and exit status 2."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
