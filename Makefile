# The commands a newcomer needs; each sets up the environment by itself.
PYTHON ?= python3
ARGS ?= model=lightcnn optim=sgd_cosine

.PHONY: help setup train test test-all lint docs clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

setup: .venv/.runs  ## install what training needs into .venv, and train nothing

train: .venv/.runs  ## set up and run the main job; others with ARGS="model=... optim=..."
	.venv/bin/python train.py $(ARGS)

test: lint  ## set up, check the style and types, run the tests
	.venv/bin/python -m pytest -n 2 -m "not slow"

test-all: lint  ## as test, with the slow ones
	.venv/bin/python -m pytest -n 2

lint: .venv/.develops  ## check style and types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

docs: .venv/.documents  ## build the site into site/; broken links are errors
	.venv/bin/mkdocs build --strict

clean:  ## remove the environment and what tools left behind; runs and data stay
	rm -rf site .venv .mypy_cache .ruff_cache .pytest_cache

.venv/.runs: requirements.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	touch $@

.venv/.develops: requirements-dev.txt requirements-joblib.txt requirements-cluster.txt requirements-data.txt .venv/.runs
	.venv/bin/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@

.venv/.documents: requirements-docs.txt .venv/.runs
	.venv/bin/python -m pip install --quiet --requirement requirements-docs.txt
	touch $@
