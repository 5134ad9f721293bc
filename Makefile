# Needs git, make and a Python of 3.11 or newer; everything else is installed into this checkout by the first target.
# `make help` lists the targets.

UV_VERSION := 0.13.9
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null && echo $$p && break; done)
UV := .tools/bin/uv
BIN := .venv/bin
TESTS ?= tests
PYTEST_ARGS ?= -n auto --dist loadfile --no-loadscope-reorder
# Compiled once and kept. Without this, on a machine that says otherwise, each of the hundreds of processes that the
# tests start would compile all of its imports anew, which takes it two to three seconds.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install up demo test check format bench schemas simulate histories chaos clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## Install Pinflow and its tools into this checkout (.venv, .tools)

up: install ## Run everything on this machine; ARGS="--repo PATH" names the repository to watch
	@$(BIN)/pinflow up $(ARGS)

demo: install ## The whole main job on a throw-away repository, each step proved
	@$(BIN)/pinflow demo

test: install ## All tests, on real git, Postgres and Temporal; TESTS=tests/unit for some
	@$(BIN)/python -m pytest -q $(PYTEST_ARGS) $(TESTS)

check: install ## Format, lint, types, import rules: what needs no server
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install ## Format and mend what can be mended by itself
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

bench: install ## The figures of the README, each as a ratio to its limit in the same run
	@$(BIN)/python -m benchmarks $(ARGS)

schemas: install ## Write the generated files anew: JSON Schema, reference pages
	@$(BIN)/python -m engine.dsl.export
	@$(BIN)/python -m engine.testing.export
	@$(BIN)/python -m engine.core.states > docs/reference/states.md
	@$(BIN)/python -m engine.sync.conditions > docs/reference/conditions.md
	@$(BIN)/python -m engine.planning.reference > docs/reference/plan.md
	@$(BIN)/python -m engine.cli.reference
	@$(BIN)/python -m engine.api.reference

simulate: install ## Random graphs, outcomes and orders through the brain; ARGS="--seeds 100000"
	@$(BIN)/python -m tests.simulation $(ARGS)

histories: install ## A thousand random histories of a repository against a model; ARGS="--count 100 --first 7"
	@$(BIN)/python -m tests.histories $(ARGS)

chaos: install ## The tests that kill processes in the middle of work, alone, and at full size
	@PINFLOW_FULL_SIZE=1 $(BIN)/python -m pytest -q -m chaos $(PYTEST_ARGS) tests

clean: ## Remove what was installed and cached (never data)
	@rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The stamp says that .venv holds what the lock file says; it is redone when either file changes.
.venv/.installed: pyproject.toml uv.lock $(UV)
	@echo "installing into .venv"
	@$(UV) sync --frozen --quiet --compile-bytecode --python "$(PYTHON)"
	@$(BIN)/python -m compileall -q engine || true # a mistake in a file is for `make check` to tell
	@touch $@

$(UV):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "installing uv $(UV_VERSION) into .tools"
	@$(PYTHON) -m venv .tools || { echo "this Python has no venv: install it (on Debian: apt install python3-venv)" >&2; exit 1; }
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
