# The tasks of users and developers. `make` alone lists them.
# There are two main environments, .venv (router and tools) and .venv-vllm (the engine), each installed from a hash lock
# in requirements/.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help up demo test test-engine test-others check format bench dashboard install-browser loadtest evidence fuzz conformance audit docs lock schemas clean install install-dev install-engine install-loadtest install-conformance install-audit install-docs install-engines install-convert install-tools install-cookbook

# The first Python from 3.11 to 3.13 that can create environments. 3.11 is preferred, because torch's CPU hash is recorded
# for it.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	"$$p" -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo "$$p"; break; }; done)

# `gpu` if NVIDIA's driver answers, else `cpu`. Override it with: make up ENGINE=cpu
ENGINE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)

# The index for the CPU build of torch, used if plain pip does not find it.
export TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

ONLY ?=
SCENARIO ?=
COMPARE ?=
FOR ?= 60

help:  ## list the targets
	@echo "Spillway: your rented GPU first, the cloud when it spills over."; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: install  ## start everything: engine (GPU, or CPU with the demo model) and router; prints the URL
	.venv/bin/spillway up

demo: install  ## run the main job end to end: a burst of documents, overflow, escalation, two-sided report (under 5 min)
	.venv/bin/python -m demo

test: install install-loadtest install-engines install-cookbook install-browser install-tools check  ## install, then run lint, types and the full test suite with the real engine (under 20 min from nothing)
	@echo "Running all tests in two parallel groups; the output of a group is shown when it ends (usually 6 to 10 min)."
	@$(MAKE) --no-print-directory --jobs=2 --output-sync test-engine test-others

# What fails while three processes share the cores of a small machine runs once more, alone in its group. The names stay in the
# output: a test that passes only then is unsteady and wants mending.
AGAIN = echo "Failed tests of this group run once more:" && .venv/bin/python -m pytest --last-failed --last-failed-no-failures=none

test-engine:
	.venv/bin/python -m pytest -m "engine or load" -o cache_dir=.cache/test-engine --cache-clear \
		|| { $(AGAIN) -o cache_dir=.cache/test-engine; }

test-others:
	.venv/bin/python -m pytest -m "not engine and not load" -o cache_dir=.cache/test-others --cache-clear --numprocesses=2 --dist=loadfile \
		|| { $(AGAIN) -o cache_dir=.cache/test-others; }

check: install-dev  ## run ruff, the format check, mypy and the import rules (about 30 s)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy router server loadtests demo evidence conformance
	.venv/bin/lint-imports

dashboard:  ## build the dashboard's scripts and styles from web/ into the package (needs Node)
	cd web && npm ci --no-audit --no-fund --ignore-scripts && node build.mjs

install-browser:  ## install Chromium and what drives it for the tests of the dashboard, where Node and root are there (about 30 s)
	@if ! command -v npm >/dev/null; then echo "No npm here: the browser tests of the dashboard are skipped."; \
	elif [ ! -d web/node_modules/playwright-core ]; then cd web && npm ci --no-audit --no-fund --ignore-scripts \
		|| echo "npm failed: the browser tests of the dashboard are skipped."; fi
	@if command -v chromium chromium-browser google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } \
		|| echo "Chromium could not be installed: the browser tests of the dashboard are skipped."; \
	else echo "No Chromium here, and no root to install it: the browser tests of the dashboard are skipped."; fi

install-tools:  ## fetch helm, promtool and a collector of OpenTelemetry for the tests (about 110 MB, not on the PATH)
	@$(PYTHON) requirements/tools.py

format: install-dev  ## let ruff fix and format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: install  ## measure CPU time per request and per stream, compared with other proxies
	.venv/bin/python -m loadtests.bench

loadtest: install-dev install-loadtest  ## run locust on the product with a fake engine, write an HTML report; SCENARIO=NAMES COMPARE=NAME=URL
	.venv/bin/python -m loadtests.locust_runs $(SCENARIO) $(foreach other,$(COMPARE),--compare $(other))

evidence: install  ## measure the promises and write docs/evidence.md; ONLY=prefix,... limits it
	.venv/bin/python -m evidence --only "$(ONLY)"

fuzz: install-dev  ## send made-up requests to a router for FOR seconds (60; hours are fine), keep what is found in .cache/fuzz
	.venv/bin/python -m evidence.fuzz --seconds $(FOR)
	@if .venv/bin/python -c 'import atheris' 2>/dev/null; then .venv/bin/python -m evidence.fuzz.coverage --seconds $(FOR); \
	 else echo "atheris is not installed (.venv/bin/pip install atheris), so that nothing was fuzzed by coverage."; fi

