"""``make bench``: everything side by side in one run; JSON and a table under tests/bench/results.

Options: ``overhead`` (no model: gateway, empty replica and bare uvicorn), ``separate`` (the model in a replica of
its own and in the gateway's), ``engine`` (gateway and bare vLLM server); all without options.
"""

from __future__ import annotations

import sys

from tests.bench.serving import engine, overhead
from tests.bench.serving.report import write

PARTS = {"overhead": overhead.run, "separate": overhead.run_separate, "engine": engine.run}


def main() -> None:
    wanted = sys.argv[1:] or list(PARTS)
    for name in wanted:
        write(name, PARTS[name]())


if __name__ == "__main__":
    main()
