# On a fresh machine with Python 3.11 or later and a C++ compiler: `make demo`, `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
# The tests run the CUDA kernels in the emulator; for GPUs they are compiled only when asked for: make setup FCN_KERNELS_CUDA=AUTO
FCN_KERNELS_CUDA ?= OFF

.PHONY: setup demo check test test-slow test-triton-oldest bench lint clean

setup: $(VENV)/ready

# One environment: torch and everything else as pinned in constraints.txt, then the package with its compiled kernels.
$(VENV)/ready: constraints.txt pyproject.toml setup.py CMakeLists.txt $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.cu csrc/*/*.h)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip setuptools pybind11 cmake ninja
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	FCN_KERNELS_CUDA=$(FCN_KERNELS_CUDA) FCN_KERNELS_EMULATOR=ON \
	  $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[demo,test,lint]'
	touch $@

demo: setup
	$(BIN)/fcn demo

# Two processes: the tests spend their time in Python as much as in kernels.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# Exhaustive checks that take minutes: every GPU kernel in every shipped configuration, as the compilers see it.
test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

# The Triton kernels on the oldest release that they support, in a folder of its own; its interpreter needs an older NumPy.
TRITON_OLDEST = build/triton-3.6.0
test-triton-oldest: setup
	test -d $(TRITON_OLDEST) || $(BIN)/python -m pip install --quiet --no-deps --target $(TRITON_OLDEST) triton==3.6.0 'numpy<2.4'
	PYTHONPATH=$(TRITON_OLDEST) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/kernels -k 'triton or test_configs'

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
