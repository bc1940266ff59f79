# Everything that one does with this project. Nothing has to be installed by hand: each target sees to what it needs.

SHELL := /bin/sh
.DEFAULT_GOAL := help
BIN := .venv/bin
#: Processes that run tests.
JOBS ?= 2
#: The same where machines are booted: for a good part of such a test it waits.
DOCKER_JOBS ?= 3
#: A process that has none left takes tests from another, because those that boot machines stand beside each other.
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
#: What runs at the same time shows its output in one piece each, where this make can do that.
TOGETHER := $(MAKE) --no-print-directory -j 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# Images of Python often set it. Thousands of processes would compile hundreds of modules, each of them again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check quick fmt lint type layers unit sim docker bench docs clean setup setup-base engine

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup-base ## Run the flights example on this machine and print its table
	@$(BIN)/vmrun submit examples/flights.py

test: setup lint type layers docs engine ## Everything: checks, then every test, those on Docker machines included
	VMRUN_MUST_RUN=docker,store,e2e $(PYTEST) tests

test docker: JOBS = $(DOCKER_JOBS)

check: setup ## What to run before a commit: linters, types, layers, and the quick ones of unit tests and simulation
	@$(TOGETHER) quick lint type layers

quick: setup
	$(PYTEST) -m "not slow and not real" tests/unit tests/sim

fmt: setup ## Format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup ## mypy --strict
	$(BIN)/mypy

layers: setup ## Who may import whom
	$(BIN)/lint-imports

unit: setup ## The unit tests alone
	$(PYTEST) tests/unit

sim: setup ## The seeded simulation alone
	$(PYTEST) tests/sim

docker: setup engine ## The tests that boot machines on Docker Engine
	VMRUN_MUST_RUN=docker $(PYTEST) -m docker tests

bench: setup ## The benchmarks: vmrun against its peers, in one run each
	$(BIN)/python benchmarks/run_all.py

docs: setup ## Check the documentation: links, and a reference entry for every command
	$(BIN)/python tools/check_docs.py

clean: ## Remove what was built and measured; the Docker Engine and your jobs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .cache build dist benchmarks/results benchmarks/.peers
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@sh tools/bootstrap.sh dev

setup-base:
	@sh tools/bootstrap.sh base

engine:
	@sh tools/docker.sh
