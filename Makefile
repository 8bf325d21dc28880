# `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= $(shell command -v python3.11 >/dev/null 2>&1 && python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
S3_VENV := .venv-s3
BIN := $(VENV)/bin
RECSYS := $(BIN)/python -m recsys

# The real data to use instead of the sample shop: make up SOURCE=hasaki REVIEWS=... PRODUCTS=...
SOURCE ?=
REVIEWS ?=
PRODUCTS ?=
UP_OPTIONS := $(if $(SOURCE),--source "$(SOURCE)") $(if $(REVIEWS),--reviews "$(REVIEWS)") $(if $(PRODUCTS),--products "$(PRODUCTS)")

.PHONY: help up down status logs check test cluster-test cluster-packages container-test deploy drill lint spark lock \
  s3-server

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

up: $(VENV)/.installed ## Install, start Airflow and the service, refresh, train, deploy, recommend
	@$(RECSYS) up $(UP_OPTIONS)

down: $(VENV)/.installed ## Stop everything that `make up` started
	@$(RECSYS) scheduler stop

status: $(VENV)/.installed ## Show components, heartbeats and next runs
	@$(RECSYS) scheduler status

logs: ## Follow the log files
	@tail -n 20 -F logs/scheduler/*.log logs/service/*.log

# Tests run side by side, see tests/conftest.py; PYTEST_OPTIONS="-n 0" runs them one by one.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed-dev ## Check style, types, imports and units, in minutes: the daily loop
	@$(MAKE) --no-print-directory lint
	@$(PYTEST) -m "not boots" $(PYTEST_OPTIONS)

test: $(VENV)/.installed-dev s3-server cluster-packages ## Check everything: also what boots Airflow, Spark, a cluster
	@$(MAKE) --no-print-directory lint
	@$(PYTEST) $(PYTEST_OPTIONS)

cluster-test: $(VENV)/.installed-dev s3-server cluster-packages ## Run the production shape's tests alone
	@$(BIN)/python -m pytest tests/cluster $(PYTEST_OPTIONS)

cluster-packages: $(VENV)/.installed-cluster
	@sh tests/cluster/packages.sh

container-test: $(VENV)/.installed-dev ## Build the images and run the production shape in containers (needs root)
	@sh tests/containers/packages.sh
	@$(BIN)/python -m pytest -n 0 -m containers tests/containers $(PYTEST_OPTIONS)

deploy: ## Bring VERSION of the containers into service without an outage; goes back by itself
	@test -n "$(VERSION)" || { echo "name it: make deploy VERSION=..."; exit 1; }
	@python3 docker/deploy.py "$(VERSION)"

drill: $(VENV)/.installed-dev s3-server ## Attack and damage the product; print what it survives
	@for drill in benchmarks/drills/[a-z]*.py; do $(BIN)/python -m "benchmarks.drills.$$(basename $$drill .py)" || exit 1; done
	@$(BIN)/python -m benchmarks.loop.crashes --kills 10 --job-kills 4 --seconds 15
	@$(BIN)/python -m benchmarks.privacy.kills --kills 10

lint: $(VENV)/.installed-dev ## Check style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=include:. $(BIN)/lint-imports --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

spark: $(VENV)/.installed-spark ## Install PySpark, for `engine: spark` (450 MB; needs Java 17)

lock: $(VENV)/.installed-dev ## Compile requirements*.in into pinned requirements*.txt
	@# The CPU build of torch has a local version label that the index does not know.
	@$(BIN)/pip-compile -q --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements.txt requirements.in
	@sed -i 's/^\(torch==[0-9.]*\)+cpu$$/\1/' requirements.txt
	@$(BIN)/pip-compile -q --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements-dev.txt requirements-dev.in
	@$(BIN)/pip-compile -q --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements-cluster.txt requirements-cluster.in
	@$(BIN)/pip-compile -q --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements-service.txt requirements-service.in
	@$(BIN)/pip-compile -q --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements-s3server.txt requirements-s3server.in
	@$(BIN)/pip-compile -q --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements-spark.txt requirements-spark.in

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else "error: Python %d.%d is not supported; install 3.11 or 3.12, or name one: make up PYTHON=python3.11" % v)'
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(BIN)/python
	@echo "Installing the pinned packages (about two minutes with a warm cache)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@# Makes `python -m recsys` work from everywhere without PYTHONPATH.
	@$(BIN)/python -c 'import pathlib, site; pathlib.Path(site.getsitepackages()[0], "recsys.pth").write_text(str(pathlib.Path("include").resolve()) + "\n")'
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed $(VENV)/.installed-spark
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

s3-server: $(S3_VENV)/.installed ## Install the S3 server that the tests start

$(S3_VENV)/.installed: requirements-s3server.txt | $(BIN)/python
	@echo "Installing the S3 server of the tests"
	@$(BIN)/python -m venv $(S3_VENV)
	@$(S3_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-s3server.txt
	@touch $@

$(VENV)/.installed-cluster: requirements-cluster.txt $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-cluster.txt
	@touch $@

$(VENV)/.installed-spark: requirements-spark.txt $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-spark.txt
	@touch $@
