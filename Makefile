# The doors of the house. On a machine with only Python 3.10+, git and a C compiler: `make demo`, `make test`.
# Without make (Windows): the README shows the same steps.

PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8866
PYTEST ?= -n 3 --dist loadfile --no-loadscope-reorder
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Tests and notebooks run with the network refused, one thread, and no progress bars.
QUIET  := PYTHONPATH=$(CURDIR)/tools/offline BEARCLASS_OFFLINE=1 BEARCLASS_PROGRESS=0 OMP_NUM_THREADS=1

.PHONY: help demo test check quick lab notebooks pytest export docs app-bundle clean
.DEFAULT_GOAL := help

help: ## list what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'
	@echo "  options      make demo SERVE=0 | DATA=folder-of-your-pictures | PORT=8867; make test PYTEST='-k name'"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: settings.ini setup.py pyproject.toml | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: settings.ini setup.py pyproject.toml | $(VENV)/bin/python
	$(PIP) --no-compile -e '.[dev]'   # what is imported is compiled then, on both cores
	@touch $@ $(VENV)/.base

demo: $(VENV)/.base ## pictures, training, export, and the web page (SERVE=0 stops before the page)
	$(BIN)/bearclass demo --port $(PORT) $(if $(DATA),--data "$(DATA)") $(if $(filter 0,$(SERVE)),--no-serve)

check: $(VENV)/.dev ## in seconds: exported code equals the notebooks, lint, the rules of the house
	$(BIN)/python tools/check_export.py
	$(BIN)/ruff check --quiet bearclass nbs tests tools docs benchmarks setup.py
	$(QUIET) $(BIN)/python -m pytest -q tests/test_house.py

quick: check ## in a few minutes: check, then the pages and tests that need no torch
	$(QUIET) $(BIN)/python tools/quick.py

test: check ## check, run every notebook with the network refused, build the site, then pytest
	$(MAKE) notebooks
	$(MAKE) docs
	BEARCLASS_SITE=build/site $(MAKE) pytest PYTEST='$(PYTEST) --ignore=tests/test_house.py'

notebooks: $(VENV)/.dev ## run every page top to bottom, the network refused (the lessons run in pytest, in a kernel)
	$(QUIET) $(BIN)/nbdev-test --n-workers 2 --skip-folder-re '^[_.]|^lessons$$'

build/ipywidgets7: | $(VENV)/.dev   # as Colab has it, for the tests of widgets; without a network they skip
	-$(PIP) --retries 1 --timeout 20 --no-deps --no-compile --target $@ ipywidgets==7.7.1 'jupyterlab_widgets<2' ipython_genutils

pytest: $(VENV)/.dev build/ipywidgets7 ## the tests that cross rooms, three files at a time: browsers wait more than they compute (PYTEST='-k name' for some)
	$(QUIET) $(BIN)/python -m pytest $(PYTEST)

lab: $(VENV)/.base ## open the lessons in JupyterLab
	$(PIP) -e '.[lab]'
	$(BIN)/jupyter lab nbs/lessons/01_first_model.ipynb --ServerApp.root_dir="$(CURDIR)" \
		--ServerApp.tornado_settings="{'websocket_max_message_size': 200000000}"

export: $(VENV)/.dev ## write bearclass/*.py and README.md from the notebooks
	$(BIN)/python tools/links.py
	$(BIN)/nbdev-export
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/lessons.py

$(VENV)/.docs: settings.ini | $(VENV)/bin/python
	$(PIP) $$(sed -n 's/^docs_requirements = //p' settings.ini)
	@touch $@

docs: $(VENV)/.docs ## build the site from the notebooks, in build/site; nothing is run or fetched
	$(BIN)/python docs/build.py

app-bundle: $(VENV)/.base ## train the small bundle that stands beside the app notebook
	rm -rf build/app-bears
	$(BIN)/python -c "from bearclass.samples.datasets import draw_bears; draw_bears('build/app-bears', n_per_class=400, seed=7)"
	BEARCLASS_OFFLINE=1 $(BIN)/bearclass train build/app-bears --arch tiny_cnn --size 96 --epochs 50 --out nbs/app/bundle --replace

clean: ## remove what was made: the environment, the demo, caches
	rm -rf $(VENV) demo build dist test-output *.egg-info .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
