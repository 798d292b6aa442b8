"""Install torch's CPU build, alone and first: from the default index where that has it, else from PyTorch's.

Usage: install_torch.py torch==VERSION INDEX_URL. A dry run tells whether the default index would bring the
CPU build or gigabytes of CUDA.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def default_index_has_cpu_build(requirement: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        tried = subprocess.run(
            [*PIP, "--dry-run", "--no-deps", "--ignore-installed", "--report", str(report), requirement],
            capture_output=True,
            check=False,
        )
        if tried.returncode != 0:
            return False
        items = json.loads(report.read_text())["install"]
    return any(str(item["metadata"]["version"]).endswith("+cpu") for item in items)


def main() -> None:
    requirement, index = sys.argv[1:3]
    where = [] if default_index_has_cpu_build(requirement) else ["--index-url", index]
    sys.exit(subprocess.run([*PIP, *where, requirement], check=False).returncode)


if __name__ == "__main__":
    main()
