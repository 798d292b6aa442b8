"""``make chaos``: faults, overload and soak; JSON and a table each under ``results``. Exit status 1 on a defect."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.bench.chaos import faults, overload, soak
from tests.bench.serving.report import machine, show

RESULTS = Path(__file__).parent / "results"


def keep(name: str, result: dict[str, Any], before: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"machine": before, **result}, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown(name, result, before))
    show(name, result["rows"])


def markdown(name: str, result: dict[str, Any], before: dict[str, Any]) -> str:
    rows = result["rows"]
    cell = lambda value: f"{value:.3g}" if isinstance(value, float) else str(value)  # noqa: E731
    lines = [
        f"# Chaos: {name}",
        "",
        f"{before['cpu']}, {before['cores']} cores, {before['memory_gb']} GB, {before['date']}; `{result['command']}`.",
        "",
        "| " + " | ".join(rows[0]) + " |",
        "|" + " --- |" * len(rows[0]),
        *("| " + " | ".join(cell(value) for value in row.values()) + " |" for row in rows),
        "",
    ]
    for key, value in result.items():
        if key in ("rows", "command"):
            continue
        told = ", ".join(f"{k}: {cell(v)}" for k, v in value.items()) if isinstance(value, dict) else value
        lines.append(f"- {key}: {told if told != [] else 'none'}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.chaos", description=__doc__)
    parser.add_argument("part", nargs="*", help="faults, overload, soak; none: all")
    parser.add_argument("--plan", default="together", choices=sorted(faults.PLANS), help="of faults: which gateway")
    parser.add_argument("--faults-seconds", type=float, default=600.0)
    parser.add_argument("--pause-seconds", type=float, default=8.0, help="between two kills")
    parser.add_argument("--overload-seconds", type=float, default=300.0)
    parser.add_argument("--best-seconds", type=float, default=30.0, help="to find the best goodput")
    parser.add_argument("--soak-seconds", type=float, default=1200.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    parts = {
        "faults": lambda: faults.run(chosen.plan, chosen.faults_seconds, chosen.pause_seconds),
        "overload": lambda: overload.run(chosen.overload_seconds, chosen.best_seconds),
        "soak": lambda: soak.run(chosen.soak_seconds),
    }
    defects = []
    for name in chosen.part or parts:
        before = machine()
        result = {"command": f"python -m tests.bench.chaos {' '.join(sys.argv[1:])}".strip(), **parts[name]()}
        keep(name, result, before, chosen.out)
        defects += result["defects"]
    for defect in defects:
        print(f"defect: {defect}", file=sys.stderr)
    sys.exit(1 if defects else 0)


if __name__ == "__main__":
    main()
