"""``wattgate node``: this machine as a node of a cluster, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from typing import Annotated

import typer

from serving.cli.output import Progress, err, fail
from serving.cli.serve import ConfigOption, GatewayOptions, terminate


def node(
    host: Annotated[str, typer.Option("--ip", help="This machine's address in the cluster's network.")],
    head: Annotated[bool, typer.Option("--head", help="Start a cluster; the other nodes join it.")] = False,
    join: Annotated[str | None, typer.Option("--join", help="Address of the head, as it says when it is up.")] = None,
    port: Annotated[int, typer.Option("--port", help="The head's port for the other nodes.")] = 6379,
    cores: Annotated[int | None, typer.Option("--cores", help="Cores to offer. None: all.")] = None,
    config: ConfigOption = None,
) -> None:
    """Make this machine a node of a cluster, until Ctrl-C or SIGTERM; then `wattgate serve --address HEAD` on one node.

    WATTGATE_CLUSTER_TOKEN is the secret that all nodes share. The configuration file is the gateway's.
    """
    from serving.config import ConfigError
    from serving.placement.cluster import cluster_token
    from serving.placement.cluster_node import ClusterNode
    from serving.placement.supervisor import StartError

    if head == (join is not None):
        fail("say either --head, or --join with the head's address")
    settings = GatewayOptions(config).gathered().config
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, terminate)
    try:
        with ClusterNode(
            settings, cluster_token(os.environ), Progress(), host=host, port=port, join=join, cores=cores
        ) as running:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stop.set())
            err.print(f"[green]node {host} is up[/green]")
            if head:
                err.print(f"on the others:  wattgate node --join {running.address} --ip THEIR_ADDRESS")
                err.print(f"then on one:    wattgate serve --address {running.address} --config gateway.yaml")
            while not stop.wait(1.0):
                if not running.alive():
                    fail("the cluster's head has gone, or Ray ended on this node", status=1)
            err.print("stopping")
    except ConfigError as error:
        fail(str(error))
    except StartError as error:
        fail(str(error), status=1)
    except KeyboardInterrupt:
        err.print("stopped before it was up")
        raise typer.Exit(130) from None
