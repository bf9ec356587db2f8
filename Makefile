# `make test` and `make demo` need nothing but Python 3.11 or 3.12 and the network's package index.
PYTHON ?= python3
VENV   ?= .venv
# The build of torch to install first: name it, and nothing pulls a larger one in. Users may take any torch >= 2.11.
TORCH  ?= torch==2.13.0
RUN     = $(VENV)/bin

.PHONY: install test fast lint types demo bench docs browser clean

install: $(VENV)/ready

$(VENV)/ready: pyproject.toml
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet "$(TORCH)"
	$(RUN)/pip install --quiet "$(TORCH)" -e ".[dev]"
	touch $@

test: install
	$(RUN)/pytest -n 2

fast: install
	$(RUN)/pytest -n 2 -m "not slow"

lint: install
	$(RUN)/ruff check
	$(RUN)/ruff format --check

types: install
	$(RUN)/mypy

docs: install
	$(RUN)/python tools/pages.py
	PYTHONPATH=tools $(RUN)/zensical build --clean --strict

demo: install
	RUN=$(RUN) bash examples/demo.sh

# The report's page in headless Chromium; without Chromium and its driver it prints `not run`.
browser: install
	$(RUN)/pip install --quiet "$(TORCH)" -e ".[browser]"
	$(RUN)/pytest tests/report/test_browser.py -rs

clean:
	rm -rf $(VENV) demo build dist site .cache
