# Everything that is installed or made stays in the checkout: .venv, target, .local.
# `make run` is the whole system on one machine: docs/LOCAL-CLOUD.md.

SHELL := /bin/sh
PYTHON ?= python3
STAY ?= 1
VENV := .venv/bin
PROOF := $(or $(CARGO_TARGET_DIR),target)/debug/proof
# A cargo-nextest of the machine is used when there is one; else it is built into .local, once.
export PATH := $(CURDIR)/.local/bin:$(PATH)
export SAM_CLI_TELEMETRY := 0

.PHONY: run stop test bench prove mutants lint build setup setup-lint tools fmt

run:
	@$(MAKE) --no-print-directory -j2 setup build
	@$(VENV)/python tools/local run --stay $(STAY)

stop: setup
	@$(VENV)/python tools/local stop

test: setup tools build
	cargo nextest run --workspace --locked
	$(VENV)/pytest -q tests/python tests/envelope_py

# A crate of its own, so that its peers are compiled by nobody else.
bench: | needed
	cd bench && cargo run --release --locked

# The long checks: more seeds of the simulation, more states of the model, a broken twin of
# each invariant, more inputs for every parser, and the story, twice in a row, on a cloud of its own each time.
PARSERS := (package(claviger-proof) and (binary(parsers) or binary(functions))) or (package(claviger-envelope) and test(fuzz))
prove: setup tools build
	$(PROOF) --seeds 100
	$(PROOF) model --deep
	$(PROOF) steps
	for invariant in I1 I2 I3 I4 I5 I6 I7 I8; do $(PROOF) twin $$invariant || exit 1; done
	PROPTEST_CASES=100000 cargo nextest run --workspace --locked -E '$(PARSERS)'
	PROPTEST_CASES=20000 cargo nextest run --workspace --locked -E 'test(nearly_right)'
	$(VENV)/python tools/local run --stay 0
	$(VENV)/python tools/local run --stay 0

# Defects one after the other in the deciding functions, the error table, the arithmetic of leases and the format of
# records (.cargo/mutants.toml): does a test of the crate notice? Hours; MUTANTS="--re envelope/src/lease.rs"
# looks at a part. docs/MUTANTS.md lists what nothing noticed, with the reason.
mutants: | needed
	@cargo mutants --version >/dev/null 2>&1 || cargo install --locked --quiet --root .local cargo-mutants
	CARGO_INCREMENTAL=1 cargo mutants --workspace --no-shuffle --output target $(MUTANTS)

lint: setup-lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(VENV)/ruff format --check tools tests/python tests/envelope_py
	$(VENV)/ruff check tools tests/python tests/envelope_py
	$(VENV)/cfn-lint template.yaml key-access.yaml examples/notes/template.yaml onboarding/*.yaml
	$(VENV)/sam validate --lint --template template.yaml

fmt: setup-lint
	cargo fmt --all
	$(VENV)/ruff format tools tests/python tests/envelope_py
	$(VENV)/ruff check --fix tools tests/python tests/envelope_py

build: | needed
	cargo build --workspace --bins --locked

setup: .venv/.made

.venv/.made: requirements.txt | needed
	@$(PYTHON) -m venv .venv
	@$(VENV)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

setup-lint: .venv/.made-lint

.venv/.made-lint: requirements-lint.txt .venv/.made
	@$(VENV)/pip install --quiet --disable-pip-version-check --requirement requirements-lint.txt
	@touch $@

tools: | needed
	@cargo nextest --version >/dev/null 2>&1 || cargo install --locked --quiet --root .local cargo-nextest

.PHONY: needed
needed:
	@sh tools/needed.sh $(PYTHON)
