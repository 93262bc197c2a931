# The README's two commands are `make demo` and `make test`; each sets up what it needs in .venv, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q

.PHONY: demo test check unit suites integration benchmarks servers docs clean

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
	$(PYTEST) -m "not integration and not suites" $(ARGS)

suites: $(VENV)/.dev ## scikit-learn's own tests, with the hooks on
	$(PYTEST) -m suites tests $(ARGS)

integration: $(VENV)/.dev ## real Jaeger, Zipkin, Prometheus and OpenTelemetry Collector, installed and started here
	$(BIN)/python -m tests.servers install
	$(PYTEST) -m integration tests $(ARGS)

benchmarks: $(VENV)/.dev ## every benchmark, one table each
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

servers: $(VENV)/.demo ## Jaeger, Zipkin and Prometheus in the foreground, for looking at
	$(BIN)/python -m tests.servers install jaeger zipkin prometheus
	$(BIN)/python -m tests.servers start jaeger zipkin prometheus --fixed-ports

docs: $(VENV)/.dev ## write the generated tables anew
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) dist build

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
