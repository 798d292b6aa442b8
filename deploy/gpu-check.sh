#!/bin/sh
# On a machine with an NVIDIA GPU: metering against the device's own energy counter, MFU and the books, on the real
# engine. Usage: deploy/gpu-check.sh [pytest arguments]. Ends with status 1 where there is no GPU.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi --list-gpus; then
  echo "no NVIDIA GPU is visible here: nothing was checked" >&2
  exit 1
fi
"$python" -c 'import pynvml; pynvml.nvmlInit(); h = pynvml.nvmlDeviceGetHandleByIndex(0)
print("energy counter, millijoules:", pynvml.nvmlDeviceGetTotalEnergyConsumption(h))'
"$python" -c 'from serving.cli import main; main()' hardware
exec "$python" -m pytest -q tests/integration/serving tests/integration/metering "$@"
