"""Two nodes, one gateway: prefix cache with and without affinity, and what a lost node costs.

``python -m tests.bench.cluster.two_nodes``: as root on Linux (network namespaces). The engine is simulated; the
nodes, Ray, HAProxy, Redis, Prometheus and the loss are real.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.serving.report import machine
from tests.integration.cluster.conversations import converse_all, shares
from tests.integration.cluster.loss import Fate, lose_a_node
from tests.integration.cluster.nodes import KEY, Cluster
from tests.integration.operations.prometheus_process import PrometheusProcess
from tests.integration.serving.gateway_process import until

RESULTS = Path(__file__).parent / "results"
ENGINE = {"kind": "simulated", "simulated": {"prefix_cache_tokens": 65536}}
CONVERSATIONS, TURNS, AT_ONCE, THINK_SECONDS, REQUESTS = 48, 5, 16, 0.5, 32


class Log:
    """Timed lines, to the terminal and to the file that is committed."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.lines: list[str] = []

    def __call__(self, text: str) -> None:
        self.lines.append(f"{time.monotonic() - self._began:6.1f} s  {text}")
        print(self.lines[-1], flush=True)


def run(affinity: str, log: Log, lose: Callable[[Cluster], None]) -> dict[str, Any]:
    log(f"affinity {affinity}: two nodes in namespaces of their own, one replica each")
    folder = Path(tempfile.mkdtemp(prefix="two-nodes-"))
    sections = {"server": {"affinity": affinity}, "engine": ENGINE, "admission": {"max_concurrency": 8}}
    with Cluster(folder, sections) as cluster:
        for process in cluster.processes:
            for line in process.output().splitlines():
                log(f"  {process.log.stem}: {line.strip()}".replace(cluster.network.here.rpartition(".")[0], "NET"))
        until(lambda: len(cluster.targets()) == 2, what="two targets")
        prometheus = PrometheusProcess(cluster.url, folder, key=KEY)
        try:
            until(lambda: len(prometheus.query('up{job="wattgate"} == 1')) == 2, what="both targets up")
            log("  Prometheus has found both nodes by service discovery")
            turns = asyncio.run(
                converse_all(cluster.url, CONVERSATIONS, TURNS, at_once=AT_ONCE, think_seconds=THINK_SECONDS)
            )
            figures = shares(turns)
            per_node = [cluster.metric("wattgate_requests_total", target) for target in cluster.targets()]
            log(f"  {CONVERSATIONS} conversations of {TURNS} turns: {figures}, requests by node {per_node}")
            total = sum(per_node)
            until(
                lambda: [float(s["value"][1]) for s in prometheus.query("sum(wattgate_requests_total)")] == [total],
                what="the sum in Prometheus",
            )
            log(f"  Prometheus: sum(wattgate_requests_total) = {total:g}, the nodes' own sum")
            difference = [cluster.metric("wattgate_books_difference_joules", target) for target in cluster.targets()]
            log(f"  metered minus booked by node: {difference} J")
            fates = asyncio.run(lose_a_node(cluster, lambda: lose(cluster), REQUESTS))
            loss = summary(fates)
            log(f"  a node lost with {REQUESTS} requests inside: {loss}")
            for fate in fates:
                if not fate.begun_before and not fate.complete:
                    log(f"    lost: {fate}")
        finally:
            prometheus.stop()
    return (
        figures
        | {"requests_by_node": per_node, "books_difference_joules": difference, "loss": loss}
        | {"fates": [asdict(fate) for fate in fates]}
    )


def summary(fates: list[Fate]) -> dict[str, Any]:
    waiting = [fate for fate in fates if not fate.begun_before]
    begun = [fate for fate in fates if fate.begun_before]
    return {
        "not_begun": len(waiting),
        "not_begun_and_lost": sum(not fate.complete for fate in waiting),
        "begun": len(begun),
        "begun_and_broken_off": sum(not fate.complete for fate in begun),
        "slowest_seconds": round(max(fate.seconds for fate in fates), 1),
    }


def table(figures: dict[str, Any]) -> str:
    lines = [
        f"{figures['machine']['cpu']}, {figures['machine']['cores']} cores, {figures['machine']['date']}; "
        f"`{figures['command']}`. The engine is simulated; all else is real.",
        "",
        "| affinity | prefix hit share, all turns | later turns | requests by node |",
        "| --- | --- | --- | --- |",
    ]
    for name, run_ in figures["affinity"].items():
        nodes = " and ".join(f"{count:g}" for count in run_["requests_by_node"])
        all_turns, later = run_["prefix_hit_ratio"], run_["prefix_hit_ratio_of_later_turns"]
        lines.append(f"| {name} | {all_turns:.1%} | {later:.1%} | {nodes} |")
    lines += [
        "",
        "| a node lost by | not begun to answer | of them lost | begun | of them broken off | slowest answer |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for how, run_ in zip(
        ("SIGKILL of all its processes", "its cable pulled"), figures["affinity"].values(), strict=True
    ):
        loss = run_["loss"]
        lines.append(
            f"| {how} | {loss['not_begun']} | {loss['not_begun_and_lost']} | {loss['begun']} "
            f"| {loss['begun_and_broken_off']} | {loss['slowest_seconds']} s |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    log = Log()
    figures = {
        "machine": machine(),
        "command": "python -m tests.bench.cluster.two_nodes",
        "conversations": CONVERSATIONS,
        "turns": TURNS,
        "at_once": AT_ONCE,
        "mean_think_seconds": THINK_SECONDS,
        "affinity": {
            "none": run("none", log, lambda cluster: cluster.network.kill(1)),
            "conversation": run("conversation", log, lambda cluster: cluster.network.cut(1)),
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "two_nodes.json").write_text(json.dumps(figures, indent=1) + "\n")
    (RESULTS / "two_nodes.md").write_text(table(figures))
    (RESULTS / "two_nodes.log").write_text("\n".join(log.lines) + "\n")
    sys.stdout.write(table(figures))


if __name__ == "__main__":
    main()
