# Every target does its own set-up, in .venv inside the repository.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ROOMS := policies simulators fitting
WORKERS ?= 2
SHARE ?= 1
SEED ?= 1
MINUTES ?= 120

.PHONY: demo test test-slow lint format coverage mutation fuzz bench bench-certify bench-count example-litellm docs-check links clean

demo: $(STAMP)
	@echo "metaverify demo: inspect a log, fit a policy, compare methods; writes digits-policy.json and report.html"
	@$(BIN)/metaverify demo

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow" --durations=10

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(STAMP)
	$(BIN)/coverage run -m pytest tests/policies -m "not slow"
	$(BIN)/coverage report

# A part of the mutants: make mutation SHARE=0.2 SEED=2 FILES="store guards"
mutation: $(STAMP)
	$(BIN)/python -m tests.policies.mutation $(FILES) --share $(SHARE) --seed $(SEED) --minutes $(MINUTES) --workers $(WORKERS)

fuzz: $(STAMP)
	$(BIN)/python -m tests.policies.fuzzing --workers $(WORKERS)
	$(BIN)/python -m tests.policies.guided

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks.speed

# Goes on where it was broken off.
bench-certify: $(STAMP)
	@mkdir -p build
	$(BIN)/python -m tests.benchmarks.certify --resume build/certify.jsonl

# Draws 50 million queries into build/counting first, 1.5 GB.
bench-count: $(STAMP)
	$(BIN)/python -m tests.benchmarks.counting

# Needs no network and no key.
example-litellm: $(STAMP)
	$(BIN)/python examples/litellm_proxy/run.py

docs-check: $(STAMP)
	$(BIN)/python -m pytest tests/test_docs.py

# The links only serve editors and type checkers; an unpacked zip or a Windows checkout may have lost them.
links:
	@for room in $(ROOMS); do \
	  [ -L metaverify/$$room ] || { rm -rf metaverify/$$room; ln -s ../$$room metaverify/$$room; }; \
	done

$(STAMP): pyproject.toml | links
	@$(PYTHON) -c 'import sys; sys.exit("metaverify needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
