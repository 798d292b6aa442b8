"""What ``wattgate tune`` measures with: a gateway of its own, the simulator, or one that runs elsewhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from serving.cli.output import Progress, fail
from serving.cli.serve import terminate

if TYPE_CHECKING:
    from metering.shape import ModelArchitecture
    from serving.config import GatewayConfig
    from serving.tuning.attached import AttachedGateway
    from serving.tuning.bench import Bench
    from serving.tuning.setting import Space
    from serving.tuning.slo import Slo


def own_bench(
    config: GatewayConfig, simulate: str | None, slo: Slo, space: Space, clients: int | None, progress: Progress
) -> Bench:
    from metering.intensity.static import StaticIntensity
    from metering.site import Prices, Site
    from serving.tuning.bench import GatewayBench, SimulatedBench
    from serving.tuning.engine_library import find_engine_model

    if simulate is not None:
        metering = config.metering
        place = StaticIntensity(metering.zone, grams_per_kwh=metering.intensity_grams_per_kwh)
        prices = Prices(metering.price_per_device_hour, metering.price_per_kwh)
        site = Site(place.reading, metering.pue, prices=prices)
        return SimulatedBench(find_engine_model(simulate), site, slo, clients)
    # loaded only where a gateway is started: the simulator needs none of it
    from serving.placement.metering_setup import node_hardware
    from serving.tuning.own_gateway import own_gateway

    return GatewayBench(
        own_gateway(config),
        slo,
        node_hardware(config).detected,
        space.highest_cap,
        progress,
        architecture=_architecture(config),
        clients=clients,
    )


def attached(url: str, model: str | None, progress: Progress) -> AttachedGateway:
    """Raises ``GatewayAway`` and ``BadInput``."""
    from serving.tuning.attached import attach

    gateway = attach(url, model, os.environ.get("WATTGATE_ADMIN_KEY"), progress)
    progress(
        f"tuning the live cap of {gateway.model} at {gateway.shown_url}, now {gateway.configured_cap}; what other "
        "clients ask meanwhile is in its batches too"
    )
    return gateway


def within(space: Space, highest_cap: int, progress: Progress) -> Space:
    if space.highest_cap <= highest_cap:
        return space
    progress(f"caps above {highest_cap}, which the gateway's engine takes at once, are left out")
    return replace(space, highest_cap=highest_cap, lowest_cap=min(space.lowest_cap, highest_cap))


def bench_of(
    gateway: AttachedGateway, config: GatewayConfig, slo: Slo, clients: int | None, progress: Progress
) -> Bench:
    from serving.tuning.bench import Elsewhere, GatewayBench

    elsewhere = Elsewhere(
        f"running: {gateway.model} at {gateway.shown_url}",
        gateway.model,
        os.environ.get("WATTGATE_API_KEY"),
        os.environ.get("WATTGATE_ADMIN_KEY"),
        gateway.confirm,
    )
    return GatewayBench(
        config,
        slo,
        None,
        gateway.highest_cap,
        progress,
        clients=clients,
        start=lambda config, tell: gateway.begin(config),
        elsewhere=elsewhere,
    )


def _architecture(config: GatewayConfig) -> ModelArchitecture | None:
    """Only of a model whose config lies on this machine; for the MFU of what is simulated later."""
    from metering.architecture import load_architecture
    from metering.errors import BadInput
    from serving.bundled_model import BUNDLED_MODEL, bundled_model_folder

    if config.engine.kind != "vllm":
        return None
    model = config.engine.model
    try:
        return load_architecture(bundled_model_folder() if model == BUNDLED_MODEL else model)
    except BadInput:
        return None


@contextmanager
def closing(bench: Bench) -> Iterator[None]:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, terminate)
    try:
        yield
    finally:
        bench.close()


@contextmanager
def gateway_faults_end() -> Iterator[None]:
    from serving.tuning.bench import CannotStart
    from serving.tuning.measure import GatewayAway

    try:
        yield
    except (CannotStart, GatewayAway) as error:
        fail(str(error), status=1)
