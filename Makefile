# The README's two commands are `make demo` and `make test`; each sets up what it needs in .venv, once.
PYTHON ?= python3
VENV ?= .venv
TORCH_VENV ?= .venv-torch
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q

.PHONY: demo test test-torch check unit suites integration benchmarks servers docs clean

demo: $(VENV)/.demo ## replay the flights of 2013 through two services and the processor
	@$(BIN)/python -m examples.flights $(ARGS)

test: check unit ## everything that needs no server

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

unit: $(VENV)/.dev
	$(PYTEST) -m "not integration and not suites and not torch" $(ARGS)

test-torch: $(TORCH_VENV)/.ready ## the torch hook, in an environment of its own: torch takes 5 GB
	OMP_NUM_THREADS=1 $(TORCH_VENV)/bin/python -m pytest -q -m torch tests/torch $(ARGS)

suites: $(VENV)/.dev ## scikit-learn's own tests, with the hooks on
	$(PYTEST) -m suites tests $(ARGS)

integration: $(VENV)/.dev ## real Jaeger, Zipkin, Prometheus and OpenTelemetry Collector, installed and started here
	$(BIN)/python -m tests.servers install
	$(PYTEST) -m integration tests $(ARGS)

benchmarks: $(VENV)/.dev $(TORCH_VENV)/.ready ## every benchmark, one table each; NAB=folder with that corpus
	@for file in $(filter-out %_torch.py %_nab.py,$(wildcard benchmarks/bench_*.py)); do \
	  echo "== $$file"; $(BIN)/python $$file || exit 1; done
	@echo "== benchmarks/bench_torch.py"; $(TORCH_VENV)/bin/python benchmarks/bench_torch.py
	@if [ -n "$(NAB)" ]; then echo "== benchmarks/bench_nab.py"; $(BIN)/python benchmarks/bench_nab.py --corpus $(NAB); \
	  else echo "benchmarks/bench_nab.py is left out: it takes a copy of its corpus, NAB=folder"; fi

servers: $(VENV)/.demo ## Jaeger, Zipkin and Prometheus in the foreground, for looking at
	$(BIN)/python -m tests.servers install jaeger zipkin prometheus
	$(BIN)/python -m tests.servers start jaeger zipkin prometheus --fixed-ports

docs: $(VENV)/.dev ## write the generated tables anew
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) $(TORCH_VENV) dist build

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"mlspan needs Python 3.11 or newer; {sys.executable} is {v[0]}.{v[1]}. Name another one: make PYTHON=python3.12 ...")'
	@echo "Making a virtual environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing what the demo needs (once, about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing what the tests need (once, one to two minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.demo

# uv installs torch in half a minute, pip in several; it is not needed to be there before.
$(TORCH_VENV)/.ready: pyproject.toml
	@echo "Installing torch and what its tests need into $(TORCH_VENV) (once, 5 GB) ..."
	@test -x $(TORCH_VENV)/bin/python || $(PYTHON) -m venv $(TORCH_VENV)
	@$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv || true
	@if $(TORCH_VENV)/bin/python -m uv --version >/dev/null 2>&1; then \
	  $(TORCH_VENV)/bin/python -m uv pip install --quiet --python $(TORCH_VENV)/bin/python --editable '.[torch-tests]'; \
	else \
	  $(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[torch-tests]'; \
	fi
	@touch $@
