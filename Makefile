# SPDX-License-Identifier: GPL-3.0-or-later
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Ansible's tools call each other by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo setup lint sanity unit integration molecule test bench fleet build install lab-up lab-down clean

help: ## Show the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## The main job on this machine alone, which is Host and Runner (Debian, root, Python; a minute or two)
	demo/run

setup: $(READY) ## Install what the checks and tests need: Debian packages (as root) and .venv

$(READY): requirements-dev.txt .ci/setup
	.ci/setup $(VENV)
	touch $@

lint: $(READY) ## Style, types, playbooks, documentation, changelog, shell scripts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy .checkout/ansible_collections/haku/river/plugins/*/*.py tests benchmarks extensions
	$(BIN)/ansible-lint --strict
	ANSIBLE_COLLECTIONS_PATH=.checkout $(BIN)/antsibull-docs lint-collection-docs --plugin-docs .
	$(BIN)/antsibull-changelog lint
	shellcheck shell/haku-shell shell/haku-shell.bash demo/run .ci/run .ci/setup tests/lab/serve

sanity: $(READY) ## Every ansible-test sanity test, without ignore files
	$(BIN)/python .ci/sanity.py

unit: $(READY) ## Tests that need no engine
	$(BIN)/pytest tests/unit

integration: $(READY) ## Tests on real engines and machines (root; the lab starts and stops by itself)
	$(BIN)/python -m tests.lab up engines podman registry machines
	$(BIN)/pytest --numprocesses 4 --dist loadgroup --no-loadscope-reorder --durations 30 --force-short-summary tests/integration

molecule: $(READY) ## Molecule's scenarios for the roles and the whole workflow (root; five minutes)
	$(BIN)/molecule destroy # of what a killed run has left
	$(BIN)/python -m tests.lab run $(BIN)/molecule test --all

test: lint sanity unit integration molecule ## All of the above

bench: $(READY) ## Figures beside the other ways, in docs/benchmarks.md (root; half an hour; BENCH=--quick for a try)
	$(BIN)/python -m benchmarks $(BENCH)

fleet: $(READY) ## A roll-out to 20 Runners over SSH, timed (root; ten minutes)
	$(BIN)/python -m benchmarks.fleet

build: ## The collection's artifact, in build/ (needs nothing but ansible-core)
	rm -f build/haku-river-*.tar.gz
	ansible-galaxy collection build --output-path build

# In this directory, the checkout itself counts as installed.
install: build ## Install that for this user's playbooks (needs nothing but ansible-core)
	cd / && ansible-galaxy collection install --force $(CURDIR)/build/haku-river-*.tar.gz

lab-up: $(READY) ## Start the lab for a fast development loop (then: HAKU_LAB_KEEP=1 make integration)
	$(BIN)/python -m tests.lab up

lab-down: $(READY) ## Stop the lab
	$(BIN)/python -m tests.lab down

clean: ## Delete what the other targets made in this directory
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .ansible
