# make demo        train a small detector on sample data, evaluate it, draw what it finds
# make test        linters, types, import directions, then the fast tests
# make test-full   the same with the slow tests
# make bench       speed and memory beside the peers', as a table and bench.json; for
#                  BENCH_ARGS="--quick" and the like see benchmarks/README.md
# make docs        builds the documentation site into site/
# make clean       removes what the others made, but for the environments
#
# The first call installs the versions of constraints.txt into .venv. PYTHON= names the
# interpreter to use; without it the first that is 3.11 or newer is taken.

PYTHON ?=
VENV ?= .venv
BENCH_VENV ?= .venv-bench
BENCH_ARGS ?=
BIN := $(VENV)/bin

.PHONY: demo test test-full lint bench docs clean

demo: $(VENV)/.installed
	@$(BIN)/eyeline demo

# pytest comes last, so that the count of tests is the last line. Each process has one thread:
# torch's own threads would fight the other processes for the cores.
test test-full: lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 \
		$(if $(filter test-full,$@),-m "")

lint: $(VENV)/.installed
	@$(BIN)/ruff check --quiet --output-format concise
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/mypy --no-error-summary
	@report=$$($(BIN)/lint-imports --no-logo) || { echo "$$report"; exit 1; }

docs: $(VENV)/.installed
	@$(BIN)/mkdocs build --strict --quiet && echo site/index.html

# What it compares with stays out of .venv: eyeline must never come to need it. OpenCV 5 no longer
# reads darknet's files.
ifndef BENCH_PYTHON
BENCH_PYTHON := $(BENCH_VENV)/bin/python
bench: $(BENCH_VENV)/.installed
endif
bench:
	@PYTHONPATH=src $(BENCH_PYTHON) benchmarks/bench.py $(BENCH_ARGS)

EXTRAS := fast,learn,log,wandb,mlflow,video,geo,export,sweep,ray,docs,dev

# $(call install,ENVIRONMENT,WHAT); of pip's output only errors are shown.
define install
@python="$(PYTHON)"; \
for candidate in python3 python3.11 python3.12 python3.13 python3.14; do \
	[ -n "$$python" ] && break; \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
		python=$$candidate; \
done; \
[ -n "$$python" ] || { echo "error: no Python 3.11 or newer found; name one: make PYTHON=..." >&2; exit 1; }; \
echo "Installing into $(1); the first time this takes some minutes ..."; \
$$python -m venv $(1) && \
$(1)/bin/python -m pip --disable-pip-version-check install -qq -c constraints.txt $(2)
@touch $(1)/.installed
endef

$(VENV)/.installed: constraints.txt pyproject.toml
	$(call install,$(VENV),-e '.[$(EXTRAS)]')

$(BENCH_VENV)/.installed: constraints.txt pyproject.toml
	$(call install,$(BENCH_VENV),-e '.[fast]' torchvision==0.28.0 albumentations==2.0.8 \
		segmentation-models-pytorch==0.6.0 timm==1.0.31 \
		opencv-python-headless==4.14.0.94)

clean:
	rm -rf build site demo demo-* src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
