# Everything a new user needs: `make demo`, `make test`.
SHELL := /bin/bash
PYTHON ?= python3.11
# torch's CPU build comes from PyTorch's own index, unless the default one has it; never an extra index for all
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
GPU_VENV := .venv-gpu
INSTALLED := .installed-$(shell cat deploy/requirements.lock pyproject.toml 2>/dev/null | sha256sum | cut -c1-12)
STAMP := $(VENV)/$(INSTALLED)
GPU_STAMP := $(GPU_VENV)/$(INSTALLED)

.PHONY: demo test unit integration long lint bench bench-cache bench-metering bench-tuning chaos gpu-check gpu-env format lock docs clean storm

demo: $(STAMP)  ## a gateway on the bundled model, asked four ways; ONCE=1 ends by itself
	@$(BIN)/wattgate demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

test: $(STAMP)  ## everything: unit, then integration with Redis 8, vLLM, Ray Serve and HAProxy
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 8 tests/unit
	@$(BIN)/python -m pytest -q tests/integration -m 'not long'

unit: $(STAMP)
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 8 tests/unit

integration: $(STAMP)
	@$(BIN)/python -m pytest -q tests/integration -m 'not long'

long: $(STAMP)  ## the integration tests that take minutes each: two nodes, a rolling upgrade, real models side by side
	@$(BIN)/python -m pytest -q tests/integration -m long

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(STAMP)  ## gateway against bare server and platform floor, side by side; writes tests/bench/results
	@$(BIN)/python -m tests.bench

chaos: $(STAMP)  ## kill -9 in a loop, overload at 5x, soak: 40 minutes; tests/bench/chaos/results
	@$(BIN)/python -m tests.bench.chaos

bench-cache: $(STAMP)  ## the cache's judgement beside others' rules
	@$(BIN)/python -m tests.bench.cache.judgement

bench-metering: $(STAMP)  ## 500 mixed requests and the books; metering on and off
	@$(BIN)/python -m tests.bench.metering mixed overhead

storm: $(STAMP)  ## 10,000 malformed requests and slow clients through HAProxy; writes tests/bench/faults/results
	@$(BIN)/python -m tests.bench.faults.storm --out tests/bench/faults/results

bench-tuning: $(STAMP)  ## real engine, 50 minutes: caps, search, tune against a sweep, simulator against engine, controller
	@for part in sweep fit search_on_sweep live held_out control million; do \
	  PYTHONPATH=. $(BIN)/python -m tests.bench.tuning.$$part --out tests/bench/tuning/results || exit 1; done

gpu-check:  ## on a machine with a GPU: NVML metering, MFU and books, integration tests; MODEL=, WATTGATE_CONFIG=
	@deploy/gpu-check.sh

gpu-env: $(GPU_STAMP)  ## an environment with vLLM and torch for GPUs, in .venv-gpu (about 10 GB)

$(GPU_STAMP): deploy/requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: wattgate needs Python 3.11 (set PYTHON=...)" >&2; exit 1; }
	@test -x $(GPU_VENV)/bin/python || $(PYTHON) -m venv $(GPU_VENV)
	@deploy/install-gpu.sh $(GPU_VENV)/bin/python
	@$(GPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@rm -f $(GPU_VENV)/.installed-* && touch $@

docs: $(STAMP)  ## the README's generated tables
	@$(BIN)/python deploy/readme.py

lock: $(STAMP)  ## resolve deploy/requirements.in anew
	@$(BIN)/python deploy/lock.py

$(STAMP): deploy/requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: wattgate needs Python 3.11 (set PYTHON=...)" >&2; exit 1; }
	@echo "creating the environment in $(VENV) (once, about 4 minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "  1/3 torch (CPU build)"
	@$(BIN)/python -c 'import torch; assert torch.__version__.startswith("$(patsubst torch==%,%,$(TORCH))")' 2>/dev/null || \
	  $(BIN)/python deploy/install_torch.py '$(TORCH)' '$(TORCH_INDEX)'
	@echo "  2/3 $$(grep -c == deploy/requirements.lock) pinned packages"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r deploy/requirements.lock
	@echo "  3/3 wattgate itself"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-* && touch $@

clean:
	rm -rf $(VENV) $(GPU_VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
