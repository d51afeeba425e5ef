# Everything from a fresh clone: `make figures` and `make test`. `make help` lists the rest.
PYTHON ?= python3
RUN = . .venv/bin/activate &&

, := ,
.PHONY: help setup figures quick report layout probe trace merge render kick reproduce artifact test test-all faults check audit docs lock licences site

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup:  ## the environment that holds Snakemake; then: . .venv/bin/activate
	@$(PYTHON) workflow/scripts/set_up.py driver

figures: setup  ## set up, measure, aggregate, draw
	@$(RUN) snakemake

quick: setup  ## one configuration on all four backends, without the sweeps, and what can be drawn from it
	@$(RUN) snakemake --config experiments=main configurations=A512_B256

report: setup  ## as figures, and results/report.html: everything in one file
	@$(RUN) snakemake results/report.html

layout: setup  ## where in PROMPT=docs/prompt.yaml should the parts that change stand? docs/layout.md
	@$(RUN) snakemake --config layout=$(or $(PROMPT),docs/prompt.yaml) experiments=layout -- results/layout/advice.md

render:  ## every figure, table and claim again from the shipped raw data, beside the shipped ones; no engine
	@$(PYTHON) workflow/scripts/set_up.py driver --no-engines
	@$(RUN) python workflow/scripts/render.py

kick: setup  ## kick the tyres: the tiny model on all backends; counts must be as shipped
	@$(RUN) snakemake --directory kick --configfile study/kick.yaml -- results/claims.md
	@$(RUN) python workflow/scripts/evaluate.py --reference kick --results kick/results --counts-only

reproduce: setup  ## the study at one length, claim by claim beside the shipped one; all of it: make figures
	@$(RUN) snakemake --directory reproduce --configfile study/reproduce.yaml -- results/claims.md figures/fig1_invalidation.pdf
	@$(RUN) python workflow/scripts/evaluate.py --reference cpu --results reproduce/results

artifact: setup  ## artifact/coldprefix-VERSION.tar.gz, its sha256 and ARTIFACT.pdf, from what is committed
	@$(RUN) python workflow/scripts/pack_artifact.py

merge: setup  ## raw data of several machines together, the machine a block: make merge RESULTS=a/results,b/results [OUT=results/merged]
	@$(if $(RESULTS),,echo "coldprefix: name the folders of results: make merge RESULTS=a/results,b/results" >&2; exit 1;) \
	$(RUN) python workflow/scripts/merge.py --results $(subst $(,), ,$(RESULTS)) --out $(or $(OUT),results/merged)

probe: setup  ## what does the cache of the server at URL=http://127.0.0.1:8080 do? BEFORE=a.txt AFTER=b.txt: what does that edit cost? docs/probe.md
	@$(RUN) python workflow/scripts/probe.py $(or $(URL),http://127.0.0.1:8080) $(if $(BEFORE),--before "$(BEFORE)") $(if $(AFTER),--after "$(AFTER)") $(ARGUMENTS)

trace: setup  ## what of FILE=docs/agent_trace.jsonl, a log of requests, a cache reuses, and where its prompts break; docs/traces.md
	@$(RUN) snakemake --config trace=$(or $(FILE),docs/agent_trace.jsonl) -- results/trace/trace.md

test: setup  ## the tests, less those that only repeat with other values and the faults that take long (make faults)
	@$(RUN) python -m compileall -q src && python -m pytest -n 2

test-all: setup  ## all tests, the slow ones, too
	@$(RUN) python -m compileall -q src && python -m pytest -n 2 -m "slow or not slow"

faults: setup  ## faults done to real processes, the slow ones and the soak too; writes docs/faults.md
	@$(RUN) COLDPREFIX_FAULT_TABLE=docs/faults.md python -m pytest -m "slow or not slow" tests/faults tests/models tests/slurm

check: setup  ## linters and types
	@$(RUN) ruff check . && ruff format --check . && mypy && snakefmt --check Snakefile workflow/rules

audit: setup  ## known vulnerabilities of what is locked; needs the network
	@$(PYTHON) workflow/scripts/audit.py

docs: setup  ## write the reference pages and the schema from the code
	@$(RUN) python workflow/scripts/write_reference.py && python workflow/scripts/write_metadata.py

lock: setup  ## write envs/*/requirements.txt anew
	@$(PYTHON) workflow/scripts/lock.py

licences: setup  ## write the table of THIRD_PARTY.md from the environments that are installed
	@$(RUN) python workflow/scripts/write_licences.py

site:  ## the documentation as a site that works offline, in site/
	@$(PYTHON) workflow/scripts/set_up.py docs && NO_MKDOCS_2_WARNING=1 envs/docs/.venv/bin/mkdocs build --strict
