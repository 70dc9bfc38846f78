# Cachee's commands. From a clean clone, with nothing prepared: `make demo` shows it, `make test` checks it.
# Both make .venv first (`make setup`), once; a later run finds it made.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
BUILD  := build/editable
EXTRAS ?= test,demo

SEEDS    ?= 2000
ROUNDS   ?= 10
KILLS    ?= 10000
EXAMPLES ?= 20000
RUNS     ?= 100000
MUTANTS  ?= 150
MUTANT_MINUTES ?= 2
DIST     ?= $(CURDIR)/dist
# Most tests wait most of the time, so one more at once than there are processors.
WORKERS  ?= $(shell echo $$(($$(nproc) + 1)))

# The Python that makes .venv is the machine's; all else is the one of .venv.
MACHINE_PATH := $(PATH)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What a user has set for other programs: none of it may choose another module, another folder or another cache.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONOPTIMIZE PIP_USER PIP_TARGET PIP_PREFIX CACHEE_CONFIG CACHEE_DISABLE

.PHONY: FORCE help demo test lint setup build check-tools torture simulate fuzz mutants bench dist clean

help:                                   ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

demo: build                             ## two hosts on this machine, real HTTP, stale reads counted
	@cachee demo

test: lint                              ## everything that must pass: style, types, C batch, Python tests
	@$(MAKE) --no-print-directory -j$$(nproc) -C tests/core programs
	@# The torture of the core computes while the tests wait. What it says comes in one piece.
	@mkdir -p build; trap 'kill $$core 2>/dev/null' EXIT; \
	{ $(MAKE) --no-print-directory -C tests/core check >build/check.log 2>&1; ended=$$?; \
	  echo; cat build/check.log; exit $$ended; } & core=$$!; \
	echo '$(PY) -m pytest -n $(WORKERS)'; $(PY) -m pytest -n $(WORKERS); tests=$$?; \
	wait $$core && [ $$tests = 0 ]
	$(PY) -m tests.mutants --count $(MUTANTS) --minutes $(MUTANT_MINUTES)

lint: build                             ## ruff, mypy --strict, clang-format, and the C sources with every warning an error
	ruff check .
	ruff format --check .
	clang-format --dry-run -Werror cachee_shm/core/*.[ch]
	mypy
	@$(call compile,build/werror,-Dwerror=true)
	@$(MAKE) --no-print-directory -C tests/core syntax

setup: $(VENV)/.installed               ## .venv with the package (editable) and all that its tests and demo need
	@:

build: setup                            ## what changed in C, compiled once, before many processes import it
	@$(call compile,$(BUILD),-Dbuildtype=release)
	@# By a rename: written in place, it would be a SIGBUS for who runs it, and a copy that is killed would stay half made.
	@for so in $(BUILD)/_core.*.so; do at=cachee_shm/$${so##*/}; \
	  cmp -s "$$so" "$$at" || { cp "$$so" $(BUILD)/copy && mv -f $(BUILD)/copy "$$at"; } || exit 1; done

torture: build                          ## deaths, races, wrong bytes and the soak, for long (ROUNDS=10 KILLS=10000)
	CACHEE_ROUNDS=$(ROUNDS) CACHEE_KILLS=$(KILLS) $(PY) -m pytest --timeout=0 tests/cachee_shm/test_death.py \
	  tests/cachee_shm/test_corruption.py tests/cachee_shm/test_soak.py tests/bridge/test_kills.py
	CACHEE_MODEL=whole $(PY) -m pytest --timeout=0 tests/core/test_model.py
	$(MAKE) -C tests/core torture ROUNDS=$(ROUNDS)

simulate: build                         ## the mesh under simulated disasters (SEEDS=2000), compiled; goes on where it was interrupted
	$(PY) -m tests.simulation --campaign $(SEEDS)

fuzz: build $(VENV)/.fuzz               ## the wire, guided by coverage (RUNS=100000 each), and the generated tests (EXAMPLES=20000)
	CACHEE_EXAMPLES=$(EXAMPLES) $(PY) -m pytest -m fuzz --timeout=0
	$(MAKE) -C tests/core fuzz RUNS=$$((20 * $(RUNS)))
	$(PY) -m tests.fuzz frames --runs $(RUNS)
	$(PY) -m tests.fuzz mesh --runs $$(($(RUNS) / 10))

mutants: build                          ## the code broken in MUTANTS=150 places: do the tests notice?
	$(PY) -m tests.mutants --count $(MUTANTS)

bench: build $(VENV)/.bench              ## every figure of the README, each beside its rivals
	@for script in bench/bench_*.py bench/instructions.py; do echo "== $$script"; $(PY) $$script || exit 1; done

