# make demo   makes a heart CT, segments it by a click in the panel, saves pictures, prints volumes   (CT=path uses your own volume)
# make test   runs every test
# make screenshots   makes the pictures of the panel in Resources/Screenshots
# Both set up what they need in .venv on first use.  PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
VENV ?= .venv
CT ?=
OUT ?= out/demo
PYTEST_ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test screenshots clean

help:
	@sed -n 's/^# //p' $(firstword $(MAKEFILE_LIST))

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

screenshots: $(READY)
	$(BIN)/python -m Testing.screenshots

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .hypothesis out
