# Everpost. `make help` lists the targets. PYTHON= picks the interpreter (CPython 3.11 or later).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DATA   ?= ./data
LISTEN ?= 127.0.0.1:8080
CHAOS  ?= --seed 7 --minutes 1
CLUSTER_CHAOS ?= --seed 7 --minutes 5
# Patroni's: an interpreter that user postgres may run, hence not one under /root.
CLUSTER_PYTHON ?= /usr/bin/python3
.DEFAULT_GOAL := help
.PHONY: help venv venv-dev lock serve check format test test-all bench chaos cluster chaos-cluster upgrade demo-failover docs clean

help: ## list the targets
	@grep -E '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

venv: $(VENV)/.runtime ## build .venv from the hash-pinned lock (the other targets call it)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Everpost needs CPython 3.11 or later; say make PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot build virtual environments here; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

venv-dev: $(VENV)/.dev

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

lock: ## renew the lock files (needs uv)
	uv pip compile pyproject.toml --group build --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o requirements.lock
	uv pip compile pyproject.toml --group build --group dev --group bench --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements.lock -o requirements-dev.lock

serve: venv ## start Everpost on this machine: DATA=./data LISTEN=127.0.0.1:8080
	exec $(BIN)/everpost serve --data $(DATA) --listen $(LISTEN)

check: venv-dev ## format, lint, types, architecture
	$(BIN)/ruff format --check src tests bench demo
	$(BIN)/ruff check src tests bench demo
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv-dev ## rewrite the code in the house's format
	$(BIN)/ruff format src tests bench demo
	$(BIN)/ruff check --fix src tests bench demo

test: venv-dev check ## all checks and tests that must pass before landing; installs missing Debian packages when root
	$(BIN)/python tests/support/requirements.py
	$(BIN)/python -m pytest -m "not long"

test-all: venv-dev .venv-cluster/.done check ## the long scenarios as well
	$(BIN)/python tests/support/requirements.py
	$(BIN)/python -m pytest

bench: venv-dev ## measure beside Postfix and Haraka (docs/performance.md): BENCH="--quick --json out.json"
ifneq ($(origin PYTHON),file)
	@$(PYTHON) -c 'import os, sys; sys.exit(not os.path.samefile(sys.base_prefix, sys.argv[1]))' "$$($(BIN)/python -c 'import sys; print(sys.base_prefix)')" \
	  || { echo "$(VENV) was built with another interpreter than $(PYTHON); say VENV=.venv-other as well, or make clean first"; exit 1; }
endif
	$(BIN)/python tests/support/requirements.py
	$(BIN)/python -m bench $(BENCH)

chaos: venv-dev ## faults against a live server, then the books checked; needs root (CHAOS="--seed 7 --minutes 10")
	$(BIN)/python tests/support/requirements.py
	$(BIN)/python -m tests.chaos $(CHAOS)

.venv-cluster/.done: tests/cluster/requirements.lock | venv-dev
	$(CLUSTER_PYTHON) -m venv --without-pip .venv-cluster
	$(BIN)/python -m pip --python .venv-cluster/bin/python install --quiet --disable-pip-version-check --require-hashes -r tests/cluster/requirements.lock
	@touch $@

cluster: venv-dev .venv-cluster/.done ## three hosts with Patroni, HAProxy and Everpost in network namespaces, until Ctrl-C; needs root
	$(BIN)/python tests/support/requirements.py
	$(BIN)/python -m tests.cluster $(CLUSTER)

chaos-cluster: venv-dev .venv-cluster/.done ## faults against them, then the books checked (CLUSTER_CHAOS="--seed 7 --minutes 5")
	$(BIN)/python tests/support/requirements.py
	$(BIN)/python -m tests.cluster.chaos $(CLUSTER_CHAOS)

upgrade: venv-dev ## three nodes from one commit to these sources and back, under load: FROM=COMMIT
	$(BIN)/python tests/support/requirements.py
	$(BIN)/python -m tests.cluster.upgrade $(FROM)

demo-failover: venv-dev ## watch relays die, slow down, refuse and come back: DEMO="--rate 100 --json"
	$(BIN)/python -m demo.failover $(DEMO)

docs: venv-dev ## write the generated reference pages again
	$(BIN)/python -m docs.generate

clean: ## remove what make built (never ./data)
	rm -rf $(VENV) .venv-cluster build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info
