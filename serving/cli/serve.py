"""``wattgate serve``: the gateway, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.output import Progress, err, fail
from serving.config import ConfigError, GatewayConfig, LoadedConfig, load_config

if TYPE_CHECKING:
    from serving.placement.joined import JoinedGateway
    from serving.placement.supervisor import Supervisor

ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file; see `wattgate config`.")]
EngineOption = Annotated[str | None, typer.Option("--engine", help="vllm, upstream or simulated.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Hugging Face id, local folder, or the bundled model.")
]
NameOption = Annotated[str | None, typer.Option("--served-model-name", help="Name that clients ask for.")]
UpstreamOption = Annotated[
    str | None, typer.Option("--upstream", help="Address of an OpenAI-compatible server; implies --engine upstream.")
]
CacheOption = Annotated[str | None, typer.Option("--cache", help="off, exact or semantic.")]
HostOption = Annotated[
    str | None, typer.Option("--host", help="Address to listen on; loopback unless API keys are set.")
]
PortOption = Annotated[int | None, typer.Option("--port", help="Port; 0 takes a free one.")]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="Serve on the cluster whose head is there; see `wattgate node`.")
]


def gather(
    config: Path | None,
    engine: str | None = None,
    model: str | None = None,
    served_model_name: str | None = None,
    upstream: str | None = None,
    cache: str | None = None,
    host: str | None = None,
    port: int | None = None,
) -> LoadedConfig:
    """Flags over file over defaults; a wrong one ends the command with one line."""
    if upstream is not None and engine is None:
        engine = "upstream"
    flags = {
        "engine.kind": engine,
        "engine.model": model,
        "engine.served_model_name": served_model_name,
        "engine.upstream.url": upstream,
        "cache.tier": cache,
        "server.host": host,
        "server.port": port,
    }
    try:
        return load_config(config, flags)
    except ConfigError as error:
        fail(str(error))


def serve(
    config: ConfigOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    served_model_name: NameOption = None,
    upstream: UpstreamOption = None,
    cache: CacheOption = None,
    host: HostOption = None,
    port: PortOption = None,
    address: AddressOption = None,
) -> None:
    """Run the gateway until Ctrl-C or SIGTERM. SIGHUP reads the config file again and applies its live settings."""
    loaded = gather(config, engine, model, served_model_name, upstream, cache, host, port)
    run(loaded.config, config, address)


def run(config: GatewayConfig, path: Path | None = None, address: str | None = None) -> None:
    from serving.placement.supervisor import StartError

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
                    _reload(supervisor, path, progress)
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


def _reload(supervisor: Supervisor | JoinedGateway, path: Path | None, progress: Progress) -> None:
    try:
        config = load_config(path).config
    except ConfigError as error:
        progress(f"not reloaded: {error}")
        return
    supervisor.apply(config)
    progress(f"applied: live cap {config.admission.max_concurrency}, queue {config.admission.max_queue}")


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
