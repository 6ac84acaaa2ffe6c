# The only interface for building, testing and trying Holdfast; continuous integration runs the same targets.
# Each installs by itself what it needs and the machine lacks (scripts/setup.sh).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

comma := ,
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
DEBUG_BIN = $(abspath $(TARGET_DIR))/debug/holdfast
RELEASE_BIN = $(abspath $(TARGET_DIR))/release/holdfast

# A machine that builds once gains nothing from incremental artefacts and debug information, but time and disk.
ifneq ($(CI),)
export CARGO_INCREMENTAL := 0
export CARGO_PROFILE_DEV_DEBUG := 0
export CARGO_TERM_COLOR := never
endif

# Tests that make hosts (namespaces, mounts, loop devices) need root; only these run with it.
HOST_TESTS := binary_id(/^holdfast-(lab|agent)::/) + binary_id(holdfast::readme)

.PHONY: help
help: ## Show this text
	@printf 'Targets:\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Build a two-server cluster here, cut the active server's power, show the takeover (ONCE=1: then end; needs root)
	@scripts/need-root.sh demo
	scripts/setup.sh demo
	cargo build --release --locked -p holdfast
	$(RELEASE_BIN) lab up examples/two-servers $(if $(ONCE),--once)

.PHONY: test
test: ## Formatting, lints, then every test: the quick ones first, then those on real hosts (root or sudo)
	@scripts/need-sudo.sh test
	scripts/setup.sh test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/run-tests.sh '$(HOST_TESTS)'

.PHONY: fuzz
fuzz: ## Mutated input for every parser of bytes from networks and disks, and for the API server: make fuzz SECONDS=60 (per parser), SEED=1
	scripts/setup.sh build
	FUZZ_SECONDS=$(or $(SECONDS),60) FUZZ_SEED=$(or $(SEED),1) cargo test --quiet --locked -p holdfast-agent --test fuzz -- --nocapture
	FUZZ_SECONDS=$(or $(SECONDS),60) FUZZ_SEED=$(or $(SEED),1) cargo test --quiet --locked -p holdfast-apiserver --test fuzz -- --nocapture

.PHONY: bench
bench: ## Measure outages, cold start, idle cost, decisions, large groups, plans, the simulator and the API server, beside the targets (RUNS=10; needs root)
	@scripts/need-root.sh bench
	scripts/setup.sh test
	cargo build --release --locked -p holdfast
	$(RELEASE_BIN) lab bench examples/two-servers $(if $(RUNS),--runs $(RUNS))
	$(RELEASE_BIN) lab bench examples/two-servers --decisions $(if $(RUNS),--runs $(RUNS))
	$(RELEASE_BIN) lab bench examples/two-servers --groups $(if $(RUNS),--runs $(RUNS))
	cargo bench --quiet --locked -p holdfast-planner --bench plan
	cargo run --quiet --release --locked -p holdfast-sim -- --seconds 20 --servers 3
	cargo bench --quiet --locked -p holdfast-apiserver --bench api $(if $(RUNS),-- $(RUNS))

.PHONY: chaos
chaos: ## Random sequences of faults on real hosts, each checked for overlap (SEQUENCES=100, SEED=1; needs root)
	@scripts/need-root.sh chaos
	scripts/setup.sh test
	cargo build --locked -p holdfast
	CHAOS_SEQUENCES=$(or $(SEQUENCES),100) CHAOS_SEED=$(or $(SEED),1) cargo test --quiet --locked -p holdfast-lab \
	  --test hosts random_sequences -- --nocapture

.PHONY: soak
soak: ## False failovers with cores and disk saturated: count must be 0 (MINUTES=10 each, TIMEOUTS=1000,500 in ms; needs root)
	@scripts/need-root.sh soak
	scripts/setup.sh test
	cargo build --locked -p holdfast
	SOAK_MINUTES=$(or $(MINUTES),10) SOAK_TIMEOUTS=$(or $(TIMEOUTS),1000$(comma)500) cargo test --quiet --locked \
	  -p holdfast-lab --test hosts saturated -- --ignored --nocapture

.PHONY: sim
sim: ## Random faults on whole sub-clusters in virtual time (SECONDS=60, SEED=n replays one, PLANT=Name plants a bug)
	scripts/setup.sh build
	cargo run --quiet --release --locked -p holdfast-sim -- \
	  $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(PLANT),--plant $(PLANT))

.PHONY: model
model: ## Every order of steps around the decision about views (FAULTS=n, TICKS=n: another bound; PLANT=Name plants a bug)
	scripts/setup.sh build
	cargo run --quiet --release --locked -p holdfast-sim -- --model $(or $(FAULTS),all) \
	  $(if $(TICKS),--ticks $(TICKS)) $(if $(PLANT),--plant $(PLANT))

.PHONY: crds
crds: ## Write manifests/crds from the types
	scripts/setup.sh build
	UPDATE_GOLDEN=1 cargo test --quiet --locked -p holdfast-api --test crds

.PHONY: docs
docs: ## Write docs/reference from the schemas, and docs/mutations.md from the simulator
	scripts/setup.sh build
	UPDATE_DOCS=1 cargo test --quiet --locked -p holdfast --test reference
	UPDATE_DOCS=1 cargo test --quiet --locked -p holdfast-sim --test mutations

.PHONY: deny
deny: ## Licences, advisories and duplicates of dependencies (installs cargo-deny when absent)
	cargo deny --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-deny
	cargo deny --locked check

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all
