# Every target does its own set-up: a virtual environment with pinned dependencies in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUTPUTS ?= outputs

# Nothing here needs the hub; say so, or a missing network costs retries.
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= true

.PHONY: help setup quickstart test check lint types results clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/:.*  ## /\t/' | expand -t 22

setup: $(READY)  ## make the virtual environment with the pinned dependencies

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(READY)  ## fine-tune on the sample questions, offline: scores before and after, two answers
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	  run_qa.py --config experiments/quickstart.yaml --output_dir $(OUTPUTS)/quickstart --overwrite_output_dir true

test: $(READY)  ## run the tests: offline, on CPU, in under five minutes
	$(BIN)/python -m pytest

check: lint types test  ## lint, types and tests

lint: $(READY)  ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy
	$(BIN)/mypy

results: $(READY)  ## print the README's table of results from the committed records
	$(BIN)/python -m qa.reporting.result_table experiments/results/*.json

clean:  ## remove outputs and caches, keep the virtual environment
	rm -rf $(OUTPUTS) .pytest_cache .mypy_cache .ruff_cache
