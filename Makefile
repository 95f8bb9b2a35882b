# One word per action. Python >= 3.10 and make are enough: the first call sets up a private environment in .venv.
PYTHON ?= python3
export PYTHON

BIN := .venv/bin
PROJECTS := pyproject.toml $(wildcard plugins/*/pyproject.toml)
PYTEST = $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-gpu test-lowest test-newest lint format bench bench-accuracy bench-defaults docs wheels constraints clean

help: ## list the actions
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

# A stamp file: setting up again costs nothing until a requirement changes.
.venv/.ready: $(PROJECTS) constraints.txt scripts/setup.sh
	@sh scripts/setup.sh
	@touch $@

.venv/.ready-bench: .venv/.ready
	@sh scripts/setup.sh --group bench
	@touch $@

setup: .venv/.ready ## make the environment in .venv, if it is not there yet

# One worker per logical core (auto counts physical ones: one on many a machine of two), each with torch imported once; the tests of a
# file stay together, as they share fixtures.
WORKERS := -n logical --dist loadfile --no-loadscope-reorder

# The tests' networks are tiny: a second thread doubles the CPU time and saves none.
test test-all test-gpu test-lowest test-newest docs: export OMP_NUM_THREADS = 1

# Where Python is told to keep no compiled modules, each of some hundred processes would compile the library anew.
COMPILED = $(BIN)/python -m compileall -q zoo plugins/*/zoo_*

# What must work at both ends of the supported versions: plugins, the command line, reading, fitting, saving and loading, whatever
# requirement each of them uses, and a tiny network of every plugin of ours. Under three minutes on two cores.
CORE := $(addprefix tests/,test_plugins.py test_cli.py test_saved.py test_hub.py tuning/test_lora.py) \
  $(patsubst %,tests/engine/test_%.py,config evaluate fit optimizer text) \
  $(patsubst %,tests/data/test_%.py,dicom images memory odd_sources volumes) \
  $(addprefix plugins/,zoo-timm/tests/test_build.py zoo-timm/tests/test_load.py zoo-hf/tests/test_families.py \
    zoo-hf/tests/test_tokenizer.py zoo-medical/tests/test_end_to_end.py \
    zoo-torchvision/tests/test_build.py zoo-torchvision/tests/test_load.py)

demo: .venv/.ready ## transfer the built-in backbone to handwritten digits and print the table
	$(BIN)/zoo demo

test: .venv/.ready ## run the tests
	@$(COMPILED)
	$(PYTEST) $(WORKERS) -m "not sweep"

test-all: .venv/.ready ## run the tests and the long sweeps
	@$(COMPILED)
	$(PYTEST)

# A deprecation that torch's compiler meets in torch is no fault of ours, so no error.
test-gpu: .venv/.ready ## run what only a CUDA GPU can show
	ZOO_TEST_GPU=1 $(PYTEST) -W default::DeprecationWarning tests/engine/test_cuda.py

# Old versions call what newer ones of their own requirements deprecate: no fault of ours, so no error.
test-lowest: BIN := .cache/lowest/bin
test-lowest: ## run the core tests with the lowest versions and the lowest Python
	@sh scripts/setup.sh lowest
	@$(COMPILED)
	$(PYTEST) $(WORKERS) -W default::DeprecationWarning -m "not sweep" $(CORE)

test-newest: BIN := .cache/newest/bin
test-newest: ## run the core tests with the newest versions and the newest Python
	@sh scripts/setup.sh newest
	@$(COMPILED)
	$(PYTEST) $(WORKERS) -m "not sweep" $(CORE)

lint: .venv/.ready ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.ready ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.ready-bench ## measure the claims of benchmarks/ against their peers
	for script in benchmarks/p[0-9]_*.py benchmarks/p14_ranks.py benchmarks/memory_format.py benchmarks/freed_memory.py benchmarks/transfer_*.py plugins/zoo-timm/scripts/conformance.py; do $(BIN)/python "$$script" || exit 1; done

bench-accuracy: .venv/.ready-bench ## measure what the defaults reach beside their peers; takes hours
	$(BIN)/python benchmarks/p10_defaults.py

bench-defaults: .venv/.ready-bench ## measure the regret of the defaults over the matrix; takes many hours, goes on where it stopped
	mkdir -p runs
	$(BIN)/python benchmarks/defaults/probe.py --out runs/defaults-probe.jsonl
	$(BIN)/python benchmarks/defaults/regret.py --out runs/defaults-regret.jsonl

docs: .venv/.ready ## run every example of the documentation
	$(PYTEST) tests/test_docs.py

wheels: .venv/.ready ## build the wheels of the core and of every plugin into dist/
	for project in $(PROJECTS); do (cd "$$(dirname "$$project")" && "$(CURDIR)/$(BIN)/python" -m hatchling build -t wheel -d "$(CURDIR)/dist") || exit 1; done

constraints: .venv/.ready ## raise the tested versions in constraints.txt to the newest
	@mkdir -p .cache
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.10 --no-annotate --no-header $(PROJECTS) --group dev --group bench \
	  --extra audit --extra datasets --extra lora --extra multitask --extra plots --extra slurm --extra tables --extra tune \
	  $(foreach project,$(PROJECTS),--no-emit-package $(shell sed -n 's/^name = "\(.*\)"/\1/p' $(project))) -o .cache/constraints.txt
	@{ echo "# The versions that the tests ran with, for every supported Python. Made by: make constraints"; cat .cache/constraints.txt; } > constraints.txt

clean: ## remove all that make made, the environment included
	rm -rf .venv .cache build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
