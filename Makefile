# The contributor's front door. `make` lists the targets.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

.PHONY: dev
dev: $(BIN)/python ## environment with all extras, extension built into the source tree
	$(BIN)/pip install --quiet '.[lint]' 'maturin>=1.16,<2' && $(BIN)/pip uninstall --quiet --yes ssmrt
	. $(BIN)/activate && maturin develop --release

.PHONY: test
test: ## pytest and cargo test
	$(BIN)/pytest -n auto
	cargo test --workspace --release

.PHONY: lint
lint: stubtest ## formatting, clippy, ruff, mypy, pyright, stub
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

.PHONY: stubtest
stubtest: ## the stub against the extension
	$(BIN)/python -m mypy.stubtest ssmrt._native

.PHONY: fuzz
fuzz: ## damaged files, and the engine's two fuzz targets: an hour; finds stay in fuzz-finds
	$(BIN)/python tests/fuzz_readers.py --seconds 1200 --seed $$(date +%s) --keep fuzz-finds
	SANITIZER=address rust/fuzz/run 1200

.PHONY: soak
soak: ## 50 million samples through each of five models: memory and errors
	$(BIN)/python tests/soak.py

.PHONY: realtime
realtime: ## a million steps of the keyword spotter, their times beside those of a loop in registers as long
	SSMRT_NUM_THREADS=1 cargo run --release --example latency -- python/ssmrt/data/spotter.ssm.safetensors --steps 1000000

.PHONY: kills
kills: ## 100 processes killed between the snapshots of their streams, and restored: three minutes
	$(BIN)/python tests/kills.py

.PHONY: coverage
coverage: ## lines of Python and Rust that the tests reach: 15 minutes
	$(BIN)/pip install --quiet 'coverage>=7.10'
	$(BIN)/python tools/measure_coverage.py

.PHONY: docs
docs: ## the documentation, served while it is written
	$(BIN)/pip install --quiet '.[docs]' && $(BIN)/mkdocs serve --strict

.PHONY: bench
bench: ## ssmrt beside its peers, as far as they are installed
	$(BIN)/python benches/compare.py --quick --markdown