dist: build                             ## sdist and wheel in dist/, audited, installed in a clean environment, and tried there
	@rm -rf '$(DIST)'; mkdir -p '$(DIST)/raw'
	@# The wheel is built from the sdist: what the sdist lacks is missed at once. Both are of what git has.
	$(PY) -m build --no-isolation --outdir '$(DIST)/raw' .
	auditwheel repair --wheel-dir '$(DIST)' '$(DIST)'/raw/*.whl
	@mv '$(DIST)'/raw/*.tar.gz '$(DIST)'
	$(PY) -m venv '$(DIST)/clean'
	'$(DIST)/clean/bin/pip' install --quiet '$(DIST)'/*.whl
	cd '$(DIST)' && clean/bin/python -I '$(CURDIR)/tests/release/installed.py'
	@rm -rf '$(DIST)/raw' '$(DIST)/clean'; ls -l '$(DIST)'

clean:                                  ## what the above made
	rm -rf $(VENV) build dist .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@$(MAKE) --no-print-directory -C tests/core clean

# Setting up. Each step leaves a stamp in .venv; what it depends on makes it run again.

# A .venv that was left half made, whose checkout has moved, or whose Python is gone, is made anew.
ifeq ($(shell grep -qsF '$(CURDIR)/$(VENV)/bin/' $(VENV)/bin/pip && $(PY) -c 'import pip' 2>/dev/null && echo whole),)
$(VENV)/.tools: FORCE
endif

$(VENV)/.tools:
	@$(CHECK_TOOLS)
	@rm -rf $(VENV)
	@echo "Making $(notdir $(VENV)) (once; some minutes on a slow line) ..."
	@PATH='$(MACHINE_PATH)' $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --upgrade pip
	@$(VENV)/bin/pip install --quiet 'meson-python>=0.17' 'meson>=1.3' 'ninja>=1.10'
	@touch $@

$(VENV)/.installed: $(VENV)/.tools pyproject.toml
	@rm -rf $(BUILD)
	@$(VENV)/bin/pip install --quiet --no-build-isolation -Cbuild-dir=$(BUILD) -e '.[$(EXTRAS)]'
	@$(MADE_BY) >$(BUILD)/made_by
	@# The hook of an editable install looks for something to compile at each import: slow, and many processes at
	@# once collide. A plain path takes its place; `make build` compiles, and puts the extension beside its sources.
	@for site in $(VENV)/lib/python3*/site-packages; do \
	  printf '%s\n' '$(CURDIR)' '$(CURDIR)/bridge' >$$site/cachee-shm-editable.pth; done
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	@$(VENV)/bin/pip install --quiet 'cachee-shm[bench]'
	@touch $@

# No wheel for this Python: the inputs are random then, and `make fuzz` says so.
$(VENV)/.fuzz: $(VENV)/.installed
	@$(VENV)/bin/pip install --quiet --only-binary :all: 'cachee-shm[fuzz]' || echo 'no atheris for this Python'
	@touch $@

# Compile in folder $(1) with meson's options $(2). It is set up anew where it is missing or half made, and where it was
# made by another compiler, by another Python or elsewhere.
MADE_BY := { $(CC) --version; $(PY) -VV; pwd; } 2>&1
define compile
$(MADE_BY) | cmp -s - $(1)/made_by || rm -rf $(1); mkdir -p build; \
if [ -f $(1)/build.ninja ] && ninja -C $(1) --quiet >$(1).log 2>&1; then cat $(1).log; else \
  meson setup $(1) $(2) --reconfigure >$(1).log 2>&1 || { rm -rf $(1); meson setup $(1) $(2) >$(1).log 2>&1; } \
    || { cat $(1).log; exit 1; }; \
  $(MADE_BY) >$(1)/made_by; ninja -C $(1) --quiet; \
fi
endef

define CHECK_TOOLS
PATH='$(MACHINE_PATH)'; missing=''; packages=''; \
need() { missing="$$missing\n  $$1"; packages="$$packages $$2"; }; \
if ! command -v $(PYTHON) >/dev/null; then need 'Python 3.10 or later ($(PYTHON))' 'python3 python3-venv python3-dev'; \
elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then need 'Python 3.10 or later' python3; \
else \
  $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || need 'the venv module of Python' python3-venv; \
  $(PYTHON) -c 'import os, sys, sysconfig; \
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
    || need 'the headers of Python (Python.h)' python3-dev; \
fi; \
command -v $(firstword $(CC)) >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null \
  || need 'a C compiler' gcc; \
[ -e /usr/include/stdio.h ] || need 'the headers of the C library' libc6-dev; \
if [ -n "$$missing" ]; then \
  printf "Cachee cannot be built here. Missing:$$missing\nOn Debian or Ubuntu this installs it:\n\n"; \
  printf "  apt-get install -y$$packages\n\n"; exit 1; \
fi
endef

check-tools:                            ## whether this machine has what setup needs
	@$(CHECK_TOOLS)

