# From a fresh checkout: `make demo`, `make test`. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench-topography lock envs clean

# Python that the virtual environment is made with, 3.11 or newer: make setup PYTHON=python3.12
PYTHON ?= python3
DEMOS := config/datasets/demo_*.yaml
# Arguments for pytest: make test ARGS='tests/kernels -x'
ARGS ?=
# Processes that share the test files, 2 GB each. In each PyTorch has one thread: with more, the processes wait for each
# other's threads (six files of tests on two cores: 302 s, with one thread each 258 s).
WORKERS ?= 2

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Images of containers like to set it: then every process compiles anew what it imports, for seconds of each start.
unexport PYTHONDONTWRITEBYTECODE

help: ## list what can be made
	@echo 'make TARGET, with TARGET one of'
	sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 20

# Done again only when the lock, the package's metadata, the Python or the place of the checkout changed.
setup: ## make .venv with exactly what requirements.lock pins, and the package itself, editable
	@say() { echo "set-up: $$*"; }
	fail() { printf 'set-up: %s\n' "$$@" >&2; exit 1; }
	python='$(PYTHON)'
	# The Python of an environment that is there stays, unless another one is asked for.
	if [[ -x .venv/bin/python && '$(origin PYTHON)' == file ]]; then python=.venv/bin/python; fi
	command -v "$$python" > /dev/null || fail "there is no $$python here." 'Install it: sudo apt-get install python3 python3-venv'
	about=$$("$$python" -c 'import sys; print(sys.base_prefix, "Python %d.%d.%d" % sys.version_info[:3])')
	want="$$(cat requirements.lock pyproject.toml | sha256sum) $$about $(CURDIR)"
	if [[ "$$(cat .venv/installed 2> /dev/null || true)" == "$$want" ]]; then exit 0; fi
	python=$$("$$python" -c 'import sys; print(sys._base_executable)')
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || fail "gigascope needs Python 3.11 or newer, found $$about." 'Name another one: make PYTHON=python3.12 ...'
	"$$python" -c 'import ensurepip, venv' 2> /dev/null \
	  || fail "$$about cannot make virtual environments." 'Install what is missing: sudo apt-get install python3-venv'
	"$$python" -c 'import sys; sys.exit(sys.version_info >= (3, 14))' || command -v cc > /dev/null \
	  || fail 'with Python 3.14 one package has to be compiled.' 'Install a compiler: sudo apt-get install build-essential python3-dev'
	SECONDS=0
	place="$$about $(CURDIR)"
	if [[ "$$(cat .venv/place 2> /dev/null || true)" != "$$place" ]]; then
	  say "making .venv with $${about#* }"
	  "$$python" -m venv --clear .venv
	  echo "$$place" > .venv/place
	fi
	rm -f .venv/installed
	say "installing $$(grep -cE '^[a-z]' requirements.lock) packages of requirements.lock; the first time this takes some minutes"
	python -m pip install -qq --no-compile --disable-pip-version-check -r requirements.lock
	python -m pip install -qq --disable-pip-version-check --no-deps --editable .
	say 'compiling what runs on the CPU'
	python -m compileall -qq -j 0 -x '/tests?/' .venv/lib src || true
	python -m gigascope.warm
	echo "$$want" > .venv/installed
	say "done in $$SECONDS s. To use it in this shell: source .venv/bin/activate"

demo: setup ## set up, run the demo datasets, and say where the reports are
	@echo 'demo: snakemake --profile local on small simulated datasets with known truth'
	snakemake --profile local --no-hooks --quiet host rules --config 'datasets=$(DEMOS)'
	python -c 'from gigascope.workflow import Workflow; print(*Workflow.load({"datasets": "$(DEMOS)"}).summary(), sep="\n")'

test: setup lint ## set up, check style and types, and run all tests
	@OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=$$(nproc --all) python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 20 $(ARGS)

lint: setup ## ruff, mypy, snakefmt and snakemake --lint
	@mkdir -p build
	echo 'lint: ruff'
	ruff check --quiet .
	echo 'lint: mypy, and snakefmt and snakemake --lint beside it'
	mypy --no-error-summary & types=$$!
	snakefmt --check Snakefile workflow 2> /dev/null || snakefmt --check --diff Snakefile workflow
	snakemake --lint > build/lint.log 2>&1 || { cat build/lint.log; exit 1; }
	wait "$$types"

bench-topography: setup ## heights of a simulated camera array of 64 views beside classical estimators, five minutes on two idle cores
	@python benchmarks/topography.py --results build/bench_topography --json build/bench_topography.json

# The resolver is not part of the environment. It keeps the pins that are there; `make lock UPGRADE=--upgrade` does not.
RESOLVE = build/lock/bin/uv pip compile --quiet --no-header --no-annotate --python-version 3.11.1

build/lock/bin/uv:
	@'$(PYTHON)' -m venv build/lock
	build/lock/bin/python -m pip install -qq --disable-pip-version-check uv

lock: build/lock/bin/uv ## write requirements.lock anew from pyproject.toml
	@cp requirements.lock build/lock/pins.txt
	$(RESOLVE) $(UPGRADE) --universal --fork-strategy fewest --config-file envs/lock.toml \
	  --constraint envs/constraints.txt --extra cpu --extra slurm --extra dev pyproject.toml --output-file build/lock/pins.txt
	{ echo '# Exact versions for Linux, Python 3.11 to 3.14, with the extras cpu, slurm and dev. Written by `make lock`.'
	  grep -vE "; sys_platform == '(win32|emscripten)'" build/lock/pins.txt
	} > requirements.lock

envs: build/lock/bin/uv ## write envs/*.yaml anew, with the pins of requirements.lock
	@write() {
	  printf '# %s\n# Written by `make envs`, with the pins of requirements.lock.\n' "$$2"
	  printf 'name: gigascope-%s\nchannels:\n  - conda-forge\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n' "$$1"
	  $(RESOLVE) --python-platform x86_64-manylinux_2_28 --constraint requirements.lock --extra "$$1" --extra slurm "$${@:3}" \
	    pyproject.toml | sed 's/^/      - /'
	}
	write cpu 'Stages that need no GPU.' --config-file envs/lock.toml > envs/cpu.yaml
	write gpu 'Stages that use a GPU where there is one; the CUDA runtime comes with torch.' > envs/gpu.yaml

clean: ## remove results, Snakemake's records and caches; .venv stays
	@rm -rf results .snakemake build .pytest_cache .mypy_cache .ruff_cache .hypothesis
