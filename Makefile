# make demo | make test | make lint; each creates .venv and installs what is missing.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.PHONY: demo test lint install clean

# torch first: an already satisfied torch keeps the resolver from choosing another build.
.venv/.installed: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

install: .venv/.installed

demo: .venv/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" bash shell/demo.sh

# One process per core, one file of tests after the other in each: ARGS="-k resume" and the like come after.
test: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf output
