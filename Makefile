# make demo | make test | make serve | make lint | make bench-<name>: each installs what is missing, then does its job.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# How many processes run the tests: JOBS=0 is one (a debugger needs that).
JOBS   ?= 2
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
UV_VERSION := 0.13.9

comma := ,

define install  # $(1): the extras
@if [ ! -x $(BIN)/python ]; then $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "make: Python 3.11 to 3.13 is needed, this is %d.%d: set PYTHON=python3.12" % v)'; $(PYTHON) -m venv $(VENV); fi
@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
@cluster/with_pip_settings.sh $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(1)]'
@touch $@
endef

.PHONY: help
help:
	@sed -n 1p Makefile | cut -c3-

$(VENV)/.run: pyproject.toml constraints.txt
	$(call install,serve$(comma)train)
$(VENV)/.dev: pyproject.toml constraints.txt
	$(call install,dev)
	@touch $(VENV)/.run
$(VENV)/.peers: pyproject.toml constraints.txt
	$(call install,dev$(comma)peers)
	@touch $(VENV)/.run $(VENV)/.dev

# Settings of make demo: DATA=path-or-URI (headlines), TRANSFER=path-or-URI (others, never trained on), PORT=8000, ARGS=more flags.
PORT ?= 8000
DEMO = $(BIN)/python -m ray_jobs.pipeline --config configs/demo.yaml --port $(PORT) $(if $(DATA),--data '$(DATA)') $(if $(TRANSFER),--transfer '$(TRANSFER)') $(ARGS)

.PHONY: demo serve test check-cluster lint format bench-train bench-size bench-clean bench-models bench-engine bench-hops bench-cluster bench-head bench-autoscale bench-goodput bench-score
demo: $(VENV)/.run
	$(DEMO)

serve: $(VENV)/.run
	$(DEMO) --keep-serving

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder $(ARGS)

# Installs what `make test` needs, without running the tests: inv, the cluster's checks, everything that docs name.
.PHONY: install
install: $(VENV)/.dev

# Installs each extra alone in a fresh environment and checks that its programs start, and each image's start command.
# ARGS=names checks only those.
.PHONY: check-extras
check-extras: $(VENV)/.dev
	$(BIN)/python -m cluster.extras $(ARGS)

# Checks only the manifests, images, workflows and Terraform.
check-cluster: $(VENV)/.dev
	$(BIN)/python -m cluster.manifests --project example-project --region europe-west4 --tag check
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder tests/cluster $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/zizmor --offline --quiet .github/workflows

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-train: $(VENV)/.run
	$(BIN)/python -m tests.performance.bench_train $(ARGS)

bench-size: $(VENV)/.run
	$(BIN)/python -m tests.performance.bench_size $(ARGS)

# The slowest texts to clean, in seconds per KiB.
bench-clean: $(VENV)/.run
	$(BIN)/python -m tests.performance.bench_clean $(ARGS)

# The tables of docs/LEADERBOARD.md on the engine and on processes; need a bundle of make bench-models (or ARGS='--bundle folder').
bench-engine: $(VENV)/.run
	$(BIN)/python -m tests.performance.bench_engine $(ARGS)

bench-hops: $(VENV)/.peers
	$(BIN)/python -m tests.performance.bench_hops $(ARGS)

bench-autoscale: $(VENV)/.run
	$(BIN)/python -m tests.performance.bench_autoscale $(ARGS)

# Bulk clients that overload the server; ARGS='--bundle folder --against another-checkout'.
bench-goodput: $(VENV)/.run
	$(BIN)/python -m tests.performance.bench_goodput $(ARGS)

# DATA and TRANSFER as for make demo; TEACHER=folder of a stronger encoder (`inv download-teacher`).
bench-models: $(VENV)/.run
	@$(if $(DATA),,$(error make bench-models: DATA=path-or-URI of real headlines is needed))
	$(BIN)/python -m tests.performance.bench_models --data '$(DATA)' $(if $(TRANSFER),--transfer '$(TRANSFER)') $(if $(TEACHER),--teacher '$(TEACHER)') $(ARGS)

# A million headlines through ray_jobs.score; needs a bundle of make bench-models (or ARGS='--bundle folder').
bench-score: $(VENV)/.run
	$(BIN)/python -m tests.performance.bench_score $(ARGS)

# Two machines in network namespaces (Linux, root, iproute2).
bench-cluster: $(VENV)/.dev
	$(BIN)/python -m tests.performance.bench_cluster $(ARGS)

# A head that is killed and restarted, with and without its state in Redis (Linux, root, iproute2, redis-server).
bench-head: $(VENV)/.dev
	$(BIN)/python -m tests.performance.bench_head $(ARGS)

# Our server beside other servers; needs wrk, and the bundles of make bench-models (or ARGS='--bundle folder --fast-bundle folder').
.PHONY: bench-serve
bench-serve: $(VENV)/.peers
	$(BIN)/python -m tests.performance.bench_serve $(ARGS)
