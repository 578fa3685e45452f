# One install, one run: make setup && make quickstart
PYTHON ?= python3
PY := .venv/bin/python

.PHONY: help setup quickstart test test-plain test-slow test-gpu wheel test-wheel docs lint bench

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup:  ## make .venv: pinned packages and our compiled ops (minutes; quick when done)
	@$(PYTHON) tools/install.py

quickstart: setup  ## fine-tune, evaluate and draw a small detector, then a small segmentor
	@$(PY) tools/quickstart.py

# Each process starts with a row of neighbours, which share what is slow to make, and takes from
# the end of another's row when its own is done. One core is enough for each.
PYTEST = $(PY) -m pytest -q -n auto --maxprocesses 8 --dist worksteal --durations 40

test: setup  ## the tests
	$(PYTEST) -m "not slow"

test-plain: setup  ## what computes by our ops, in plain torch, as on a machine without a compiler
	SWIN_DENSE_KERNELS=off $(PYTEST) -m "plain and not slow"

test-slow: setup  ## minutes each: learning on real images; channels of all of OpenMMLab's configs
	$(PY) -m pytest -q -m slow

test-gpu: setup  ## what asks a CUDA device: ops, streams, captured graphs, several cards
	$(PY) -m pytest -q -m gpu

wheel: setup  ## dist/: the package with its CPU and CUDA ops, for machines without a compiler
	@$(PY) tools/make_wheel.py

test-wheel: wheel  ## the ops' tests from that wheel, in a new environment without a compiler
	@$(PY) tools/try_wheel.py

docs: setup  ## build/site: README and docs/ as pages to read; a dead link is an error
	@$(PY) tools/make_site.py

lint: setup  ## style, types, and the rule which room may import which
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -q tests/test_house.py

# Both sides keep the memory they free: getting large blocks anew costs a sixth of a pass.
bench: export MALLOC_MMAP_MAX_ = 0
bench: export MALLOC_TRIM_THRESHOLD_ = 34359738368
bench: export MALLOC_TOP_PAD_ = 268435456
bench: setup  ## speed and memory as ratios: our ops and our backbone against others'
	@for what in ops backbone memory growth; do $(PY) tools/benchmark.py $$what || exit; done
