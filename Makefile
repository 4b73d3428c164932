# make demo   see it all on this machine          make test    all tests
# make check  style, types, layering, generated   make help    the rest
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# the node and npm that pip brings come first: Hardhat needs Node 22.13 or newer
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1
export NEXT_TELEMETRY_DISABLED := 1
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# a mirror that is away for a moment, or another apt-get at work, is waited for
APT := DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300
TORCH := $(shell grep '^torch==' constraints.txt)
DATA_DIR ?= .far/demo
PROTO := discovery/protocol/mesh.proto
GRPC_PROTO := far_mesh/marketplace/grpc_api/far.proto
SDK := npm run --silent --workspace sdk/typescript
FRONTEND := npm run --silent --workspace frontend
SITE := far_mesh/marketplace/dashboard/site/index.html
PROTOC := $(BIN)/python -m grpc_tools.protoc -I.

.PHONY: demo dashboard dev test test-python test-contracts test-typescript chromium check format generate lock bench fuzz-api clean help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

demo: $(VENV)/demo node_modules/.demo $(SITE) ## swarm, chain, gateway, dashboard and a paid story (ONCE=1 ends after it; ARGS="…")
	$(BIN)/far-mesh demo --data-dir $(DATA_DIR) $(if $(ONCE),--once) $(ARGS)

dashboard: $(VENV)/demo node_modules/.demo $(SITE) ## the pages that a gateway serves, if they have changed

dev: node_modules/.all ## the pages as they are being changed, at localhost:3000, on a gateway that runs (FAR_GATEWAY)
	$(SDK) build
	$(FRONTEND) dev

test: test-contracts test-typescript test-python ## everything

test-python: $(VENV)/dev node_modules/.all $(SITE) chromium ## Python: units, swarm with real peers, money, browser (ARGS="-k …")
	$(BIN)/python -m pytest --numprocesses auto $(ARGS)

test-contracts: $(VENV)/dev node_modules/.all ## Solidity and JavaScript, by Hardhat
	npm test --silent

test-typescript: $(VENV)/dev node_modules/.all $(SITE) ## the TypeScript SDK and the parts of the dashboard, by Vitest
	$(SDK) test
	$(FRONTEND) test

chromium: ## Chromium, for the tests that look at the dashboard
	@for program in $${FAR_CHROMIUM:-chromium chromium-browser google-chrome}; do \
	  command -v "$$program" >/dev/null && exit 0; \
	done; \
	if [ -z "$$FAR_CHROMIUM" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  for pause in 0 15 60; do \
	    sleep $$pause; echo "installing Chromium …"; \
	    $(APT) update -qq; $(APT) install --yes -qq --no-install-recommends chromium >/dev/null && exit 0; \
	  done; \
	fi; \
	echo "there is no Chromium: apt-get install chromium, or set FAR_CHROMIUM to the program"; \
	[ "$$FAR_BROWSER" != required ] || { echo "and FAR_BROWSER=required: the browser tests must not be skipped"; exit 1; }; \
	echo "until then the browser tests are skipped"

check: $(VENV)/dev node_modules/.all $(SITE) ## ruff, mypy --strict, tsc, import-linter, shellcheck, solhint, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck deploy/*.sh
	npm run --silent lint
	npm run --silent export:check
	$(BIN)/far-mesh openapi --check sdk/openapi.json
	$(BIN)/python sdk/python/tools/generate_models.py --check
	$(BIN)/python sdk/python/tools/generate_client.py --check
	$(BIN)/mypy --python-version 3.10 sdk/python/src
	$(SDK) generate:check
	$(SDK) check
	$(FRONTEND) generate:check
	$(FRONTEND) check
	$(MAKE) --no-print-directory check-proto

check-proto: $(VENV)/dev
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PROTOC) --python_out="$$fresh" --pyi_out="$$fresh" $(PROTO) $(GRPC_PROTO) && \
	$(PROTOC) --grpc_python_out="$$fresh" $(GRPC_PROTO) && \
	for file in $$(cd "$$fresh" && find . -type f); do \
	  diff -q "$$fresh/$$file" "$$file" || { echo "run make generate"; exit 1; }; \
	done

generate: $(VENV)/dev node_modules/.all ## files that are made from others: protobuf, contract ABIs, openapi.json, types of the SDKs
	$(PROTOC) --python_out=. --pyi_out=. $(PROTO) $(GRPC_PROTO)
	$(PROTOC) --grpc_python_out=. $(GRPC_PROTO)
	npm run --silent export
	$(BIN)/far-mesh openapi --output sdk/openapi.json
	$(BIN)/python sdk/python/tools/generate_models.py
	$(BIN)/python sdk/python/tools/generate_client.py
	$(SDK) generate
	$(FRONTEND) generate

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
	rm -rf $(VENV) node_modules frontend/node_modules sdk/typescript/node_modules
	rm -rf sdk/typescript/dist frontend/.next frontend/out $(dir $(SITE)) artifacts cache coverage .mypy_cache .ruff_cache .pytest_cache

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
	$(PIP) --editable '.[dev]' --editable 'sdk/python[wallet,receipts]'
	@touch $@

node_modules/.demo: package.json package-lock.json | $(VENV)/demo
	@if [ ! -e node_modules/.all ]; then npm ci --omit=dev --silent; fi
	@touch $@

node_modules/.all: package.json package-lock.json | $(VENV)/demo
	npm ci --silent
	@touch $@ node_modules/.demo

# the sources of the pages, and of the SDK that they are made with
$(SITE): $(shell find frontend/src frontend/public frontend/scripts sdk/typescript/src -type f 2>/dev/null) \
  frontend/package.json frontend/next.config.ts frontend/tsconfig.json sdk/typescript/tsconfig.json package-lock.json | node_modules/.demo
	@echo "building the dashboard (a minute or two) …"
	$(SDK) build
	$(FRONTEND) build
