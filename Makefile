# On a fresh machine with Python 3.11 or newer: `make train`, `make test`.
PYTHON ?= python3
RUN = .venv/bin/python

train: .venv/installed  ## the main job: a head on a frozen trunk
	$(RUN) train.py --freeze-trunk

test: .venv/tested  ## the whole suite; once installed, offline
	$(RUN) -m pytest -n 2

lint: .venv/tested
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

fuzz: .venv/tested  ## 10,000 damaged and hostile files; FUZZ="--files N --seed S" for others
	PYTHONPATH=.:tests $(RUN) tests/cli/fuzz.py $(FUZZ)

bench: .venv/compared  ## against the best others, all of them in one table; BENCH=--small to try
	$(RUN) benchmarks/speed.py $(BENCH)

docs: .venv/installed  ## docs/: the experiments of explain, their figures, and the page about them
	$(RUN) docs/make.py

tour: .venv/tested  ## docs/tour.ipynb, run again, and docs/tour.md
	$(RUN) docs/make.py --tour

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet -c constraints.txt -e .[explain]
	touch $@

.venv/tested: .venv/installed
	$(RUN) -m pip install --quiet -c constraints.txt -e .[test]
	touch $@

.venv/compared: .venv/tested
	$(RUN) -m pip install --quiet -c constraints.txt -e .[bench]
	touch $@

.PHONY: train test lint fuzz bench docs tour