conformance: install install-conformance  ## run other projects' test suites directly and through the router, write docs/conformance.md; ONLY=prefix
	.venv/bin/python -m conformance --only "$(ONLY)"

audit: install-audit  ## run bandit, write a bill of materials (CycloneDX) per lock, ask for known vulnerabilities (network)
	.venv-audit/bin/bandit -q -c pyproject.toml -r router/spillway_router server requirements
	mkdir -p .cache/sbom
	for lock in requirements/*.lock; do .venv-audit/bin/cyclonedx-py requirements $$lock --pyproject pyproject.toml \
		--output-reproducible -o .cache/sbom/$$(basename $$lock .lock).cdx.json || exit 1; done
	for name in router image dev; do .venv-audit/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/$$name.lock || exit 1; done

docs: install-dev install-docs  ## build the documentation site into build/site, for reading without a network
	.venv/bin/python -m evidence.site

lock: install-dev  ## resolve all locks again (about 5 min, metadata only)
	for name in router image dev compile audit docs engines cookbook loadtest judges conformance tools collector vllm-cpu vllm-gpu convert; do \
		.venv/bin/python requirements/lock.py requirements/$$name.in \
			--python 3.11 --python 3.12 --python 3.13 || exit 1; done
	.venv/bin/python requirements/lock.py requirements/torch-cpu.in

schemas: install-dev  ## compare the copies of providers' schemas with what their newest releases take (about 5 min, network)
	.venv/bin/python -m evidence.provider_schemas

clean:  ## remove environments, caches and build output; data/ stays
	rm -rf web/node_modules
	rm -rf .venv .venv-* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	rm -rf router/spillway_router/_compiled
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Side by side: one waits for the network while the other compiles.
install:
	@$(MAKE) --no-print-directory --jobs=2 install-dev install-engine

install-dev:
	@test -n "$(PYTHON)" || { echo "No usable Python: install 3.11, 3.12 or 3.13 with its venv module."; exit 1; }
	@$(PYTHON) requirements/install.py dev
	@PYTHONPATH=router .venv/bin/python -m spillway_compiler.build

install-loadtest:
	@test -n "$(PYTHON)" || { echo "No usable Python: install 3.11, 3.12 or 3.13 with its venv module."; exit 1; }
	@$(PYTHON) requirements/install.py loadtest

install-conformance:
	@test -n "$(PYTHON)" || { echo "No usable Python: install 3.11, 3.12 or 3.13 with its venv module."; exit 1; }
	@$(PYTHON) requirements/install.py conformance

install-audit:
	@test -n "$(PYTHON)" || { echo "No usable Python: install 3.11, 3.12 or 3.13 with its venv module."; exit 1; }
	@$(PYTHON) requirements/install.py audit

install-docs:
	@test -n "$(PYTHON)" || { echo "No usable Python: install 3.11, 3.12 or 3.13 with its venv module."; exit 1; }
	@$(PYTHON) requirements/install.py docs

install-engine:
	@test -n "$(PYTHON)" || { echo "No usable Python: install 3.11, 3.12 or 3.13 with its venv module."; exit 1; }
	@$(PYTHON) requirements/install.py engine-$(ENGINE)

install-engines:  ## install llama.cpp's server, against which tests/engines runs the router
	@test -n "$(PYTHON)" || { echo "No usable Python: install 3.11, 3.12 or 3.13 with its venv module."; exit 1; }
	@$(PYTHON) requirements/install.py engines

install-cookbook:  ## install the frameworks of docs/cookbook.md, whose examples the tests run (about 75 MB)
	@test -n "$(PYTHON)" || { echo "No usable Python: install 3.11, 3.12 or 3.13 with its venv module."; exit 1; }
	@$(PYTHON) requirements/install.py cookbook
	@if ! command -v npm >/dev/null; then echo "No npm here: the JavaScript example of the cookbook is skipped."; \
	elif [ ! -d evidence/site/node/node_modules ]; then cd evidence/site/node && npm ci --no-audit --no-fund --ignore-scripts \
		|| echo "npm failed: the JavaScript example of the cookbook is skipped."; fi

install-convert:  ## install the environment of `spillway convert` (llm-compressor), which its first use would install too
	@test -n "$(PYTHON)" || { echo "No usable Python: install 3.11, 3.12 or 3.13 with its venv module."; exit 1; }
	@$(PYTHON) requirements/install.py convert
