"""The console's screenshots and the dashboards' panels, from a gateway under load: into ``deploy/screenshots``.

``python -m tests.bench.operations.pictures``: the simulated engine. With ``--engine vllm`` the real one: what the
console shows when the engine is killed, and which alerts fire.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.integration.operations.browser import chromium, window
from tests.integration.operations.load import chat, mixed
from tests.integration.operations.panels import render
from tests.integration.operations.prometheus_process import DEPLOYED, PrometheusProcess
from tests.integration.serving.gateway_process import GatewayProcess, until

PICTURES = DEPLOYED.parent / "screenshots"
LOAD_SECONDS = 30.0
REAL_MODEL = "smollm2-135m-instruct"


def trace(folder: Path) -> Path:
    """A day of half hours with a dirty evening, so that there is a forecast to show; made up."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    day = (62, 58, 55, 52, 50, 49, 51, 58, 70, 84, 96, 101, 97, 88, 79, 74, 72, 78, 95, 128, 141, 133, 110, 86)
    rows = []
    for half in range(60):
        at, grams = start + timedelta(minutes=30 * half), day[half // 2 % 24]
        rows.append(f"{at.isoformat()},{grams},{1 - grams / 200:.2f}")
    path = folder / "trace.csv"
    path.write_text("\n".join(["time,grams_per_kwh,carbon_free_ratio", *rows]) + "\n")
    return path


def shot(browser: webdriver.Chrome, name: str, *, width: int = 1280, dark: bool = False) -> None:
    window(browser, width, 900, dark=dark)
    height = browser.execute_script("return document.documentElement.scrollHeight")  # type: ignore[no-untyped-call]
    window(browser, width, int(height), dark=dark)
    time.sleep(0.5)
    browser.save_screenshot(str(PICTURES / f"{name}.png"))
    shrink(PICTURES / f"{name}.png")
    print(f"{name}.png {(PICTURES / f'{name}.png').stat().st_size / 1000:.0f} kB", flush=True)


def shrink(picture: Path) -> None:
    """A palette: a quarter of the bytes, and nobody sees it."""
    from PIL import Image

    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(colors=128, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)


def read(browser: webdriver.Chrome, ident: str) -> str:
    return browser.find_element(By.ID, ident).text


def ask(browser: webdriver.Chrome, prompt: str) -> None:
    box = browser.find_element(By.ID, "prompt")
    box.clear()
    box.send_keys(prompt, Keys.CONTROL, Keys.ENTER)
    until(lambda: read(browser, "said").startswith(("Complete", "Failed")), 60, "the answer")


def opened(browser: webdriver.Chrome, url: str) -> None:
    window(browser, 1280, 1000)
    browser.get(f"{url}/console")
    until(lambda: read(browser, "state") == "ready", what="the first figures")
    until(lambda: browser.find_elements(By.CSS_SELECTOR, "#model option"), what="the models")


@contextmanager
def load(url: str, one: Callable[[str, int], object], clients: int) -> Iterator[None]:
    """Requests until the context is left."""
    ended, numbers = threading.Event(), itertools.count()

    def client() -> None:
        while not ended.is_set():
            try:
                one(url, next(numbers))
            except Exception:  # the gateway may be in an incident
                ended.wait(0.5)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    yield
    ended.set()
    for thread in threads:
        thread.join(60)


SAID = ("What is the capital of {}?", "Tell me the capital of {}.", "Which city is the capital of {}?")
COUNTRIES = ("Portugal", "Norway", "Chile", "Kenya", "Japan", "Peru", "Ghana", "Austria")


def ordinary(url: str, number: int) -> None:
    if number % 5 == 0:
        chat(url, SAID[number // 5 % len(SAID)].format(COUNTRIES[number // 15 % len(COUNTRIES)]), tokens=90)
    list(mixed(url, 6)) if number % 4 == 0 else chat(
        url, f"Question {number % 23}.", stream=bool(number % 2), tokens=90
    )


def simulated(folder: Path) -> None:
    file = folder / "gateway.yaml"
    file.write_text(
        "engine: {kind: simulated}\nserver: {port: 0}\nadmission: {max_concurrency: 8}\n"
        "cache: {tier: semantic, max_wrong: 0.05, shadow_share: 0.5}\n"
        "control: {mode: dry_run, slo: ['ttft_p95<=1s', 'itl_p95<=100ms']}\n"
        f"metering: {{zone: FRA, intensity: {{source: trace, trace: {trace(folder)}}}}}\n"
    )
    gateway = GatewayProcess("--config", str(file)).wait_ready()
    prometheus = PrometheusProcess(gateway.url, folder)
    began = time.monotonic()
    try:
        with chromium(folder / "profile") as browser:
            opened(browser, gateway.url)
            until(lambda: "Forecast" in read(browser, "grid-told"), what="the forecast")
            shot(browser, "console-empty")
            with load(gateway.url, ordinary, clients=12):
                time.sleep(LOAD_SECONDS / 2)
                ask(browser, "Name three ways to use less power.")
                ask(browser, "Name three ways to use less power.")
                time.sleep(LOAD_SECONDS / 2)
                shot(browser, "console-light")
                shot(browser, "console-dark", dark=True)
                shot(browser, "console-narrow", width=400)
        # drawn without the load, which would take the processor from the plots
        for board in sorted((DEPLOYED.parent / "grafana").glob("*.json")):
            picture = PICTURES / f"dashboard-{board.stem}.png"
            empty = render(prometheus, board, picture, time.monotonic() - began)
            shrink(picture)
            print(f"{picture.name} {picture.stat().st_size / 1000:.0f} kB, empty panels: {empty}", flush=True)
    finally:
        prometheus.stop()
        gateway.stop()


def replaced(gateway: GatewayProcess) -> bool:
    try:
        return gateway.metric("wattgate_engine_ready", model=REAL_MODEL) >= 1
    except httpx.HTTPError:  # while one replica goes and the next comes, nobody may answer
        return False


def killed(folder: Path) -> None:
    gateway = GatewayProcess("--port", "0").wait_ready()
    prometheus = PrometheusProcess(gateway.url, folder, hold="2s")

    def one(url: str, number: int) -> None:
        chat(url, f"Tell of the number {number}.", tokens=32, model=REAL_MODEL)

    try:
        with chromium(folder / "profile") as browser:
            opened(browser, gateway.url)
            with load(gateway.url, one, clients=4):
                time.sleep(12)
                below = psutil.Process(gateway.process.pid).children(recursive=True)
                core = next(p for p in below if "EngineCore" in f"{p.name()} {p.cmdline()}")
                print(f"alerts before: {prometheus.firing()}", flush=True)
                os.kill(core.pid, signal.SIGKILL)
                killed_at = time.monotonic()
                until(lambda: read(browser, "state") != "ready" and read(browser, "notices"), 60, "the console to tell")
                shot(browser, "console-engine-killed")
                until(lambda: "WattgateEngineRestarts" in prometheus.firing(), 60, "the alert")
                print(f"{time.monotonic() - killed_at:.1f} s after: {sorted(prometheus.firing())}", flush=True)
                until(lambda: replaced(gateway), 200, "a replacement")
                print(f"{time.monotonic() - killed_at:.1f} s after: an engine is ready again", flush=True)
    finally:
        prometheus.stop()
        gateway.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("simulated", "vllm"), default="simulated")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-", ignore_cleanup_errors=True) as folder:
        (simulated if parser.parse_args().engine == "simulated" else killed)(Path(folder))


if __name__ == "__main__":
    main()
