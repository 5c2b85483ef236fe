# Each target works from a bare checkout: it creates .venv and installs into it, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
BENCHMARKS := $(filter-out _%,$(basename $(notdir $(wildcard benchmarks/*.py))))

.PHONY: demo test check bench server

demo: $(INSTALLED)
	$(BIN)/python -m flows.pipeline experiment=demo

test: $(INSTALLED)
	$(BIN)/pytest

check: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# All of them, whatever one of them says; then the names of those that failed.
bench: $(INSTALLED)
	@failed=; for name in $(BENCHMARKS); do \
	    echo "== benchmarks.$$name"; \
	    $(BIN)/python -m benchmarks.$$name || failed="$$failed $$name"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

server: $(INSTALLED)
	$(BIN)/python -m flows.server

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
