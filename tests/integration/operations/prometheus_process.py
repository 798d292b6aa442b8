"""The real Prometheus, scraping a gateway as ``deploy/prometheus`` says, only more often."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.integration.serving.gateway_process import until
from tests.system_packages import program

DEPLOYED = Path(__file__).parents[3] / "deploy" / "prometheus"


class PrometheusProcess:
    def __init__(
        self, gateway_url: str, folder: Path, key: str | None = None, hold: str | None = None, every: str = "1s"
    ) -> None:
        """``hold`` stands in for the time that alerts wait before they fire; ``every``: between two looks."""
        binary = program("prometheus")
        config = yaml.safe_load((DEPLOYED / "prometheus.yaml").read_text())
        config["global"] = {"scrape_interval": every, "evaluation_interval": every}
        (job,) = config["scrape_configs"]
        job.pop("authorization")
        job["http_sd_configs"] = [{"url": f"{gateway_url}/metrics/targets", "refresh_interval": "1s"}]
        if key is not None:
            for asked in (job, *job["http_sd_configs"]):
                asked["authorization"] = {"type": "Bearer", "credentials": key}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        for name in config["rule_files"]:
            shutil.copy(DEPLOYED / name, folder / name)
            rules = yaml.safe_load((folder / name).read_text())
            for group in rules["groups"]:
                group["interval"] = every
                for rule in group["rules"]:
                    if hold is not None and "for" in rule:
                        rule["for"] = hold
            (folder / name).write_text(yaml.safe_dump(rules))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            until(lambda: self.process.poll() is not None or self._ready(), what="Prometheus")
            assert self.process.poll() is None, self.log.read_text()
        except BaseException:
            self.stop()
            raise

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def api(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Samples that are numbers."""
        found = self.api("query", query=expression)["result"]
        return [sample for sample in found if sample["value"][1] != "NaN"]

    def alerts(self) -> set[tuple[str, str]]:
        """Names of the alerts that wait or fire now, each with its state: pending or firing."""
        return {(alert["labels"]["alertname"], alert["state"]) for alert in self.api("alerts")["alerts"]}

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        return {name for name, state in self.alerts() if state == "firing"}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
