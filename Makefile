# Every step of CI is a target. `make` prints what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
LOCAL := $(RUN) -m omoios_local
UV_COMPILE := $(abspath $(VENV))/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet
export VENV PYTHON

.PHONY: help
help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z][a-z0-9-]*:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##@ The product
.PHONY: install demo up down reset status logs restart kill admin compose-secrets
install: ## Make .venv from the hashed locks (done by every other target when needed)
	@tools/install.sh

demo: install ## The main job on a real repository: repo=<path or URL> plan=<file> push=1
	@$(RUN) -m omoios_demo $(if $(repo),--repo '$(repo)') $(if $(plan),--plan '$(plan)') $(if $(push),--push)

up: install ## Start the whole stack on this machine, gateway on port 18000
	@$(LOCAL) up $(args)

down: ## Stop it; data stays
	@$(LOCAL) down $(args)

reset: ## Stop it and delete its data: yes=1 does not ask
	@$(LOCAL) reset $(if $(yes),--yes) $(args)

status: ## Parts, outbox age, consumer lag, dead letters, disk
	@$(LOCAL) status $(args)

logs: install ## Logs: part=workflow, args='--follow', args=--problems
	@$(LOCAL) logs $(part) $(args)

restart: install ## Restart a part: part=workflow
	@$(LOCAL) restart $(part) $(args)

kill: install ## Send a part a signal; the supervisor starts it again: part=workflow args='--signal TERM'
	@$(LOCAL) kill $(part) $(args)

admin: install ## Make a platform super admin: email=you@example.com
	@$(LOCAL) admin '$(email)' $(args)

compose-secrets: install ## For docker compose: a secret per part in .compose-secrets, made once
	@$(RUN) -m omoios_local.compose_secrets

##@ Development
.PHONY: test faults check fmt e2e bench coverage
test: install ## All tests: unit, integration, gateway, contract, end to end (phase=unit k=outbox)
	@$(RUN) -m tools.run_tests $(phase) $(if $(k),-- -k '$(k)')

faults: install ## Faults under load, judged by one checker: only=services,broker seed=7 long=1 whole=1 report=1
	@$(RUN) -m tests.faults $(if $(only),--only '$(only)') $(if $(seed),--seed $(seed)) $(if $(long),--long) $(if $(whole),--whole) $(if $(report),--report)

e2e: install ## The end-to-end tests alone
	@$(RUN) -m tools.run_tests e2e

bench: install ## Benchmarks on a stack of their own: only='list,frames' record=1 keep=1 (see bench/README.md)
	@$(RUN) -m bench $(if $(only),--only '$(only)') $(if $(record),--record) $(if $(keep),--keep)

check: install ## Lint, types, house rules, contracts, catalogue (only='rooms mypy')
	@$(RUN) -m tools.run_checks $(only)

fmt: install ## Lay out the code, mend what the linter can, declare what packages import
	@$(VENV)/bin/ruff check --quiet --fix-only . && $(VENV)/bin/ruff format .
	@$(RUN) -m tools.checks.dependencies

coverage: install ## Operations of the public contract: served, pending, missing
	@$(RUN) -m tools.coverage

##@ Generated files
.PHONY: proto proto-check openapi topology dockerfiles lock
proto: install ## Generate libs/contracts from proto/
	@$(RUN) -m tools.proto write

proto-check: install ## Lint, compatibility and drift of the contracts
	@$(RUN) -m tools.run_checks buf-lint buf-breaking contracts

openapi: install ## Write the merged OpenAPI document
	@$(RUN) -m gateway_edge.openapi write

topology: install ## Write deploy/nats/topology.yaml from what the services say
	@$(RUN) -m servicekit.events.topology write

dockerfiles: install ## Write the Dockerfiles from their pattern
	@$(RUN) -m tools.dockerfiles write

lock: install ## Resolve requirements/*.in anew; upgrade=1 takes the newest versions
	@cd requirements && $(UV_COMPILE) $(if $(upgrade),--upgrade) bootstrap.in -o bootstrap.lock
	@cd requirements && $(UV_COMPILE) $(if $(upgrade),--upgrade) dev.in -o dev.lock
	@cd requirements && $(UV_COMPILE) $(if $(upgrade),--upgrade) base.in -c dev.lock -o base.lock

##@ Operations on a running stack
.PHONY: audit-verify migrate billing events events-tail dlq dlq-replay rebuild backup restore rotate-keys
migrate: install ## Bring every database to its newest revision
	@$(LOCAL) migrate $(args)

events: install ## Print the event map: who says what, who listens
	@$(RUN) -m tools.catalogue events --print

events-tail: install ## Print events as JSON while they happen: subject='workflow.>'
	@$(LOCAL) events-tail $(foreach one,$(subject),'$(one)') $(args)

dlq: install ## List dead letters
	@$(LOCAL) dlq $(args)

dlq-replay: install ## Hand dead letters to their consumers again; what it takes: args=--help
	@$(LOCAL) dlq-replay $(args)

rebuild: install ## Rebuild the read-only projections from their owners' snapshots: service=workflow
	@$(LOCAL) rebuild $(service) $(args)

backup: install ## Save databases, files and envelope key in one file: to=<file or folder>
	@$(LOCAL) backup $(if $(to),'$(to)') $(args)

restore: install ## Put a backup back in place of the present data: file=<backup> yes=1
	@$(LOCAL) restore '$(file)' $(if $(yes),--yes) $(args)

billing: install ## Prices and plans: args=prices, args='set-plan free --agents-limit 2', args='move <organization> team'; args=--help
	@$(LOCAL) billing $(args)

rotate-keys: install ## Put a new signing key in use; envelope=1: a new key for secrets at rest (args=--forget)
	@$(LOCAL) $(if $(envelope),rotate-envelope-key,rotate-keys) $(args)

audit-verify: install ## Walk the chains of the audit trail; names the first broken entry
	@$(LOCAL) audit-verify $(args)
