# The newest supported Python that runs (a pyenv shim may not), outside of .venv. Or
# name one: make PYTHON=/path/to/python3.12
SUPPORTED := (3, 11) <= sys.version_info[:2] <= (3, 13)
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do $$python -c \
  'import sys; $(SUPPORTED) or sys.exit(1); print(sys._base_executable)' \
  2>/dev/null && break; done)
# Used if it is installed: faster, and it brings a Python.
UV := $(shell command -v uv | grep -v '^$(CURDIR)/.venv/')
# .venv stays with the lock file that it was made from; see docs/scaling.md on GPUs.
LOCK ?= $(or $(shell cat .venv/lock 2>/dev/null),requirements.lock)
BIN := .venv/bin
# The commands in dvc.yaml find `python` on the path.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup repro test test-slow report gate seeds same bench lint lock

help:
	@echo 'make repro      set up .venv, then run the stages that are out of date'
	@echo 'make test       set up .venv, then run the tests'
	@echo 'make test-slow  inject faults: kill stages, fill the disk, fuzz params.yaml'
	@echo 'make report     compare with another revision: make report BASE=main'
	@echo 'make gate       the same, and fail if a rule of gate.yaml fails'
	@echo 'make seeds      train with the seeds 1 to N: make seeds N=20'
	@echo 'make same       tell which outputs differ from a revision: make same BASE=main'
	@echo 'make bench      time our epoch against other frameworks'
	@echo 'make setup      set up .venv; with GPU packages: make setup LOCK=requirements-gpu.lock'
	@echo 'make lint       check style and format'
	@echo 'make lock       compile the lock files from pyproject.toml'

repro: setup
	$(BIN)/dvc repro

test: setup
	$(BIN)/pytest

test-slow: setup
	$(BIN)/pytest -m slow --dist=load

# HEAD defaults to the workspace.
BASE ?= main

report gate: setup
	$(BIN)/core-mlp $@ '$(BASE)' $(if $(HEAD),'$(HEAD)')

same: setup
	$(BIN)/core-mlp same '$(BASE)'

N ?= 20

seeds: setup
	$(BIN)/core-mlp seeds $(N)

bench: repro
	PYTHONPATH=. TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python benchmarks/bench.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The stamp's name has the content of the lock file: another lock is installed, the same
# one is not installed twice.
STAMP := .venv/installed-$(shell git hash-object $(LOCK))

setup: $(STAMP) .dvc/plots_page.html

$(STAMP):
	@python='$(PYTHON)'; set -e; \
	if test -z "$$python$(UV)"; then \
	  echo 'error: needs Python 3.11, 3.12 or 3.13: try `uv python install 3.13` or' \
	    '`pyenv install 3.13`, or name one: make PYTHON=/path/to/python3.13' >&2; exit 1; \
	fi; \
	if test -n "$$python" && ! "$$python" -c 'import sys; sys.exit(not $(SUPPORTED))'; then \
	  echo "error: $$python is not Python 3.11, 3.12 or 3.13" >&2; exit 1; \
	fi; \
	if test -z '$(UV)' && ! "$$python" -c 'import ensurepip' 2>/dev/null; then \
	  echo "error: $$python lacks the venv module; on Debian and Ubuntu: apt install" \
	    "$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" \
	    >&2; exit 1; \
	fi; \
	echo 'Installing $(LOCK) into .venv: about 190 packages, 3 GB, a few minutes'; \
	if test -n '$(UV)'; then \
	  '$(UV)' venv --quiet --clear --python "$${python:-3.13}" .venv; \
	  pip="$(UV) pip install --quiet --python $(BIN)/python"; \
	else \
	  "$$python" -m venv --clear .venv; \
	  pip='$(BIN)/python -m pip install --quiet --disable-pip-version-check'; \
	fi; \
	$$pip --no-deps --require-hashes -r $(LOCK); \
	$$pip --no-deps --no-build-isolation --editable .; \
	echo $(LOCK) > .venv/lock; \
	touch $@

.dvc/plots_page.html: $(wildcard src/core_mlp/reporting/plots_page.*) $(STAMP)
	$(BIN)/python -m core_mlp.reporting.plots_page
	$(BIN)/dvc config --local plots.html_template plots_page.html

# Versions stay as they are in the present files, except by UPGRADE: `make lock
# UPGRADE='--upgrade-package ruff'`. All is resolved at once, and each file is a part of
# it, so that they agree.
ALL := .venv/all.lock
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal \
  --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'

lock: setup-dev
	cat requirements.lock requirements-dev.lock requirements-gpu.lock > $(ALL)
	$(COMPILE) --extra dev --extra demo --extra gpu --output-file $(ALL) $(UPGRADE)
	cp $(ALL) requirements.lock
	$(COMPILE) --output-file requirements.lock
	cp $(ALL) requirements-gpu.lock
	$(COMPILE) --extra gpu --output-file requirements-gpu.lock
	cp $(ALL) requirements-dev.lock
	$(COMPILE) --extra dev --extra demo --output-file requirements-dev.lock \
	  $$(grep -Fxf requirements.lock $(ALL) \
	    | sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p')
