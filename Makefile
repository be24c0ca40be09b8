# What a person types. Every target that builds runs scripts/setup.sh first, which does nothing when
# all is there. Progress goes to stderr; results go to stdout.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ALEXC := $(or $(CARGO_TARGET_DIR),target)/release/alexc
PYTHON ?= python3
VENV := .venv
TOOLS := .tools

# The crates that must build, and be used, where there is no LLVM.
WITHOUT_LLVM := alexc-ir alexc-passes alexc-runtime

say = @printf '== %s\n' '$(1)' >&2

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what a build needs and this machine lacks (Debian, Ubuntu; elsewhere says what)
	@scripts/setup.sh

.PHONY: build
build: setup ## the programs alexc and alexrun, in target/release
	$(call say,building)
	@cargo build --release --workspace

# --- training -----------------------------------------------------------------------------------------

.PHONY: train
train: build data/shapes data/shapes256 ## from nothing to a trained network, then 10 steps of the 2012 network
	$(call say,training on data/shapes (an interrupted run goes on where it was))
	@resume=; if [ -e runs/shapes/last ]; then resume=--resume; fi; \
	$(ALEXC) train models/alexnet-cifar.ir --data data/shapes --out runs/shapes $$resume
	$(call say,evaluating)
	@$(ALEXC) eval models/alexnet-cifar.ir --weights runs/shapes/last --data data/shapes
	$(call say,predicting the first image of each of three classes)
	@mapfile -t images < <(for class in data/shapes/val/*/; do \
	  find "$$class" -name '*.jpg' | LC_ALL=C sort | sed -n 1p; done | sed -n 1,3p); \
	$(ALEXC) predict models/alexnet-cifar.ir --weights runs/shapes/last "$${images[@]}"
	$(call say,ten steps of the 2012 network)
	@rm -rf runs/alexnet-2012
	@$(ALEXC) train models/alexnet.ir --recipe models/alexnet-batch32.toml --data data/shapes256 --steps 10 \
	  --out runs/alexnet-2012
	@sed -E 's/.*"step":([0-9]+).*"loss":([0-9.]+).*/step \1: loss \2/' runs/alexnet-2012/metrics.jsonl

# Drawn once; a folder of which only a part was written keeps its temporary name.
data/shapes: SIZE := --classes 10 --per-class 1000 --size 32
data/shapes256: SIZE := --classes 10 --per-class 40 --size 256
data/shapes data/shapes256: | build
	$(call say,drawing the images of $@)
	@rm -rf $@.part
	@mkdir -p $(@D)
	@$(ALEXC) data synth $@.part $(SIZE) --seed 1
	@mv $@.part $@

.PHONY: clean-runs
clean-runs: ## remove the runs and images of `make train`
	@rm -rf runs/shapes runs/alexnet-2012 data/shapes data/shapes256 data/shapes.part data/shapes256.part

# --- tests --------------------------------------------------------------------------------------------

# One profile throughout, so that dependencies are compiled once. The dependency audit (licences,
# sources, duplicates) and the rule of which crate may know LLVM are among the tests:
# tests/dependencies.rs. That those crates also build without an LLVM is tried here, on an LLVM
# that is not there.
.PHONY: test
test: setup $(TOOLS)/installed ## everything CI runs: format, lints, docs, dependency audit, tests
	$(call say,format)
	@cargo fmt --all -- --check
	$(call say,lints)
	@cargo clippy --release --workspace --all-targets -- -D warnings
	$(call say,$(WITHOUT_LLVM) without LLVM)
	@LLVM_SYS_221_PREFIX=/no-llvm MLIR_SYS_220_PREFIX=/no-llvm TABLEGEN_220_PREFIX=/no-llvm \
	  cargo build --release $(addprefix -p ,$(WITHOUT_LLVM))
	$(call say,documentation)
	@RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --release --workspace --no-deps
	$(call say,tests)
	@cargo test --release --workspace

.PHONY: test-slow
test-slow: setup ## the training step of 2012 AlexNet at batch 128 on the emulator: traffic, conflicts (half an hour)
	@ALEXC_COUNTS_BATCH=128 cargo test --release --test sim_counts -- --nocapture

# ptxas, which the tests put all generated PTX before.
$(TOOLS)/installed: tests/ptxas.txt | setup
	$(call say,installing $< into $(TOOLS))
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/pip install --quiet --requirement $< >&2
	@touch $@

.PHONY: bench-compile
bench-compile: setup ## what compiling takes, part by part, for networks of growing size
	@cargo bench --bench compile

# --- other frameworks ---------------------------------------------------------------------------------

.PHONY: peers
peers: $(VENV)/installed ## PyTorch, ONNX Runtime and OpenVINO in .venv (some 6 GB), to compare with

$(VENV)/installed: tests/peers/requirements.txt
	$(call say,installing $< into $(VENV))
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --requirement $< >&2
	@touch $@

.PHONY: bench
bench: build ## alexc beside the peers in one run, as a table (peers: `make peers` first)
	@$(PYTHON) tests/peers/bench.py --alexc $(ALEXC) --python $(VENV)/bin/python
