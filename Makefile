# make demo         makes a heart CT, segments it by a click in the panel, saves pictures, prints volumes (CT=path: your volume)
# make test         runs every test
# make test-fast    runs the tests that are not marked slow, in less than two minutes
# make test-oldest  runs the core tests with the oldest PyTorch and NumPy that are supported, and compares the labels
# make lint         checks style, format and types: ruff and mypy
# make format       formats the code and fixes what ruff can fix
# make screenshots  makes the pictures of the panel in Resources/Screenshots
# All set up what they need in .venv on first use. PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .venv-oldest
CPU_TORCH ?= --index-url https://download.pytorch.org/whl/cpu
CT ?=
OUT ?= out/demo
PYTEST_ARGS ?=
# Tests of one file stay in one process, and files are taken in order: those of the panel reload the package, so they come last.
PROCESSES ?= 2

BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST_READY := $(OLDEST)/.ready

.PHONY: help setup demo test test-fast test-oldest lint format screenshots clean

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
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-fast: $(READY)
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder -m "not slow" $(PYTEST_ARGS)

# The oldest PyTorch comes from where it has no CUDA; CPU_TORCH= takes pip's usual source: 5 GB, and the same labels.
# In Slicer on macOS it meets NumPy 2, for which it was not built: numpy2/ has today's NumPy and SciPy, which go before
# the oldest on the search path.
$(OLDEST_READY): Testing/requirements-oldest.txt pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet $(CPU_TORCH) "$$(grep '^torch==' Testing/requirements-oldest.txt)"
	$(OLDEST)/bin/python -m pip install --quiet -r Testing/requirements-oldest.txt
	$(OLDEST)/bin/python -m pip install --quiet --no-deps -e .
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --target $(OLDEST)/numpy2 $$(grep -E '^(numpy|scipy)==' Testing/requirements-test.txt)
	touch $(OLDEST_READY)

test-oldest: $(READY) $(OLDEST_READY)
	$(OLDEST)/bin/python -m pytest Testing/core -m "not slow" $(PYTEST_ARGS)
	PYTHONPATH=$(OLDEST)/numpy2 $(OLDEST)/bin/python -m pytest Testing/core/test_arrays.py
	$(BIN)/python -m Testing.same_labels $(OLDEST)/bin/python
	PYTHONPATH=$(OLDEST)/numpy2 $(BIN)/python -m Testing.same_labels $(OLDEST)/bin/python

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
	rm -rf $(VENV) $(OLDEST) build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache out
