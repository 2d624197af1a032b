# Everything a developer or a curious newcomer runs. `make` alone prints this list.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := deploy/requirements.lock
READY := $(VENV)/.ready
# Tests share two cores with a broker and a database: more workers only make them wait for each other.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo up monitor test mutants check bench schemas format lock clean

help: ## This list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(READY) ## A virtual environment with the locked packages and Joblog itself

$(READY): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Joblog needs Python 3.11 or later; name one with: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@mkdir -p .ns/joblog && for part in streams projections services; do ln -sfn ../../$$part .ns/joblog/$$part; done
	@touch $@
	@echo "ready; to have the command joblog: source $(VENV)/bin/activate"

demo: setup ## The main job on a real Kafka and Postgres: detection jobs, end to end; Ctrl-C ends it
	$(BIN)/joblog demo

up: setup ## Kafka, Postgres and all of Joblog's processes, with a worker for the modules in TASKS; Ctrl-C ends it
	$(BIN)/joblog up $(if $(TASKS),--tasks $(TASKS)) $(if $(QUEUES),--queues $(QUEUES))

monitor: setup ## As `make up`, with a Prometheus that has the rules; needs the program prometheus
	$(BIN)/joblog up --monitor $(if $(TASKS),--tasks $(TASKS)) $(if $(QUEUES),--queues $(QUEUES))

check: setup ## Linters, types, import directions, drift of the generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m joblog.services.schemas --check
	$(BIN)/python -m joblog.services.monitoring --check

test: check ## The checks, then all tests on a real Kafka and Postgres
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

mutants: setup ## Whether each defence is held by a test: takes them out one by one; MUTANT=name for one of them
	$(BIN)/python -m tests.mutants $(if $(MUTANT),--only $(MUTANT))

bench: setup ## All benchmarks on an embedded stack, one JSON object a line
	$(BIN)/joblog bench all --embedded --output json

schemas: setup ## Generate everything in deploy/ anew: JSON Schemas, AsyncAPI, Prometheus' rules, dashboards, runbooks
	$(BIN)/python -m joblog.services.schemas
	$(BIN)/python -m joblog.services.monitoring

format: setup ## Format the code
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

lock: setup ## Lock the newest versions of all packages that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-header --upgrade --quiet -o $(LOCK)

clean: ## Remove the environment, the data of `make up` and `make demo`, and caches
	rm -rf $(VENV) .ns .joblog build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
