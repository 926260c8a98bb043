# The verbs of a checkout. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CONFIG ?= deployments/local/foretaste.yaml

.PHONY: setup demo test check bench serve clean

setup: $(READY)

# A half-made environment leaves no .ready and is completed by the next call.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: setup
	$(BIN)/foretaste demo --config $(CONFIG)

serve: setup
	$(BIN)/foretaste serve --config $(CONFIG)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/pytest $(PYTEST_ARGS)

bench: setup
	$(BIN)/foretaste bench models --quick --json --config $(CONFIG)

clean:
	rm -rf .foretaste .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
