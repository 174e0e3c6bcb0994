# Found as python3.11 or python3, or given as make PYTHON=/path/to/python3.11.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# The lock file that .venv was made from is kept to: see the README on GPUs.
LOCK ?= $(or $(shell cat .venv/lock 2>/dev/null),requirements.lock)
BIN := .venv/bin
# The commands in dvc.yaml take `python` from the environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup repro test test-slow report gate seeds bench lint lock

help:
	@echo 'make repro      set up .venv, then run what is out of date in the pipeline'
	@echo 'make test       set up .venv, then run the tests'
	@echo 'make test-slow  kill stages at random moments, fill the disk, fuzz params.yaml'
	@echo 'make report     compare with another revision: make report BASE=main'
	@echo 'make gate       the same, and fail if a rule of ci/gate.yaml fails'
	@echo 'make seeds      run the current parameters under five seeds: make seeds N=5'
	@echo 'make bench      run the pipeline, then time our epoch against others'
	@echo 'make setup      set up .venv alone; for GPUs: make setup LOCK=requirements-gpu.lock'
	@echo 'make lint       check style and format'
	@echo 'make lock       compile the lock files anew from pyproject.toml'

repro: setup
	$(BIN)/dvc repro

test: setup
	$(BIN)/pytest

test-slow: setup
	$(BIN)/pytest -m slow --dist=load

# HEAD is the workspace unless it is given.
BASE ?= main

report: setup
	PYTHONPATH=src $(BIN)/python -m ci.report '$(BASE)' $(if $(HEAD),'$(HEAD)')

gate: setup
	PYTHONPATH=src $(BIN)/python -m ci.report '$(BASE)' $(if $(HEAD),'$(HEAD)') --gate

N ?= 5

seeds: setup
	PYTHONPATH=src $(BIN)/python -m ci.seeds $(N)

bench: repro
	PYTHONPATH=src:. TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python benchmarks/bench.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The stamp is named after the content of the lock file: what is installed already is
# not installed again, and another lock file is.
STAMP := .venv/installed-$(shell git hash-object $(LOCK))

setup: $(STAMP) .dvc/plots_page.html

$(STAMP):
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo 'error: needs Python 3.11: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'Installing $(LOCK) into .venv: some 160 packages, 1 GB, a few minutes'
	'$(PYTHON)' -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --require-hashes -r $(LOCK)
	echo $(LOCK) > .venv/lock
	touch $@

.dvc/plots_page.html: ci/plots_page.py $(STAMP)
	$(BIN)/python ci/plots_page.py
	$(BIN)/dvc config --local plots.html_template plots_page.html

COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal \
  --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'

lock: setup
	$(COMPILE) --extra dev --output-file requirements.lock
	$(COMPILE) --extra dev --extra gpu --output-file requirements-gpu.lock
