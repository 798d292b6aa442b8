"""A gateway's history outlives it, and its report has the grid that a trace gave."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = [pytest.mark.ray]


def report(store: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", "from serving.cli import main; main()", "report", "--since", "1h", "--json"]
    done = subprocess.run([*command, "--store", str(store)], capture_output=True, text=True, timeout=60)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {"totals": []}


@pytest.mark.long
def test_a_report_covers_what_came_before_a_restart(tmp_path: Path) -> None:
    store, trace = tmp_path / "history.sqlite3", tmp_path / "grid.csv"
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    trace.write_text(
        "time,grams_per_kwh\n" + "".join(f"{(hour + timedelta(hours=h)).isoformat()},{250 + h}\n" for h in range(6))
    )
    config = tmp_path / "wattgate.yaml"
    config.write_text(
        f"engine: {{kind: simulated}}\nmetering:\n  zone: DEU\n  history: {{path: '{store}'}}\n"
        f"  intensity: {{source: trace, trace: '{trace}'}}\n"
    )
    for served in (3, 7):
        gateway = GatewayProcess("--config", str(config), "--port", "0").wait_ready()
        try:
            model = httpx.get(f"{gateway.url}/v1/models", timeout=30).json()["data"][0]["id"]
            for number in range(3):
                body = {"model": model, "messages": [{"role": "user", "content": f"{number} of {served}"}]}
                assert httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
            assert gateway.metric("wattgate_intensity_grams_per_kwh", source="trace grid.csv (scripted)") >= 250

            def covered(served: int = served) -> dict[str, Any] | None:
                made = report(store)
                whole = made["totals"] and made["totals"][0]["requests"] == served
                return made if whole and made["totals"][0]["energy_kwh"]["total"] else None

            found = until(covered, what=f"a report of {served} requests")
            # nothing waits for this one's minute to be written: the orderly stop does it
            last = {"model": model, "messages": [{"role": "user", "content": f"the last of {served}"}]}
            assert httpx.post(f"{gateway.url}/v1/chat/completions", json=last, timeout=60).status_code == 200
        finally:
            gateway.stop()
    (total,) = report(store)["totals"]
    assert total["requests"] == 8
    assert total["method"] == "simulated"
    assert any(source.startswith("trace grid.csv") for source in total["sources"])
    assert found["groups"][0]["tenant"] == "default"
