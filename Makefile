# Every target does its own set-up: a virtual environment with pinned dependencies in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUTPUTS ?= outputs

# Nothing here needs the hub; say so, or a missing network costs retries.
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= true

# How large the tables are (smoke, small, paper), and how many of their runs go at a time.
SCALE ?= smoke
JOBS ?= $(if $(filter smoke,$(SCALE)),2,1)
TABLES := table-squad1 table-squad2 table-mrqa table-strategies table-fewshot table-transfer table-ablation

.PHONY: help setup quickstart test check lint types results compare bench tables clean $(TABLES)

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/:.*  ## /\t/' | expand -t 22

setup: $(READY)  ## make the virtual environment with the pinned dependencies

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,tables]'
	@touch $@

quickstart: $(READY)  ## fine-tune on the sample questions, offline: scores before and after, two answers
	$(BIN)/python run_qa.py --config experiments/quickstart.yaml --output_dir $(OUTPUTS)/quickstart \
	  --overwrite_output_dir true

test: $(READY)  ## run the tests: offline, on CPU, in under five minutes
	$(BIN)/python -m pytest

check: lint types test  ## lint, types and tests

lint: $(READY)  ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy
	$(BIN)/mypy

results: $(READY)  ## print the README's table of results from the committed records
	$(BIN)/python -m qa.reporting.result_table $(wildcard experiments/results/*.json qa/readers/default/run.json \
	  qa/readers/default/evaluation-*.json)

compare: $(READY)  ## set runs side by side: RUNS="outputs/a outputs/b" (default: all in outputs) WANDB=entity/project
	$(BIN)/python experiments/compare.py $(RUNS) $(if $(WANDB),--wandb $(WANDB))

bench: $(READY)  ## speed and memory beside a plain Trainer: twenty quiet minutes; PARTS=all, or training decoding ...
	$(BIN)/python -m experiments.bench $(PARTS)

$(TABLES): table-%: $(READY)
	$(BIN)/python -m qa.tables $* --scale $(SCALE) --jobs $(JOBS) --outputs $(OUTPUTS) \
	  $(if $(REPORT_TO),--report-to $(REPORT_TO))

table-squad1:  ## SQuAD 1.1: runs what is missing, prints ours and published; SCALE=smoke|small|paper JOBS=N
table-squad2:  ## SQuAD 2.0
table-mrqa:  ## MRQA, in and out of domain
table-strategies:  ## every way of tuning on equal terms
table-fewshot:  ## 16 to 1,024 examples, five seeds
table-transfer:  ## train on one domain, test on every other
table-ablation:  ## what each design choice is worth

tables: $(READY)  ## print all tables that have committed records
	$(BIN)/python -m qa.tables --committed --outputs $(OUTPUTS)

clean:  ## remove outputs and caches, keep the virtual environment
	rm -rf $(OUTPUTS) .pytest_cache .mypy_cache .ruff_cache
