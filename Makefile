# Thin names over the real commands. Each target makes .venv itself and can be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check interop bench clean

help:
	@echo "make demo     nodes talk to each other and show what they measured"
	@echo "make test     all tests"
	@echo "make check    lint and types"
	@echo "make interop  the matrix against go, rust and js peers (builds them once)"
	@echo "make bench    benchmarks, side by side with py-libp2p and the other peers"
	@echo "make clean    remove .venv and caches"

demo: $(VENV)/.with-all
	$(BIN)/anyp2p demo

test: $(VENV)/.with-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.with-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright

interop: $(VENV)/.with-all
	$(BIN)/python conformance/interop.py
	$(BIN)/python conformance/museum/secio/check.py || test "$$?$$CI" = 77

bench: $(VENV)/.with-all
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@echo "== making $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.with-%: $(VENV)/bin/python pyproject.toml
	@echo "== installing anyp2p[$*] into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
