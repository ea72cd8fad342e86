# make demo   an archive is simulated, measured, and reported on
# make test   everything that must hold before a change is merged
# make bench  the speed, beside DuckDB, Polars, Bytewax and Beam as it comes
#
# The first of them sets up .venv (PYTHON=python3.12 chooses the interpreter).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?=
CASES ?= 2000
SEED ?= 7
MINUTES ?= 30
DEMO := demo
DEMO_TABLES := transitions,cases,late,retracted,dead_letters,process_map,state_times,flow,workload,variants
REPORT ?= $(DEMO)/report.html
PICTURE ?= docs/report.png

VENV := .venv
BIN := $(VENV)/bin
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.tools
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: help
help: ## show this help
	@echo "usage: make TARGET"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)$$/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12
	@echo
	@echo "  PYTHON=python3.12  the interpreter for .venv: 3.10 to 3.13"
	@echo "  CASES=2000 SEED=7  of the demo's archive; SEED also of the kills"
	@echo "  MINUTES=30         of the soak"
	@echo "  PORT=9092          of the broker that services runs (a free one without it)"

.PHONY: demo
demo: $(INSTALLED) ## simulate an archive, measure it, and make its report
	@rm -rf $(DEMO)/archive $(DEMO)/truth.json
	@echo "== an archive of $(CASES) cases"
	@$(BIN)/python -m examples.simulator --cases $(CASES) --seed $(SEED) \
		--output $(DEMO)/archive --truth $(DEMO)/truth.json
	@echo
	@echo "== transitions, and the numbers of each hour"
	@$(BIN)/python run.py analytics --input '$(DEMO)/archive/**' --output $(DEMO)/out \
		--end_states "$$($(BIN)/python -m examples.compare --end_states $(DEMO)/truth.json)" \
		--tables $(DEMO_TABLES)
	@echo
	@echo "== the tables"
	@$(BIN)/python run.py show $(DEMO)/out
	@echo "== compared with what the simulator knows"
	@$(BIN)/python -m examples.compare $(DEMO)/out $(DEMO)/truth.json
	@echo
	@echo "== the report, to be opened in a browser"
	@$(BIN)/python run.py report --input $(DEMO)/out --output $(REPORT) \
		--title "$(CASES) simulated cases"

.PHONY: test
test: $(TOOLS) ## style, types and tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 3 --dist loadgroup -q

.PHONY: bench
bench: $(TOOLS) ## measure the speed beside DuckDB, Polars, Bytewax and Beam as it comes
	$(BIN)/python -m bench

.PHONY: screenshot
screenshot: $(TOOLS) ## take a picture of the demo's report, for the README (REPORT=, PICTURE=)
	@$(BIN)/python -m examples.screenshot $(REPORT) $(PICTURE)

.PHONY: soak
soak: $(TOOLS) ## let a stream with faults run for long: does its memory stay flat?
	$(BIN)/python -m bench.soak --minutes $(MINUTES)

.PHONY: kills
kills: $(TOOLS) ## kill parts of a Flink cluster under a stream: is anything lost? (15 minutes)
	$(BIN)/python -m tests.kills --seed $(SEED)

.PHONY: services
services: $(TOOLS) ## run a Kafka broker for trying things out; fetches and builds it and Prism once
	@$(BIN)/python -m tests.services --port $(or $(PORT),0)

.PHONY: venv
venv: $(TOOLS) ## only set up .venv, with the tools for tests and benchmarks

.PHONY: clean
clean: ## remove .venv, caches and what the demo and the benchmarks have written
	rm -rf $(VENV) $(DEMO) bench/work out build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is as new as what was installed: the second time costs nothing.
$(INSTALLED): pyproject.toml $(CREATED)
	@echo "== installing what is needed into $(VENV) (some minutes, once)"
	@# Twice quiet: setuptools warns of what an editable installation is.
	@$(PIP) --quiet install --editable .
	@touch $@

$(TOOLS): $(INSTALLED)
	@echo "== installing the tools for tests and benchmarks into $(VENV) (once)"
	@$(PIP) install --group test --group bench
	@touch $@

# The first interpreter that will do; PYTHON, if given, is the only candidate.
$(CREATED):
	@found=; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10); do \
		if "$$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
			>/dev/null 2>&1; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "error: $(or $(PYTHON),python3) is not Python 3.10 to 3.13;" \
			"install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
		echo "error: $$found has no module venv or ensurepip;" \
			"install it (Debian, Ubuntu: apt install python3-venv)" >&2; \
		exit 1; \
	fi; \
	echo "== setting up $(VENV) with $$("$$found" --version)"; \
	rm -rf $(VENV); \
	"$$found" -m venv $(VENV)
	@# Dependency groups need a pip of 2025.
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@
