# Everything works on a fresh machine that has Python 3.11 or newer, and make. PYTHON chooses the interpreter.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PACKAGES := -p wiberg.energies -p wiberg.compiler -p wiberg.runtime -p wiberg.learn

# PyTorch's builds without CUDA, a tenth of the others' size, are in an index of their own.
TORCH := --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0

N := 1000
START := 0

.PHONY: setup setup-frameworks demo test lint fuzz crash bench bench-setup clean

setup: $(VENV)/.installed .links/wiberg

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "wiberg needs Python 3.11 or newer; run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# What tests compare with, or run inside, and are skipped without.
setup-frameworks: $(VENV)/.frameworks

$(VENV)/.frameworks: $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[frameworks,data]'
	touch $@

# mypy and editors cannot follow the finder of an editable installation; they look here.
.links/wiberg:
	mkdir -p .links
	ln -sfn .. $@

demo: setup
	$(RUN) examples/ransac.py

# As many processes as cores; they share one kernel cache (tests/conftest.py).
test: setup
	$(RUN) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy $(PACKAGES)

fuzz: setup
	$(RUN) tests/fuzz.py $(N) --start $(START)

# Training killed N times over: 200 take about four minutes.
crash: setup
	$(RUN) tests/crash.py $(N)

bench-setup: $(VENV)/.bench

$(VENV)/.bench: $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

bench: setup
	$(RUN) benchmarks/run.py

clean:
	rm -rf $(VENV) .links build dist output *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
