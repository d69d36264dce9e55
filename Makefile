# Every way to build, check and show the project; each target sets itself up.
# Tests that want a kernel boot the machine of tests/lab where this kernel has no IPVS.

.PHONY: help test test-native test-kernel conformance bench bench-core lab demo man deb image deploy-test \
	lint ci
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Every test binary but those that want a kernel.
NATIVE_TESTS = $(filter-out kernel edge demo deploy, \
	$(patsubst tests/%.rs,%,$(wildcard tests/*.rs)) \
	$(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs)))

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand --tabs=14

test: ## Run every test
	cargo test

test-native: ## Run the tests that need no lab
	cargo test --lib --bins $(addprefix --test ,$(NATIVE_TESTS))

test-kernel: ## Run the kernel tests; LAB_KERNEL=6.1|6.12|7.2 picks the lab's kernel
	cargo test --test edge --test kernel

conformance: ## Check and count the rows of the conformance catalogue
	cargo test --quiet --test conformance -- --quiet

bench: ## Measure the daemon against its budgets; BENCH_PROXY=/path measures another beside it
	cargo bench --bench node

bench-core: ## Measure the core's parts at several sizes
	cargo bench --bench core

lab: ## Build the lab machine
	tests/lab/build

demo: ## Show the main job on real input
	cargo test --quiet --test demo

man: ## Write the man pages and shell completions to target/manual
	cargo run --quiet --example manual -- target/manual

deb: ## Build the Debian package
	deploy/debian/build

image: ## Build the container image as an OCI archive
	deploy/image/build

deploy-test: ## Install, run and remove what is shipped on a machine with systemd; takes minutes
	cargo test --quiet --test deploy

lint: ## Check format, lints and documentation
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

ci: lint test ## What CI runs
