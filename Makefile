# `make demo` and `make test` are all that a newcomer needs; both make .venv themselves, with uv where it is at hand.
PYTHON ?= python3
UV ?= $(shell command -v uv)
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.run
DEV := $(VENV)/.dev
WORKERS ?= auto
FUZZ_SECONDS ?= 300

.DEFAULT_GOAL := help
.PHONY: help demo test check docs format nightly lowest fuzz clean calibrations studies

help:
	@echo "make demo     replay an hour of LLM traffic under gh, agh and milp; table here, figures in out/demo"
	@echo "make test     ruff, mypy --strict, import-linter, the site and pytest"
	@echo "make docs     the site, into out/site; nothing is fetched from the network"
	@echo "make nightly  the long tests too, the lowest supported versions, and the readers fuzzed for five minutes"
	@echo "make lowest   a part of the tests with the lowest supported versions of the dependencies (needs uv)"
	@echo "make studies  every table and figure of docs/results and docs/paper.md, anew; about half an hour"
	@echo "make format   let ruff format and fix"
	@echo "make clean    remove .venv and everything made"

ifdef UV
NEW_VENV = $(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV)
INSTALL = $(UV) pip install --quiet --python $(BIN)/python
else
NEW_VENV = $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
endif

# Numba compiles the kernel and the loops of the planners once, here: no run and no worker of the tests waits for it.
NEEDED_TO_COMPILE = numba numpy scipy simpy pydantic highspy
COMPILE_KERNEL = $(BIN)/python -c "from simulator.engine.kernel_memory import prepare; prepare()"
COMPILE_PLANNERS = $(BIN)/python -c "from policies.registry import make_policy; make_policy('exact')"

# The environment is made anew whenever the dependencies change. Compiling goes on while the other packages come in; what
# it could not do by then is done after.
$(RUN): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed, found $$($(PYTHON) --version); set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(NEW_VENV)
	$(INSTALL) $(NEEDED_TO_COMPILE)
	@($(COMPILE_KERNEL)) 2>/dev/null & ($(COMPILE_PLANNERS)) 2>/dev/null & \
		echo '$(INSTALL) --editable .'; $(INSTALL) --editable . && wait
	@$(COMPILE_KERNEL)
	@$(COMPILE_PLANNERS)
	@touch $@

$(DEV): $(RUN)
	$(INSTALL) --editable '.[dev]'
	@touch $@

demo: $(RUN)
	$(BIN)/tokenfleet replay --policy gh --policy agh --policy milp --interval 5m --seed 0 --out out/demo --overwrite

test: check

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/properdocs build --quiet --strict -f mkdocs.yml
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m "not slow"

docs: $(DEV)
	$(BIN)/properdocs build --strict -f mkdocs.yml

nightly: $(DEV) lowest fuzz
	HYPOTHESIS_PROFILE=explore $(BIN)/pytest -n $(WORKERS) --dist loadgroup

# In an environment of its own. Packages that ours bring along are of today, and warn of what they will drop.
LOWEST := .venv-lowest
NO_FUSS = -W default::DeprecationWarning -W default::PendingDeprecationWarning -W default::FutureWarning
lowest:
	@command -v uv >/dev/null || { echo "make lowest needs uv" >&2; exit 2; }
	uv venv --quiet --clear --python 3.11 $(LOWEST)
	uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable .
	uv pip install --quiet --python $(LOWEST)/bin/python pytest pytest-xdist hypothesis
	$(LOWEST)/bin/python -m pytest $(NO_FUSS) -m "not slow" tests/unit tests/golden/test_engine_digest.py

# Atheris is no dependency of the project: it is installed here.
fuzz: $(DEV)
	$(INSTALL) --editable '.[fuzz]'
	PYTHONPATH=. $(BIN)/python tests/fuzz/fuzz_traces.py -max_total_time=$(FUZZ_SECONDS)

# Constants of the shipped catalog, from the public measurements; a test holds that they come out the same.
LATENCY = $(TOKENFLEET_DATA)/latency
calibrations: $(RUN)
	$(BIN)/python -m experiments.calibrate.compose $(LATENCY)/llmservingsim_dense.csv.gz $(LATENCY)/llmservingsim_attention.csv.gz --out out/llmservingsim_steps.csv
	$(BIN)/tokenfleet calibrate $(LATENCY)/composed_step_times.csv.gz out/llmservingsim_steps.csv --source "Kernels measured by LLMServingSim (CASYS Lab at KAIST, 2024-2026, MIT), summed" --out simulator/catalog/calibrations.toml
	$(BIN)/tokenfleet fidelity $(LATENCY)/silicon_dense_serving.csv --fit simulator/catalog/engines.toml

# Every sweep goes on where it was broken off; without out/studies all is made from scratch.
STUDIES = out/studies
studies: $(RUN)
	$(BIN)/tokenfleet stress --scenario paper-base --period 24h --seeds 5 --out $(STUDIES)/stress
	$(BIN)/tokenfleet study ablation --out $(STUDIES)/ablation
	$(BIN)/tokenfleet study budget --out $(STUDIES)/budget
	$(BIN)/tokenfleet study scale --out $(STUDIES)/scale
	$(BIN)/tokenfleet study regret --out $(STUDIES)/regret
	$(BIN)/tokenfleet study frontier --out $(STUDIES)/frontier
	$(BIN)/tokenfleet study headroom --out $(STUDIES)/headroom
	$(BIN)/tokenfleet study diurnal --out $(STUDIES)/diurnal
	$(BIN)/tokenfleet study interval --out $(STUDIES)/interval
	$(BIN)/tokenfleet study hysteresis --policy gh --policy agh --weights 0,0.25,1,4 --out $(STUDIES)/hysteresis
	$(BIN)/tokenfleet study volatility --policy gh --policy agh --policy agh+ --policy exact --out $(STUDIES)/volatility
	$(BIN)/python -m experiments.report.publish $(STUDIES) docs

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(LOWEST) out build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
