# What people and CI run. `make serve` and `make test` need nothing but rustup's cargo (or Debian's, as root) and make:
# what else is missing, they install.

CARGO ?= cargo
WASM := wasm32-wasip2
EXAMPLES := examples/target/$(WASM)/release
# CGI programs that other compilers than cargo build.
CGI := examples/target/cgi
ADDRESS ?= 127.0.0.1:8000

# `make gate`: clippy compiles the workspace, and what it has looked through is tested. Otherwise all that wasgi rests on would be compiled twice.
ifdef LINT
workspace := $(CARGO) --config 'build.rustc-workspace-wrapper="clippy-driver"'
else
workspace := $(CARGO)
endif

# A guest's build may need another rustc than the host's (see guest-sdk/wasm-target.sh), and never shares its target directory.
# $(1): the guest's workspace; $(2): the target directory; $(3): another target than the usual one; $(4): further arguments.
guest_build = env="$$(./guest-sdk/wasm-target.sh $(3))" && eval "$$env" && cd $(1) && \
	CARGO_TARGET_DIR=$(CURDIR)/$(2) $(CARGO) build --locked --release --target $(or $(3),$(WASM)) $(4)

.PHONY: help
help: ## Show this.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: host
host: ## Build the host: target/debug/wasgi (dependencies optimised).
	# The features of the whole workspace, as `cargo test` has them: otherwise wasmtime would be compiled twice.
	$(workspace) build --locked --workspace --bin wasgi

.PHONY: release
release: ## Build the host for production: target/release/wasgi.
	$(CARGO) build --locked --release -p wasgi-host

.PHONY: release-pgo
release-pgo: ## The same, optimised by a trial run: target/pgo/release/wasgi (twice the time, less per request).
	$(MAKE) -C tests/bench pgo

# Workspaces of their own where they need the SDK with other features: cargo would unite them.
.PHONY: example-guests
example-guests:
	$(call guest_build,examples,examples/target)
	$(call guest_build,examples/hello-lean,examples/target)
	$(call guest_build,examples/hostile,examples/target)

# The SDK for Python with its interpreter, as users install it.
PYTHON_SDK := target/tools/python-sdk
$(PYTHON_SDK)/.installed: $(shell find guest-sdk/python -type f -not -path '*/__pycache__/*' -not -path '*.egg-info/*' -not -name '*.so' -not -path '*/tests/*')
	guest-sdk/python/install.sh $(CURDIR)/$(PYTHON_SDK)
	touch $@

# Built again when their sources change: ten seconds each.
PYTHON_EXAMPLES := examples/target/python
.PHONY: python-examples
python-examples: $(PYTHON_EXAMPLES)/hello-python.wasm $(PYTHON_EXAMPLES)/notes-flask.wasm $(PYTHON_EXAMPLES)/shelf-django.wasm

python_build = mkdir -p $(PYTHON_EXAMPLES) && cd $(1) && PYTHONPATH=$(CURDIR)/$(PYTHON_SDK) python3 -m wasgi build $(2) -o $(CURDIR)/$@

$(PYTHON_EXAMPLES)/hello-python.wasm: $(PYTHON_SDK)/.installed examples/hello-python/hello.py
	$(call python_build,examples/hello-python,hello --requirements /dev/null)

$(PYTHON_EXAMPLES)/notes-flask.wasm: $(PYTHON_SDK)/.installed $(shell find examples/notes-flask -type f -not -path '*/__pycache__/*')
	$(call python_build,examples/notes-flask,notes --requirements requirements.txt)

$(PYTHON_EXAMPLES)/shelf-django.wasm: $(PYTHON_SDK)/.installed $(shell find examples/shelf-django -type f -not -path '*/__pycache__/*')
	$(call python_build,examples/shelf-django,--requirements requirements.txt)

