# Everything that a person or CI does with the lab. `make help` lists the targets from the comments below.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

TOPOLOGY ?= risk-prod
NAME ?=
SCENARIO ?= scenarios/kill-primary.yaml
TRIALS ?= 3
RUN ?= latest
ARGS ?=
VENV := .venv
LAB := $(VENV)/bin/lab
UNIT_TESTS := $(VENV)/bin/python -m pytest tests/unit -n auto
NAMED := $(if $(NAME),--name $(NAME))
# Words of one experiment, joined by commas: a look, with too few repeats for a verdict.
QUICK_POOLING := $(if $(QUICK),$(strip ,--clients,20,--repeats,1,--seconds,1.5,--group,statement,--group,memory))
QUICK_SIZE := $(if $(QUICK),$(strip ,--size,2,--size,8,--rate,50,--repeats,1,--seconds,3))
UP_UNLESS_UP = $(LAB) status --name $(or $(NAME),$(TOPOLOGY)) >/dev/null 2>&1 || $(LAB) up $(TOPOLOGY) $(NAMED)

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2} \
	  /^#> / {sub("^#> ", ""); print "  " $$0}' $(MAKEFILE_LIST)

.PHONY: setup
setup: engine venv images ## Install what is missing, make .venv from the lock, build the images

.PHONY: engine
engine: # a container engine and Compose answer
	@bash compose/host/engine.sh

.PHONY: venv
venv: # .venv holds what the lock says
	@bash compose/host/python.sh $(VENV) requirements.lock

.PHONY: images
images: engine venv # every image is built
	@$(VENV)/bin/python -m lab.deploy.build_images

.PHONY: demo
demo: ## Lab up, load, kill the primary (3 trials), verdicts, report, lab down
	@bash compose/host/demo.sh $(TOPOLOGY) $(SCENARIO) $(TRIALS)

.PHONY: test
test: setup ## Install what is missing and run all tests, those on a real lab too
	@$(UNIT_TESTS) $(ARGS) || [ $$? -eq 5 ] # 5: ARGS chose none of these
	@$(VENV)/bin/python -m pytest tests/integration $(ARGS) || [ $$? -eq 5 ]

.PHONY: test-nightly
test-nightly: setup ## All tests and the slow ones: every fault on a real lab, runners killed (an hour)
	@LAB_SLOW=1 LAB_GENERATED=$${LAB_GENERATED:-10000} LAB_KILL_ROUNDS=$${LAB_KILL_ROUNDS:-10} $(VENV)/bin/python -m pytest tests $(ARGS)

.PHONY: lab-up
lab-up: setup ## Bring a lab up and print how to connect
	@$(LAB) up $(TOPOLOGY) $(NAMED) $(ARGS)

.PHONY: lab-down
lab-down: venv ## Take a lab down, with all that it left
	@$(LAB) down --name $(or $(NAME),$(TOPOLOGY)) $(ARGS)

.PHONY: lab-status
lab-status: venv ## Show a lab's nodes, roles, lag and endpoints
	@$(LAB) status --name $(or $(NAME),$(TOPOLOGY)) $(ARGS)

.PHONY: load
load: venv ## Load a running lab (ARGS="--ui" opens Locust's web page)
	@$(LAB) load --name $(or $(NAME),$(TOPOLOGY)) $(ARGS)

.PHONY: chaos
chaos: venv ## Run a scenario against a lab and judge it
	@$(LAB) run $(SCENARIO) --topology $(TOPOLOGY) $(NAMED) --trials $(TRIALS) $(ARGS)

.PHONY: latency
latency: setup ## The mixed load at a stated rate: latency, pools, CPU, cache, alarms (ARGS="--rate 40 --duration 60s")
	@$(UP_UNLESS_UP)
	@$(LAB) latency --topology $(TOPOLOGY) $(NAMED) $(ARGS)

.PHONY: capacity
capacity: setup ## How much a topology carries, what ends it, until when it lasts, what then (GROWTH=5% NOW=300)
	@$(LAB) capacity --topology $(TOPOLOGY) $(NAMED) $(if $(GROWTH),--growth $(GROWTH)) $(if $(NOW),--now $(NOW)) $(ARGS)

.PHONY: pooling
pooling: setup ## What the pools are worth, what breaks in them, how large they must be; one page (35 minutes; QUICK=1: 3)
	@$(UP_UNLESS_UP)
	@worst=0; for experiment in pooling$(QUICK_POOLING) pool-compat pool-size$(QUICK_SIZE); do \
	  code=0; $(LAB) $${experiment//,/ } --topology $(TOPOLOGY) $(NAMED) $(ARGS) || code=$$?; \
	  if (( code > 2 )); then exit $$code; fi; if (( code > worst )); then worst=$$code; fi; \
	done; $(LAB) pool-report --topology $(TOPOLOGY); exit $$worst

.PHONY: report
report: venv ## Analyse a run record again and write its report
	@$(LAB) report $(RUN) $(ARGS)

.PHONY: bench
bench: setup ## Measure the lab itself: start-up, generator, collectors, yardstick, analysis
	@$(LAB) bench $(ARGS)

.PHONY: doctor
doctor: venv ## Check what a lab needs of this machine
	@$(LAB) doctor $(ARGS)

.PHONY: check
check: venv ## Lint, types and unit tests: seconds, no engine needed
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(UNIT_TESTS) -q $(ARGS)

.PHONY: lock
lock: venv ## Make the locks anew, with the newest versions that fit
	@compile() { $(VENV)/bin/uv pip compile --upgrade --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" "$$@"; }; \
	compile pyproject.toml --extra dev --output-file requirements.lock; \
	compile compose/images/client/requirements.in --constraint requirements.lock \
	  --output-file compose/images/client/requirements.lock; \
	compile compose/images/postgres/requirements.in --output-file compose/images/postgres/requirements.lock; \
	echo uv | compile - --output-file compose/host/uv.lock

.PHONY: clean
clean: ## Remove .venv and caches; run records, labs and images stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info

#>
#> Variables: TOPOLOGY (risk-prod), NAME (the topology's), SCENARIO, TRIALS (3), RUN (latest), ARGS (more options),
#> QUICK=1 (pooling: a look), KEEP=1 (demo leaves its lab up), LAB_NO_INSTALL=1 (install nothing on the system, say what is missing).
