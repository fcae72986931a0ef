# Everything a person does here is a verb; `make help` lists them.
#
#   PYTHON  the interpreter a new environment is made with; by default the first of 3.11 to 3.13 that is found
#   VENV    where that environment lies
#   ARGS    flags handed to the command behind the verb

PYTHON ?=
VENV ?= .venv
ARGS ?=
BENCH ?= native

BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check
EXTRAS := sphinx
# All tests run in two processes, for half of their time is waiting; a choice of them (ARGS) in one: it collects once.
ALL_TESTS := --numprocesses=2 --dist=worksteal
NATIVE := $(notdir $(basename $(wildcard native/*.pyx)))
BUILD_INPUTS := pyproject.toml streamsrv/__init__.py $(wildcard setup.py) $(wildcard constraints/*.txt) \
	$(wildcard native/*.pyx native/*.pxi native/*.h) $(wildcard streamsrv/_native/*.pxd)
# The pins of the environment's own Python, read when a recipe runs.
PINS = constraints/$$($(PY) -c 'import sys; print("py%d%d.txt" % sys.version_info[:2])')

.DEFAULT_GOAL := help
.PHONY: help build serve test test-services test-adversity check format sanitize lock bench dist clean
.DELETE_ON_ERROR:
# Verbs like `check` and `test` share an environment: one at a time, also under -j.
.NOTPARALLEL:

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: $(VENV)/.built ## make the environment, compile, install

serve: build ## run the server on 127.0.0.1:3004 (ARGS="--port 3010 --engine sphinx")
	@exec $(BIN)/streamsrv serve $(ARGS)

test: build $(VENV)/.test-tools $(VENV)/.whisper-tools $(VENV)/.bench-tools ## run the tests (ARGS="-k ring -x")
	@$(PY) -m pytest $(or $(ARGS),$(ALL_TESTS))

test-services: build $(VENV)/.test-tools $(VENV)/.browser-tools $(VENV)/.services-tools ## run the tests that need outside services
	@scripts/test-services $(PY) $(ARGS)

test-adversity: build $(VENV)/.test-tools $(VENV)/.whisper-tools $(VENV)/.services-tools ## 300 randomised runs in which everything fails (ARGS="--seed 17")
	@scripts/install-services $(PY)
	@$(PY) -m tests.adversity.runs --seeds 300 $(ARGS)

check: build $(addprefix $(VENV)/., $(addsuffix -tools, test whisper bench browser services dev)) ## house checks: style, types, stubs, import rules
	@scripts/check $(BIN) $(NATIVE)

format: $(VENV)/.dev-tools ## let ruff rewrite the sources
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

sanitize: build $(VENV)/.test-tools ## run the native tests under ASan and UBSan
	@PYTHON=$(PY) scripts/sanitize $(ARGS)

lock: $(VENV)/.dev-tools ## write constraints/ anew (ARGS=--upgrade for the newest versions)
	@scripts/lock $(BIN)/uv $(ARGS)

bench: build $(VENV)/.test-tools $(VENV)/.bench-tools ## measure (BENCH="native latency load")
	@for name in $(BENCH); do $(PY) -m benchmarks.$$name $(ARGS) || exit; done

dist: build $(VENV)/.test-tools ## build sdist and wheel into dist/
	@$(PY) -m build --no-isolation --outdir dist .

clean: ## remove what was built, the environment included; data/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -f streamsrv/_native/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what the verbs stand on -------------------------------------------------------------------------------------

# An environment that works is never replaced; its Python must be one we support.
$(VENV)/.made:
	@PYTHON="$(PYTHON)" scripts/make-venv $(VENV)
	@touch $@

$(VENV)/.built: $(VENV)/.made $(BUILD_INPUTS)
	@echo "installing the pinned dependencies ($(PINS)) ..."
	@$(PIP) install -q -c $(PINS) setuptools wheel cython
	@echo "compiling and installing streamsrv ..."
	@$(PIP) install -q -c $(PINS) --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $@

# One stamp per extra of pyproject.toml: .test-tools, .services-tools, .dev-tools, ...
$(VENV)/.%-tools: $(VENV)/.made pyproject.toml $(wildcard constraints/*.txt) scripts/requirements
	@$(PIP) install -q -c $(PINS) $$($(PY) scripts/requirements $*)
	@touch $@
