"""Incidents of a real gateway under the real Prometheus: which alerts wait and fire, and when; and none in calm.

``python -m tests.bench.operations.incidents``: a killed engine (the real one), a source of grid intensity that ends,
and semantic hits that are wrong, each after calm minutes under load. ``--only`` picks some; ``--pictures`` draws the
dashboards after each. The rules are those of ``deploy/prometheus`` but for two things, said in the log: they are
evaluated every ``EVERY`` seconds, and each ``for`` is ``HOLD``. Windows and thresholds are as deployed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from tests.bench.operations.pictures import PICTURES, REAL_MODEL, load, replaced, shrink
from tests.bench.serving.report import machine
from tests.integration.operations.load import QUESTIONS, chat
from tests.integration.operations.panels import render
from tests.integration.operations.prometheus_process import DEPLOYED, PrometheusProcess
from tests.integration.serving.gateway_process import GatewayProcess, until

EVERY = 5
"""Each second would take a good part of a core from the gateway that is watched."""
HOLD = "10s"
RESULTS = Path(__file__).parent / "results"
_LOOK_SECONDS = 0.5
_START_SECONDS = 180.0
"""For gateway and Prometheus to be up before the trace of intensity begins to count."""
_ALERT_SECONDS = 300.0
LONG_SECONDS = 1800.0
"""A calm of this or more is a result of its own, beside that of a short one."""
_READING_SECONDS = 2.0
"""Between an answer and a client's next question: a calm hour is not a load test."""


@dataclass(slots=True)
class Watched:
    """What the alerts did."""

    incident: str
    expected: tuple[str, ...]
    """Each must fire; of names with a bar between them one is enough."""
    calm_seconds: float = 0.0
    in_calm: list[str] = field(default_factory=list)
    """Alerts that waited or fired before anything had happened."""
    seen: dict[str, dict[str, float]] = field(default_factory=dict)
    """By alert: seconds from the incident to pending and to firing."""
    replaced_seconds: float | None = None
    """From the engine's death to another one that is ready, looked at once the alerts had fired."""

    @property
    def kept(self) -> bool:
        return not self.in_calm and self.fired

    @property
    def fired(self) -> bool:
        def fires(alert: str) -> bool:
            return any("firing" in self.seen.get(name, {}) for name in alert.split("|"))

        return all(map(fires, self.expected))


class Watcher:
    def __init__(self, prometheus: PrometheusProcess, watched: Watched) -> None:
        self._prometheus, self._watched = prometheus, watched

    def calm(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for alert, state in sorted(self._prometheus.alerts()):
                if f"{alert} {state}" not in self._watched.in_calm:
                    self._watched.in_calm.append(f"{alert} {state}")
                    series = self._prometheus.query(f'ALERTS{{alertname="{alert}"}}')
                    say(f"in calm: {alert} is {state}: {[one['metric'] for one in series]}")
            time.sleep(_LOOK_SECONDS)
        self._watched.calm_seconds = seconds
        say(f"calm for {seconds:.0f} s: {', '.join(self._watched.in_calm) or 'no alert waited or fired'}")

    def until_firing(self) -> None:
        happened = time.monotonic()

        def fires() -> bool:
            for alert, state in self._prometheus.alerts():
                states = self._watched.seen.setdefault(alert, {})
                if state not in states:
                    states[state] = round(time.monotonic() - happened, 1)
                    say(f"{states[state]:6.1f} s after: {alert} is {state}")
            return self._watched.fired

        try:
            until(fires, _ALERT_SECONDS, f"{', '.join(self._watched.expected)} to fire")
        except (AssertionError, TimeoutError) as late:
            # a miss is a result, and the log and the pictures say what there was
            say(f"MISSED: {late}")


def say(line: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)


@contextmanager
def running(folder: Path, config: str) -> Iterator[tuple[GatewayProcess, PrometheusProcess]]:
    file = folder / "gateway.yaml"
    file.write_text(config)
    gateway = GatewayProcess("--config", str(file), "--port", "0").wait_ready()
    try:
        prometheus = PrometheusProcess(gateway.url, folder, hold=HOLD, every=f"{EVERY}s")
        try:
            until(lambda: prometheus.query('up{job="wattgate"} == 1'), what="the first scrape")
            yield gateway, prometheus
        finally:
            prometheus.stop()
    finally:
        gateway.stop()


def killed_engine(folder: Path, calm_seconds: float, drawn: Callable[[PrometheusProcess, str], None]) -> Watched:
    # while the only replica is replaced there is nobody to scrape: then it is the scrape that is told of
    watched = Watched(
        "the engine's process is killed", ("WattgateEngineRestarts", "WattgateNoReadyEngine|WattgateDown")
    )

    def one(url: str, number: int) -> None:
        # as long as any other: longer and longer ones would be a drift of the traffic
        chat(url, f"Tell of the number {1_000 + number % 9_000}.", tokens=32, model=REAL_MODEL)
        time.sleep(_READING_SECONDS)

    with running(folder, "engine: {kind: vllm}\n") as (gateway, prometheus), load(gateway.url, one, clients=2):
        watcher = Watcher(prometheus, watched)
        watcher.calm(calm_seconds)
        below = psutil.Process(gateway.process.pid).children(recursive=True)
        core = next(process for process in below if "EngineCore" in f"{process.name()} {process.cmdline()}")
        os.kill(core.pid, signal.SIGKILL)
        say("the engine's process was killed")
        killed = time.monotonic()
        watcher.until_firing()
        until(lambda: replaced(gateway), 300, "a replacement")
        watched.replaced_seconds = round(time.monotonic() - killed, 1)
        say(f"{watched.replaced_seconds:6.1f} s after: an engine is ready again")
        drawn(prometheus, "serving")
    return watched


def ending_trace(path: Path, ends: datetime) -> None:
    """A figure each ten seconds, up to ``ends``; made up."""
    step = timedelta(seconds=10)
    first = ends - 200 * step
    rows = [f"{(first + number * step).isoformat()},{50 + number % 20}" for number in range(200)]
    path.write_text("\n".join(["time,grams_per_kwh", *rows]) + "\n")


def stale_source(folder: Path, calm_seconds: float, drawn: Callable[[PrometheusProcess, str], None]) -> Watched:
    watched = Watched("the source of the grid's intensity ends", ("WattgateIntensityStale",))
    trace = folder / "trace.csv"
    ends = datetime.now(UTC) + timedelta(seconds=_START_SECONDS + calm_seconds)
    ending_trace(trace, ends)
    config = (
        "engine: {kind: simulated}\n"
        f"metering: {{zone: FRA, intensity: {{source: trace, trace: {trace}, refresh_seconds: 1}}}}\n"
    )

    def one(url: str, number: int) -> None:
        chat(url, f"Question {number}.", tokens=60)
        time.sleep(0.2)

    with running(folder, config) as (gateway, prometheus), load(gateway.url, one, clients=2):
        watcher = Watcher(prometheus, watched)
        left = (ends - datetime.now(UTC)).total_seconds()
        watcher.calm(left - 2)
        time.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()))
        say("the trace has no more rows")
        watcher.until_firing()
        drawn(prometheus, "carbon")
    return watched


