"""Write the README's generated parts: configuration reference, metric catalogue, benchmark tables.

``make docs`` writes them; ``--check`` only says whether they are stale (exit status 1).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from serving.cli.configuration import reference_markdown
from serving.metrics import catalogue_markdown

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "tests" / "bench" / "results"


def table(rows: list[dict[str, object]]) -> str:
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    for row in rows:
        cells = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def benchmark(name: str) -> str:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return "(not run yet: `make bench`)"
    result = json.loads(path.read_text())
    machine = result["machine"]
    head = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['date']}, "
        f"load average before {machine['load_before']:.1f}; `{result['command']}`, median of {result['rounds']} rounds."
    )
    parts = [head, table(result["rows"])]
    if "ratios" in result:
        parts.append(table(result["ratios"]))
    return "\n\n".join(parts)


GENERATED = {
    "configuration": reference_markdown,
    "metrics": catalogue_markdown,
    "bench-overhead": lambda: benchmark("overhead"),
    "bench-separate": lambda: benchmark("separate"),
    "bench-engine": lambda: benchmark("engine"),
}


def rendered(text: str) -> str:
    """The README with every ``<!-- name -->`` ... ``<!-- /name -->`` filled anew."""
    for name, make in GENERATED.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"README.md has no place for {name}")
        content = make()
        text = pattern.sub(lambda found, content=content: f"{found.group(1)}{content}\n{found.group(2)}", text)
    return text


def main() -> None:
    now = README.read_text()
    new = rendered(now)
    if "--check" in sys.argv:
        sys.exit(now != new)
    README.write_text(new)


if __name__ == "__main__":
    main()
