# Everything from a fresh clone: `make figures` and `make test`. `make help` lists the rest.
PYTHON ?= python3
RUN = . .venv/bin/activate &&

.PHONY: help setup figures quick report layout trace test test-all faults check audit docs lock

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup:  ## the environment that holds Snakemake; then: . .venv/bin/activate
	@$(PYTHON) workflow/scripts/set_up.py driver

figures: setup  ## set up, measure, aggregate, draw
	@$(RUN) snakemake

quick: setup  ## the study's table without the sweeps, and what can be drawn from it
	@$(RUN) snakemake --config experiments=main

report: setup  ## as figures, and results/report.html: everything in one file
	@$(RUN) snakemake results/report.html

layout: setup  ## where in PROMPT=docs/prompt.yaml should the parts that change stand? docs/layout.md
	@$(RUN) snakemake --config layout=$(or $(PROMPT),docs/prompt.yaml) experiments=scaling,layout -- results/layout/advice.md

trace: setup  ## what of FILE=docs/agent_trace.jsonl, a log of requests, a cache reuses, and where its prompts break; docs/traces.md
	@$(RUN) snakemake --config trace=$(or $(FILE),docs/agent_trace.jsonl) -- results/trace/trace.md

test: setup  ## the tests, less those that only repeat with other values
	@$(RUN) python -m pytest

test-all: setup  ## all tests, the slow ones, too
	@$(RUN) python -m pytest -m "slow or not slow"

faults: setup  ## faults done to real processes, the slow ones and the soak too; writes docs/faults.md
	@$(RUN) COLDPREFIX_FAULT_TABLE=docs/faults.md python -m pytest -m "slow or not slow" tests/faults tests/models

check: setup  ## linters and types
	@$(RUN) ruff check . && ruff format --check . && mypy && snakefmt --check Snakefile workflow/rules

audit: setup  ## known vulnerabilities of what is locked; needs the network
	@$(PYTHON) workflow/scripts/audit.py

docs: setup  ## write the reference pages and the schema from the code
	@$(RUN) python workflow/scripts/write_reference.py

lock: setup  ## write envs/*/requirements.txt anew
	@$(PYTHON) workflow/scripts/lock.py
