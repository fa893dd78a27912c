# `make serve` and `make test` do everything from a fresh clone; both go through `make install`.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

# What the container image is made of, in the versions of requirements.lock.
LOCK_IMAGE = $(BIN)/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-annotate \
	--no-header --upgrade --constraint requirements.lock

# The first interpreter here of a version that will do; `make PYTHON=/path/to/python3 ...` to say otherwise.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo "$$python" && break; done)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install compile serve test test-numpy check format generate bench runtimes build lock clean

help: ## what each target does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(STAMP) ## make .venv with wasmeval and what its development needs in it
$(STAMP): requirements.lock pyproject.toml tools/make_venv.py
	@test -n "$(PYTHON)" || { echo "wasmeval needs Python 3.11, 3.12 or 3.13, and none was found: sudo apt-get install python3" >&2; exit 1; }
	$(PYTHON) tools/make_venv.py $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

compile: install ## compile the images for this machine (about 25 s, once)
	@$(BIN)/wasmeval runtimes --compile >/dev/null

serve: install ## run the service on 127.0.0.1:50051; ARGS="--workers 4"
	@$(BIN)/wasmeval serve $(ARGS)

test: compile ## run the tests; ARGS="tests/cli -x" for some of them
	@$(BIN)/python -m pytest $(ARGS)

test-numpy: compile ## run NumPy's own tests in instances (half an hour or so); ARGS="numpy/fft" for some of them
	@$(BIN)/python -m tests.numpy_suite $(ARGS)

check: install ## lint, format, types, import layers, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/check_layers.py
	$(BIN)/python proto/generate.py --check

format: install ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: install ## make wasmeval/v1 again from proto/
	$(BIN)/python proto/generate.py

bench: compile ## measure this machine beside its peers
	@$(BIN)/python -m pip install --quiet -r bench/requirements.txt || echo "bench: Pydantic Monty not installed" >&2
	@! command -v npm >/dev/null || npm install --prefix bench --no-package-lock --no-audit --no-fund --silent || true
	@$(BIN)/python -m bench $(ARGS)

runtimes: install ## rebuild the interpreter images from pinned sources (an hour or two)
	$(BIN)/python -m runtimes.build $(ARGS)

build: install ## wheel and source distribution in dist/
	$(BIN)/python -m build --no-isolation --outdir dist

lock: install ## resolve requirements.lock again from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-header --upgrade --extra dev --extra otlp --extra redis --extra s3 \
		pyproject.toml --output-file requirements.lock
	$(LOCK_IMAGE) --extra otlp --extra redis --extra s3 pyproject.toml --output-file deploy/requirements.lock
	echo hatchling | $(LOCK_IMAGE) - --output-file deploy/build.lock

clean: ## remove all that can be made again, .venv included
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './runtimes/.build/*' -prune -exec rm -rf {} +
