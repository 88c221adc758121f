# On a fresh machine with Python 3.11 or later and a C++ compiler: `make demo`, `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: setup demo check test test-slow test-approximate test-oldest test-triton-oldest docs bench lint clean

# One environment: torch and everything else as pinned in constraints.txt, then the package with its compiled kernels.
# `make demo` installs what the demo needs; everything else what development needs as well, and the kernels for GPUs
# compiled for the emulator, in which tests run them on a CPU.
setup: $(VENV)/ready
$(VENV)/demo-ready: EXTRAS = demo
$(VENV)/ready: EXTRAS = demo,serve,video,test,lint,docs
$(VENV)/ready: export FCN_KERNELS_EMULATOR = ON

SOURCES = $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.cu csrc/*/*.h)
$(VENV)/demo-ready $(VENV)/ready: constraints.txt pyproject.toml setup.py CMakeLists.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip setuptools pybind11 cmake ninja
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[$(EXTRAS)]'
	touch $(VENV)/demo-ready $@

demo: $(VENV)/demo-ready
	$(BIN)/fcn demo

# Two processes: the tests spend their time in Python as much as in kernels.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# Exhaustive checks that take minutes: every GPU kernel in every shipped configuration, as the compilers see it.
test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

# The CUDA kernels with exponentials, logarithms and divisions as far off as a GPU's may be.
test-approximate: setup
	for off in random high low; do \
	  FCN_KERNELS_EMULATE_APPROXIMATE=$$off OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/kernels -k cuda || exit 1; done

# The Triton kernels on the oldest release that they support, in a folder of its own; its interpreter needs an older NumPy.
TRITON_OLDEST = build/triton-3.6.0
test-triton-oldest: setup
	test -d $(TRITON_OLDEST) || $(BIN)/python -m pip install --quiet --no-deps --target $(TRITON_OLDEST) triton==3.6.0 'numpy<2.4'
	PYTHONPATH=$(TRITON_OLDEST) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/kernels -k 'triton or test_configs'

# The oldest versions that pyproject.toml allows, in an environment of their own; torch is the release of constraints.txt.
OLDEST = build/oldest
$(OLDEST)/ready: pyproject.toml constraints.txt tests/oldest.py | setup
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(BIN)/python -m tests.oldest > $(OLDEST)/requirements.txt
	$(OLDEST)/bin/python -m pip install --quiet --requirement $(OLDEST)/requirements.txt
	touch $@

# What depends on other packages: all of fcn but its experiments, and how operators are called.
test-oldest: $(OLDEST)/ready
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 tests/fcn tests/kernels/test_errors.py tests/kernels/test_nn.py

# A site in build/docs/; anything doubtful is an error.
docs: setup
	$(BIN)/zensical build --clean --strict

bench: setup
	$(BIN)/python bench/run.py --device cpu --case all --allocator both --out bench/results/cpu.json --plot bench/results
	$(BIN)/python bench/report.py bench/results/cpu.json --table bench/results/cpu.md --readme README.md

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What continuous integration runs.
check: lint test

clean:
	rm -rf $(VENV) build *.egg-info fcn_kernels/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
