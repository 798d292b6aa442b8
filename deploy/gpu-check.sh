#!/bin/sh
# On a machine with an NVIDIA GPU: metering against the device's own energy counter, MFU and the books, on the real
# engine; then the integration tests. Run on an H100 (tests/bench/gpu): all but the last folder of tests.
# Usage: deploy/gpu-check.sh [pytest arguments]. GPU_PYTHON names an interpreter whose environment is complete (else
# `make gpu-env` makes .venv-gpu), MODEL another model, WATTGATE_CONFIG a configuration (from the repository's root).
set -eu
cd "$(dirname "$0")/.."
python=${GPU_PYTHON:-.venv-gpu/bin/python}
if ! command -v nvidia-smi >/dev/null 2>&1 || ! nvidia-smi --list-gpus; then
  echo "no NVIDIA GPU is visible here: nothing was checked" >&2
  exit 1
fi
if [ -z "${GPU_PYTHON:-}" ]; then
  make --no-print-directory gpu-env
elif ! command -v "$python" >/dev/null 2>&1; then
  echo "no Python at $python: leave GPU_PYTHON away, and \`make gpu-env\` makes an environment" >&2
  exit 1
fi
"$python" -m deploy.gpu_check ${MODEL:+--model "$MODEL"} ${WATTGATE_CONFIG:+--config "$WATTGATE_CONFIG"}
exec "$python" -m pytest -q tests/integration/metering tests/integration/engines tests/integration/serving "$@"