def false_hits(folder: Path, calm_seconds: float, drawn: Callable[[PrometheusProcess, str], None]) -> Watched:
    """The simulated engine answers every wording with other words: what a paraphrase is served is always wrong."""
    watched = Watched("paraphrases are served wrong answers", ("WattgateCacheFalseHits",))
    config = (
        "engine: {kind: simulated}\n"
        "cache: {tier: semantic, max_wrong: 0.05, shadow_share: 1.0, policy: threshold, score_threshold: 0.5}\n"
    )

    def repeated(url: str, number: int) -> None:
        chat(url, QUESTIONS[number % len(QUESTIONS)][0], tokens=60)
        time.sleep(0.2)

    def paraphrased(url: str, number: int) -> None:
        chat(url, QUESTIONS[number // 2 % len(QUESTIONS)][1 + number % 2], tokens=60)
        time.sleep(0.2)

    with running(folder, config) as (gateway, prometheus):
        watcher = Watcher(prometheus, watched)
        with load(gateway.url, repeated, clients=2):
            watcher.calm(calm_seconds)
        with load(gateway.url, paraphrased, clients=2):
            say("paraphrases are asked from now on")
            watcher.until_firing()
        drawn(prometheus, "cache")
    return watched


def others(found: list[Watched]) -> list[dict[str, Any]]:
    """Those of earlier runs that were not run again, as long as then."""
    file = RESULTS / "incidents.json"
    kept = json.loads(file.read_text())["incidents"] if file.exists() else []
    again = {(watched.incident, watched.calm_seconds >= LONG_SECONDS) for watched in found}
    return [one for one in kept if (one["incident"], one["calm_seconds"] >= LONG_SECONDS) not in again]


INCIDENTS = {"killed-engine": killed_engine, "stale-source": stale_source, "false-hits": false_hits}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(INCIDENTS), default=tuple(INCIDENTS))
    parser.add_argument("--calm-seconds", type=float, default=120.0)
    parser.add_argument("--pictures", action="store_true", help="draw a dashboard after each incident")
    asked = parser.parse_args()
    say(f"rules as deployed, but evaluated every {EVERY} s and with `for: {HOLD}` throughout; windows are as deployed")
    found, before = [], machine()
    for name in asked.only:
        say(f"{name}:")
        began = time.monotonic()

        def drawn(prometheus: PrometheusProcess, board: str, name: str = name, began: float = began) -> None:
            if asked.pictures:
                picture = PICTURES / f"incident-{name}.png"
                file = DEPLOYED.parent / "grafana" / f"{board}.json"
                say(f"{picture.name}, empty panels: {render(prometheus, file, picture, time.monotonic() - began)}")
                shrink(picture)

        with tempfile.TemporaryDirectory(prefix="incident-", ignore_cleanup_errors=True) as folder:
            watched = INCIDENTS[name](Path(folder), asked.calm_seconds, drawn)
        found.append(watched)
        say(f"{name}: {'as it should be' if watched.kept else 'NOT as it should be'}")
    how = {
        "rules": {"evaluated_each_seconds": EVERY, "for": HOLD, "windows": "as deployed"},
        "load_before": before["load_before"],
        "date": before["date"],
    }
    result = {
        "machine": before,
        "command": "python -m tests.bench.operations.incidents",
        "incidents": others(found) + [asdict(watched) | {"kept": watched.kept} | how for watched in found],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "incidents.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(watched.kept for watched in found) else 1


if __name__ == "__main__":
    sys.exit(main())
