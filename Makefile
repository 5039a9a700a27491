# `make` alone lists what there is. `make demo` and `make test` do all set-up themselves.

USERS ?= 100000
PROFILE ?= release

ifeq ($(PROFILE),dev)
PROFILE_FLAG := --profile dev
PROFILE_DIR := debug
else
PROFILE_FLAG := --profile $(PROFILE)
PROFILE_DIR := $(PROFILE)
endif
BIN := $(or $(CARGO_TARGET_DIR),target)/$(PROFILE_DIR)

.PHONY: help setup demo test check check-api check-containers run examples package bench chaos

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 28

setup: ## Install a missing Redis or PostgreSQL with the system's package manager
	@bash scripts/setup.sh

# Each of the users is a socket or two: the soft limit on open files is far too low for that.
demo: setup ## Sell out one sale to a herd, and prove it: USERS=100000 PROFILE=release
	cargo build $(PROFILE_FLAG) --workspace --bins --locked
	ulimit -n $$(ulimit -Hn) && $(BIN)/flashsale demo --users $(USERS)

# Everything is built first, for tests start the programs of the other crates.
test: setup ## Run all tests, on a real Redis and PostgreSQL
	cargo build --workspace --all-targets --locked
	cargo test --workspace --locked

check: ## Formatting, lints and documentation, with warnings as errors
	cargo fmt --all --check
	rustfmt --check --edition 2024 examples/stranger/src/main.rs
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

check-api: setup ## The server against its OpenAPI document, with schemathesis from PyPI
	cargo build -p flashsale-server -p flashsale-cli --bins --locked
	@bash scripts/check-api.sh $(or $(CARGO_TARGET_DIR),target)/debug

check-containers: ## Lint the Dockerfile, and check compose.yaml against its specification
	@bash scripts/check-containers.sh

run: setup ## A private stack, the demo sale and the server, ready for curl; Ctrl-C ends all
	cargo build $(PROFILE_FLAG) --workspace --bins --locked
	@bash scripts/run.sh $(BIN)

examples: setup ## Run the examples, and a crate from outside of the workspace, on a private stack
	cargo build -p flashsale-cli -p flashsale-examples --bins --examples --locked
	@bash scripts/run-examples.sh $(or $(CARGO_TARGET_DIR),target)/debug

# Built as `make examples` builds the crate outside of the workspace, so that they share what they depend on.
package: ## Package the core, and build the package by itself
	CARGO_PROFILE_DEV_DEBUG=line-tables-only cargo package -p flashsale-core --locked --allow-dirty

bench: setup ## Measure it beside rivals and physical limits: BENCH_ARGS="--only growth"
	cargo build $(PROFILE_FLAG) --workspace --bins --locked
	$(BIN)/flashsale-bench $(BENCH_ARGS)

chaos: setup ## Break one thing after the other under a herd: ROUNDS=3 CHAOS_ARGS="--fault flushall --seed 7"
	cargo build $(PROFILE_FLAG) --workspace --bins --locked
	$(BIN)/flashsale-loadtest chaos --rounds $(or $(ROUNDS),3) $(CHAOS_ARGS)
