# The lock file that .venv is made from: the one that the stages in dvc.yaml depend on.
USED := $(shell sed -n 's/^- requirements: *//p' dvc.yaml)
LOCK := $(or $(USED),requirements.lock)
BIN := .venv/bin
# The commands in dvc.yaml find `python` on the path.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# These would add packages from outside .venv, or hide the stages.
unexport PYTHONHOME PYTHONPATH PYTHONSAFEPATH
# As containers set it, each stage would compile TensorFlow's 2,000 modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-dev repro test test-slow report gate seeds same bench lint lock

help:
	@echo 'make repro      set up .venv, then run the stages that are out of date'
	@echo 'make test       set up .venv, then run the tests'
	@echo 'make test-slow  inject faults: kill stages, fill the disk, fuzz params.yaml'
	@echo 'make report     compare with another revision: make report BASE=main'
	@echo 'make gate       the same, and fail if a rule of gate.yaml fails'
	@echo 'make seeds      train with the seeds 1 to N: make seeds N=20'
	@echo 'make same       list the outputs that differ from a revision: make same BASE=main'
	@echo 'make bench      time our epoch against other frameworks'
	@echo 'make setup      set up .venv; with GPU packages: make setup LOCK=requirements-gpu.lock'
	@echo 'make setup-dev  the same, with what tests, linting and demo need'
	@echo 'make lint       check style and format'
	@echo 'make lock       compile the lock files from pyproject.toml'

repro: setup
	@$(BIN)/python -m core_mlp.pipeline.environment
	$(BIN)/dvc repro

test: setup-dev
	$(BIN)/pytest

test-slow: setup-dev
	$(BIN)/pytest -m slow --dist=load -o faulthandler_timeout=3600

# HEAD defaults to the workspace.
BASE ?= main
export BASE HEAD

report gate: setup
	$(BIN)/core-mlp $@ "$$BASE" $${HEAD:+"$$HEAD"}

same: setup
	$(BIN)/core-mlp same "$$BASE"

N ?= 20

seeds: setup
	$(BIN)/core-mlp seeds $(N)

bench: repro
	PYTHONPATH=. TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python benchmarks/bench.py

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# A stamp is named after the hash of its lock file: a changed lock is installed, the same
# one is not installed twice.
DEV_LOCK := requirements-dev.lock
STAMP := .venv/installed-$(shell git hash-object $(LOCK))
DEV_STAMP := .venv/added-$(shell git hash-object $(DEV_LOCK))

# Python and uv can be named: make setup PYTHON=/path/to/python3.12 UV=none
setup: $(STAMP) .dvc/plots_page.html
	@if test '$(USED)' != '$(LOCK)'; then \
	  sed 's/^- requirements:.*/- requirements: $(LOCK)/' dvc.yaml > .venv/dvc.yaml; \
	  cat .venv/dvc.yaml > dvc.yaml; \
	  echo 'dvc.yaml: the stages depend on $(LOCK) now'; \
	fi

setup-dev: setup $(DEV_STAMP)

$(STAMP):
	@.ci/set_up $(LOCK) $@

$(DEV_STAMP): $(STAMP)
	@.ci/set_up $(LOCK) $(STAMP) $(DEV_LOCK) $@

.dvc/plots_page.html: $(wildcard src/core_mlp/reporting/plots_page.*) $(STAMP)
	$(BIN)/python -m core_mlp.reporting.plots_page
	$(BIN)/dvc config --local plots.html_template plots_page.html

# Versions stay as they are in the present files, except for those that UPGRADE names:
# make lock UPGRADE='--upgrade-package ruff'. All are resolved at once, and each file is
# a part of the result, so that they agree.
NEW := .venv/locks
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal \
  --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'
DEV_EXTRAS := --extra dev --extra demo --extra suspects

lock: setup-dev
	mkdir -p $(NEW)
	cat requirements*.lock > $(NEW)/all
	$(COMPILE) $(DEV_EXTRAS) --extra gpu --output-file $(NEW)/all $(UPGRADE)
	for name in requirements requirements-gpu requirements-dev; do \
	  cp $(NEW)/all $(NEW)/$$name.lock || exit; \
	done
	$(COMPILE) --output-file $(NEW)/requirements.lock
	$(COMPILE) --extra gpu --output-file $(NEW)/requirements-gpu.lock
	$(COMPILE) $(DEV_EXTRAS) --output-file $(NEW)/$(DEV_LOCK) \
	  $$(grep -Fxf $(NEW)/requirements.lock $(NEW)/all \
	    | sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p')
	mv $(NEW)/*.lock .
