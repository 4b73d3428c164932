# make demo   see it all on this machine          make test    all tests
# make check  style, types, layering, generated   make help    the rest
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# the node and npm that pip brings come first: Hardhat needs Node 22.13 or newer
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TORCH := $(shell grep '^torch==' constraints.txt)
DATA_DIR ?= .far/demo
PROTO := discovery/protocol/mesh.proto
GRPC_PROTO := far_mesh/marketplace/grpc_api/far.proto
PROTOC := $(BIN)/python -m grpc_tools.protoc -I.

.PHONY: demo test test-python test-contracts check format generate lock bench fuzz-api clean help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

demo: $(VENV)/demo node_modules/.demo ## swarm, chain, gateway and a paid story (ONCE=1 ends after it; ARGS="…")
	$(BIN)/far-mesh demo --data-dir $(DATA_DIR) $(if $(ONCE),--once) $(ARGS)

test: test-contracts test-python ## everything

test-python: $(VENV)/dev node_modules/.all ## Python: units, swarm with real peers, money (ARGS="-k …")
	$(BIN)/python -m pytest --numprocesses auto $(ARGS)

test-contracts: $(VENV)/dev node_modules/.all ## Solidity and JavaScript, by Hardhat
	npm test --silent

check: $(VENV)/dev node_modules/.all ## ruff, mypy --strict, import-linter, shellcheck, solhint, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck deploy/*.sh
	npm run --silent lint
	npm run --silent export:check
	$(MAKE) --no-print-directory check-proto

check-proto: $(VENV)/dev
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PROTOC) --python_out="$$fresh" --pyi_out="$$fresh" $(PROTO) $(GRPC_PROTO) && \
	$(PROTOC) --grpc_python_out="$$fresh" $(GRPC_PROTO) && \
	for file in $$(cd "$$fresh" && find . -type f); do \
	  diff -q "$$fresh/$$file" "$$file" || { echo "run make generate"; exit 1; }; \
	done

generate: $(VENV)/dev node_modules/.all ## files that are made from others: protobuf, contract ABIs
	$(PROTOC) --python_out=. --pyi_out=. $(PROTO) $(GRPC_PROTO)
	$(PROTOC) --grpc_python_out=. $(GRPC_PROTO)
	npm run --silent export

lock: $(VENV)/dev ## lists of packages with hashes, for the installer
	sh deploy/lock.sh

format: $(VENV)/dev ## format the Python code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev ## ring against local, in one run
	$(BIN)/python -m benchmarks.ring_vs_local

fuzz-api: $(VENV)/dev ## the whole document of the HTTP interface against a gateway (ARGS="--examples 1000")
	$(BIN)/python -m benchmarks.api_fuzz $(ARGS)

clean: ## remove what make made, keep .far
	rm -rf $(VENV) node_modules artifacts cache coverage .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# torch first and alone: asked for with its exact version, a machine that has a CPU build takes that one
$(VENV)/demo: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing Python packages into $(VENV) (some minutes the first time) …"
	$(PIP) $(TORCH)
	$(PIP) --editable .
	@touch $@

$(VENV)/dev: $(VENV)/demo
	$(PIP) --editable '.[dev]'
	@touch $@

node_modules/.demo: package.json package-lock.json | $(VENV)/demo
	@if [ ! -e node_modules/.all ]; then npm ci --omit=dev --silent; fi
	@touch $@

node_modules/.all: package.json package-lock.json | $(VENV)/demo
	npm ci --silent
	@touch $@ node_modules/.demo
