# Every target sets up what it needs, in an environment of its own, on a machine with nothing but Python.
#   make demo     train a detector on handwriting, draw its predictions, write runs/demo/report.html
#   make test     the test suite; ALL=1 for all of it    make test ARGS='tests/ops -k iou'
#   make check    style, types, layers, documentation  (what CI runs, with make test)
#   make docs     the documentation, into site/
#   make techniques  docs/techniques*.md, docs/detectors*, docs/faults.md and the table of docs/backbones.md, from the code
#   make bench    every benchmark, peers beside us     make bench QUICK=1  for a smoke run
#   make wheel    dist/*.whl
#   make clean    remove what tests, checks and builds leave behind (not .venv, not runs/)

PYTHON ?= python3
VENV   ?= .venv
PROCS  ?= 2
ARGS   ?=
QUICK  ?=

BIN     := $(VENV)/bin
RUNTIME := $(VENV)/.stamp-runtime
DEV     := $(VENV)/.stamp-dev
BENCH   := $(VENV)/.stamp-bench
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check docs techniques bench wheel clean
.DEFAULT_GOAL := demo

demo: $(RUNTIME)
	$(BIN)/clearsight demo

# One thread a process: two processes with two threads each would fight over two cores.
test: $(DEV)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCS) --dist worksteal $(if $(ALL),,-m 'not long') $(ARGS)

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

techniques: $(BIN)/python
	$(BIN)/python docs/hooks/techniques.py
	$(BIN)/python docs/hooks/backbones.py
	$(BIN)/python docs/hooks/detectors.py
	$(BIN)/python docs/hooks/faults.py

# A script that misses a bar ends with 1; the others still run, and the outcome is remembered.
bench: $(BENCH)
	@mkdir -p benchmarks/results; failed=; \
	for script in $$(grep -l '__main__' benchmarks/*.py); do \
	  name=$$(basename $$script .py); echo "== $$name"; \
	  $(BIN)/python $$script $(if $(QUICK),--quick) --json benchmarks/results/$$name.json || failed="$$failed $$name"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed or below a bar:$$failed"; exit 1; fi

wheel: $(DEV)
	rm -rf dist
	$(BIN)/python -m build --wheel
	@ls dist

clean:
	rm -rf build dist site htmlcov .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "clearsight needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing clearsight into $(VENV); the first time fetches PyTorch and takes minutes"
	$(INSTALL) --editable .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing clearsight and its development tools into $(VENV); the first time fetches PyTorch and takes minutes"
	$(INSTALL) --editable '.[dev]'
	@touch $(RUNTIME) $@

$(BENCH): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[bench]'
	@touch $(RUNTIME) $@
