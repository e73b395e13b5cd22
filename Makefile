# The two commands of the README: `make tune` and `make test`. Each makes its own environment first.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
SITE := .site
# Images set it. The commands and tests start some hundred processes, and each would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: tune test check lint types layers unit integration docs env bench gpu audit clean

tune: .venv/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" mlflow run . -e tune --env-manager local --experiment-name sg_gov

test: check unit integration

check: lint types layers

.venv/.ready: pyproject.toml uv.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv sync --frozen --quiet --all-extras --inexact
	$(BIN)/uv pip install --quiet --no-deps --editable .
	touch $@

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.ready
	$(BIN)/mypy

layers: .venv/.ready
	$(BIN)/lint-imports
	$(BIN)/python docs/rooms.py --check

unit: .venv/.ready
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/unit -q -n 2 --dist worksteal

integration: .venv/.ready
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/integration -q -n 2 --dist loadfile --no-loadscope-reorder --durations=15

docs: .venv/.ready
	$(BIN)/mkdocs build --strict --site-dir "$(SITE)"

env: .venv/.ready

bench: .venv/.ready
	$(BIN)/python -m wertune bench --model-uri "$(MODEL_URI)" $(if $(OF_THEIRS),--of-theirs $(OF_THEIRS))

# What a GPU makes of it, in at most eight minutes, by .venv or whatever Python has torch, transformers, peft and
# bitsandbytes: nothing is installed. Without a GPU small sizes run, and OUT=file.json keeps their figures.
gpu:
	HF_HUB_OFFLINE=1 PYTHONPATH="$(CURDIR)/platform:$(CURDIR)/registry:$$PYTHONPATH" \
		$(or $(wildcard $(BIN)/python),$(PYTHON)) -m wertune.bench.gpu $(if $(OUT),--out "$(OUT)")

# Known vulnerabilities of the locked packages where an advisory source can be asked; the lock itself in any case.
audit: .venv/.ready
	$(BIN)/python deploy/audit.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
