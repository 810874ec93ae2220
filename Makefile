# Two commands on a fresh machine: `make train` and `make test`. Either sets up everything first.

PYTHON ?= python3
VENV ?= .venv
TORCH = 2.13.0
# Where PyTorch's install page keeps its CPU builds. Used when no GPU is found and no CPU build is nearer.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

BIN = $(VENV)/bin
READY = $(VENV)/.swannery-ready
DOWNLOAD_FAILED = { echo; echo "A download failed. Check the network and run the same command again: what is already there is kept."; \
	echo "Behind a mirror, set pip's index-url; for CPU builds of torch, make TORCH_CPU_INDEX=URL."; exit 1; }

.PHONY: setup train test test-slow chaos lint benchmark clean torch

train: setup  ## the main job: raise a 1M hybrid MoE policy in five environments
	@$(BIN)/swannery train quickstart $(ARGS)

test: setup  ## the whole test suite
	@$(BIN)/python -m pytest -m "not slow and not gpu" $(ARGS)

test-slow: setup  ## minutes rather than seconds: kill -9 at random moments
	@$(BIN)/python -m pytest -m slow $(ARGS)

chaos: setup  ## the fault table, and 200 random kills
	@$(BIN)/python -m pytest tests/rl/faults tests/rl/test_chaos.py tests/rl/test_resume.py $(ARGS)
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/chaos.py

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright

benchmark: setup  ## the main job over 3 seeds, with both controls
	@$(BIN)/python benchmarks/quickstart.py $(ARGS)

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory torch
	@echo "Installing swannery and what it needs ..."
	@$(BIN)/pip install -q -c constraints.txt -e '.[dev]' || $(DOWNLOAD_FAILED)
	@touch $@

# A GPU brings torch's CUDA build. Without one only a CPU build will do (its version ends in +cpu on Linux x86-64).
torch: $(BIN)/python
	@$(BIN)/python -c 'import torch; assert torch.__version__.startswith("$(TORCH)")' 2>/dev/null && exit 0; \
	echo "Installing torch $(TORCH) ..."; \
	if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 || [ "$$(uname -sm)" != "Linux x86_64" ]; then \
		$(BIN)/pip install -q -c constraints.txt 'torch==$(TORCH)'; \
	else \
		$(BIN)/pip install -q -c constraints.txt 'torch==$(TORCH)+cpu' 2>/dev/null || \
		$(BIN)/pip install -q -c constraints.txt --extra-index-url $(TORCH_CPU_INDEX) 'torch==$(TORCH)+cpu'; \
	fi || $(DOWNLOAD_FAILED)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "swannery needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "Python's venv module is missing: on Debian or Ubuntu, apt install python3-venv"; rm -rf $(VENV); exit 1; }

clean:
	rm -rf $(VENV) build dist *.egg-info
