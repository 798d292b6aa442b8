"""``wattgate serve``: the gateway, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.option_groups import spread
from serving.cli.output import Progress, err, fail
from serving.config import ConfigError, GatewayConfig
from serving.config_sources import LoadedConfig, load_config

if TYPE_CHECKING:
    from serving.placement.joined import JoinedGateway
    from serving.placement.supervisor import Supervisor

ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file; see `wattgate config`.")]
EngineOption = Annotated[str | None, typer.Option("--engine", help="vllm, upstream or simulated.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Hugging Face id, local folder, or the bundled model.")
]
CacheOption = Annotated[str | None, typer.Option("--cache", help="off, exact or semantic.")]


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """To be ``spread`` into a command's signature."""

    config: ConfigOption = None
    engine: EngineOption = None
    model: ModelOption = None
    served_model_name: Annotated[str | None, typer.Option(help="Name that clients ask for.")] = None
    upstream: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible server; implies --engine upstream.")
    ] = None
    cache: CacheOption = None
    host: Annotated[str | None, typer.Option(help="Address to listen on; loopback unless API keys are set.")] = None
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None

    def load(self) -> LoadedConfig:
        """Flags over file over defaults. Raises ``ConfigError``."""
        engine = "upstream" if self.upstream is not None and self.engine is None else self.engine
        flags = {
            "engine.kind": engine,
            "engine.model": self.model,
            "engine.served_model_name": self.served_model_name,
            "engine.upstream.url": self.upstream,
            "cache.tier": self.cache,
            "server.host": self.host,
            "server.port": self.port,
        }
        return load_config(self.config, flags)

    def gathered(self) -> LoadedConfig:
        """A wrong one ends the command with one line."""
        try:
            return self.load()
        except ConfigError as error:
            fail(str(error))


_NOTHING_SAID = GatewayOptions()


@spread
def serve(
    options: GatewayOptions = _NOTHING_SAID,
    address: Annotated[
        str | None, typer.Option(help="Serve on the cluster whose head is there; see `wattgate node`.")
    ] = None,
) -> None:
    """Run the gateway until Ctrl-C or SIGTERM. SIGHUP reads the config file again, applies its live settings, and says
    what waits for a restart."""
    run(options, address)


def run(options: GatewayOptions, address: str | None = None) -> None:
    from serving.placement.supervisor import StartError

    config = options.gathered().config
    stop, reload = threading.Event(), threading.Event()
    wake = threading.Event()

    def on_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        wake.set()

    def on_reload(number: int, frame: FrameType | None) -> None:
        reload.set()
        wake.set()

    progress = Progress()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, terminate)
    try:
        with _placed(config, address, progress) as supervisor:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, on_stop)
            signal.signal(signal.SIGHUP, on_reload)
            announce(supervisor.config, supervisor.url)
            while not stop.is_set():
                wake.wait(1.0)
                wake.clear()
                supervisor.watch()
                if reload.is_set():
                    reload.clear()
                    _reload(supervisor, options, progress)
            err.print("stopping: running answers may finish")
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
    except ConfigError as error:
        fail(str(error))
    except StartError as error:
        fail(str(error), status=1)
    except KeyboardInterrupt:
        err.print("stopped before it was ready")
        raise typer.Exit(130) from None


def _placed(config: GatewayConfig, address: str | None, progress: Progress) -> Supervisor | JoinedGateway:
    if address is None:
        from serving.placement.supervisor import Supervisor

        return Supervisor(config, progress)
    from serving.placement.cluster import cluster_token
    from serving.placement.joined import JoinedGateway

    return JoinedGateway(config, address, cluster_token(os.environ), progress)


def terminate(number: int, frame: FrameType | None) -> None:
    """During start-up both signals unwind, so that nothing is left behind; also where a shell ignores SIGINT."""
    raise KeyboardInterrupt


def _reload(supervisor: Supervisor | JoinedGateway, options: GatewayOptions, progress: Progress) -> None:
    try:
        config = options.load().config
    except ConfigError as error:
        progress(f"not reloaded: {error}")
        return
    for line in supervisor.apply(config):
        progress(line)


def announce(config: GatewayConfig, url: str) -> None:
    """Where it is and who may use it."""
    err.print(f"[green]ready[/green] on [bold]{url}/v1[/bold]")
    if config.access.key_file is not None:
        err.print(f"API keys are required; those in {config.access.key_file} are made with `wattgate keys`")
    elif not config.access.keyless:
        err.print(f"API keys of {len(config.access.api_keys)} tenant(s) are required")
    else:
        err.print("no API keys are configured: any key is accepted, from this machine only")
    kinds = {model.engine.kind for model in config.models.values()} or {config.engine.kind}
    if "simulated" in kinds:
        err.print("[yellow]simulated engine:[/yellow] answers and figures are not real")
