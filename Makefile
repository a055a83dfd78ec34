# Every command here works on a fresh clone, as root or not.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: setup serve demo test lint types check bench clean lock

setup: $(VENV)/.run

serve: setup
	$(BIN)/muster up --data var

demo: setup
	$(BIN)/muster demo

# The Debian packages come first: npm is one of them.
test: system-packages $(VENV)/.test node_modules/.installed
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy
	$(BIN)/pytest

.PHONY: system-packages
system-packages:
	tests/system-packages test

node_modules/.installed: | system-packages

check: $(VENV)/.test
	$(BIN)/ruff check src tests bench && $(BIN)/ruff format --check src tests bench && $(BIN)/mypy

bench: $(VENV)/.run $(VENV)/peers/.installed
	tests/system-packages bench
	$(BIN)/python -m bench

lock: $(VENV)/.test
	requirements/lock.sh

clean:
	rm -rf $(VENV) node_modules

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python requirements/run.lock pyproject.toml
	$(PIP) install --require-hashes -r requirements/run.lock
	$(PIP) install --no-build-isolation --no-deps -e .
	touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.lock
	$(PIP) install --require-hashes -r requirements/test.lock
	touch $@

$(VENV)/peers/.installed: $(VENV)/bin/python requirements/peers.lock
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/peers.lock
	touch $@

node_modules/.installed: package.json package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund --silent
	touch $@
