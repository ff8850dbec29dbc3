# make demo         makes a heart CT, segments it by a click in the panel, saves pictures, prints volumes (CT=path: your volume)
# make test         runs every test
# make test-fast    runs the tests that are not marked slow, in less than two minutes
# make lint         checks style, format and types: ruff and mypy
# make format       formats the code and fixes what ruff can fix
# make screenshots  makes the pictures of the panel in Resources/Screenshots
# All set up what they need in .venv on first use. PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
VENV ?= .venv
CT ?=
OUT ?= out/demo
PYTEST_ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test test-fast lint format screenshots clean

help:
	@sed -n '/^#/!q; s/^# //p' $(firstword $(MAKEFILE_LIST))

setup: $(READY)

# torch comes first and by exact version: pip then takes a CPU build where the machine offers one.
$(READY): pyproject.toml Testing/requirements-test.txt .ci/install-system-libraries
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	.ci/install-system-libraries
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' Testing/requirements-test.txt)"
	$(BIN)/python -m pip install --quiet -r Testing/requirements-test.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m Testing.demo --out $(OUT) $(if $(CT),--ct $(CT))

test: $(READY)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(READY)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

format: $(READY)
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

screenshots: $(READY)
	$(BIN)/python -m Testing.screenshots

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache out
