# Each target creates .venv and installs what it needs and what is missing.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
# Whose types are checked.
TYPED := swift_plugins/tasks swift_plugins/scoring swift_plugins/files.py swift_plugins/mixture.py data_prep/readers
# One process per core, one file of tests after the other in each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: help demo check test bench lint types install install-dev clean

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: install ## generate a synthetic dataset, train both stages on it, print the scores
	PATH="$(CURDIR)/$(BIN):$$PATH" bash shell/demo.sh

check: lint types ## lint, types and the fast tests: a minute
	$(PYTEST) -q -m "not swift and not slow" $(ARGS)

test: install-dev ## every test; ARGS="-k resume" and the like come after
	$(PYTEST) $(ARGS)

bench: install-dev ## every measurement that this machine can make, an hour or so: benchmarks/results.json, RESULTS.md
	for name in encoding train_throughput; do $(BIN)/python -m benchmarks.$$name || exit; done
	$(BIN)/python -m benchmarks.measure

lint: install-dev ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev ## types of the core
	$(BIN)/mypy $(TYPED)

install: .venv/.installed ## what running needs, into .venv
install-dev: .venv/.installed-dev ## and what tests and lint need

# torch first: an already satisfied torch keeps the resolver from choosing another build.
.venv/.installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $$(grep '^torch==' requirements.txt)
	$(PIP) -r requirements.txt
	touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	$(PIP) -r requirements-dev.txt
	touch $@

clean: ## remove output/
	rm -rf output
