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

.PHONY: help up down status logs check test cluster-test cluster-packages container-test deploy drill pictures lint spark lock \
  licences sbom audit s3-server

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

pictures: $(VENV)/.installed-dev ## Make the pictures of the docs anew: PICTURES="demo monitor", HOME_OF=... where it runs
	@sh tests/cluster/packages.sh
	@$(BIN)/python -m benchmarks.docs.pictures $(PICTURES) $(if $(HOME_OF),--home "$(HOME_OF)") $(if $(HASAKI),--hasaki "$(HASAKI)")

lint: $(VENV)/.installed-dev ## Check style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=include:. $(BIN)/lint-imports --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

spark: $(VENV)/.installed-spark ## Install PySpark, for `engine: spark` (450 MB; needs Java 17)

# uv reads the digests that PyPI states; torch is kept apart, see docs/supply-chain.md.
LOCK := $(BIN)/uv pip compile --quiet --no-config --python-version 3.11 --generate-hashes \
  --override requirements.overrides --custom-compile-command "make lock"

lock: $(VENV)/.installed-dev ## Compile requirements*.in into requirements*.txt, with digests
	@for file in requirements.in $(filter-out requirements.in,$(wildcard requirements*.in)); do \
	  $(LOCK) --output-file "$${file%.in}.txt" "$$file" || exit 1; \
	done

# What is looked at is what is installed: the lock files' packages, with `make cluster-packages` those
# of the containers.
AUDIT_BIN := .venv-audit/bin

licences: .venv-audit/.installed $(VENV)/.installed-cluster ## Write the licences of what we ship into docs/licences.md
	@{ printf '# Licences\n\nOf the packages of requirements.txt, -torch and -cluster. Written by `make licences`.\n\n'; \
	  $(AUDIT_BIN)/pip-licenses --python $(BIN)/python --with-system --from mixed --format markdown --no-version --order name \
	  --packages $$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/\1/p' requirements.txt requirements-torch.txt requirements-cluster.txt | sort -u) \
	  | sed 's/  *|/ |/g; s/-\{4,\}/---/g'; } > docs/licences.md.tmp
	@mv docs/licences.md.tmp docs/licences.md

BOM_OPTIONS := --output-reproducible --output-format JSON --output-file
sbom: .venv-audit/.installed $(VENV)/.installed ## Write bills of materials (CycloneDX): sbom.json, sbom-service.json
	@$(AUDIT_BIN)/cyclonedx-py environment $(BOM_OPTIONS) sbom.json $(BIN)/python
	@$(AUDIT_BIN)/cyclonedx-py requirements $(BOM_OPTIONS) sbom-service.json requirements-service.txt

audit: .venv-audit/.installed ## Look up known vulnerabilities of the pins; needs PyPI's JSON API
	@for file in $(wildcard requirements*.txt); do \
	  echo "$$file"; $(AUDIT_BIN)/pip-audit --strict --disable-pip --no-deps --requirement "$$file" || exit 1; \
	done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else "error: Python %d.%d is not supported; install 3.11 or 3.12, or name one: make up PYTHON=python3.11" % v)'
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A lock file has all packages with the digests of their files, and takes no other.
LOCKED := --no-deps --require-hashes --requirement

$(VENV)/.installed: requirements.txt requirements-torch.txt | $(BIN)/python
	@echo "Installing the pinned packages (about two minutes with a warm cache)"
	@$(INSTALL) $(LOCKED) requirements.txt
	@$(INSTALL) --requirement requirements-torch.txt
	@# Makes `python -m recsys` work from everywhere without PYTHONPATH.
	@$(BIN)/python -c 'import pathlib, site; pathlib.Path(site.getsitepackages()[0], "recsys.pth").write_text(str(pathlib.Path("include").resolve()) + "\n")'
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed $(VENV)/.installed-spark
	@$(INSTALL) $(LOCKED) requirements-dev.txt
	@touch $@

s3-server: $(S3_VENV)/.installed ## Install the S3 server that the tests start

$(S3_VENV)/.installed: requirements-s3server.txt | $(BIN)/python
	@echo "Installing the S3 server of the tests"
	@$(BIN)/python -m venv $(S3_VENV)
	@$(S3_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(LOCKED) requirements-s3server.txt
	@touch $@

$(VENV)/.installed-cluster: requirements-cluster.txt $(VENV)/.installed
	@$(INSTALL) $(LOCKED) requirements-cluster.txt
	@touch $@

$(VENV)/.installed-spark: requirements-spark.txt $(VENV)/.installed
	@$(INSTALL) $(LOCKED) requirements-spark.txt
	@touch $@

.venv-audit/.installed: requirements-audit.txt | $(BIN)/python
	@$(BIN)/python -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check $(LOCKED) requirements-audit.txt
	@touch $@
