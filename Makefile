# Every target does its own set-up, in .venv inside the repository.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ROOMS := policies simulators fitting

.PHONY: demo test test-slow lint format fuzz bench bench-certify docs-check links clean

demo: $(STAMP)
	@echo "metaverify demo: inspect a log, fit a policy, compare methods; writes digits-policy.json and report.html"
	@$(BIN)/metaverify demo

test: lint docs-check
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(STAMP)
	$(BIN)/python -m tests.policies.fuzzing
	$(BIN)/python -m tests.policies.guided

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks.speed

# Goes on where it was broken off.
bench-certify: $(STAMP)
	@mkdir -p build
	$(BIN)/python -m tests.benchmarks.certify --resume build/certify.jsonl

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
