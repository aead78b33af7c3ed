# Forgers and Detectives. `make` lists what there is to do.

PYTHON ?= python3
PORT   ?= 8000

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# How notebooks are run and compared: the small data, no progress bars. Each of them sets its number of threads itself.
QUICK := COURSE_SCALE=quick TQDM_DISABLE=1

# What was typed reaches a recipe through the environment alone, so that neither make nor the shell runs a part of it.
override NOTEBOOK := $(value NOTEBOOK)
override REPO     := $(value REPO)
export NOTEBOOK REPO

# The notebook asked for, as a path from here, whichever way it was written.
notebook = "$$($(BIN)/python -c 'import os; print(os.path.relpath(os.path.realpath(os.environ["NOTEBOOK"])))')"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup book test serve lab execute check elsewhere claims-full records results repo clean need-notebook

help: ## list the targets (this is what `make` alone does)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## create .venv and install everything, once

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	    echo "make setup: needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name another one, for example: make setup PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV). This happens once, and takes a while: PyTorch is large."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

book: $(STAMP) ## build the book; a warning is an error
	$(BIN)/jupyter-book build . -W -n --keep-going
	@echo "The book is built. Open _build/html/index.html"

test: $(STAMP) ## lint, unit tests, every notebook's outputs, the built book
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(QUICK) $(BIN)/python -m pytest --nbval -n 2 --dist loadfile
	@$(BIN)/python tools/elsewhere.py check
	@echo "make test: all is well"

serve: book ## build the book and serve it on this machine (PORT=8000)
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

lab: $(STAMP) ## work on the notebooks in JupyterLab, which the first call installs
	@$(BIN)/python -c 'import jupyterlab' 2> /dev/null || { echo "Installing JupyterLab into $(VENV), once."; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt jupyterlab; }
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/python -m jupyterlab --notebook-dir=book

execute: need-notebook $(STAMP) ## run NOTEBOOK=… on a clean kernel and store its outputs
	$(QUICK) $(BIN)/python tools/notebooks.py execute $(notebook)

check: need-notebook $(STAMP) ## run NOTEBOOK=… and compare with its stored outputs
	$(BIN)/python -m pytest tests/test_notebooks.py -k $(notebook)
	$(QUICK) $(BIN)/python -m pytest --nbval $(notebook)
	@echo "make check: the notebook shows what it computes"

elsewhere: $(STAMP) ## which claims hold on other processors and with other seeds (hours; or NOTEBOOK=…; can be stopped)
	$(BIN)/python tools/elsewhere.py all $${NOTEBOOK:+"$$NOTEBOOK"}

claims-full: $(STAMP) ## run every notebook at full scale: claims hold, outputs may differ (best on a GPU)
	COURSE_SCALE=full TQDM_DISABLE=1 $(BIN)/python -m pytest --nbval-lax --nbval-cell-timeout=14400 book
	@echo "make claims-full: every claim holds at full scale"

records: $(STAMP) ## make every run that the book shows records of, or go on with them (hours); then the page of results
	$(BIN)/python -m course_lib study label_budget --out runs/label_budget --jobs 2 --keep
	$(BIN)/python -m course_lib study mnist --out runs/mnist --keep
	$(BIN)/python -m course_lib study judges --out runs/judges --jobs 2 --keep
	$(BIN)/python -m course_lib study dcgan --out runs/dcgan --keep
	$(BIN)/python -m course_lib study remedies --out runs/remedies --jobs 2 --keep
	$(MAKE) results

results: $(STAMP) ## write the page of results from the records
	$(BIN)/python tools/results.py

repo: ## point the book and every setup cell at REPO=owner/name
	@$(PYTHON) tools/notebooks.py repo -- "$$REPO"

clean: ## remove what was built and cached (not .venv: delete that by hand to install afresh)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

need-notebook:
	@test -f "$$NOTEBOOK" || { \
	    printf "make: no notebook at NOTEBOOK='%s'.\n" "$$NOTEBOOK" >&2; \
	    echo "Name one, for example: make check NOTEBOOK=book/06_ssgan/ssgan.ipynb" >&2; exit 2; }
