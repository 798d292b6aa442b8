"""Does the gateway meter a GPU as the GPU's own energy counter does? ``deploy/gpu-check.sh`` runs it.

Run on an H100: tests/bench/gpu. Where there is no GPU the verdicts are tested on figures, the refusals as they are.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metering.hardware.nvml import list_gpus
from metering.hardware.visible import VARIABLE, visible_devices

if TYPE_CHECKING:
    from serving.config import GatewayConfig

_TOLERANCE = 0.05
"""Of the counter's joules: both ends of a run of a minute fall within a window of one second."""
_LOAD_SECONDS = 60.0


class NotChecked(Exception):
    """Something is missing here; one line that names it and the mend."""


@dataclass(frozen=True)
class Figures:
    """What one run under load showed."""

    counter_joules: float
    """By NVML's own counter of the engine's GPU."""
    metered_joules: float
    methods: frozenset[str]
    """Of the energy series of the accelerators."""
    mfu_ratio: float
    flops: float
    difference_joules: float
    """Metered minus booked."""
    failures: int


def verdicts(figures: Figures) -> list[tuple[str, bool, str]]:
    """(what, whether it holds, the figures)."""
    metered, counter = figures.metered_joules, figures.counter_joules
    off = abs(metered / counter - 1) if counter else float("inf")
    methods = ", ".join(sorted(figures.methods)) or "nothing"
    return [
        ("requests answered", figures.failures == 0, f"{figures.failures} failed"),
        ("power is measured", figures.methods == {"measured"}, f"accelerator energy is {methods}"),
        ("metered as NVML counts", off <= _TOLERANCE, f"{metered:.0f} J metered, {counter:.0f} J counted"),
        ("FLOPs are known", figures.flops > 0, f"{figures.flops:.3g} FLOP"),
        ("MFU is possible", 0 < figures.mfu_ratio <= 1, f"{figures.mfu_ratio:.1%} at most"),
        ("books balance", figures.difference_joules == 0, f"{figures.difference_joules} J metered and not booked"),
    ]


def read(text: str, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """Samples of a series in the exposition format."""
    out = []
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found:
            have = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found.group(1) or ""))
            if all(have.get(key) == value for key, value in labels.items()):
                out.append((have, float(found.group(2))))
    return out


def difference(text: str) -> float:
    """Metered minus booked joules of all components; NaN, which is no zero, where no books are shown."""
    found = [abs(value) for _, value in read(text, "wattgate_books_difference_joules")]
    return sum(found) if found else float("nan")


def counters(gpus: int = 1) -> Callable[[], float]:
    """NVML's energy counters of the GPUs that the replicas take, joules. Raises ``NotChecked`` where one has none."""
    try:
        import pynvml as nvml
    except ImportError:
        raise NotChecked("nvidia-ml-py is not installed: make gpu-env") from None
    try:
        nvml.nvmlInit()
        shown = visible_devices(os.environ.get(VARIABLE), list_gpus())
        if not shown:
            raise NotChecked(f"the driver shows no device, or {VARIABLE} hides all")
        if len(shown) < gpus:
            raise NotChecked(f"the configuration takes {gpus} GPUs, and {len(shown)} are visible")
        # Ray gives them out in this order; the gateway leaves the others out too
        handles = [nvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in shown[:gpus]]
        for handle in handles:
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError as error:
        raise NotChecked(f"no energy counter (Volta or later, and not inside a MIG slice): {error}") from None
    return lambda: sum(float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in handles) / 1000


def engine_sees_a_gpu() -> None:
    """Raises ``NotChecked`` where this environment's torch is the CPU's."""
    try:
        import torch
    except ImportError:
        raise NotChecked("torch is not installed: make gpu-env") from None
    if not torch.cuda.is_available():
        raise NotChecked("this environment's torch sees no GPU, it has the CPU build: make gpu-env makes another one")


def headers(config: GatewayConfig) -> tuple[dict[str, str], dict[str, str]]:
    """Of a client, and of who may see the figures. Raises ``NotChecked`` where the keys are not to be had."""
    keys, admin = config.access.api_keys, config.access.admin_key
    if not keys and config.access.key_file is not None:
        raise NotChecked("access.key_file holds no key in clear: give WATTGATE_API_KEYS=check=KEY for the check")
    if len(keys) > 1 and admin is None:
        raise NotChecked("with several tenants the figures open with the admin key alone: give WATTGATE_ADMIN_KEY")
    client = {"authorization": f"Bearer {next(iter(keys.values())).get_secret_value()}"} if keys else {}
    return client, client if admin is None else {"authorization": f"Bearer {admin.get_secret_value()}"}


def measure(config: GatewayConfig, count: Callable[[], float]) -> Figures:
    import httpx

    from serving.placement.supervisor import Supervisor

    of_client, of_admin = headers(config)
    with Supervisor(config, print) as gateway, httpx.Client(timeout=300, headers=of_client) as client:
        name = client.get(f"{gateway.url}/v1/models").raise_for_status().json()["data"][0]["id"]

        def ask(number: int) -> bool:
            messages = [{"role": "user", "content": f"Write a short story about the number {number}."}]
            body = {"model": name, "messages": messages, "max_tokens": 256}
            return client.post(f"{gateway.url}/v1/chat/completions", json=body).status_code == 200

        def scrape() -> str:
            return client.get(f"{gateway.url}/metrics", headers=of_admin).raise_for_status().text

        def energy(text: str) -> float:
            return sum(value for _, value in read(text, "wattgate_energy_joules_total", boundary="accelerator"))

        before, counted = energy(scrape()), count()
        until, answered, best = time.monotonic() + _LOAD_SECONDS, [], 0.0
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            while time.monotonic() < until:
                answered += pool.map(ask, range(len(answered), len(answered) + 64))
                best = max([best, *(value for _, value in read(scrape(), "wattgate_mfu_ratio"))])
        after, counter_joules = scrape(), count() - counted
        return Figures(
            counter_joules=counter_joules,
            metered_joules=energy(after) - before,
            methods=frozenset(
                labels["method"] for labels, _ in read(after, "wattgate_energy_joules_total", boundary="accelerator")
            ),
            mfu_ratio=best,
            flops=sum(value for _, value in read(after, "wattgate_flops_total")),
            difference_joules=difference(after),
            failures=answered.count(False),
        )


def checked(path: Path | None, model: str | None) -> Figures:
    """Raises ``NotChecked``."""
    # first of all what may be missing here; each of these says how to mend it
    counters()
    engine_sees_a_gpu()
    from serving.config import ConfigError
    from serving.config_sources import load_config
    from serving.placement.gpus import gpus_needed
    from serving.placement.supervisor import StartError

    try:
        config = load_config(path, {"server.port": 0, "engine.model": model, "cache.tier": "off"}).config
        return measure(config, counters(gpus_needed(config)))
    except (ConfigError, StartError) as error:
        raise NotChecked(str(error)) from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="Hugging Face id or folder; the bundled model is too small for a GPU's MFU.")
    parser.add_argument("--config", type=Path, help="A configuration as `wattgate serve` takes; default: the defaults.")
    asked = parser.parse_args()
    try:
        found = verdicts(checked(asked.config, asked.model))
    except NotChecked as missing:
        print(f"nothing was checked: {missing}", file=sys.stderr)
        sys.exit(1)
    for what, holds, figures in found:
        print(f"{'ok  ' if holds else 'FAIL'}  {what}: {figures}")
    sys.exit(0 if all(holds for _, holds, _ in found) else 1)


if __name__ == "__main__":
    main()