.PHONY: examples
examples: example-guests python-examples ## Build the example apps and drop them into ./apps.
	mkdir -p apps
	for wasm in $(EXAMPLES)/*.wasm $(wildcard $(CGI)/*.wasm) $(PYTHON_EXAMPLES)/*.wasm; do \
		name=$$(basename $$wasm .wasm | tr _ -); \
		if [ -f examples/$$name/$$name.toml ]; then cp examples/$$name/$$name.toml apps/; fi; \
		cp $$wasm apps/.$$name.new && mv apps/.$$name.new apps/$$name.wasm; \
	done

# CGI programs in other languages than Rust. Their compilers are fetched (C: Debian's clang, 10 MB; Zig: PyPI, 100 MB) into
# target/tools, unless they are there already; and nothing is built that is newer than its source.
.PHONY: cgi-guests
cgi-guests: $(CGI)/cgi-c.wasm $(CGI)/cgi-zig.wasm ## Build the CGI programs in C and Zig.

$(CGI)/cgi-c.wasm: examples/cgi-c/cgi-c.c examples/cgi-c/clang.sh
	mkdir -p $(CGI)
	clang="$$(examples/cgi-c/clang.sh target/tools/clang)" && $$clang -O2 -Wall -Werror $< -o $@

$(CGI)/cgi-zig.wasm: examples/cgi-zig/cgi-zig.zig examples/cgi-zig/zig.sh examples/cgi-zig/requirements.txt
	mkdir -p $(CGI)
	zig="$$(examples/cgi-zig/zig.sh target/tools/zig)" && "$$zig" build-exe -target wasm32-wasi -O ReleaseSmall \
		--cache-dir target/tools/zig-cache --global-cache-dir target/tools/zig-cache -femit-bin=$@ $<

.PHONY: serve
serve: host examples ## Serve the example apps: try `curl localhost:8000/hello`.
	# A Django project has a database, which is made once.
	[ -f data/shelf-django/db.sqlite3 ] || target/debug/wasgi manage -c examples/wasgi.toml apps/shelf-django.wasm migrate
	exec target/debug/wasgi serve -c examples/wasgi.toml --bind $(ADDRESS)

.PHONY: test-guests
test-guests: example-guests cgi-guests python-examples
	$(call guest_build,tests/guests,tests/guests/target)
	$(call guest_build,tests/guests,tests/guests/target,wasm32-wasip1,-p cgi-probe)
	$(call guest_build,examples,examples/target,wasm32-wasip1,-p cgi-rust)
	# What others' tools make of JavaScript and Python.
	$(MAKE) -C tests/guests/foreign CARGO=$(CARGO)
	# What our own SDK makes of it.
	$(MAKE) -C tests/guests/python

.PHONY: test-servers
test-servers:
	tests/servers/fetch.sh

.PHONY: test-programs
test-programs: host
	$(workspace) test --locked --workspace --no-run

# One by one: they install things.
.PHONY: test-inputs
test-inputs:
	MAKEFLAGS= $(MAKE) test-guests test-servers

# The claims about all inputs are tried with the same ones each time: a change is not to be blamed for what chance finds. `make fuzz` has others each time.
.PHONY: test
test: export PROPTEST_RNG_SEED ?= 20261128
test: ## Run all tests.
	$(MAKE) --jobs=2 test-programs test-inputs
	# Tests from outside wait for half of their time: for what takes time, and for whoever is meant to be late.
	RUST_TEST_THREADS=$$(($$(nproc) * 2)) $(workspace) test --locked --workspace --test it
	# Targets, not packages, are chosen: with fewer packages their dependencies had other features, and were compiled again.
	$(workspace) test --locked --workspace --lib --bins --test compile
	$(workspace) test --locked --workspace --doc
	# What the SDK has only with its features: alone, so that the host's dependencies stay as they are.
	$(workspace) test --locked -p wasgi --features cookie,fetch,form,http
	python3 -m unittest discover guest-sdk/python/tests

# The rules under each policy on instances, with and without the passes that are not needed. Not with `make test`: each cell compiles the guests
# in Python again.
conformance = TEST_INSTANCES=$(1) TEST_PASSES=$(2) RUST_TEST_THREADS=$$(($$(nproc) * 2)) \
	$(CARGO) test --locked --workspace --test it -- $(3)

.PHONY: matrix
matrix: host test-guests test-servers ## Run the conformance tests under every policy on instances, with all passes and with the needed ones.
	$(call conformance,fresh,all,conformance)
	$(call conformance,rewind,all,conformance)
	$(call conformance,reuse,all,conformance)
	$(call conformance,fresh,needed,conformance)
	$(call conformance,rewind,needed,conformance)
	$(call conformance,reuse,needed,conformance)

.PHONY: browser-test
browser-test: host python-examples ## Drive the admin of the Django example in a real browser (Debian's chromium and chromium-driver).
	python3 tests/browser/django_admin.py

# Claims about all inputs are tested with 256 of them, always the same, by `make test`: host/src/properties, and those beside their code.
.PHONY: fuzz
fuzz: ## Try the pure parts with many random inputs (CASES=100000: some minutes).
	PROPTEST_CASES=$(or $(CASES),100000) $(CARGO) test --locked -p wasgi-host --lib -- properties forwarded proxy_protocol

# Miri belongs to nightly toolchains: rustup toolchain install nightly --component miri,rust-src
.PHONY: miri
miri: ## Run the tests of sandboxes' memories under Miri, with a kernel of our own (some minutes).
	cd tests/miri && CARGO_TARGET_DIR=$(CURDIR)/target/miri MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance" \
		$(CARGO) +nightly miri test --locked

.PHONY: gate
gate: ## What has to pass before a change lands: formatting, clippy, all tests. One build for all of it.
	$(CARGO) fmt --all --check
	CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__ $(MAKE) test LINT=1

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
