# What people and CI run. `make serve` and `make test` need nothing but rustup's cargo (or Debian's, as root) and make:
# what else is missing, they install.

CARGO ?= cargo
WASM := wasm32-wasip2
EXAMPLES := examples/target/$(WASM)/release
ADDRESS ?= 127.0.0.1:8000

# A guest's build may need another rustc than the host's (see guest-sdk/wasm-target.sh), and never shares its target directory.
# $(1): the guest's workspace; $(2): the target directory.
guest_build = env="$$(./guest-sdk/wasm-target.sh)" && eval "$$env" && cd $(1) && \
	CARGO_TARGET_DIR=$(CURDIR)/$(2) $(CARGO) build --locked --release --target $(WASM)

.PHONY: help
help: ## Show this.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: host
host: ## Build the host: target/debug/wasgi (dependencies optimised).
	# The features of the whole workspace, as `cargo test` has them: otherwise wasmtime would be compiled twice.
	$(CARGO) build --locked --workspace --bin wasgi

.PHONY: release
release: ## Build the host for production: target/release/wasgi.
	$(CARGO) build --locked --release -p wasgi-host

# Workspaces of their own where they need the SDK with other features: cargo would unite them.
.PHONY: example-guests
example-guests:
	$(call guest_build,examples,examples/target)
	$(call guest_build,examples/hello-lean,examples/target)
	$(call guest_build,examples/hostile,examples/target)

.PHONY: examples
examples: example-guests ## Build the example apps and drop them into ./apps.
	mkdir -p apps
	for wasm in $(EXAMPLES)/*.wasm; do \
		name=$$(basename $$wasm .wasm | tr _ -); \
		if [ -f examples/$$name/$$name.toml ]; then cp examples/$$name/$$name.toml apps/; fi; \
		cp $$wasm apps/.$$name.new && mv apps/.$$name.new apps/$$name.wasm; \
	done

.PHONY: serve
serve: host examples ## Serve the example apps: try `curl localhost:8000/hello`.
	exec target/debug/wasgi serve apps --bind $(ADDRESS)

.PHONY: test-guests
test-guests: example-guests
	$(call guest_build,tests/guests,tests/guests/target)

.PHONY: test
test: host test-guests ## Run all tests.
	$(CARGO) test --locked --workspace

# The claims in host/src/properties are tested with 256 inputs each by `make test`.
.PHONY: fuzz
fuzz: ## Try the pure parts with many random inputs (CASES=100000: some minutes).
	PROPTEST_CASES=$(or $(CASES),100000) $(CARGO) test --locked -p wasgi-host --lib properties

.PHONY: lint
lint: ## Formatting and clippy, as CI wants them.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

.PHONY: bench
bench: ## Measure, beside a yardstick and `wasmtime serve`, in one run (takes a while; installs what it needs).
	$(MAKE) -C tests/bench

.PHONY: clean-apps
clean-apps: ## Empty ./apps.
	rm -rf apps
