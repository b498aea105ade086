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

test: .venv/.installed
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf output
