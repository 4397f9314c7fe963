# Trefoil. `make` lists what there is; everything runs in .venv, which `make` sets up by itself.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# The first of these that runs; set PYTHON to choose another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Options for pip when it fetches PyTorch, for example --index-url with the address of its CPU builds.
TORCH_PIP_OPTIONS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The demo's choices, for example: make demo DATA=~/chest_xray HOSPITALS=4 ROUNDS=10 SKEW=0.5
DEMO_OPTIONS := $(if $(DATA),--data '$(DATA)') $(if $(HOSPITALS),--hospitals $(HOSPITALS)) \
	$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(MODEL),--model $(MODEL)) $(if $(SIZE),--size $(SIZE)) \
	$(if $(SKEW),--skew $(SKEW)) $(if $(SEED),--seed $(SEED)) $(if $(OUTPUT),--output '$(OUTPUT)')

# Tests and services share the cores; more threads in each only get into each other's way.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help demo test test-full lint format proto clean

help: ## list the targets
	@echo 'make TARGET'
	@grep -hE '^[a-z.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z.-]+):.*## (.*)/  \1\t\2/' | column -t -s "$$(printf '\t')"
	@echo
	@echo 'make demo takes DATA=path HOSPITALS=3 ROUNDS=n MODEL=small_cnn SIZE=28 SKEW=0.5 SEED=0 OUTPUT=runs'

$(STAMP): pyproject.toml
	@test -n '$(PYTHON)' || { echo 'Trefoil needs Python 3.11 or newer: make PYTHON=/path/to/python3' >&2; exit 1; }
	@test -x $(BIN)/python || '$(PYTHON)' -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(TORCH_PIP_OPTIONS) torch==2.13.0 torchvision==0.28.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)

$(VENV): $(STAMP) ## set up the virtual environment

demo: $(STAMP) ## train with three hospitals and ask the model, on this machine
	@$(BIN)/trefoil demo $(DEMO_OPTIONS)

lint: $(STAMP) ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The end-to-end tests start seven processes each, so they have the machine to themselves.
test: lint ## lint, then every test but the slow ones
	@tools/system_packages.sh
	$(TEST_ENV) $(BIN)/python -m pytest --ignore=tests/e2e -n 2 --dist loadfile
	$(TEST_ENV) $(BIN)/python -m pytest tests/e2e

test-full: lint ## lint, then all tests
	@tools/system_packages.sh
	$(TEST_ENV) $(BIN)/python -m pytest --ignore=tests/e2e -n 2 --dist loadfile -m ''
	$(TEST_ENV) $(BIN)/python -m pytest tests/e2e -m ''

format: $(STAMP) ## let ruff format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(STAMP) ## generate the code of protos/ into libs/rpc/_generated
	$(BIN)/python protos/generate.py

clean: ## remove the virtual environment, caches and demo results
	rm -rf $(VENV) runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
