# Two commands matter: `make run` and `make test`. Both work on a Debian or Ubuntu machine that has only
# git, make, gcc and rustup's cargo.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Everything that is compiled lies outside the clone, so that clones and CI share it.
CACHE ?= $(or $(ROLLBOOK_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rollbook)
export ROLLBOOK_CACHE := $(CACHE)
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
export CARGO_TARGET_DIR := $(CACHE)/target
# Made by .ci/rocksdb; whatever else changes, RocksDB's C++ is not compiled again.
export ROCKSDB_LIB_DIR := $(shell .ci/rocksdb --path)
export ROCKSDB_STATIC := 1

ROLLBOOK := $(CARGO_TARGET_DIR)/release/rollbook
# One profile for everything: nothing is compiled twice.
EVERYTHING := --release --workspace
APT := DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=2 -o Acquire::http::Timeout=30

.PHONY: help run run-cluster build test lab soak bench fmt cargo env packages test-packages test-clients rocksdb

help: ## list these commands
	@echo "make COMMAND [ARGS=...]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 12

run: build ## build and start one node on loopback, data in ./data; ARGS="--log 127.0.0.1:3000"
	@exec $(ROLLBOOK) serve --data ./data $(ARGS)

run-cluster: build ## build and start three nodes on loopback, data in ./data/cluster; kill and restart them at will
	@exec ./.ci/cluster $(ROLLBOOK) ./data/cluster

build: rocksdb ## build everything, installing missing system packages first
	@cargo build $(EVERYTHING)

test: rocksdb test-packages test-clients ## everything that CI runs: format, lints, tests, documentation
	cargo fmt --all --check
	cargo clippy $(EVERYTHING) --all-targets -- -D warnings
	cargo test $(EVERYTHING) --no-fail-fast
	RUSTDOCFLAGS="-D warnings" cargo doc $(EVERYTHING) --no-deps

# Also against a build that can put back faults that were mended, or any other that is given and must be condemned: a
# judge who has never condemned proves nothing.
LAB := cargo test $(EVERYTHING) --test lab -- --ignored --nocapture --test-threads=1
lab: rocksdb test-packages ## long runs of a cluster under faults, as root; ROLLBOOK_LAB_SECONDS=3600, see tests/lab/README.md
ifdef ROLLBOOK_LAB_BROKEN
	$(LAB) a_broken_build $(ARGS)
else
	CARGO_TARGET_DIR="$(CACHE)/target-lab" cargo build --release --workspace --bin rollbook --features lab-faults
	ROLLBOOK_LAB_FAULTY="$(CACHE)/target-lab/release/rollbook" $(LAB) $(if $(ROLLBOOK_LAB_BUG),each_fault_put_back) $(ARGS)
endif

soak: rocksdb test-packages ## hours of clients that come and go while nodes are killed; ROLLBOOK_SOAK_SECONDS=3600, see tests/soak/README.md
	ROLLBOOK_SOAK_SECONDS="$${ROLLBOOK_SOAK_SECONDS:-3600}" \
	    cargo test $(EVERYTHING) --test tests -- --ignored --nocapture --test-threads=1 soak:: $(ARGS)

bench: build ## micro benchmarks, then the table of limits; ARGS="--quick"
	cargo bench --workspace --bench subject --bench interest --bench codec --bench apply --bench credentials --bench rights
	$(ROLLBOOK) bench all $(ARGS)

fmt: ## format all sources
	cargo fmt --all

cargo: rocksdb ## any cargo command with the settings of this file; ARGS="test --release -p rollbook-core"
	@cargo $(ARGS)

env: ## print those settings for a shell: eval "$(make -s env)"
	@printf 'export %s=%q\n' CARGO_TARGET_DIR "$(CARGO_TARGET_DIR)" ROCKSDB_LIB_DIR "$(ROCKSDB_LIB_DIR)" ROCKSDB_STATIC 1

rocksdb: packages
	@.ci/rocksdb >/dev/null

# Compilers, and libclang for the bindings to RocksDB. Only what is missing is installed.
packages:
	@missing=(); \
	command -v cargo >/dev/null || { echo "error: there is no cargo; install Rust from https://rustup.rs" >&2; exit 1; }; \
	command -v gcc >/dev/null || command -v cc >/dev/null || missing+=(gcc libc6-dev); \
	command -v g++ >/dev/null || command -v c++ >/dev/null || missing+=(g++); \
	found() { compgen -G "$$1" >/dev/null || compgen -G "$$2" >/dev/null; }; \
	[ -n "$${LIBCLANG_PATH:-}" ] || { found '/usr/lib/llvm-*/lib/libclang*.so*' '/usr/lib*/libclang*.so*' \
	    && found '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' '/usr/lib/clang/*/include/stddef.h'; } \
	    || missing+=(libclang-dev); \
	[ $${#missing[@]} -eq 0 ] && exit; \
	echo "missing system packages: $${missing[*]}"; \
	command -v apt-get >/dev/null || { \
	    echo "error: there is no apt-get; install a C++ compiler and libclang with its headers, then try again" >&2; exit 1; }; \
	sudo=; [ "$$(id -u)" -eq 0 ] || sudo=sudo; \
	[ -z "$$sudo" ] || command -v sudo >/dev/null || { \
	    echo "error: run this as root: apt-get install $${missing[*]}" >&2; exit 1; }; \
	$$sudo env $(APT) update </dev/null; \
	$$sudo env $(APT) install -y --no-install-recommends "$${missing[@]}" </dev/null

# rustfmt and clippy are needed. The rest is best effort: a test that wants what is missing says so.
test-packages: packages
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
	@missing=(); \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	    || missing+=(chromium); \
	command -v node >/dev/null || missing+=(nodejs); \
	command -v npm >/dev/null || missing+=(npm); \
	command -v python3 >/dev/null || missing+=(python3); \
	command -v curl >/dev/null || missing+=(curl); \
	command -v openssl >/dev/null || missing+=(openssl); \
	command -v nc >/dev/null || missing+=(netcat-openbsd); \
	if [ "$$(id -u)" -eq 0 ]; then \
	    command -v ip >/dev/null || missing+=(iproute2); \
	    command -v iptables-restore >/dev/null || missing+=(iptables); \
	    command -v mkfs.xfs >/dev/null || missing+=(xfsprogs); \
	fi; \
	[ $${#missing[@]} -eq 0 ] && exit; \
	sudo=; [ "$$(id -u)" -eq 0 ] || sudo="sudo -n"; \
	echo "installing for the tests: $${missing[*]}"; \
	{ $$sudo env $(APT) update && $$sudo env $(APT) install -y --no-install-recommends "$${missing[@]}"; } \
	    </dev/null >"$(CACHE)/test-packages.log" 2>&1 \
	    || echo "note: not installed ($(CACHE)/test-packages.log says why); tests that need them are skipped"

# The client libraries of other languages that tests drive, once per list of them. Best effort too.
CLIENTS := $(CACHE)/clients
test-clients: test-packages
	@wanted=$$(cat tests/clients/package.json tests/clients/requirements.txt | cksum); \
	[ "$$(cat "$(CLIENTS)/ready" 2>/dev/null)" = "$$wanted" ] && exit; \
	echo "installing the client libraries for the tests"; \
	mkdir -p "$(CLIENTS)"; rm -f "$(CLIENTS)/ready"; cp tests/clients/package.json tests/clients/requirements.txt "$(CLIENTS)/"; \
	{ npm install --prefix "$(CLIENTS)" --no-package-lock --no-audit --no-fund && echo "$$wanted" >"$(CLIENTS)/ready" \
	    && { python3 -m venv "$(CLIENTS)/venv" || { python3 -m pip install --user virtualenv && python3 -m virtualenv "$(CLIENTS)/venv"; }; } \
	    && "$(CLIENTS)/venv/bin/python" -m pip install -q -r "$(CLIENTS)/requirements.txt"; } \
	    </dev/null >"$(CACHE)/test-clients.log" 2>&1 \
	    || echo "note: not all are installed ($(CACHE)/test-clients.log says why); tests that need them are skipped"
