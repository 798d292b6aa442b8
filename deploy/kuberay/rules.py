"""Prometheus' rules as the Prometheus operator takes them: ``python deploy/kuberay/rules.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
PROMETHEUS = HERE.parent / "prometheus"
HEADER = """\
# Written by deploy/kuberay/rules.py from deploy/prometheus/{recording,alerts}.yaml: change those.
# NOT APPLIED HERE (no cluster): a test compares it with them, and they are what promtool tests.
# A Prometheus whose `ruleSelector` asks for labels wants them on this object. `runbook` means deploy/runbook.md.
"""


def build() -> str:
    """The file's text."""
    groups = [
        group
        for name in ("recording", "alerts")
        for group in yaml.safe_load((PROMETHEUS / f"{name}.yaml").read_text())["groups"]
    ]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "wattgate", "namespace": "wattgate"},
        "spec": {"groups": groups},
    }
    return HEADER + yaml.safe_dump(rule, sort_keys=False, width=120)


def main() -> int:
    (HERE / "prometheus-rules.yaml").write_text(build())
    return 0


if __name__ == "__main__":
    sys.exit(main())
