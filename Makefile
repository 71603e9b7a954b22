# Every target makes .venv when it is missing, and goes on at once when it is there.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
FILES := pyproject.toml constraints.txt

.PHONY: demo test check format clean

demo: .venv/.demo
	$(BIN)/hedgerow demo

test: .venv/.dev
	$(BIN)/pytest -n auto --dist worksteal

check: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: .venv/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv build src/*.egg-info .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv .venv

# torch is asked for first and by its version: see constraints.txt.
.venv/.torch: constraints.txt | $(BIN)/python
	$(INSTALL) $$(grep '^torch==' constraints.txt)
	touch $@

.venv/.demo: $(FILES) .venv/.torch
	$(INSTALL) -e '.[demo]'
	touch $@

.venv/.dev: $(FILES) .venv/.torch
	$(INSTALL) -e '.[all,dev]'
	touch $@ .venv/.demo
