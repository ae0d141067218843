# What a stranger types: make demo, make test, make lab. What takes longer: make bench, make soak.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# A relative home would move with a notebook's folder; /tmp keeps sockets' paths short.
RUN := $(BIN)/python
FRONT := $(wildcard labextension/*.json) $(shell find labextension/src labextension/style -type f)

.PHONY: help demo lab test lint types walls unit notebooks front browser wheel bench soak clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

$(READY): pyproject.toml constraints.txt $(FRONT)
	@command -v npm >/dev/null || { echo "A source build needs node 20 or newer (npm is not on PATH)."; exit 1; }
	@echo "Setting up .venv (once; a few minutes, about 2.5 GB with torch) …"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(RUN) -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $(READY)

demo: $(READY)  ## run the quickstart from data to endpoint in a home of its own
	@$(RUN) example_notebooks/demo.py

lab: $(READY)  ## open JupyterLab on the examples (as root, in a container, too)
	@cd example_notebooks && ../$(RUN) -m jupyterlab $$(test $$(id -u) -ne 0 || echo --allow-root)

test: lint types walls unit notebooks front browser  ## everything that must hold

lint: $(READY)
	@$(RUN) -m ruff check -q . && $(RUN) -m ruff format -q --check .

types: $(READY)
	@$(RUN) -m mypy

walls: $(READY)
	@$(RUN) -c "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"

unit: $(READY)
	@$(RUN) -m pytest -q --doctest-modules $$(grep -rl '>>> ' lepton_jupyter --include='*.py')
	@$(RUN) -m pytest -q -n 2 -m "not soak" --ignore=tests/notebooks --ignore=tests/browser

notebooks: $(READY)
	@$(RUN) -m pytest -q -n 2 tests/notebooks

front: $(READY)  ## the JupyterLab extension: eslint, prettier, tsc, its unit tests
	@cd labextension && npm run --silent lint && npm run --silent test

browser: $(READY)  ## a real JupyterLab in a real browser; skipped where there is no Chromium
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || { apt-get update -qq; apt-get install -yqq chromium; } >/dev/null 2>&1 || true
	@$(RUN) -m pytest -q -m "not soak" tests/browser

wheel:  ## dist/*.whl, which installs without node
	@rm -rf lepton_jupyter/labextension dist
	@$(PYTHON) -m pip wheel -q --disable-pip-version-check --no-deps -w dist .
	@ls dist

bench: $(READY)  ## speed, in tables
	@for file in tests/benchmarks/*.py; do $(RUN) $$file || exit 1; done

soak: $(READY)  ## what takes minutes: many seeds, long runs, every kill
	@$(RUN) -m pytest -q -m soak --timeout=1800
	@LEPTON_SOAK=1 $(RUN) -m pytest -q --timeout=900 tests/life/test_survival.py tests/life/test_jupyter_server.py

clean:  ## forget the demo and the caches
	@rm -rf .demo .mypy_cache .ruff_cache .import_linter_cache build dist labextension/lib labextension/tests/lib
