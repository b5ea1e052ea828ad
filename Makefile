# Everything runs in .venv, made here from nothing but python3; the second call of a target installs nothing.
#
#   make demo        the Fashion-MNIST demo: one-step generator, evaluation, report
#   make test        the tests            make test-fast   those to run at each save
#   make test-slow   the long ones too    make test-gpu    those that need a GPU
#   make check       formatting, lint, types
#   make docs        the documentation as a site, in site/
#   make coverage    which lines the tests reach          make bench    the benchmarks of a step and of draws
#
# Another PyTorch build:  make demo TORCH_ARGS="--index-url URL"
# Another version:        make demo TORCH=torch==2.14.1   (both on the first call, which makes .venv)
# One test at a time:     make test WORKERS=0   (as many processes as cores, eight at most, if not said)
# Another package index:  make demo PIP_ARGS="--index-url URL"

PYTHON     ?= python3
TORCH      ?= torch==2.13.0
TORCH_ARGS ?=
PIP_ARGS   ?=
DEMO       ?= fashion-mnist
WORKERS    ?= auto
VENV       := .venv
PYTEST     := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile
PIP        := $(VENV)/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS)

FAST       := tests/package tests/diffusion tests/losses tests/methods tests/pairs tests/training/test_step.py \
              tests/training/test_loop.py tests/training/test_finite.py tests/training/test_health.py

.PHONY: help demo test test-fast test-slow test-gpu check format docs coverage bench clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/installed
	$(VENV)/bin/unistep distill $(DEMO)

test: $(VENV)/installed-dev
	$(PYTEST) $(ARGS)

test-fast: $(VENV)/installed-dev
	$(PYTEST) $(FAST)

test-gpu: $(VENV)/installed-dev
	$(PYTEST) -m gpu

coverage: $(VENV)/installed-dev
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html

bench: $(VENV)/installed
	$(VENV)/bin/python benchmarks/steps.py
	$(VENV)/bin/python benchmarks/draws.py

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

test-slow: $(VENV)/installed-dev
	$(PYTEST) -m "not gpu"

check: $(VENV)/installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

format: $(VENV)/installed-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# torch comes first and alone, then it is pinned to what came: no later package can exchange it for another build.
$(VENV)/torch:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "found Python %d.%d, expected 3.11 or newer: make PYTHON=python3.11" % sys.version_info[:2])'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(PIP) $(TORCH_ARGS) -c $(VENV)/constraints.txt "$(TORCH)"
	touch $@

$(VENV)/constraints.txt: $(VENV)/torch constraints.txt
	grep -v '^torch==' constraints.txt > $@
	$(VENV)/bin/python -m pip list --disable-pip-version-check --format=freeze | grep '^torch==' >> $@

$(VENV)/installed: $(VENV)/constraints.txt pyproject.toml
	$(PIP) -c $(VENV)/constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -c $(VENV)/constraints.txt -e ".[dev]"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) -c $(VENV)/constraints.txt -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache site
