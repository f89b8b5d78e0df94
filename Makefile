# Two commands do all the set-up on a fresh Debian 12 machine with Rust 1.95 and Node 20:
#   make run     build everything and open a class on this machine
#   make test    install what tests need, then run all of them
.PHONY: run build web test check unit sim e2e bench instructions conformance fuzz lint deny packages clean

LISTEN ?= 127.0.0.1:8080
ARGS ?=
export CASTLING_BIN_DIR := $(CURDIR)/target/release

run: build
	$(CASTLING_BIN_DIR)/castling-signaling --listen $(LISTEN) $(ARGS)

build: web
	cargo build --release --locked -p castling-signaling -p castling-relay -p bandwidth-model

# The web app, which castling-signaling carries inside itself.
web: web/node_modules/.package-lock.json
	npm --prefix web run --silent build

# Installs the locked versions. Not `npm ci`, which refuses a lock file wherever the registry lacks an
# optional package for some other platform.
web/node_modules/.package-lock.json: web/package-lock.json
	npm --prefix web install --no-save --no-audit --no-fund

test: packages check unit e2e

# Format, lints and documentation of both languages.
check: web lint deny
	npm --prefix web run --silent check
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet

lint:
	cargo fmt --all --check
	cargo lint

deny:
	@if command -v cargo-deny >/dev/null; then cargo deny --workspace check; \
	else echo "skipped: cargo deny (cargo-deny is not installed)"; fi

# Everything that needs no namespaces and no browser.
unit: web
	npm --prefix web run --silent test
	npm --prefix web run --silent size
	cargo test --workspace --exclude e2e --locked

# Random lives of the relay, judged after every step; docs/simulation.md says how to replay one.
sim:
	cargo sim

# Real browsers behind real firewalls, known traffic to the byte.
# As root nothing is skipped: what cannot run fails.
e2e: build packages tests/browser/node_modules/.package-lock.json
	npm --prefix tests/browser run --silent check
	tests/clients/install.sh
	$(if $(filter 0,$(shell id -u)),CASTLING_E2E=require) cargo test --locked -p e2e -- --nocapture

tests/browser/node_modules/.package-lock.json: tests/browser/package-lock.json
	npm --prefix tests/browser install --no-save --no-audit --no-fund

# Packets per second, CPU and memory against Debian's coturn and the turn crate; figures go to docs/performance.md.
bench: build packages
	cargo build --release --locked -p e2e --bins
	cargo run --release --locked -p e2e --bin bench -- $(ARGS)

# Instructions of the relay's core for each kind of packet; more than 3 % from the committed ones fails.
# `ARGS=--write` commits to new ones. Needs valgrind.
instructions:
	cargo run --release --locked -p relay-instructions -- $(ARGS)

# Tries random inputs on the relay's core; `make fuzz ARGS="600 member"` is ten minutes of one target.
# Needs g++ for libFuzzer. The inputs worth keeping are tried by `make unit` too.
fuzz:
	relay/proto/fuzz/run $(ARGS)

# Every row of the protocol on the wire, against castling and coturn; tables go to docs/conformance.md.
conformance: build packages
	cargo run --release --locked -p e2e --bin conformance -- $(if $(RELAY_SUBJECT),,--write) $(ARGS)

# Debian packages that tests use; installs those that are missing.
PACKAGES := chromium coturn ethtool firefox-esr iproute2 libvpx7 nftables openssl procps \
  python3-venv util-linux
packages:
	@missing=$$(dpkg-query -W -f='$${db:Status-Abbrev} $${Package}\n' $(PACKAGES) 2>/dev/null \
	  | awk '$$1 == "ii" { print $$2 }' | sort > /tmp/castling-have.$$$$; \
	  printf '%s\n' $(PACKAGES) | sort | comm -23 - /tmp/castling-have.$$$$; rm -f /tmp/castling-have.$$$$); \
	if [ -n "$$missing" ]; then \
	  echo "installing: $$missing" | tr '\n' ' '; echo; \
	  if [ "$$(id -u)" != 0 ]; then \
	    echo "make test needs these Debian packages; as root: apt-get install" $$missing >&2; exit 1; \
	  fi; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends $$missing > /tmp/castling-apt.log 2>&1 \
	    || { tail -n 20 /tmp/castling-apt.log >&2; echo "apt-get could not install:" $$missing >&2; exit 1; }; \
	fi

clean:
	rm -rf target web/dist web/node_modules tests/browser/node_modules tests/clients/node_modules
